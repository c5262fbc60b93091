"""The drill: the newest backup is restored beside what is live, compared, served, and removed; or it says why not."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from backups import PASSWORD, Place

from slipway.host.backup import copies, drill, report, run, settings, step, trial
from slipway.host.doctor import backup as doctor
from slipway.host.errors import ReleaseError
from slipway.host.exporter import State


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An app with a database that is backed up."""
    found = Place(tmp_path, monkeypatch)
    monkeypatch.setattr(drill, "require_space", lambda *sizes: None)
    monkeypatch.setattr(copies, "all_databases", lambda known: {"shop": dict(LIVE)})
    monkeypatch.setattr(copies, "load", lambda known, database, stream, by_owner: stream.read() and None)
    return found


LIVE = {"owner": "shop", "encoding": "UTF8", "datcollate": "C", "datctype": "C", "comment": "", "size": 9}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """An app that is healthy with whatever is restored; what it was started with."""
    found: list[tuple[Path, str]] = []

    class Healthy:
        def __init__(self, known: settings.Settings, home: Path, database: str) -> None:
            found.append((home / "shared", database))
            assert (home / "shared").is_dir()
            assert home.stat().st_mode & 0o777 == 0o711

        def run(self) -> str:
            return "release 7 is healthy with it"

    monkeypatch.setattr(drill, "Trial", Healthy)
    return found


def test_the_newest_backup_is_restored_tried_and_removed(place: Place, healthy: list[Any]) -> None:
    backup = run.back_up("shop", "timer")
    before = sorted(path.name for path in place.layout.home.iterdir())
    before_it = os.umask(0o077)  # as systemd starts it
    try:
        state = drill.drill("shop")
    finally:
        os.umask(before_it)
    assert (state.result, state.backup, state.error) == ("ok", backup.run, "")
    assert state.found == "4 rows in 2 tables, 1 files, 0 B, release 7 is healthy with it"
    assert healthy == [(place.layout.home / ".drill" / "shared", "shop_drill")]
    assert sorted(path.name for path in place.layout.home.iterdir()) == before
    assert settings.load_drill("shop") == state
    (restored,) = [call for call in place.calls() if call[0] == "restore"]
    assert "--verify" in restored
    first, second = drill.described(state)
    assert first.startswith(f"Backup {backup.run} can be restored: 4 rows in 2 tables")
    assert "unchanged" in second


def test_an_app_without_a_database_is_tried_with_its_files(place: Place, healthy: list[Any]) -> None:
    place.configure(database="")
    run.back_up("shop", "timer")
    assert drill.drill("shop").found == "1 files, 0 B, release 7 is healthy with it"
    assert healthy[0][1] == ""


def test_what_the_app_put_into_its_database_does_not_run_as_the_administrator(
    place: Place, healthy: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.back_up("shop", "timer")
    loaded: list[bool] = []

    def load(known: settings.Settings, database: str, stream: Any, by_owner: bool) -> None:
        loaded.append(by_owner)
        stream.read()

    monkeypatch.setattr(copies, "load", load)
    drill.drill("shop")
    assert loaded == [True]
    statements = "\n".join(place.statements())
    assert "CONNECTION LIMIT 0" in statements.split("CREATE DATABASE", 1)[1].splitlines()[0]
    assert 'ALTER DATABASE "shop_drill" CONNECTION LIMIT -1;' in statements
    monkeypatch.undo()


@pytest.mark.parametrize("by_owner", [True, False])
def test_a_dump_is_loaded_by_whom_it_is_to_be(place: Place, monkeypatch: pytest.MonkeyPatch, by_owner: bool) -> None:
    monkeypatch.undo()
    called: list[list[str]] = []

    def called_with(command: list[str], **options: Any) -> SimpleNamespace:
        called.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(copies.subprocess, "run", called_with)
    monkeypatch.setattr(copies, "ask", lambda *arguments: [])
    known = settings.Settings("shop", "h", "/r", PASSWORD, {}, {}, 30, "shop", "shopper", "/run/postgresql")
    copies.load(known, "shop_drill", SimpleNamespace(), by_owner)  # type: ignore[arg-type]
    assert (f"--reuid={'shopper' if by_owner else 'postgres'}" in called[0]) and ("--no-owner" in called[0]) == by_owner


def old(place: Place) -> None:
    """Have the newest backup be of long ago."""
    known = place.folder / "repository" / "snapshots"
    run_id = settings.load_state("shop").run
    known.write_text(known.read_text(encoding="utf-8").replace(run_id, "20250101-021500"), encoding="utf-8")


def truncated(place: Place) -> None:
    place.fail(dump=[1, "Fatal: ciphertext verification failed"])


def without_the_key(place: Place) -> None:
    place.fail(cat=[1, f"Fatal: wrong password or no key found ({PASSWORD})"])


def empty(place: Place) -> None:
    (place.folder / "repository" / "snapshots").write_text("[]", encoding="ascii")


def another(place: Place) -> None:
    (place.folder / "repository" / "config").write_text('{"id": "another"}', encoding="ascii")


def gone(place: Place) -> None:
    (place.folder / "repository").rename(place.folder / "away")


def other_rows(place: Place) -> None:
    place.answer("rows", '["public.orders", 2]\n["public.users", 1]\n')


def other_schema(place: Place) -> None:
    place.answer("schema", "abc2\n")


def files_damaged(place: Place) -> None:
    place.fail(restore=[1, "Fatal: blob not found"])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (old, "The newest backup is of 2025-01-01T02:15:00 UTC, .* too old"),
        (truncated, "ciphertext verification failed"),
        (without_the_key, r"wrong password or no key found \(\*+\)"),
        (empty, "There is no backup of shop"),
        (another, "has another repository"),
        (gone, "was it moved, or is its disk not mounted"),
        (other_rows, "public.orders has 2 rows, and had 3"),
        (other_schema, "its schema is abc2, and was abc1"),
        (files_damaged, "blob not found"),
    ],
)
def test_a_backup_that_is_none_is_red_and_leaves_nothing(place: Place, healthy: list[Any], fault: Any, text: str) -> None:
    run.back_up("shop", "timer")
    good = drill.drill("shop")
    fault(place)
    with pytest.raises(ReleaseError, match=f"(?s)The drill failed: .*{text}"):
        drill.drill("shop")
    state = settings.load_drill("shop")
    assert (state.result, state.success) == ("failed", good.success)
    assert PASSWORD not in state.error
    assert not (place.layout.home / ".drill").exists()
    row = report.row("shop")
    assert report.has_failed(row["drill"])
    assert report.summary(row).endswith("; drill failed")
    state_of: Any = SimpleNamespace(settings={"name": "shop"})
    values = {name: value for name, value, _ in State.backups(state_of)}
    assert values["slipway_restore_drill_failed"] == 1
    assert values["slipway_restore_drill_last_success_timestamp_seconds"] == good.success


def test_the_doctor_says_why_a_drill_failed(place: Place, healthy: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "output", lambda *command: (0, ""))
    run.back_up("shop", "timer")
    drill.drill("shop")
    subject: Any = SimpleNamespace(arguments={"name": "shop"})
    assert list(doctor.backup(subject)) == []
    truncated(place)
    with pytest.raises(ReleaseError):
        drill.drill("shop")
    (finding,) = doctor.backup(subject)
    assert (finding.severity, "ciphertext" in finding.evidence, finding.remedy) == (
        "error",
        True,
        "Fix it, then: slipway drill shop",
    )


def test_what_a_killed_drill_left_is_removed_and_two_do_not_run_at_once(place: Place, healthy: list[Any]) -> None:
    run.back_up("shop", "timer")
    settings.save_drill("shop", settings.DrillState(start=time.time() - 5))
    assert report.drill_row("shop")["result"] == "interrupted"
    left = place.layout.home / ".drill" / "shared"
    left.mkdir(parents=True)
    (left / "half").touch()
    with settings.alone("shop", task="drill"):
        assert report.drill_row("shop")["result"] == "running"
        with pytest.raises(ReleaseError, match="A drill of shop is under way"):
            drill.drill("shop")
        run.back_up("shop", "timer")  # a backup goes on meanwhile
    assert drill.drill("shop").result == "ok"
    assert not left.exists()


def test_a_playbook_has_it_done_and_a_dry_run_does_nothing(place: Place, healthy: list[Any]) -> None:
    run.back_up("shop", "timer")
    given = {"app": "shop", "command": "drill", "at": "", "only": "", "switch": False, "run": {}}
    assert "would be restored" in step.step(given, check=True)["lines"][0]
    assert healthy == []
    result = step.step(given, check=False)
    assert (result["changed"], len(healthy)) == (False, 1)
    assert "can be restored" in result["lines"][0]


# What answers at a socket as the app would, after a while; it notes its settings.
APP = """
import json, os, pathlib, sys, time
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer
here = pathlib.Path(sys.argv[0]).parent
runtime = json.loads((here / "runtime.json").read_text())
noted = pathlib.Path(json.loads((here / "settings.json").read_text())["NOTES"])
noted.write_text(json.dumps([runtime, json.loads((here / "settings.json").read_text()), sorted(os.environ), os.getpid()]))
print("a line with the-secret-of-the-app", flush=True)
if (here / "build" / "broken").exists():
    sys.exit(3)
class Handler(BaseHTTPRequestHandler):
    def address_string(self): return "drill"
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
UnixStreamServer(f"{runtime['sockets']}/7.{os.environ['SLIPWAY_INSTANCE']}.sock", Handler).serve_forever()
"""


# What starts another program for somebody, or changes something on the way, and does neither here.
STARTER = "import os, sys\nos.execvp(sys.argv[sys.argv.index('--') + 1], sys.argv[sys.argv.index('--') + 1:])"
NOTER = "import os, pathlib, sys\npathlib.Path(os.environ['STANDINS'], 'noted').open('a').write(' '.join(sys.argv[1:]) + '\\n')"


@pytest.fixture
def released(place: Place, monkeypatch: pytest.MonkeyPatch) -> trial.Trial:
    """A live release, as a drill starts it once more."""
    release = place.layout.release(7)
    (place.layout.builds / "b" / ".venv" / "bin").mkdir(parents=True)
    (place.layout.builds / "b" / ".venv" / "bin" / "python").symlink_to(os.path.realpath("/proc/self/exe"))
    release.mkdir(parents=True)
    (release / "build").symlink_to("../../builds/b")
    (release / "launch.py").write_text(APP, encoding="ascii")
    secrets = {
        "DATABASE_URL": "postgresql+psycopg://shop@/shop?host=/run/postgresql",
        "SHOP_DSN": "postgresql://shop@/shop?host=/run/postgresql&x=1",
        "OTHER": "postgresql://shop@/shop?host=/elsewhere",
        "TOKEN": "the-secret-of-the-app",
        "NOTES": str(place.folder / "notes"),
    }
    (release / "settings.json").write_text(json.dumps(secrets), encoding="ascii")
    runtime = {
        "home": str(place.layout.home),
        "sockets": str(place.layout.runtime),
        "workers": 5,
        "log_target": "journald",
        "container": {},
    }
    (release / "runtime.json").write_text(json.dumps({**runtime, "container": {}, "secrets": ["TOKEN"]}), encoding="ascii")
    user = pwd.getpwuid(os.getuid()).pw_name
    health = {"path": "/healthz", "status": 200, "host": "api.example.com", "timeout": 20.0}
    configured = {
        **{
            "layout": place.paths,
            "name": "shop",
            "program_directory": "/x",
            "program_suffix": ".conf",
            "stop": 1.0,
            "engine": "",
        },
        **{"endpoint": {"host": "x", "port": 443, "tls": True}, "health": health, "first": True, "settings": "{}"},
        **{"secret_names": [], "directory": ".", "user": user},
    }
    place.configured = configured
    for name, text in {"systemd-run": STARTER, "unshare": STARTER, "mount": "", "systemctl": NOTER, "engine": NOTER}.items():
        (place.folder / "bin" / name).write_text(f"#!{sys.executable} -IS\n{text}\n", encoding="ascii")
        (place.folder / "bin" / name).chmod(0o755)
    place.configure(user=user)
    home = place.layout.home / ".drill"
    (home / "shared").mkdir(parents=True)
    return trial.Trial(settings.load("shop"), home, "shop_drill")


def test_the_app_is_started_with_what_was_restored_and_ends_with_the_drill(
    place: Place, released: trial.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter([(1, 0), (1, 0), (2, 0)])
    monkeypatch.setattr(trial.Trial, "sessions", lambda self: next(counted))
    assert released.run() == "release 7 is healthy with it"
    runtime, variables, environment, pid = json.loads((place.folder / "notes").read_text(encoding="utf-8"))
    assert (runtime["home"], runtime["workers"], runtime["log_target"]) == (str(place.layout.home / ".drill"), 1, "files")
    assert runtime["sockets"] == str(place.layout.home / ".drill" / "sockets")  # where only root can put something in its place
    assert variables["DATABASE_URL"] == "postgresql+psycopg://shop@/shop_drill?host=/run/postgresql"
    assert variables["SHOP_DSN"] == "postgresql://shop@/shop_drill?host=/run/postgresql&x=1"
    assert variables["OTHER"] == "postgresql://shop@/shop?host=/elsewhere"
    assert {"SLIPWAY_INSTANCE"} <= set(environment) <= {"SLIPWAY_INSTANCE", "PATH", "LC_CTYPE", "PWD"}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (place.folder / "noted").read_text(encoding="ascii") == "stop slipway-drill-shop-app.scope\n"
    command = released.command(7)[0]
    assert command[command.index("sh") + 4 : command.index("setpriv")] == [
        str(place.layout.home / ".drill" / "shared"),
        str(place.layout.home / "shared"),
    ]
    assert (place.layout.release(7) / "build").readlink() == Path("../../builds/b")


def test_an_app_that_does_not_use_the_database_is_healthy_and_that_is_said(
    released: trial.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.Trial, "sessions", lambda self: (1, 0))
    monkeypatch.setattr(trial, "COUNT_SECONDS", 0.3)
    assert released.run().endswith("but did not use the database for that")


def test_an_app_that_ends_is_red_with_what_it_logged_but_its_secrets(
    place: Place, released: trial.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.Trial, "sessions", lambda self: (1, 0))
    (place.layout.builds / "b" / "broken").touch()
    with pytest.raises(
        ReleaseError, match=r"Release 7 is not healthy .*it ended with exit code 3.\n.*a line with \*+$"
    ) as failed:
        released.run()
    assert "the-secret" not in str(failed.value)


def test_an_app_that_is_not_healthy_in_time_is_red(released: trial.Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Trial, "sessions", lambda self: (1, 0))
    released.health.update(path="/other", timeout=1.0)
    with pytest.raises(ReleaseError, match=r"after 1 s \(app_health_timeout\): GET /other answers 404"):
        released.run()


def test_without_a_live_release_there_is_nothing_to_start(place: Place, released: trial.Trial) -> None:
    place.layout.live_socket.unlink()
    with pytest.raises(ReleaseError, match="No release of shop is live"):
        released.run()


def test_where_sessions_are_not_counted_nothing_is_said_of_them(released: trial.Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.Trial, "sessions", lambda self: (None, 0))
    monkeypatch.setattr(trial, "COUNT_SECONDS", 0.3)
    assert released.run() == "release 7 is healthy with it"


def test_a_container_of_a_drill_has_what_was_restored_and_is_none_of_the_live_release(
    place: Place, released: trial.Trial
) -> None:
    file = place.layout.release(7) / "runtime.json"
    container = {"engine": "engine", "network": "host", "cpus": 0, "options": ["--init"]}
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="ascii")), "container": container}), encoding="ascii")
    (place.layout.release(7) / "container.py").touch()
    released.prepare(7)
    home = place.layout.home
    options = json.loads((released.directory / "runtime.json").read_text(encoding="utf-8"))["container"]["options"]
    assert options == ["--init", f"--volume={home}/.drill/shared:{home}/shared", "--label=slipway.release=shop-drill"]
    assert released.command(7)[0] == [sys.executable, str(home / ".drill" / "releases" / "drill" / "container.py")]
    place.configured["engine"] = "engine"
    trial.end(settings.load("shop"))
    assert "ps --all --quiet --filter=label=slipway.release=shop-drill" in (place.folder / "noted").read_text(encoding="ascii")


def test_the_memory_of_the_app_is_limited_as_that_of_the_live_one(place: Place, released: trial.Trial) -> None:
    assert "MemoryMax" not in str(released.command(7))
    file = place.layout.release(7) / "runtime.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="ascii")), "memory_mb": 512}), encoding="ascii")
    released.prepare(7)
    assert "--property=MemoryMax=512M" in released.command(7)[0]


def test_a_drill_that_cannot_clear_up_after_a_failure_says_what_failed(
    place: Place, healthy: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.back_up("shop", "timer")
    truncated(place)
    cleared: list[Path] = []

    def clear(known: settings.Settings, home: Path) -> None:
        cleared.append(home)
        if len(cleared) > 1:
            raise ReleaseError("The database server took longer than 600 s to answer.")

    monkeypatch.setattr(drill, "clear", clear)
    with pytest.raises(ReleaseError, match="ciphertext verification failed"):
        drill.drill("shop")
