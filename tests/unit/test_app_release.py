"""A release: started beside the live one, proved, switched to, remembered; and every way in which it can go wrong."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import pwd
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import released
import rendering
import standins

from slipway.host import configuration, runtime_files
from slipway.host import endpoint as app_door
from slipway.host import files as app_files
from slipway.host import process as app_process
from slipway.host import status as app_status
from slipway.host import supervisor as app_supervisor
from slipway.host import watch as app_watch
from slipway.host.endpoint import UnixConnection
from slipway.host.errors import ReleaseError
from slipway.host.lock import lock
from slipway.host.release import activate as release_activate
from slipway.host.release import context as release_context
from slipway.host.release import gate as release_gate
from slipway.host.release import prepare as release_prepare
from slipway.host.release import record as release_record
from slipway.host.release import step as release_step
from slipway.host.release import watch as release_watch
from slipway.host.release.advice import advised, log_tail
from slipway.host.release.context import Context
from slipway.host.release.deploy import release, run_step
from slipway.host.release.gate import answers
from slipway.host.release.plan import needed, tidy
from slipway.host.release.prepare import migrate, prepare, prepared
from slipway.host.release.prune import prune
from slipway.host.release.record import remember
from slipway.host.release.rollback import roll_back
from slipway.host.store import Store
from slipway.runtime.release import read

HOST = "api.example.com"
DRAIN = 8.0

# For candidates that never become healthy, so that nobody waits long for that.
IMPATIENT = {"path": "/healthz", "status": 200, "body": "", "host": HOST, "attempts": 0, "timeout": 6}

# Who runs Ansible, and another.
ANN = {"id": "laptop 1 1", "who": "ann", "where": "laptop", "dead": ""}
BOB = {"id": "desk 2 2", "who": "bob", "where": "desk", "dead": ""}

# The environment's Python, as far as the check of the app before its start needs one.
PYTHON = """#!/bin/sh
echo "$(id -un) $(pwd) $1 $2" >>{log}
if grep -q refused "$1"; then
    echo "Settings refuses DATABASE_URL"
    exit 1
fi
if grep -q unfit "$1"; then
    echo "slipway-headline: One file for the app and another for Nginx"
    exit 3
fi
if grep -q beside "$1"; then
    echo "sqlite3.OperationalError: unable to open database file"
    echo "slipway-headline: sqlite3.OperationalError: unable to open database file"
    exit 1
fi
if grep -q fronted "$1"; then
    echo "slipway-frontend: {{\\"\\": \\"$(pwd -P)/dist\\"}}"
fi
if grep -q ending "$1"; then
    exit 3
fi
if grep -q opened "$1"; then
    echo "slipway-headline: It has /metrics at /api/metrics, too"
    exit 4
fi
"""

# The runtime's files, but for what stands in for the launcher: a mark by which the stand-in for Python knows what to do.
FILES = {path.name: path.read_text(encoding="utf-8") for path in released.RUNTIME.glob("*.py")} | {"launch.py": "pass\n"}
RUNTIME: dict[str, Any] = rendering.Host()["__app_runtime"]

SECTION = """[program:shop-@RELEASE@]
command={python} -IS {server} {run}/@RELEASE@.sock @RELEASE@ {mode}
stdout_logfile={logs}/@RELEASE@.log
"""


class Clock:
    """Time that passes at once while someone sleeps.

    Attributes:
        naps: seconds of each sleep, with what the watcher saw at its end.
        pace: seconds that a sleep really takes, at most.
        haste: how many times as long as it says a sleep takes by this clock.
        watch: called at the end of each sleep.
    """

    def __init__(self) -> None:
        self.skipped = 0.0
        self.pace = 0.002
        self.haste = 1
        self.naps: list[tuple[float, Any]] = []
        self.watch: Callable[[], Any] = lambda: None

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def time(self) -> float:
        return time.time() + self.skipped

    def sleep(self, seconds: float) -> None:
        real = min(seconds, self.pace)
        time.sleep(real)
        self.skipped += seconds * self.haste - real
        self.naps.append((seconds, self.watch()))


class Host:
    """One host with an app's directories, a Supervisor and a door."""

    def __init__(self, directory: Path, clock: Clock, user: str) -> None:
        self.clock = clock
        self.user = user
        self.layout = Store(directory / "shop", directory / "run", directory / "log")
        self.supervisor = standins.Supervisor(directory, directory / "conf.d")
        for path in (self.layout.home, self.layout.runtime, self.layout.logs, self.layout.builds, self.layout.venvs):
            path.mkdir()
        self.layout.releases.mkdir()
        self.preflights = directory / "preflights"
        self.preflights.touch()
        self.preflights.chmod(0o666)
        self.server = directory / "server.py"
        self.server.write_text(standins.SERVER, encoding="utf-8")
        self.door = standins.PublicEndpoint(self.layout.live_socket)
        self.given: list[int] = []
        self.files = FILES

    def build(self, name: str, venv: str = "v1") -> str:
        """Make a build, as app_build would."""
        (self.layout.venvs / venv).mkdir(exist_ok=True)
        python = self.layout.venvs / venv / "bin" / "python"
        python.parent.mkdir(exist_ok=True)
        python.write_text(PYTHON.format(log=self.preflights), encoding="utf-8")
        python.chmod(0o755)
        (self.layout.venvs / venv / ".complete").touch()
        directory = self.layout.builds / name
        directory.mkdir()
        (directory / "app").mkdir()
        (directory / "app" / "main.py").write_text("app = None\n", encoding="utf-8")
        (directory / ".venv").symlink_to(f"../../venvs/{venv}")
        (directory / ".build.json").write_text("{}", encoding="utf-8")
        return name

    def arguments(self, mode: str = "200", **changes: Any) -> dict[str, Any]:
        """Return arguments of the module; `mode` is what the candidate's server does."""
        python = os.path.realpath(sys.executable)
        paths = {"python": python, "server": self.server, "run": self.layout.runtime, "logs": self.layout.logs}
        arguments: dict[str, Any] = {
            "layout": {"home": str(self.layout.home), "runtime": str(self.layout.runtime), "logs": str(self.layout.logs)},
            "name": "shop",
            "user": self.user,
            "directory": "app",
            "build": "b1",
            "revision": "r-b1",
            "origin": "git@x:y",
            "runtime": RUNTIME,
            "settings": '{"KEY": "secret"}',
            "secret_names": ["KEY"],
            "program": SECTION.format(mode=mode, **paths),
            "process_programs": {},
            "first": True,
            "program_directory": str(self.supervisor.sections),
            "program_suffix": ".conf",
            "health": {**IMPATIENT, "timeout": 60},
            "openapi_path": "",
            "endpoint": {"host": HOST, "port": self.door.port, "tls": False},
            "access_log": str(self.layout.logs / "access.log"),
            "migrate": {"command": "", "timeout": 60},
            "hooks": {},
            "served": {},
            "hook_timeout": 60.0,
            "engine": "",
            "instances": 1,
            "watch": 0.0,
            "drain": DRAIN,
            "stop": 35.0,
            "keep": 5,
            "room": 1.0,
            "to": "",
            "number": 0,
            "limit": 0.0,
            "across_migrations": False,
            "rollback_settings": "original",
            "run": ANN,
        }
        self.files = {**FILES, **changes.pop("files", {})}
        return {**arguments, **changes}

    def context(self, mode: str = "200", **changes: Any) -> Context:
        """Return the context of a step."""
        return Context.of(self.arguments(mode, **changes))

    def run(self, mode: str = "200", **changes: Any) -> int | None:
        """Take the step `release`, and return the number of a new release; None where none was needed."""
        context = self.context(mode, **changes)
        with lock(context.layout, ANN, patience=0):
            done = run_step(context, "activate")
        return int(done["release"]) if done["reason"] is not None else None

    def who_answers(self) -> str:
        """Return the release that answers at the public endpoint; or the status, where it is not 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.door.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz", headers={"Host": HOST, "X-Forwarded-Proto": "https"})
            answer = connection.getresponse()
            answer.read()
            return str(answer.getheader("X-Release")) if answer.status == 200 else str(answer.status)

    def sections(self) -> list[str]:
        """Return what Supervisor would read: `*` is for no name that begins with a dot, such as a write's that was cut off."""
        return sorted(path.name for path in self.supervisor.sections.iterdir() if path.name[0] != ".")

    def history(self) -> list[dict[str, Any]]:
        if not self.layout.history.exists():
            return []
        return [json.loads(line) for line in self.layout.history.read_text(encoding="utf-8").splitlines() if line]

    def broken(self) -> list[Path]:
        """Return what looks whole and is not, and remove it."""
        kinds = [
            (self.layout.builds, ".build.json", ("app/main.py", ".venv")),
            (self.layout.venvs, ".complete", ("bin/python",)),
            (self.layout.releases, "release.json", ("launch.py", "program.conf", "settings.json")),
        ]
        found = [
            path
            for parent, mark, parts in kinds
            for path in parent.iterdir()
            if path.name[0] != "." and (path / mark).exists() and not all(os.path.lexists(path / part) for part in parts)
        ]
        # A build without its mark is in the way of the next one of that name.
        found += [path for path in self.layout.builds.iterdir() if path.name[0] != "." and not (path / ".build.json").exists()]
        for path in found:
            shutil.rmtree(path)
        return found

    def is_served_by(self, number: int) -> None:
        """Assert that `number` is live, is all that runs, and is what a reboot would start."""
        assert self.who_answers() == str(number)
        assert self.layout.live() == number
        assert os.readlink(self.layout.current) == f"releases/{number}"
        assert self.supervisor.running() == [number]
        assert list(self.supervisor.programs()) == [f"shop-{number}"]
        assert self.sections() == [f"shop-{number}.conf"]
        assert self.layout.record(number)["outcome"] == "live"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    shim = SimpleNamespace(
        monotonic=clock.monotonic, sleep=clock.sleep, time=clock.time, strftime=time.strftime, gmtime=time.gmtime
    )
    for module in (release_activate, release_context, release_gate, release_record, release_watch, app_watch):
        monkeypatch.setattr(module, "time", shim)
    return clock


@pytest.fixture
def host(short: Path, clock: Clock, user: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("PATH", f"{short}:{os.environ['PATH']}")
    # test_app_layout sees to it that a loss of power is survived; here it would only take time.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    if os.geteuid() != 0:
        # Who is not root can neither become another user nor give files away.
        run = app_process.run
        for module in (app_process, release_context, release_prepare):
            monkeypatch.setattr(module, "run", lambda *words, user=None, **options: run(*words, **options))
        monkeypatch.setattr(Context, "group", property(lambda self: os.getegid()))
    host = Host(short, clock, user)
    write_release = release_prepare.write_release

    def noting(context: Context, number: int) -> None:
        try:
            write_release(context, number)
        finally:
            if context.layout.release(number).is_dir():
                host.given.append(number)

    monkeypatch.setattr(release_prepare, "write_release", noting)
    monkeypatch.setattr(runtime_files, "text", lambda name: host.files[name])
    monkeypatch.setattr(app_supervisor, "CONFIGURATIONS", (short / "elsewhere.conf", host.supervisor.configuration))
    host.build("b1")
    yield host
    host.door.close()
    host.supervisor.close()


def test_hashed_files_of_a_front_end_outlive_the_release_that_has_them(host: Host) -> None:
    def build(name: str, mark: str) -> str:
        host.build(name)
        script = host.layout.builds / name / "app" / "dist" / f"index-BfX9k2a{mark}.js"
        script.parent.mkdir()
        script.write_text(mark, encoding="ascii")
        return name

    def served() -> list[str]:
        return sorted(path.name for path in (host.layout.home / "assets").iterdir())

    fronted = {"launch.py": "fronted\n"}
    number = host.run(build=build("b2", "Q"), files=fronted)
    assert number is not None
    assert host.layout.record(number)["frontend"] == {"": str(host.layout.builds / "b2" / "app" / "dist")}
    prepare(host.context(build=build("b3", "R"), files=fronted))
    assert served() == ["index-BfX9k2aQ.js", "index-BfX9k2aR.js"], "before it is live anywhere"
    second = host.run(build="b3", files=fronted)
    host.clock.skipped += 86401.0
    host.run(build=host.build("b4"))
    assert served() == ["index-BfX9k2aR.js"], "the first one's have been out of use for a day, these only now"
    context = host.context()
    assert second is not None
    roll_back(context, number, "original")
    assert served() == ["index-BfX9k2aQ.js", "index-BfX9k2aR.js"]
    assert not [warning for warning in context.warnings if "Nginx cannot serve" in warning]


def test_the_first_release(host: Host) -> None:
    assert needed(host.context()) is not None
    assert host.run() == 1
    host.is_served_by(1)
    directory = host.layout.release(1)
    files = {str(path.relative_to(directory)): path.read_text(encoding="utf-8") for path in directory.rglob("*.py")}
    modules = {f"slipway/runtime/{name}": FILES[name] for name in runtime_files.MODULES}
    programs = {name: FILES[name] for name in ("launch.py", "preflight.py", "process.py", "gunicorn_conf.py")}
    assert files == {"slipway/__init__.py": "", **modules, **programs}
    told = read(directory)
    assert (told.app, told.number, told.revision, told.build) == ("shop", 1, "r-b1", "b1")
    assert (told.home, told.sockets, told.user) == (str(host.layout.home), str(host.layout.runtime), host.user)
    assert (directory / "runtime.json").stat().st_mode & 0o777 == 0o640
    assert (directory / "build" / "app" / "main.py").exists()
    assert not os.path.isabs(os.readlink(directory / "build"))
    record = host.layout.record(1)
    wanted = {"release": 1, "build": "b1", "outcome": "live", "revision": "r-b1", "source": "git@x:y", "who": "ann@laptop"}
    assert {key: record[key] for key in wanted} == wanted
    assert [entry["outcome"] for entry in host.history()] == ["live"]
    # There was nothing to drain, so nobody waits.
    assert sum(seconds for seconds, _ in host.clock.naps if seconds > 0.2) == 0


def test_the_same_again_does_nothing(host: Host) -> None:
    host.run()
    updates, history = host.supervisor.updates(), host.history()
    assert host.run() is None
    assert host.supervisor.updates() == updates
    assert host.history() == history
    host.is_served_by(1)


@pytest.mark.parametrize("change", ["settings", "build", "revision", "files", "runtime", "program"])
def test_whatever_it_is_made_of_makes_a_new_release(host: Host, change: str) -> None:
    host.run()
    host.build("b2")
    values = {"settings": '{"KEY": "other"}', "build": "b2", "revision": "r2", "files": {"log.py": "other\n"}}
    value = {**values, "runtime": {**RUNTIME, "timeout": 31}}.get(change)
    changes = {change: value} if value is not None else {"program": host.arguments()["program"] + "startsecs=9\n"}
    assert host.run(**changes) == 2
    host.is_served_by(2)
    assert host.run(**changes) is None


def test_a_release_of_an_earlier_version_with_files_of_its_own_serves_on_and_is_gone_back_to(host: Host) -> None:
    host.run()
    old = host.layout.release(1)
    shutil.rmtree(old / "slipway")
    (old / "runtime.json").unlink()
    (old / "server.py").write_text("its own way to serve\n", encoding="utf-8")
    record = json.loads((old / "release.json").read_text(encoding="utf-8"))
    (old / "release.json").write_text(json.dumps({**record, "digest": "another"}), encoding="utf-8")
    assert host.run() == 2
    host.is_served_by(2)
    assert (old / "server.py").exists()
    assert roll_back(host.context(), 1, "original") == 1
    host.is_served_by(1)


def test_what_is_not_part_of_it_makes_none(host: Host) -> None:
    host.run()
    assert host.run(run=BOB, keep=1, drain=30.0) is None
    # Nor is a file of another server's.
    assert host.run(files={"hypercorn_server.py": "other\n", "container.py": "other\n"}) is None


def test_the_old_release_serves_until_the_switch_and_runs_until_it_is_drained(host: Host) -> None:
    host.run()
    host.clock.naps.clear()
    host.clock.watch = lambda: (host.clock.monotonic(), host.layout.live(), tuple(host.supervisor.running()))
    assert host.run(settings="{}") == 2
    host.is_served_by(2)
    seen = [moment for _, moment in host.clock.naps]
    before = [(time, running) for time, live, running in seen if live == 1]
    after = [(time, running) for time, live, running in seen if live == 2]
    assert all(1 in running for _, running in before)
    assert {running for _, running in after} == {(1, 2)}
    assert DRAIN <= after[-1][0] - before[-1][0] < DRAIN + 5


def test_the_new_release_is_proved_again_when_cached_connections_have_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    context = host.context(settings="{}")
    proved: list[float] = []
    prove = release_watch.prove

    def noting(context: Context, number: int, seconds: float = 10.0) -> None:
        proved.append(host.clock.monotonic())
        prove(context, number, seconds)

    for module in (release_activate, release_watch):
        monkeypatch.setattr(module, "prove", noting)
    release(context)
    assert len(proved) == 2
    assert proved[1] - proved[0] >= 1.5


def test_only_a_release_that_follows_another_has_cached_connections_to_wait_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    monkeypatch.setattr(release_activate, "watch", lambda *words: waited.append(words[5]))
    host.run()
    host.run(settings="{}")
    assert waited == [0.0, release_activate.CACHED_CONNECTION_SECONDS]


def test_what_reaches_a_release_during_the_switch_is_watched(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    switch, began, watched = release_activate.switch, [], []

    def slow(context: Context, number: int) -> None:
        began.append(host.clock.monotonic())
        switch(context, number)
        host.clock.sleep(2.0)

    monkeypatch.setattr(release_activate, "switch", slow)
    monkeypatch.setattr(release_activate, "watch", lambda *words: watched.append(words[2]))
    host.run()
    assert watched[0] <= began[0]


def test_a_release_drops_no_request(host: Host) -> None:
    host.run()
    seen: list[str] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                seen.append(host.who_answers())
            except OSError as error:
                seen.append(repr(error))

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        host.run(settings="{}")
        with pytest.raises(ReleaseError):
            host.run("500", health=IMPATIENT)
        host.run(settings='{"A": "1"}')
    finally:
        done.set()
        for client in clients:
            client.join()
    assert set(seen) == {"1", "2", "4"}


def test_the_switch_is_one_rename(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    changes: list[tuple[str, str]] = []
    replace = os.replace

    def noting(source: Any, target: Any) -> None:
        if os.path.islink(source):
            changes.append((os.path.basename(target), os.readlink(source)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    host.run(settings="{}")
    assert changes == [("live.sock", str(host.layout.socket(2))), ("current", "releases/2")]


def test_settings_are_for_the_app_alone_and_records_for_nobody_else(host: Host) -> None:
    os.umask(0)
    group = pwd.getpwnam(host.user).pw_gid
    host.run(settings='{"KEY": "hunter2"}')
    directory = host.layout.release(1)
    for name in ("settings.json", "release.json", "runtime.json"):
        assert (directory / name).stat().st_mode & 0o777 == 0o640
        assert (directory / name).stat().st_gid == group
    assert (directory / "settings.json").read_text(encoding="utf-8") == '{"KEY": "hunter2"}'
    assert "digest" not in host.layout.history.read_text(encoding="utf-8")
    for path in [*host.layout.home.rglob("*"), *host.supervisor.sections.rglob("*")]:
        if path.is_file() and path.name != "settings.json":
            assert "hunter2" not in path.read_text(encoding="utf-8"), path


def test_the_app_can_read_its_release_whatever_the_umask(host: Host, module: Any) -> None:
    os.umask(0o077)
    module(step="activate", **host.arguments())
    directory = host.layout.release(1)
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "launch.py").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("deaf", ["app_health_timeout", "does not listen"]),
        ("noise", ["app_health_timeout", "does not answer in HTTP"]),
        (
            "asleep",
            ["app_health_timeout", "it listens on its socket, and has not answered GET /healthz yet", "may still be starting"],
        ),
        ("500", ["GET /healthz answers 500, not 200"]),
        ("204", ["GET /healthz answers 204, not 200"]),
        ("307", ["answers 307", "a redirect (to /login) is not healthy", "app_health_path"]),
        ("404", ["answers 404", "app_health_path"]),
        ("crash", ["BACKOFF", "No module named 'shop'"]),
        ("nameless", ["public endpoint", "naming no release"]),
        ("brief", ["public endpoint", "status 502"]),
    ],
)
def test_a_bad_candidate_leaves_the_old_release_serving(host: Host, mode: str, words: list[str]) -> None:
    host.run()
    # Whoever answers has the time to start, however busy this machine is; a wrong answer is waited out once.
    patient: dict[str, Any] = {**IMPATIENT, "timeout": 60, "attempts": 3}
    host.clock.pace, health = {
        "deaf": (0.004, IMPATIENT),
        "noise": (0.004, IMPATIENT),
        # Its silence is not waited out by the clock: time to start, and twice five seconds.
        "asleep": (1, {**IMPATIENT, "timeout": 11}),
        "500": (0.01, {**IMPATIENT, "timeout": 12}),
    }.get(mode, (0.004, patient))
    before = host.clock.monotonic()
    with pytest.raises(ReleaseError) as error:
        host.run(mode, health=health)
    message = str(error.value)
    for word in ["Release 2 failed", "Release 1 still serves", *words]:
        assert word in message
    if "public endpoint" not in message:
        assert f"Last lines of {host.layout.log(2)}:\nrelease 2 starts" in message
    if mode == "crash":
        # Not after the whole timeout.
        assert host.clock.monotonic() - before < patient["timeout"] - 1
    host.is_served_by(1)
    record = host.layout.record(2)
    assert record["outcome"] == "failed"
    assert "\n" not in record["reason"]
    assert host.history()[-1]["outcome"] == "failed"
    assert host.run() is None


def test_a_release_whose_section_somebody_removed_ends_with_the_next_release(host: Host) -> None:
    host.run()
    (section,) = host.sections()
    (host.supervisor.sections / section).unlink()
    assert host.run(settings='{"A": "1"}') == 2
    host.is_served_by(2)


def test_a_first_release_that_fails_leaves_nothing_live(host: Host) -> None:
    host.clock.haste = 5
    with pytest.raises(ReleaseError, match=r"Release 1 failed[\s\S]*Nothing was live before"):
        host.run("brief")
    assert not host.layout.live_socket.is_symlink()
    assert not host.layout.current.is_symlink()
    assert (host.sections(), host.supervisor.programs()) == ([], {})
    assert host.run() == 2
    host.is_served_by(2)


def test_the_app_is_imported_by_its_user_before_it_is_started(host: Host) -> None:
    host.run()
    release = host.layout.release(1)
    folder = (release / "build" / "app").resolve()
    assert host.preflights.read_text(encoding="utf-8") == f"{host.user} {folder} {release}/launch.py --check\n"
    with pytest.raises(
        ReleaseError, match=r"cannot be imported[\s\S]*Settings refuses DATABASE_URL[\s\S]*Release 1 still serves"
    ):
        host.run(files={"launch.py": "refused\n"})
    assert not any("shop-2" in call for call in host.supervisor.calls())
    host.is_served_by(1)
    assert host.layout.record(2)["outcome"] == "failed"
    with pytest.raises(ReleaseError, match="Release 3 failed: One file for the app and another"):
        host.run(files={"launch.py": "unfit\n"})
    with pytest.raises(
        ReleaseError, match="Release 4 failed: It has /metrics at /api/metrics, too: add that path to nginx_blocked_paths"
    ):
        host.run(files={"launch.py": "opened\n"})
    with pytest.raises(
        ReleaseError, match="Release 5 failed: the app cannot be imported: It ended with exit code 3 without any output"
    ):
        host.run(files={"launch.py": "ending\n"})
    with pytest.raises(ReleaseError, match=r"Release 6 failed: .* unable to open database file\nThe code directory is read-only"):
        host.run(files={"launch.py": "beside\n"})


def test_a_slow_start_is_waited_for(host: Host) -> None:
    host.clock.pace = 0.01
    assert host.run("slow") == 1
    host.is_served_by(1)


def test_the_status_that_is_healthy_can_be_chosen(host: Host) -> None:
    assert host.run("204", health={**IMPATIENT, "status": 204, "timeout": 60}) == 1


def test_the_log_is_shown_without_what_gunicorn_says_of_its_own_end(host: Host) -> None:
    log = host.layout.log(1)
    end = "Traceback (most recent call last):\n  File arbiter.py\n    raise HaltServer(reason)\ngunicorn.errors.HaltServer\n"
    log.write_text(f"starts\nTraceback (most recent call last):\nKeyError: 'DSN'\nWorker exits\n{end}", encoding="utf-8")
    assert log_tail(host.context(), 1).splitlines()[1:] == [
        "starts",
        "Traceback (most recent call last):",
        "KeyError: 'DSN'",
        "Worker exits",
    ]


def test_a_silent_candidate_is_said_to_have_logged_nothing(host: Host) -> None:
    program = "[program:shop-@RELEASE@]\ncommand=/bin/sleep 600\nstdout_logfile=/dev/null\n"
    with pytest.raises(ReleaseError, match="wrote nothing to"):
        host.run(program=program, health=IMPATIENT)
    assert host.supervisor.programs() == {}


def test_a_candidate_whose_program_vanished_is_given_up_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    context = host.context("deaf")
    add = context.supervisor.add

    def add_and_lose(number: int, section: Path) -> None:
        add(number, section)
        host.supervisor.kill(f"shop-{number}")

    monkeypatch.setattr(context.supervisor, "add", add_and_lose)
    before = host.clock.monotonic()
    with pytest.raises(ReleaseError):
        release(context)
    # Not after the whole timeout of 60 s.
    assert host.clock.monotonic() - before < 30
    host.is_served_by(1)


def test_a_proof_that_fails_at_the_door_takes_the_link_back(host: Host) -> None:
    host.run()
    links: set[tuple[int | None, tuple[int, ...]]] = set()
    host.clock.naps.clear()

    def watch() -> tuple[int | None, tuple[int, ...]]:
        links.add((host.layout.live(), tuple(host.supervisor.running())))
        return (host.layout.live(), tuple(host.supervisor.running()))

    host.clock.watch = watch
    host.door.answer = b"HTTP/1.1 200 OK\r\nX-Release: 1\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ReleaseError, match=rf"public endpoint \({HOST}, port {host.door.port}\).*from release 1"):
        host.run(settings="{}")
    host.door.answer = None
    assert (2, (1, 2)) in links
    # Who was sent to the candidate in between is given time there.
    assert sum(seconds for seconds, seen in host.clock.naps if seen == (1, (1, 2))) >= DRAIN
    host.is_served_by(1)


def test_the_files_beside_an_image_keep_the_times_that_they_have_in_it(host: Host) -> None:
    host.run()
    build = host.build("b2")
    page = host.layout.builds / build / "app" / "index.html"
    page.write_text("BBBB", encoding="utf-8")
    os.utime(page, (50, 50))
    (host.layout.builds / build / ".build.json").write_text('{"image": "shop:b2", "engine": "podman"}', encoding="utf-8")
    host.run(build=build)
    assert page.stat().st_mtime == 50


def test_a_page_that_a_release_or_a_way_back_changes_is_newer_than_what_was_served(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(build: str, text: str) -> Path:
        file = host.layout.builds / build / "app" / "index.html"
        file.write_text(text, encoding="utf-8")
        os.utime(file, (1, 1))
        return file

    one, at = page("b1", "AAAA"), 2 * 10**9
    host.run(run={**ANN, "at": str(at)})
    two = page(host.build("b2"), "BBBB")
    host.run(run={**ANN, "at": str(at + 60)}, build="b2")
    assert (one.stat().st_mtime, two.stat().st_mtime) == (at, at + 60)
    context = host.context(run={**ANN, "at": str(at + 120)})
    roll_back(context, 1, "original")
    assert one.stat().st_mtime == at + 120
    # The next one is live for a moment only, and what it served must not stay with those who saw it.
    host.door.answer = b"HTTP/1.1 200 OK\r\nX-Release: 1\r\nContent-Length: 0\r\n\r\n"
    compared: list[int] = []
    usual = release_activate.freshen
    monkeypatch.setattr(
        release_activate,
        "freshen",
        lambda *words: compared.append(host.layout.live() or 0) or usual(*words),  # type: ignore[func-returns-value]
    )
    with pytest.raises(ReleaseError, match="public endpoint"):
        host.run(run={**ANN, "at": str(at + 180)}, build="b2")
    host.door.answer = None
    assert compared == [1], "once, and before the switch: the way back does not wait for it"
    assert (one.stat().st_mtime, two.stat().st_mtime) == (at + 181, at + 180)


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), ReleaseError("in the way")])
def test_a_switch_that_is_only_half_done_is_undone(host: Host, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    host.run()
    atomic_symlink = release_activate.atomic_symlink

    def half(link: Path, target: Any) -> None:
        if link.name == "current" and str(target).endswith("2"):
            raise trouble
        atomic_symlink(link, target)

    monkeypatch.setattr(release_activate, "atomic_symlink", half)
    with pytest.raises(ReleaseError, match="Release 1 still serves"):
        host.run(settings="{}")
    host.is_served_by(1)


def test_a_question_that_cannot_be_asked_is_a_failure_like_others(host: Host) -> None:
    host.clock.haste = 5
    host.run()
    with pytest.raises(ReleaseError, match="Release 2 failed"):
        host.run(health={**IMPATIENT, "path": "/gesündheit", "timeout": 2}, settings="{}")
    host.is_served_by(1)
    with pytest.raises(ReleaseError, match="Release 3 failed"):
        host.run(endpoint={"host": ".example.com", "port": host.door.port, "tls": True}, settings="{}")
    host.is_served_by(1)


def test_an_old_release_that_is_dead_is_not_said_to_serve(host: Host) -> None:
    host.run()
    os.kill(host.supervisor.programs()["shop-1"], 9)
    with pytest.raises(ReleaseError, match="Release 2 failed") as error:
        host.run("crash", health={**IMPATIENT, "timeout": 60})
    assert "still serves" not in str(error.value)


@pytest.mark.parametrize("break_door", ["close", "noise"])
def test_a_door_that_does_not_answer_is_not_proof(host: Host, break_door: str) -> None:
    host.clock.haste = 5
    host.run()
    host.door.answer = b"hello\n"
    if break_door == "close":
        host.door.close()
    with pytest.raises(ReleaseError, match="public endpoint"):
        host.run(settings="{}")
    assert host.layout.live() == 1
    assert host.supervisor.running() == [1]


def test_the_door_is_asked_over_tls_by_the_hosts_name(host: Host, tmp_path: Path) -> None:
    host.clock.haste = 5
    files = [str(tmp_path / "key"), str(tmp_path / "certificate")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-subj", "/CN=x"]
    subprocess.run([*command, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    door = standins.PublicEndpoint(host.layout.live_socket, context)
    try:
        arguments: dict[str, Any] = {"endpoint": {"host": HOST, "port": door.port, "tls": True}}
        assert host.run(**arguments) == 1
        assert set(door.names) == {HOST}
        assert all(f"Host: {HOST}\r\n" in request for request in door.requests)
        arguments["endpoint"]["tls"] = False
        with pytest.raises(ReleaseError, match="public endpoint"):
            host.run(settings="{}", **arguments)
    finally:
        door.close()
    host.is_served_by(1)


def test_a_build_that_is_gone_is_named(host: Host) -> None:
    host.run()
    with pytest.raises(ReleaseError, match="no build b7"):
        host.run(build="b7")
    host.is_served_by(1)


# Supervisor


@pytest.fixture
def parser(host: Host, short: Path) -> Path:
    """A supervisord whose interpreter has a parser, in place of Supervisor's own."""
    package = short / "lib" / "supervisor"
    package.mkdir(parents=True)
    (package / "options.py").write_text(
        "class ServerOptions:\n"
        "    def realize(self, arguments):\n"
        "        import configparser, glob, os\n"
        "        assert arguments[:2] == ['-n', '-c'], arguments\n"
        "        assert not os.listdir('.') or {*os.listdir('.')} <= {'section.conf', 'supervisord.conf'}\n"
        "        main = configparser.RawConfigParser(); main.read(arguments[2])\n"
        "        files = main['include']['files'].split()\n"
        "        section = configparser.RawConfigParser(); assert section.read(files) == files\n"
        "        for text in section[section.sections()[0]].values():\n"
        "            text % {}\n",
        encoding="utf-8",
    )
    program = short / "supervisord"
    program.write_text(f"#!/usr/bin/env PYTHONPATH={package.parent} {sys.executable} -S\n", encoding="utf-8")
    return program


def test_a_section_that_its_parser_takes_is_installed(host: Host, parser: Path) -> None:
    assert host.run() == 1


def test_a_section_that_would_keep_supervisor_from_starting_is_not_installed(host: Host, parser: Path) -> None:
    host.run()
    with pytest.raises(ReleaseError, match=r"Supervisor rejects the program[\s\S]*Error"):
        host.run(program=host.arguments()["program"] + 'environment=A="%"\n')
    assert not any("shop-2" in call for call in host.supervisor.calls())
    host.is_served_by(1)


def test_a_section_that_supervisor_refuses_is_taken_away(host: Host) -> None:
    host.run()
    with pytest.raises(ReleaseError, match=r"rejected the program shop-2[\s\S]*CANT_REREAD"):
        host.run(program="[program:shop-@RELEASE@]\nunparsable\n")
    host.is_served_by(1)
    with pytest.raises(ReleaseError, match="rejected the program"):
        host.context().supervisor.add(9, host.layout.release(2) / "program.conf")
    host.is_served_by(1)


def test_a_supervisor_that_is_down_leaves_things_as_they_are(host: Host) -> None:
    host.run()
    away = host.supervisor.socket.rename(host.supervisor.socket.with_suffix(".away"))
    with pytest.raises(ReleaseError, match=r"Supervisor does not answer at .*/supervisor\.sock: No such file"):
        host.run(settings="{}")
    away.rename(host.supervisor.socket)
    host.is_served_by(1)
    assert host.run(settings="{}") == 2


def test_a_supervisor_without_a_socket_is_told(host: Host) -> None:
    host.supervisor.configuration.write_text("[inet_http_server]\nport=9001\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"listens on no Unix socket: .*/supervisord\.conf has no file= in"):
        host.run()


def test_a_supervisor_with_a_password_is_given_it(host: Host) -> None:
    text = f"[unix_http_server]\nfile={host.supervisor.socket} ; here\nusername=ann\npassword=a/b@c%d\n"
    host.supervisor.configuration.write_text(text, encoding="utf-8")
    assert host.run() == 1
    assert host.supervisor.credentials == {"Basic " + base64.b64encode(b"ann:a/b@c%d").decode()}


def test_only_the_apps_own_sections_are_touched(host: Host) -> None:
    host.run()
    strangers = ["shop.conf", "shop-2-1.conf", "shop-x.conf", "shopping-7.conf", "shop-9.conf.bak", "other-3.conf"]
    for name in strangers:
        (host.supervisor.sections / name).write_text("[program:x]\n", encoding="utf-8")
    context = host.context()
    assert context.supervisor.installed() == [1]
    assert not tidy(context)
    host.run(settings="{}")
    assert host.sections() == sorted([*strangers, "shop-2.conf"])
    assert {word for call in host.supervisor.updates() for word in call.split()[1:]} == {"shop-1", "shop-2"}


def test_each_update_names_a_program(host: Host) -> None:
    host.run()
    host.run(settings="{}")
    added, dropped = "addProcessGroup", ("stopProcessGroup", "removeProcessGroup")
    wanted = [f"{added} shop-1", f"{added} shop-2", *(f"{call} shop-1" for call in dropped)]
    assert host.supervisor.updates() == wanted


@pytest.mark.parametrize("suffix", [".conf", ".ini"])
def test_sections_end_as_supervisor_wants_them(tmp_path: Path, suffix: str) -> None:
    supervisor = app_supervisor.Supervisor("shop", tmp_path, suffix, 5)
    assert supervisor.section(3) == tmp_path / f"shop-3{suffix}"
    for name in (f"shop-12{suffix}", f"shop-3{suffix}", "shop-4.other"):
        (tmp_path / name).touch()
    assert supervisor.installed() == [3, 12]


# What an interrupted run leaves


def test_a_live_release_that_lost_its_program_is_released_again(host: Host) -> None:
    host.run()
    (host.supervisor.sections / "shop-1.conf").unlink()
    assert host.run() == 2
    assert host.layout.live() == 2


def test_a_live_release_that_does_not_answer_is_released_again(host: Host) -> None:
    host.run()
    os.kill(host.supervisor.programs()["shop-1"], 9)
    assert host.run() == 2
    host.is_served_by(2)


def test_a_live_release_is_given_time_to_answer(host: Host) -> None:
    host.run()
    socket = host.layout.socket(1)
    socket.rename(socket.with_suffix(".away"))
    patience = host.clock.monotonic() + 5

    def come_back() -> None:
        if host.clock.monotonic() > patience and not socket.exists():
            socket.with_suffix(".away").rename(socket)

    host.clock.watch = come_back
    assert host.run() is None


def test_a_lagging_link_for_people_is_mended(host: Host) -> None:
    host.run()
    host.layout.current.unlink()
    host.layout.current.symlink_to("releases/0")
    context = host.context()
    assert tidy(context)
    assert os.readlink(host.layout.current) == "releases/1"
    assert not tidy(context)


def test_a_live_release_that_was_not_remembered_is(host: Host) -> None:
    host.run()
    record = {**host.layout.record(1), "outcome": "started"}
    (host.layout.release(1) / "release.json").write_text(json.dumps(record), encoding="utf-8")
    assert tidy(host.context())
    assert host.layout.record(1)["outcome"] == "live"
    assert host.run() is None


class Killed(BaseException):
    """Nothing after this is done, as if the process had been killed."""


class Killer:
    """Ends the run at one of the steps that change a file or run a command, counted from 0."""

    EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink")

    def __init__(self) -> None:
        self.at = self.step = -1
        self.thread = 0
        self.what = ""
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.at < 0 or threading.get_ident() != self.thread:
            return
        written = event == "open" and isinstance(arguments[0], str) and set(str(arguments[1])) & set("wxa+")
        command = event == "subprocess.Popen"
        scratch = str(arguments[0]).startswith(f"{tempfile.gettempdir()}/tmp")
        if scratch or (event not in self.EVENTS and not written and not command):
            return
        self.count(f"{event} {arguments[1] if command else arguments[0]}")

    def count(self, what: str) -> None:
        """Count a step, and end the run at the one that is wanted, and at all after it."""
        self.step += 1
        if self.step >= self.at:
            if self.step == self.at:
                self.what = what
            raise Killed

    @contextlib.contextmanager
    def killing(self, at: int) -> Iterator[None]:
        """Kill at step `at`, and do nothing more after it: no clean-up either."""
        self.at, self.step, self.what, self.thread = at, -1, "", threading.get_ident()
        call = app_supervisor.Supervisor.call

        def counted(supervisor: Any, method: str, *arguments: Any, **options: Any) -> Any:
            if method != "getAllProcessInfo":  # how often it asks for a state is a matter of chance
                self.count(method)
            return call(supervisor, method, *arguments, **options)

        try:
            with mock.patch.object(app_supervisor.Supervisor, "call", counted):
                yield
        finally:
            self.at = -1


KILLER = Killer()


def test_a_run_that_is_killed_at_any_step_is_made_good_by_the_next(host: Host) -> None:
    """Kill a release at its first step, then another at its second, and so on, and run each again.

    Live answers at every moment, no number is given twice, nothing is left running, no build or environment is left in part,
    and the next run works and ends with what was wanted.
    """
    host.run(keep=2)
    problems: list[str] = []
    # From about the thirtieth on, one file after the other is removed.
    for step in [*range(35), *range(35, 200, 5)]:
        build = host.build(f"c{step}", venv=f"w{step}")
        killed = False
        try:
            with KILLER.killing(step):
                host.run(build=build, keep=2)
        except Killed:
            killed = True
        where = f"step {step}, before {KILLER.what}"
        if host.who_answers() != str(host.layout.live()):
            problems.append(f"{where}: {host.who_answers()} answers, {host.layout.live()} is live")
        try:
            host.run(build=build, keep=2)
        except Exception as error:
            problems.append(f"{where}: the next run fails: {error!r}")
            with contextlib.suppress(Exception):
                host.run(build=build, keep=2)
        live = host.layout.live()
        if live is None or host.layout.record(live)["build"] != build or host.layout.record(live)["outcome"] != "live":
            problems.append(f"{where}: {build} is not live")
        for stray in set(host.supervisor.programs()) - {f"shop-{live}"}:
            problems.append(f"{where}: {stray} still runs")
            host.supervisor.kill(stray)
        problems += [f"{where}: {path} is not whole" for path in host.broken()]
        if not killed:
            break
    assert step > 30
    assert sorted(set(host.given)) == host.given
    assert not problems, "\n".join(problems)


def test_a_torn_line_in_the_history_is_in_nobodys_way(host: Host) -> None:
    host.run()
    with host.layout.history.open("a", encoding="utf-8") as history:
        history.write('{"release": 2, "outc')
    (host.layout.releases / "7").mkdir()
    assert host.run(settings="{}") == 8
    assert host.run(settings='{"A": "1"}') == 9
    host.is_served_by(9)
    # Nor is what comes after it lost.
    whole = [line for line in host.layout.history.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    assert [json.loads(line)["release"] for line in whole if line.startswith("{")] == [1, 8, 9]


# Numbers and what is kept


def test_a_number_is_never_given_twice(host: Host) -> None:
    host.run()
    with pytest.raises(ReleaseError):
        host.run("crash")
    subprocess.run(["rm", "-r", str(host.layout.release(2))], check=True)
    assert host.run(settings="{}") == 3
    (host.layout.releases / "8").mkdir()
    assert host.run(settings='{"A": "1"}') == 9
    (host.supervisor.sections / "shop-12.conf").write_text("[program:shop-12]\ncommand=/bin/sleep 9\n", encoding="utf-8")
    assert release(host.context(settings='{"A": "2"}')) == 13


def fill(host: Host, outcomes: dict[int, str], live: int) -> None:
    """Make releases as earlier runs would have left them: build and environment of each are its own."""
    for number, outcome in outcomes.items():
        host.build(f"b{number}0", venv=f"v{number}0")
        directory = host.layout.release(number)
        directory.mkdir()
        (directory / "release.json").write_text(json.dumps({"build": f"b{number}0", "outcome": outcome}), encoding="utf-8")
        (directory / "build").symlink_to(f"../../builds/b{number}0")
        for log in (host.layout.log(number), Path(f"{host.layout.log(number)}.1")):
            log.touch()
    host.layout.live_socket.symlink_to(host.layout.socket(live))


def kept(host: Host) -> list[int]:
    """Return the releases that are kept, having seen that the same is kept of all else."""
    numbers = host.layout.numbers()
    assert sorted(path.name for path in host.layout.builds.iterdir()) == sorted(["b1", *(f"b{number}0" for number in numbers)])
    assert sorted(path.name for path in host.layout.venvs.iterdir()) == sorted(["v1", *(f"v{number}0" for number in numbers)])
    logs = {path.name for path in host.layout.logs.iterdir()}
    assert logs == {f"{number}.log{end}" for number in numbers for end in ("", ".1")}
    return numbers


@pytest.mark.parametrize(
    ("outcomes", "live", "keep", "left"),
    [
        ("llll", 4, 1, [3, 4]),
        ("llll", 4, 2, [2, 3, 4]),
        ("llll", 4, 3, [1, 2, 3, 4]),
        ("llll", 4, 4, [1, 2, 3, 4]),
        ("llll", 4, 5, [1, 2, 3, 4]),
        ("lllllll", 7, 5, [2, 3, 4, 5, 6, 7]),
        ("lllllllllll", 11, 2, [9, 10, 11]),
        # Live may be the oldest, after going back to it.
        ("llll", 1, 1, [1, 4]),
        # The one before live is kept, whatever failed in between.
        ("lfffl", 5, 2, [1, 3, 4, 5]),
        ("llffsfl", 7, 1, [2, 6, 7]),
        ("l", 1, 1, [1]),
    ],
)
def test_what_is_kept_is_counted_from_what_is_live(host: Host, outcomes: str, live: int, keep: int, left: list[int]) -> None:
    words = {"l": "live", "f": "failed", "s": "started"}
    fill(host, {number: words[letter] for number, letter in enumerate(outcomes, start=1)}, live)
    prune(host.context(keep=keep))
    assert kept(host) == left


def test_pruning_leaves_what_is_not_its_own(host: Host) -> None:
    fill(host, {1: "live", 2: "live", 3: "live"}, 3)
    strangers = [host.layout.logs / "celery.log", host.layout.logs / "notes.txt", host.layout.releases / "notes"]
    for path in strangers:
        path.touch()
    prune(host.context(keep=1))
    assert [path for path in strangers if not path.exists()] == []


def test_pruning_copes_with_a_release_that_was_begun_and_no_more(host: Host) -> None:
    fill(host, {1: "live", 2: "live"}, 2)
    (host.layout.releases / "3").mkdir()
    prune(host.context(keep=2))
    assert host.layout.live() == 2
    assert {"b10", "b20", "b1"} <= {path.name for path in host.layout.builds.iterdir()}


def test_a_release_whose_record_cannot_be_read_keeps_its_build(host: Host) -> None:
    fill(host, {1: "live", 2: "live"}, 2)
    (host.layout.release(1) / "release.json").write_text("{", encoding="utf-8")
    prune(host.context(keep=2))
    assert (host.layout.release(1) / "build").exists()


def test_pruning_clears_builds_and_releases_that_were_begun(host: Host) -> None:
    fill(host, {1: "live"}, 1)
    (host.layout.releases / ".2.partial").mkdir()
    (host.layout.builds / ".b9.partial").mkdir()
    (host.layout.venvs / "v99").mkdir()
    prune(host.context())
    assert kept(host) == [1]
    assert [path.name for path in host.layout.releases.iterdir()] == ["1"]


def test_a_shared_environment_stays_while_one_build_uses_it(host: Host) -> None:
    host.run()
    host.build("b2", venv="v1")
    host.run(build="b2", keep=1)
    host.run(build="b2", settings="{}", keep=1)
    assert [path.name for path in host.layout.builds.iterdir()] == ["b2"]
    assert [path.name for path in host.layout.venvs.iterdir()] == ["v1"]


# The module


@pytest.fixture
def module(
    host: Host, run_step: Callable[..., dict[str, Any]], warnings: list[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(release_step, "lock", functools.partial(lock, patience=0.1))

    monkeypatch.setattr(configuration, "DIRECTORY", host.layout.home / "etc")

    def step(check: bool = False, **given: Any) -> dict[str, Any]:
        told = {name: given.pop(name) for name in [*given] if name in configuration.PARAMETERS}
        result = run_step("release", check=check, app=told["name"], configuration=told, **given)
        warnings.extend(result.pop("warnings", []))
        return result

    return step


@pytest.fixture
def warnings() -> list[str]:
    """What the step warns of."""
    return []


def test_the_module_says_what_it_did(host: Host, module: Any) -> None:
    result = module(step="activate", **host.arguments())
    assert (result["changed"], result["release"]) == (True, 1)
    assert result["reason"]
    result = module(step="activate", **host.arguments())
    assert (result["changed"], result["release"], result["reason"]) == (False, 1, None)
    assert result["diff"] == {}
    result = module(step="activate", **host.arguments(settings="{}"))
    assert (result["changed"], result["release"]) == (True, 2)
    assert (result["diff"]["before"], result["diff"]["after"]) == ("release 1\n", "release 2\n")
    host.is_served_by(2)


def test_the_module_has_something_for_the_end_of_a_run(host: Host, module: Any) -> None:
    def told(step: str, check: bool = False, **changes: Any) -> dict[str, Any]:
        summary: dict[str, Any] = module(check=check, step=step, **host.arguments(url="https://shop.test/", **changes))["summary"]
        assert "version" in summary
        return {name: value for name, value in summary.items() if name != "version"}

    assert told("activate", check=True) == {"url": "https://shop.test/", "release": "a new one", "certificate_days": None}
    assert told("activate", build="none")["release"] == "none"
    assert told("prepare")["release"] == "none"
    assert told("activate")["release"] == "1, new"
    assert told("activate")["release"] == told("activate", check=True)["release"] == "1, unchanged"
    assert told("activate", check=True, settings="{}")["release"] == "1, then a new one"
    assert told("activate", settings="{}")["release"] == "2, new"
    assert told("activate", mode="500", health=IMPATIENT)["release"] == "2, unchanged"
    assert told("inspect")["release"] == "2, unchanged"
    assert told("rollback", check=True)["release"] == "2, then 1"
    assert told("rollback")["release"] == "1, rolled back from 2"
    with lock(host.layout, BOB):
        assert told("activate", settings="{}")["release"] == "1, unchanged"


def test_the_module_shows_no_secret_and_nothing_to_try_secrets_against(host: Host, module: Any) -> None:
    result = module(step="activate", **host.arguments())
    assert "secret" not in json.dumps(result)
    assert host.layout.record(1)["digest"] not in json.dumps(result)


def test_a_dry_run_changes_nothing(host: Host, module: Any) -> None:
    result = module(check=True, step="activate", **host.arguments())
    assert (result["changed"], result["release"]) == (True, None)
    assert (host.layout.numbers(), host.sections(), host.supervisor.updates()) == ([], [], [])
    module(step="activate", **host.arguments())
    assert module(check=True, step="activate", **host.arguments())["changed"] is False
    assert module(check=True, step="activate", **host.arguments(keep=7))["changed"] is True, "its file would be another"
    assert module(check=True, step="activate", **host.arguments(settings="{}"))["changed"] is True
    host.is_served_by(1)
    assert host.layout.numbers() == [1]


def test_a_dry_run_on_a_bare_host_works(tmp_path: Path, host: Host, module: Any) -> None:
    nowhere = {name: str(tmp_path / "nowhere" / name) for name in ("home", "runtime", "logs")}
    assert module(check=True, step="activate", **host.arguments(layout=nowhere))["changed"] is True


def test_a_failure_fails_the_module(host: Host, module: Any) -> None:
    host.run()
    result = module(step="activate", **host.arguments("500", health=IMPATIENT))
    assert result["failed"]
    assert "Release 1 still serves" in result["msg"]


def test_a_change_under_way_refuses_the_module(host: Host, module: Any) -> None:
    host.run()
    with lock(host.layout, BOB):
        result = module(step="activate", **host.arguments(settings="{}"))
    assert result["failed"]
    assert "bob on desk since" in result["msg"]
    assert host.layout.numbers() == [1]


def test_a_step_holds_the_app_for_the_next_one_of_its_run(host: Host, module: Any) -> None:
    result = module(step="prepare", **host.arguments())
    assert (result["changed"], result["release"], result["before"]) == (True, 1, None)
    assert (host.layout.live(), result["record"]["outcome"], host.sections()) == (None, "prepared", [])
    for step in ("prepare", "activate", "rollback"):
        refused = module(step=step, **host.arguments(run=BOB))
        assert refused["locked_by"]["id"] == ANN["id"]
        assert "ann on laptop since" in refused["msg"]
    assert module(step="activate", **host.arguments())["release"] == 1
    # After the last step it is free.
    assert module(step="activate", **host.arguments(run=BOB))["changed"] is False


def test_a_step_takes_over_from_a_dead_run(host: Host, module: Any) -> None:
    module(step="prepare", **host.arguments())
    result = module(step="activate", **host.arguments(run={**BOB, "dead": ANN["id"]}))
    assert (result["changed"], result["release"]) == (True, 1)
    assert host.layout.record(1)["who"] == "bob@desk"


def test_the_module_goes_back(host: Host, module: Any) -> None:
    three(host)
    arguments = host.arguments(build="", revision="", origin="")
    result = module(check=True, step="rollback", **arguments)
    assert (result["changed"], result["release"], result["before"]) == (True, 2, 3)
    host.is_served_by(3)
    result = module(step="rollback", **arguments)
    assert (result["changed"], result["release"], result["before"]) == (True, 2, 3)
    assert (result["reason"], result["record"]["revision"]) == ("rolled back from release 3", "r2")
    assert result["diff"] == {"before": "release 3\n", "after": "release 2\n"}
    host.is_served_by(2)
    for check in (False, True):
        result = module(check=check, step="rollback", **{**arguments, "to": "2"})
        assert (result["changed"], result["reason"]) == (False, None)
    result = module(step="rollback", **{**arguments, "to": "9"})
    assert "There is no release 9 of shop on this host. Available: 1." in result["msg"]


# With other hosts beside it


def test_a_host_says_what_it_has_for_an_agreement(host: Host, module: Any) -> None:
    def said(check: bool = False, **changes: Any) -> tuple[Any, ...]:
        result = module(check=check, step="plan", **host.arguments(**changes))
        assert result["changed"] is False
        return tuple(result[key] for key in ("release", "reason", "next", "prepared", "again"))

    assert said() == said(check=True) == (None, "nothing was live yet", 1, None, None)
    host.run()
    assert said() == (1, None, 2, None, None)
    wanted: dict[str, Any] = {"settings": "{}"}
    module(step="prepare", **host.arguments(number=7, **wanted))
    assert said(**wanted) == said(check=True, **wanted) == (1, "the build or its settings have changed", 8, 7, 7)
    # What is prepared for something else is no use.
    assert said(settings='{"A": "1"}')[2:] == (8, None, None)
    # What another run left under way is ended, and told.
    module(step="unlock", **host.arguments())
    host.layout.current.unlink()
    assert module(step="plan", **host.arguments())["changed"] is True
    # It is free again.
    assert module(step="plan", **host.arguments(run=BOB))["changed"] is False


def test_a_release_takes_the_number_that_the_hosts_agreed_on(host: Host, module: Any) -> None:
    host.run()
    for step in ("prepare", "migrate", "activate"):
        result = module(step=step, **host.arguments(number=5, settings="{}", migrate={"command": "true", "timeout": 9}))
        assert result["release"] == 5, result
    host.is_served_by(5)
    # Nothing of this host has changed, but the others need one.
    result = module(step="activate", **host.arguments(number=6, settings="{}"))
    assert (result["release"], result["reason"]) == (6, "another host of the app needs it")
    host.is_served_by(6)
    assert module(step="activate", **host.arguments(number=6, settings="{}"))["changed"] is False
    # In the meantime somebody has given that number to something else.
    result = module(step="activate", **host.arguments(number=5))
    assert "Release number 5, agreed on by the hosts of shop, has been taken on this host meanwhile." in result["msg"]
    host.is_served_by(6)


def test_a_host_is_taken_back_with_the_others(host: Host, module: Any) -> None:
    host.run()
    wanted: dict[str, Any] = {"number": 4, "settings": "{}"}
    module(step="activate", **host.arguments(**wanted, lease=60.0))
    # Until the fleet is through, nobody else changes the app.
    assert "ann on laptop" in module(step="activate", **host.arguments(run=BOB))["msg"]
    result = module(step="revert", **host.arguments(**wanted, before=1, lease=60.0))
    assert (result["changed"], result["release"], result["reason"]) == (True, 1, "reverted from release 4")
    assert result["summary"]["release"] == "1, reverted from 4"
    host.is_served_by(1)
    record = host.layout.record(4)
    assert (record["outcome"], record["reason"]) == ("rolled back", "reverted to release 1")
    assert module(step="revert", **host.arguments(**wanted, before=1))["changed"] is False
    # The others have it by now: it is the same again.
    assert module(step="plan", **host.arguments(**wanted))["again"] == 4
    assert module(step="activate", **host.arguments(**wanted))["release"] == 4
    host.is_served_by(4)


def test_a_host_that_served_nothing_is_taken_back_to_that(host: Host, module: Any) -> None:
    module(step="activate", **host.arguments(number=4))
    result = module(step="revert", **host.arguments(number=4, before=0))
    assert (result["changed"], result["release"], result["summary"]["release"]) == (True, None, "none, reverted from 4")
    assert (host.layout.live(), host.sections(), host.supervisor.running()) == (None, [], [])
    assert host.layout.record(4)["outcome"] == "rolled back"
    assert module(step="revert", **host.arguments(number=4, before=0))["changed"] is False
    assert host.run() == 5


def test_a_claim_is_let_go_by_who_has_it(host: Host, module: Any) -> None:
    assert module(step="lock", **host.arguments(lease=60.0))["changed"] is True, "it wrote the app's configuration"
    assert module(step="lock", **host.arguments(lease=60.0))["changed"] is False
    assert "ann on laptop" in module(step="lock", **host.arguments(run=BOB))["msg"]
    result = module(step="unlock", **host.arguments(run=BOB))
    assert (result["changed"], result.get("failed")) == (False, None)
    assert "ann on laptop" in module(step="lock", **host.arguments(run=BOB))["msg"]
    result = module(step="unlock", **host.arguments(note="promoted"))
    assert result["summary"] == {"canary": "promoted"}
    assert module(step="lock", **host.arguments(lease=60.0, run=BOB))["changed"] is False
    # Nor is one let go that was taken over by then.
    assert module(step="lock", **host.arguments(lease=60.0, run={**ANN, "take_over": True}))["changed"] is False
    result = module(step="unlock", **host.arguments(run=BOB, note="promoted"))
    assert (result["summary"], result.get("failed")) == ({"canary": "promoted"}, None)
    assert "ann on laptop" in module(step="lock", **host.arguments(run={**BOB, "id": "another"}))["msg"]


def test_a_step_returns_whether_its_run_has_the_lock_after_it(host: Host, module: Any) -> None:
    assert module(step="plan", **host.arguments())["locked"] is False
    for step in ("lock", "prepare", "activate"):
        assert module(step=step, **host.arguments(number=4, lease=60.0))["locked"] is True, step
    assert module(step="lock", **host.arguments(run=BOB))["locked"] is False
    measured = module(step="measure", **host.arguments(seconds=0.0))
    assert (measured["locked"], measured["changed"], measured["release"], measured["total"]) == (True, False, 4, 0)
    assert module(step="measure", **host.arguments(run=BOB, seconds=0.0))["locked"] is False
    assert module(step="unlock", **host.arguments())["locked"] is False
    assert module(step="measure", **host.arguments(seconds=0.0))["locked"] is False
    assert module(step="activate", **host.arguments(number=4))["locked"] is False


def test_a_host_that_serves_nothing_cannot_be_measured(host: Host, module: Any) -> None:
    result = module(step="measure", **host.arguments(seconds=0.0))
    assert (result["failed"], result["locked"]) == (True, False)
    assert result["msg"] == "No release is live on this host, so there is nothing to measure."


def test_what_takes_longer_than_the_run_waits_is_not_switched_to(host: Host, module: Any) -> None:
    host.run()
    result = module(step="activate", **host.arguments(settings="{}", limit=1.0, watch=5.0))
    assert "for one host" in result["msg"]
    host.is_served_by(1)


def test_a_host_says_what_it_can_go_back_to(host: Host, module: Any) -> None:
    three(host)
    result = module(step="inspect", **host.arguments(to="9"))
    assert (result["release"], result["newest"], result["choices"], result["next"]) == (3, 3, [1, 2, 3], 4)
    assert "There is no release 9 of shop on this host." in result["rejections"].pop("9")
    assert result["rejections"] == {"1": "", "2": "", "3": ""}
    # What a way back left that was interrupted.
    remember(host.context(), 2, back_from=3)
    app_files.atomic_symlink(host.layout.live_socket, host.layout.socket(2))
    result = module(step="inspect", **host.arguments())
    assert (result["release"], result["newest"]) == (2, 3)


def test_clearing_up_is_a_change(host: Host, module: Any) -> None:
    host.run()
    host.layout.current.unlink()
    assert module(step="activate", **host.arguments())["changed"] is True
    assert module(step="activate", **host.arguments())["changed"] is False


def test_a_full_disk_is_said_and_not_shown_as_a_traceback(host: Host, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    write = release_record.write

    def full(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "release.json":
            raise OSError(28, "No space left on device", str(path))
        write(path, *arguments, **options)

    monkeypatch.setattr(release_record, "write", full)
    result = module(step="activate", **host.arguments(settings="{}"))
    assert "No space left" in result["msg"]
    monkeypatch.setattr(release_record, "write", write)
    host.is_served_by(1)


def test_a_socket_that_nobody_serves_is_no_answer(host: Host) -> None:
    assert answers(host.context(), 1) is False
    host.layout.socket(1).touch()
    assert answers(host.context(), 1) is False
    with pytest.raises(OSError):
        app_door.ask(UnixConnection(Path("/nowhere.sock"), 1), "/", HOST)


# Watching


def log(host: Host, release: int, *statuses: int) -> None:
    """Log answers as Nginx would."""
    with open(host.layout.logs / "access.log", "a", encoding="utf-8") as file:
        for status in statuses:
            entry = {"at": host.clock.time(), "status": status, "release": str(release)}
            file.write(json.dumps(entry) + "\n")


def when_live(host: Host, release: int, do: Callable[[], Any]) -> None:
    """Do something each time that somebody waits while `release` is live."""
    host.clock.watch = lambda: do() if host.layout.live() == release else None


def test_a_release_that_answers_with_more_errors_than_usual_is_taken_back(host: Host) -> None:
    host.run()
    log(host, 1, *[200] * 98, 500, 500)
    when_live(host, 2, lambda: log(host, 2, 200, 500, 502))
    with pytest.raises(
        ReleaseError, match=r"\d+ of \d+ requests were answered with a 5xx.*against 2 of 100 requests before"
    ) as error:
        host.run(settings="{}", watch=10.0)
    assert "Release 1 still serves" in str(error.value)
    host.is_served_by(1)


@pytest.mark.parametrize(("usual", "now"), [([200] * 9 + [500], [200] * 9 + [500]), ([200] * 9, [200]), ([], [500])])
def test_errors_that_are_usual_or_few_are_no_reason(host: Host, usual: list[int], now: list[int]) -> None:
    host.run()
    log(host, 1, *usual)
    done: list[int] = []

    def once() -> None:
        if not done:
            done.append(1)
            log(host, 2, *now)

    when_live(host, 2, once)
    assert host.run(settings="{}", watch=10.0) == 2
    host.is_served_by(2)


def test_a_fault_of_our_own_after_the_switch_leads_back_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    monkeypatch.setattr(app_watch.Traffic, "follow", lambda *arguments: dict[str, Any]()["no such key"])
    with pytest.raises(ReleaseError, match=r"Release 2 failed: KeyError: 'no such key'\nRelease 1 still serves"):
        host.run(settings="{}", watch=10.0)
    host.is_served_by(1)


def test_a_release_whose_program_ends_is_taken_back(host: Host) -> None:
    host.run()
    when_live(host, 2, lambda: os.kill(host.supervisor.programs()["shop-2"], 9) if 2 in host.supervisor.running() else None)
    with pytest.raises(ReleaseError, match=r"its program ended in the \d+ s since the switch \(app_watch_seconds\)"):
        host.run(settings="{}", watch=10.0)
    host.is_served_by(1)


def test_a_release_whose_program_starts_again_is_taken_back(host: Host) -> None:
    host.supervisor.settle()
    host.run()
    successors: list[subprocess.Popen[bytes]] = []

    def start_again() -> None:
        if not successors:
            os.kill(host.supervisor.programs()["shop-2"], 9)
            successors.append(subprocess.Popen(["sleep", "60"]))
            (host.supervisor.state / "shop-2").write_text(str(successors[0].pid), encoding="utf-8")

    when_live(host, 2, start_again)
    with pytest.raises(ReleaseError, match=r"its program ended in the \d+ s since the switch \(app_watch_seconds\) \(RUNNING\)"):
        host.run(settings="{}", watch=10.0)
    successors[0].wait()
    host.is_served_by(1)


def end_workers(host: Host, release: int, count: int) -> Callable[[], None]:
    """Return what ends a worker of a release at each call, until there were so many."""
    ended: list[int] = []

    def end() -> None:
        workers = sorted(app_watch.children(host.supervisor.pids(f"shop-{release}")))
        if workers and len(ended) < count:
            os.kill(workers[0], 9)
            ended.append(workers[0])

    return end


def test_a_release_whose_processes_end_is_taken_back(host: Host) -> None:
    host.supervisor.settle()
    host.run("workers")
    when_live(host, 2, end_workers(host, 2, 3))
    words = r"[23] of its worker processes ended in the \d+ s since[\s\S]*Release 1 still serves"
    with pytest.raises(ReleaseError, match=words):
        host.run("workers", settings="{}", watch=10.0)
    host.is_served_by(1)


def test_one_process_that_ends_is_no_reason(host: Host) -> None:
    host.supervisor.settle()
    host.run()
    when_live(host, 2, end_workers(host, 2, 1))
    assert host.run("workers", settings="{}", watch=5.0) == 2
    assert len(app_watch.children(host.supervisor.pids("shop-2"))) == 3


def test_as_many_processes_may_end_as_before(host: Host) -> None:
    """Such as those of an app whose workers are replaced after a number of requests."""
    host.supervisor.settle()
    host.run("workers")
    ends = {1: end_workers(host, 1, 4), 2: end_workers(host, 2, 3)}
    host.clock.watch = lambda: ends[host.layout.live() or 1]()
    assert host.run("workers", settings="{}", watch=10.0) == 2
    assert len(app_watch.children(host.supervisor.pids("shop-2"))) == 1
    host.clock.watch = lambda: None
    host.is_served_by(2)


def test_a_log_of_another_format_is_nobodys_reason(host: Host) -> None:
    host.run()
    line = '{"status": 502, "at": "2026-11-24T10:00:00Z"}\n127.0.0.1 - - "GET / HTTP/1.1" 502\n'

    def write() -> None:
        with (host.layout.logs / "access.log").open("a", encoding="utf-8") as file:
            file.write(line)

    when_live(host, 2, write)
    assert host.run(settings="{}", watch=5.0) == 2
    host.is_served_by(2)


def test_a_release_that_stops_being_healthy_is_taken_back(host: Host) -> None:
    host.run()

    def ail() -> None:
        if host.clock.naps and len(host.clock.naps) > before + 3:
            host.door.answer = b"HTTP/1.1 503 X\r\nX-Release: 2\r\nContent-Length: 0\r\n\r\n"

    before = len(host.clock.naps)
    when_live(host, 2, ail)
    with pytest.raises(ReleaseError, match=r"it became unhealthy .*GET /healthz answers 503, not 200"):
        host.run(settings="{}", watch=10.0)
    host.door.answer = None
    host.is_served_by(1)


def test_a_first_release_is_watched_too(host: Host) -> None:
    when_live(host, 1, lambda: log(host, 1, 500, 500, 500))
    with pytest.raises(ReleaseError, match=r"5xx[\s\S]*Nothing was live before"):
        host.run(watch=5.0)
    assert host.layout.live() is None


def test_the_old_release_runs_as_long_as_the_new_one_is_watched(host: Host) -> None:
    host.run()
    host.clock.naps.clear()
    host.clock.watch = lambda: (host.clock.monotonic(), host.layout.live(), tuple(host.supervisor.running()))
    assert host.run(settings="{}", watch=20.0) == 2
    after = [(moment, running) for _, (moment, live, running) in host.clock.naps if live == 2]
    assert {running for _, running in after} == {(1, 2)}
    assert after[-1][0] - after[0][0] > 15


# The way back


def go_back(host: Host, to: str = "", across: bool = False, settings: str = "original", **changes: Any) -> int:
    """Take the step `rollback`, and return the release that is live then."""
    wanted: dict[str, Any] = {"to": to, "across_migrations": across, "rollback_settings": settings}
    context = host.context(build="", revision="", origin="", **wanted, **changes)
    with lock(context.layout, ANN, patience=0):
        return int(run_step(context, "rollback")["release"])


def three(host: Host) -> None:
    """Release three builds, each with settings of its own."""
    for number in (1, 2, 3):
        if number > 1:
            host.build(f"b{number}")
        host.run(build=f"b{number}", revision=f"r{number}", settings=json.dumps({"KEY": f"secret {number}"}))


def test_back_and_back_again_and_by_number_to_one_that_was_taken_back(host: Host) -> None:
    three(host)
    assert go_back(host) == 2
    host.is_served_by(2)
    assert json.loads((host.layout.release(2) / "settings.json").read_text(encoding="utf-8")) == {"KEY": "secret 2"}
    assert (host.layout.record(3)["outcome"], host.layout.record(3)["reason"]) == ("rolled back", "rolled back to release 2")
    assert go_back(host) == 1
    assert go_back(host, "3") == 3
    host.is_served_by(3)
    # Forward is not back: release 1 stays a good one, and 2 does not become one again.
    assert (host.layout.record(1)["outcome"], host.layout.record(2)["outcome"]) == ("live", "rolled back")
    assert go_back(host) == 1
    assert [entry["outcome"] for entry in host.history()][3:] == ["rolled back", "live"] * 2 + ["live", "rolled back", "live"]


def test_back_to_what_is_live_is_nothing(host: Host) -> None:
    three(host)
    before = host.history()
    assert go_back(host, "3") == 3
    assert host.history() == before


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("9", "There is no release 9 of shop on this host. Available: 1, 2."),
        ("x", "There is no release x of shop"),
        ("4", "Release 4 of shop was never good: it stopped right after it was started"),
    ],
)
def test_what_cannot_be_gone_back_to_is_said(host: Host, to: str, words: str) -> None:
    three(host)
    with pytest.raises(ReleaseError):
        host.run("crash")
    with pytest.raises(ReleaseError) as error:
        go_back(host, to)
    assert words in str(error.value)
    host.is_served_by(3)


def test_there_may_be_nothing_to_go_back_to(host: Host) -> None:
    with pytest.raises(ReleaseError, match="No release of shop is live on this host"):
        go_back(host)
    host.run()
    with pytest.raises(ReleaseError, match="No good release of shop before release 1"):
        go_back(host)
    host.is_served_by(1)


def test_a_build_that_is_gone_cannot_be_gone_back_to(host: Host) -> None:
    three(host)
    shutil.rmtree(host.layout.builds / "b2")
    with pytest.raises(ReleaseError, match="The build of release 2 is missing"):
        go_back(host)
    assert go_back(host, "1") == 1


def test_todays_settings_make_a_new_release_of_the_old_build(host: Host) -> None:
    three(host)
    assert go_back(host, settings="current") == 4
    host.is_served_by(4)
    record = host.layout.record(4)
    assert (record["build"], record["revision"], record["outcome"]) == ("b2", "r2", "live")
    assert (host.layout.release(4) / "settings.json").read_text(encoding="utf-8") == '{"KEY": "secret"}'


def test_a_way_back_that_fails_changes_nothing(host: Host) -> None:
    three(host)
    program = host.layout.release(2) / "program.conf"
    program.write_text(program.read_text(encoding="utf-8").replace(" 200", " crash"), encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"Release 2 failed[\s\S]*Release 3 still serves"):
        go_back(host)
    host.is_served_by(3)
    assert host.layout.record(2)["outcome"] == "live", "it was good once"
    assert host.history()[-1]["outcome"] == "failed"


def test_what_was_healthy_then_is_asked_for(host: Host) -> None:
    host.run("204", health={**IMPATIENT, "status": 204, "timeout": 60})
    host.run(settings="{}")
    assert go_back(host) == 1
    assert host.who_answers() == "204"


@pytest.mark.parametrize("then", [{"path": "/ready"}, {"path": "/ready", "body": "^ready$"}])
def test_it_is_asked_where_and_for_what_it_was_then(host: Host, then: dict[str, str]) -> None:
    host.run(health={**IMPATIENT, **then, "timeout": 60})
    host.run(settings="{}")
    # Today's path and body are such as it does not have.
    today = {"path": "/nowhere", "body": "nothing"}
    asked = len(host.door.requests)
    assert go_back(host, health={**IMPATIENT, **today, "timeout": 60}) == 1
    paths = {request.split(" ")[1] for request in host.door.requests[asked:]}
    assert {path for path in paths if not path.startswith(app_door.QUESTIONS_PATH)} == {"/ready"}
    host.is_served_by(1)


@pytest.mark.parametrize(
    ("then", "since", "refused"), [("a1", "b2", True), ("", "b2", True), ("a1", "a1", False), ("", "", False)]
)
def test_across_a_migration_there_is_no_way_back_unless_told(host: Host, then: str, since: str, refused: bool) -> None:
    host.run()
    host.run(settings="{}")
    remember(host.context(), 1, migration=then)
    remember(host.context(), 2, migration=since)
    if refused:
        with pytest.raises(ReleaseError) as error:
            go_back(host)
        assert f"migrations end at {then or 'none'}, and the database was migrated to {since} since" in str(error.value)
        assert f"releases/2/launch.py --shell 'python3 -m alembic downgrade {then or 'base'}'" in str(error.value)
        host.is_served_by(2)
    assert go_back(host, across=refused) == 1


def test_a_migration_counts_even_if_its_release_failed(host: Host) -> None:
    host.run()
    host.run(settings="{}")
    for number in (1, 2):
        remember(host.context(), number, migration="a1")
    with pytest.raises(ReleaseError):
        host.run("crash")
    remember(host.context(), 3, migration="b2", migrated=True)
    with pytest.raises(ReleaseError, match="migrated to b2 since"):
        go_back(host)


def test_a_way_back_that_is_interrupted_is_made_good_by_running_it_again(host: Host) -> None:
    three(host)
    problems: list[str] = []
    for step in range(0, 60, 2):
        killed = False
        to = "2" if host.layout.live() == 3 else "3"
        try:
            with KILLER.killing(step):
                go_back(host, to)
        except Killed:
            killed = True
        if host.who_answers() != str(host.layout.live()):
            problems.append(f"step {step}: {host.who_answers()} answers, {host.layout.live()} is live")
        go_back(host, to)
        try:
            host.is_served_by(int(to))
        except AssertionError as error:
            problems.append(f"step {step}, before {KILLER.what}: {error}")
            tidy(host.context())
        if not killed:
            break
    assert 20 < step < 58
    assert not problems, "\n".join(problems)


def test_a_way_back_without_a_number_ends_where_it_led_before_it_was_interrupted(host: Host) -> None:
    three(host)
    problems: list[str] = []
    for step in range(70):
        try:
            with KILLER.killing(step):
                go_back(host)
            break
        except Killed:
            where = f"step {step}, before {KILLER.what}"
        if (number := go_back(host)) != 2:
            problems.append(f"{where}: the next run goes to {number}")
        if host.layout.record(3).get("outcome") != "rolled back":
            problems.append(f"{where}: release 3 counts as {host.layout.record(3).get('outcome')}")
        assert go_back(host, "3") == 3
        host.is_served_by(3)
    assert 20 < step < 69
    assert not problems, "\n".join(problems)


def test_a_way_back_that_failed_is_no_interrupted_one(host: Host) -> None:
    three(host)
    host.door.answer = b"hello\n"
    host.clock.haste = 5
    with pytest.raises(ReleaseError, match="public endpoint"):
        go_back(host)
    host.door.answer = None
    host.is_served_by(3)
    assert go_back(host, "1") == 1
    assert go_back(host, "2") == 2
    # And forward to where it had failed: the way back from there is one of its own.
    assert go_back(host) == 1


def test_a_way_back_to_todays_settings_that_is_interrupted_is_made_good(host: Host) -> None:
    three(host)
    slow = host.arguments("slow")["program"]  # so that it is waited for

    def die() -> None:
        if host.supervisor.running() == [3, 4]:
            raise Killed

    host.clock.watch = die
    with pytest.raises(Killed):
        go_back(host, "2", settings="current", program=slow)
    host.clock.watch = lambda: None
    assert host.who_answers() == "3"
    # It is taken up where it was prepared.
    assert go_back(host, "2", settings="current", program=slow) == 4
    host.is_served_by(4)
    assert host.layout.record(4)["build"] == "b2"


# Migrations, hooks, and what is asked before the switch


RUNS = """#!/bin/sh
case $2 in
--shell) exec /bin/sh -c "$3" ;;
esac
"""


@pytest.fixture
def shell(host: Host) -> Host:
    """A host whose launch.py would run what it is told to."""
    python = host.layout.venvs / "v1" / "bin" / "python"
    python.write_text(RUNS, encoding="utf-8")
    return host


def test_a_migration_is_run_once_and_what_was_prepared_is_released(shell: Host) -> None:
    note = shell.preflights
    context = shell.context(migrate={"command": f"id -un >>{note}; echo done", "timeout": 9})
    number = prepare(context)
    assert context.layout.record(number)["outcome"] == "prepared"
    assert migrate(context, number) == "done\n"
    # The next step is another process.
    assert shell.run() == number == 1
    assert note.read_text(encoding="utf-8") == f"{shell.user}\n"
    assert shell.layout.record(1)["migrated"] is True
    shell.is_served_by(1)


def test_what_was_prepared_is_not_imported_again(host: Host) -> None:
    number = prepare(host.context())
    assert len(host.preflights.read_text(encoding="utf-8").splitlines()) == 1
    assert host.run() == number == 1
    assert len(host.preflights.read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("change", ["settings", "revision"])
def test_what_was_prepared_of_something_else_is_not_released(host: Host, change: str) -> None:
    prepare(host.context())
    assert host.run(**{change: "{}"}) == 2
    host.is_served_by(2)
    assert len(host.preflights.read_text(encoding="utf-8").splitlines()) == 2


def test_what_was_prepared_before_another_release_is_not_taken_up(host: Host) -> None:
    host.run()
    assert prepare(host.context(settings='{"A": "1"}')) == 2
    assert host.run(settings='{"A": "2"}') == 3
    assert host.run(settings='{"A": "1"}') == 4
    # Or the way back would not lead to what was live before.
    assert go_back(host) == 3


HEADS = """#!/bin/sh
if [ "$*" != "-m alembic heads" ]; then exit 9; fi
echo "INFO  [alembic.env] looking"
echo "27c6a30d7c24 (shop) (effective head) (head)"
echo "ae1027a6acf (head)"
echo "4fe1 (old) and no head"
exit {code}
"""


@pytest.mark.parametrize(
    ("file", "text", "code", "schema", "warned"),
    [
        ("alembic.ini", "[alembic]\n", 0, "27c6a30d7c24, ae1027a6acf", False),
        ("pyproject.toml", "[tool.alembic]\nscript_location = 'x'\n", 0, "27c6a30d7c24, ae1027a6acf", False),
        ("pyproject.toml", "[project]\n", 0, "", False),
        ("alembic.ini", "[alembic]\n", 1, "", True),
    ],
)
def test_the_schema_that_the_code_expects_is_remembered(
    shell: Host, module: Any, warnings: list[str], file: str, text: str, code: int, schema: str, warned: bool
) -> None:
    (shell.layout.builds / "b1" / "app" / file).write_text(text, encoding="utf-8")
    python = shell.server.with_name("python3")
    python.write_text(HEADS.format(code=code), encoding="utf-8")
    python.chmod(0o755)
    result = module(step="activate", **shell.arguments())
    assert result["record"]["migration"] == shell.layout.record(1)["migration"] == schema
    assert ("`alembic heads` failed" in str(warnings)) is warned


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo no such table; exit 3", ["failed with exit code 3", "no such table"]),
        ("echo begun; sleep 60 & sleep 60", ["took longer than 0.3 s (app_migrate_timeout)", "begun"]),
    ],
)
def test_a_migration_that_fails_changes_nothing(shell: Host, command: str, words: list[str]) -> None:
    shell.run()
    context = shell.context(settings="{}", migrate={"command": command, "timeout": 0.3 if "sleep" in command else 9})
    with pytest.raises(ReleaseError, match="Release 1 still serves") as error:
        migrate(context, prepare(context))
    for word in ["the migration (app_migrate_command)", *words]:
        assert word in str(error.value)
    shell.is_served_by(1)
    assert shell.layout.record(2)["outcome"] == "failed"
    # It is not taken up again.
    assert prepared(shell.context(settings="{}")) is None


def test_hooks_are_told_where_from_and_where_to(shell: Host) -> None:
    note = shell.preflights
    tell = f'echo "$SLIPWAY_HOOK $SLIPWAY_FROM $SLIPWAY_TO" >>{note}'
    hooks = dict.fromkeys(["before_switch", "after_switch", "before_rollback", "after_rollback"], tell)
    shell.run(hooks=hooks)
    shell.run(settings="{}", hooks=hooks)
    go_back(shell, hooks=hooks)
    assert note.read_text(encoding="utf-8").splitlines() == [
        "before_switch  1",
        "after_switch  1",
        "before_switch 1 2",
        "after_switch 1 2",
        "before_rollback 2 1",
        "after_rollback 2 1",
    ]


def test_a_hook_that_hangs_is_stopped(shell: Host) -> None:
    shell.run()
    words = r"the hook before_switch \(app_hooks\) took longer than 0\.3 s \(app_hook_timeout\)[\s\S]*begun"
    with pytest.raises(ReleaseError, match=words):
        shell.run(settings="{}", hooks={"before_switch": "echo begun; sleep 60 & sleep 60"}, hook_timeout=0.3)
    shell.is_served_by(1)


def test_hooks_that_fail(shell: Host) -> None:
    shell.run()
    with pytest.raises(ReleaseError, match=r"the hook before_switch \(app_hooks\) failed[\s\S]*Release 1 still serves"):
        shell.run(settings="{}", hooks={"before_switch": "false"})
    shell.is_served_by(1)
    with pytest.raises(ReleaseError, match=r"Release 3 is live, but the hook after_switch \(app_hooks\) failed"):
        shell.run(settings="{}", hooks={"after_switch": "false"})
    shell.is_served_by(3)
    assert app_status.hook_to_do(shell.layout.record(3)) == ", hook after_switch pending"
    with pytest.raises(ReleaseError, match=r"Nothing was rolled back: the hook before_rollback"):
        go_back(shell, hooks={"before_rollback": "false"})
    shell.is_served_by(3)


@pytest.mark.parametrize("step", ["activate", "plan"])
def test_a_hook_that_failed_is_run_again_by_the_next_run(shell: Host, module: Any, step: str) -> None:
    shell.run()
    recording_failure = shell.arguments(settings="{}", hooks={"after_switch": "false"})
    assert "Release 2 is live, but the hook after_switch" in module(step="activate", **recording_failure)["msg"]
    assert "is live, but the hook after_switch" in module(step=step, **recording_failure)["msg"]
    tell = {"after_switch": f'echo "$SLIPWAY_HOOK $SLIPWAY_FROM $SLIPWAY_TO" >>{shell.preflights}'}
    for changed, hook in ((True, "after_switch"), (False, "")):
        result = module(step=step, **shell.arguments(settings="{}", hooks=tell))
        assert (result["changed"], result["hook"], result["release"]) == (changed, hook, 2)
    assert shell.preflights.read_text(encoding="utf-8") == "after_switch 1 2\n"
    shell.is_served_by(2)


def test_a_hook_that_failed_after_a_way_back_is_run_again_by_another_one(shell: Host, module: Any) -> None:
    """A deploy would release again what was rolled back."""
    shell.run()
    shell.run(settings="{}")
    hooks = {"after_rollback": f"test -e {shell.preflights}.mended"}
    with pytest.raises(ReleaseError, match=r"then run it again: playbooks/rollback\.yml -e release=1\n") as told:
        go_back(shell, hooks=hooks)
    assert "deploy.yml" not in str(told.value)
    with pytest.raises(ReleaseError, match="If shop has several hosts, nothing runs the hook again: run it manually"):
        go_back(shell, to="2", hooks=hooks, number=2)
    Path(f"{shell.preflights}.mended").touch()
    result = module(step="rollback", **shell.arguments(to="2", hooks=hooks))
    assert (result["release"], result["changed"], result["hook"]) == (2, True, "after_rollback")


@pytest.mark.parametrize(("step", "error"), [("watch", Killed()), ("stop", ReleaseError("Supervisor is gone"))])
def test_a_hook_that_a_run_did_not_come_to_is_run_by_the_next(
    shell: Host, module: Any, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    shell.run()
    tell = {"after_switch": f'echo "$SLIPWAY_HOOK $SLIPWAY_FROM $SLIPWAY_TO" >>{shell.preflights}'}
    context = shell.context(settings="{}", hooks=tell)

    def stop(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(release_activate, step, stop)
        release(context)
    assert (shell.layout.live(), shell.preflights.read_text(encoding="utf-8")) == (2, "")
    assert module(step="activate", **shell.arguments(settings="{}", hooks=tell))["hook"] == "after_switch"
    assert shell.preflights.read_text(encoding="utf-8") == "after_switch 1 2\n"
    assert "owed" not in shell.layout.record(2)


def test_a_release_that_is_gone_back_from_owes_no_hook(shell: Host) -> None:
    shell.run()
    shell.door.answer = b"HTTP/1.1 200 OK\r\nX-Release: 1\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ReleaseError, match="the public endpoint"):
        shell.run(settings="{}", hooks={"after_switch": "true"})
    assert "owed" not in shell.layout.record(2)


def test_a_database_that_is_ahead_of_the_code_is_said(shell: Host) -> None:
    shell.run()
    remember(shell.context(), 1, migration="a1", version="v1", revision="v1")
    shell.run(settings="{}")
    remember(shell.context(), 2, migration="b2", migrated=True, version="v2", revision="c0ffee0" + "0" * 33)
    unknown = """echo "alembic.util.exc.CommandError: Can't locate revision identified by 'b2'"; exit 1"""
    context = shell.context(settings='{"A": "1"}', migrate={"command": unknown, "timeout": 9})
    number = prepare(context)
    remember(context, number, migration="a1")
    with pytest.raises(ReleaseError) as error:
        migrate(context, number)
    said = str(error.value)
    words = "This version is older than the database, which was migrated to b2 by release 2 (v2 (c0ffee0))."
    assert said.startswith(f"Release 3 failed: {words}")
    release = shell.layout.release(2)
    python = f"runuser -u {shell.user} -- {release}/build/.venv/bin/python {release}/launch.py"
    assert f"cd {release}/build/app && {python} --shell 'python3 -m alembic downgrade a1'" in said
    assert "Release 2 still serves" in said


def test_what_was_written_where_the_code_lies_is_said(host: Host) -> None:
    shared = host.layout.home / "shared"
    advice = f"The code directory is read-only: the app must write to {shared}"
    for said in (
        "sqlite3.OperationalError: unable to open database file",
        "OSError: [Errno 30] Read-only file system: '/srv/x'",
        "PermissionError: [Errno 13] Permission denied: 'data.json'",
        f"PermissionError: [Errno 13] Permission denied: '{host.layout.home}/builds/b1/data.json'",
    ):
        assert advised(host.context(), said, 1).startswith(advice)
        assert "app_shared" in advised(host.context(), said, 1)
    for said in ("everything is healthy", "Permission denied: '/etc/shadow'", f"Permission denied: '{shared}/x'"):
        assert advised(host.context(), said, 1) == said


@pytest.mark.parametrize(
    ("said", "library", "debian", "rpm"),
    [
        (
            "ImportError: libmagic.so.1: cannot open shared object file: No such file",
            "libmagic.so.1",
            "probably libmagic1",
            "libmagic.so.1*",
        ),
        ("OSError: libGL.so.1: cannot open shared object file", "libGL.so.1", "probably libgl1", "libGL.so.1*"),
        ("ImportError: libpq.so.5.15: cannot open shared object file", "libpq.so.5.15", "probably libpq5", "libpq.so.5.15*"),
        ("OSError: cannot load library 'libgobject-2.0-0': x", "libgobject-2.0-0", "probably libglib2.0-0", "libgobject-2.0-0*"),
        (
            "ImportError: failed to find libmagic.  Check your installation",
            "libmagic",
            "its name begins with libmagic",
            "libmagic*",
        ),
        (
            "OSError: libvips42.so.42: cannot open shared object file",
            "libvips42.so.42",
            "probably libvips42-42",
            "libvips42.so.42*",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_variable_and_the_package(
    host: Host,
    program: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    library: str,
    debian: str,
    rpm: str,
) -> None:
    monkeypatch.setenv("PATH", str(program("sh", "#!/bin/sh\n").parent))
    advice = f"The app needs the system library {library}, which this host lacks: add its package to app_packages "
    assert advised(host.context(), said, 1) == f"{advice}(dnf provides '{rpm}' finds it).\n{said}"
    program("dpkg", "#!/bin/sh\n")
    assert advised(host.context(), said, 1) == f"{advice}({debian}).\n{said}"


def test_a_front_end_that_is_not_built_is_built_before_the_release_or_by_a_hook(host: Host) -> None:
    said = "RuntimeError: Frontend directory '/opt/shop/builds/1/app/frontend' does not exist."
    assert "by the hook after_fetch (app_hooks)" in advised(host.context(), "a traceback", 1, said).splitlines()[0]
    assert advised(host.context(), "a traceback", 1, "RuntimeError: Frontend") == "a traceback"


def test_an_app_that_does_not_take_production_is_told_which_variable_changes_it(host: Host) -> None:
    for newline in ("\n", "\\n"):
        said = f"1 validation error for Settings{newline}FASTAPI_ENV{newline}  Input should be 'development'"
        assert 'app_env: {FASTAPI_ENV: ""}' in advised(host.context(), said, 1).splitlines()[0]
    said = "1 validation error for Settings\nFASTAPI_MODE\n  Input should be 'development'"
    assert advised(host.context(), said, 1) == said


def test_a_release_that_hangs_at_its_root_does_not_become_live(host: Host) -> None:
    host.run()
    words = r"it hangs: GET / had no answer after 0\.5 s \(app_watch_hang_seconds\), twice, and release 1"
    with pytest.raises(ReleaseError, match=words):
        host.run("hangs", hang=0.5)
    host.is_served_by(1)
    assert host.run("hangs") == 3, "it is looked at only if it is asked for"
    # One that did so before is let alone.
    assert host.run("hangs", settings="{}", hang=0.5) == 4
    # And so is a way back, forward too.
    host.run(settings='{"A": "b"}')
    assert go_back(host, to="4", hang=0.5) == 4
    assert go_back(host, to="1", hang=0.5) == 1
    assert go_back(host, to="4", hang=0.5) == 4


def test_a_release_that_warms_up_at_its_root_becomes_live(host: Host) -> None:
    host.run()
    assert host.run("cold", hang=0.5) == 2


@pytest.mark.parametrize("mode", ["rootless", "rootbroken"])
def test_where_nothing_good_is_at_the_root_a_release_is_not_judged_by_it(host: Host, mode: str) -> None:
    host.run(mode)
    assert host.run("hangs", hang=0.5) == 2


def test_requests_that_hang_after_the_switch_lead_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    log(host, 1, *[200] * 50)
    switched: list[float] = []

    def waits(runtime: Path, number: int, since: float) -> list[tuple[float, int]]:
        switched[:] = [since]
        return [(host.clock.monotonic() - since, 7)] * 3

    monkeypatch.setattr(release_watch, "waiting", waits)
    with pytest.raises(ReleaseError, match=r"it hangs: 3 requests have waited 10 s or more .*\(app_watch_hang_seconds\)"):
        host.run(settings="{}", watch=4.0, hang=10.0)
    assert host.clock.monotonic() - switched[0] < 15 + DRAIN
    host.is_served_by(1)
    assert host.run(settings="{}", watch=0.0, hang=10.0) == 3


def test_requests_that_are_slow_and_answered_are_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.run()
    log(host, 1, *[200] * 50)
    seen: list[float] = []

    def waits(runtime: Path, number: int, since: float) -> list[tuple[float, int]]:
        seen.append(host.clock.monotonic() - since)
        return [(seen[-1], 7)] * 3 if seen[-1] < 8 else []

    monkeypatch.setattr(release_watch, "waiting", waits)
    assert host.run(settings="{}", watch=4.0, hang=10.0) == 2
    assert 8 <= seen[-1] < 12


@pytest.mark.parametrize("secret", ["a secret", "line one\nline two", 'with "quotes" and \\', "ünïcödé"])
def test_a_secret_in_what_a_command_prints_is_masked(shell: Host, module: Any, secret: str) -> None:
    settings = json.dumps({"KEY": secret})
    (shell.layout.home / "said").write_text(f"{secret}\n{secret!r}\n{json.dumps(secret)}", encoding="utf-8")
    shell.layout.home.chmod(0o755)
    migrate = {"command": f"cat {shell.layout.home}/said; exit 1", "timeout": 9}
    result = module(step="migrate", **shell.arguments(settings=settings, migrate=migrate))
    assert "failed with exit code 1" in result["msg"]
    assert "********" in result["msg"]
    for line in secret.splitlines():
        assert line not in json.dumps(result, ensure_ascii=False)
        assert line not in shell.layout.history.read_text(encoding="utf-8")
        assert line not in (shell.layout.release(1) / "release.json").read_text(encoding="utf-8")


def test_a_secret_in_the_reason_that_is_remembered_is_masked(host: Host, module: Any) -> None:
    module(step="activate", **host.arguments())
    health = {**IMPATIENT, "path": "/hunter2", "timeout": 60, "attempts": 3}
    result = module(step="activate", **host.arguments(settings='{"KEY": "hunter2"}', health=health))
    assert "GET /******** answers 404" in result["msg"]
    assert "hunter2" not in json.dumps(result)
    assert "hunter2" not in host.layout.history.read_text(encoding="utf-8")
    record = host.layout.record(2)
    assert (record["outcome"], "/********" in record["reason"], "hunter2" in record["reason"]) == ("failed", True, False)


def test_a_secret_in_a_warning_is_masked(host: Host, module: Any, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_door.PublicEndpoint, "findings", lambda door, token: ["A redirect leads to https://hunter2/"])
    result = module(step="activate", **host.arguments(settings='{"KEY": "hunter2"}'))
    assert warnings == ["A redirect leads to https://********/"]
    assert "hunter2" not in json.dumps(result)


def test_a_secret_that_was_changed_since_is_masked_on_the_way_back(shell: Host, module: Any) -> None:
    for secret in ("old password", "new password"):
        shell.run(settings=json.dumps({"KEY": secret}))
    hooks = {"after_rollback": "cat said; false"}
    said = shell.layout.builds / "b1" / "app" / "said"
    said.write_text("old password, new password, this password", encoding="utf-8")
    result = module(step="rollback", **shell.arguments(settings='{"KEY": "this password"}', hooks=hooks))
    assert "Release 1 is live, but the hook after_rollback" in result["msg"]
    assert result["msg"].splitlines()[-1] == "********, ********, ********"


def test_attempts_are_counted(host: Host) -> None:
    host.run()
    with pytest.raises(
        ReleaseError, match=r"health check failed after 3 attempts \(app_health_attempts\): GET /healthz answers 500"
    ):
        host.run("500", health={**IMPATIENT, "timeout": 600, "attempts": 3})
    host.is_served_by(1)


def test_a_body_is_asked_for(host: Host) -> None:
    assert host.run(health={**IMPATIENT, "body": "^o.$"}) == 1
    with pytest.raises(ReleaseError, match=r"its body does not match app_health_body \(ready\)"):
        host.run(settings="{}", health={**IMPATIENT, "body": "ready"})


def test_headers_are_sent_with_the_health_check_and_again_when_the_release_comes_back(host: Host) -> None:
    with pytest.raises(ReleaseError, match="GET /healthz answers 403, not 200"):
        host.run("reserved", health=IMPATIENT)
    assert host.run("reserved", settings="{}", health={**IMPATIENT, "headers": {"X-Probe": "yes"}}) == 2
    assert host.run(health=IMPATIENT) == 3
    assert go_back(host, health=IMPATIENT) == 2


def publish(host: Host, **documents: dict[str, Any]) -> None:
    """Give releases an OpenAPI document each."""
    for name, document in documents.items():
        (host.layout.runtime / f"{name[1:]}.openapi.json").write_text(json.dumps(document), encoding="utf-8")


def test_an_interface_that_breaks_clients_is_stopped(host: Host) -> None:
    gate = {"openapi_path": "/openapi.json"}
    whole: dict[str, Any] = {"paths": {"/items": {"get": {}, "post": {}}, "/users": {"get": {}}}}
    publish(host, r1=whole, r2={"paths": {"/items": {"get": {}}}}, r3={"paths": {"/items": {"get": {}}}}, r4=whole)
    host.run(**gate)
    with pytest.raises(ReleaseError, match=r"would break clients of release 1 \(app_openapi_gate\)") as error:
        host.run(settings="{}", **gate)
    for word in ["  - POST /items was removed", "GET /users was removed", "-e app_openapi_gate=false", "Release 1 still serves"]:
        assert word in str(error.value)
    host.is_served_by(1)
    assert host.layout.record(2)["outcome"] == "failed"
    # Without the gate; and then one that has more than the live one.
    assert host.run(settings="{}") == 3
    assert host.run(settings='{"A": "1"}', **gate) == 4
    host.is_served_by(4)


def test_an_interface_that_is_not_there_any_more_is_stopped(host: Host) -> None:
    publish(host, r1={"paths": {}})
    host.run()
    with pytest.raises(
        ReleaseError, match=r"it has no OpenAPI document at /openapi\.json \(app_openapi_path\), and release 1 has"
    ):
        host.run(settings="{}", openapi_path="/openapi.json")
    host.is_served_by(1)


def test_with_nothing_to_compare_an_interface_to_there_is_a_warning(host: Host, module: Any, warnings: list[str]) -> None:
    host.run()
    publish(host, r2={"paths": {}})
    result = module(step="activate", **host.arguments(settings="{}", openapi_path="/openapi.json"))
    assert result["release"] == 2
    assert "Release 1 has no OpenAPI document at /openapi.json" in str(warnings)


def test_a_disk_that_is_nearly_full_is_said_before_anything_is_done(host: Host) -> None:
    host.run()
    with pytest.raises(ReleaseError, match=r"nearly full: \d+ MiB are free, and app_min_free_disk_mb requires"):
        host.run(settings="{}", room=1e9)
    assert host.layout.numbers() == [1]


# Several instances, one behind each socket

SEVERAL = SECTION.replace("{logs}/@RELEASE@.log", "{logs}/@RELEASE@.%(process_num)d.log") + "numprocs={count}\n"


def several(host: Host, count: int, mode: str = "200", **changes: Any) -> dict[str, Any]:
    """Return arguments for a release of `count` instances."""
    paths = {"python": os.path.realpath(sys.executable), "run": host.layout.runtime, "logs": host.layout.logs}
    program = SEVERAL.format(server=host.server, mode=mode, count=count, **paths)
    return {"instances": count, "program": program, **changes}


def further(host: Host) -> list[str]:
    """Return the releases that answer at the links of further instances, in their order."""
    found = []
    for link in sorted(host.layout.current.glob("[0-9].sock")):
        answer = app_door.ask(UnixConnection(link, timeout=5), "/healthz", HOST)
        found.append(f"{answer.release} at {link.resolve().name}")
    return found


def test_instances_are_switched_as_one(host: Host) -> None:
    host.run(**several(host, 3))
    assert further(host) == ["1 at 1.1.sock", "1 at 1.2.sock"]
    assert host.layout.live_socket.resolve().name == "1.sock"
    seen: list[Any] = []
    host.clock.watch = lambda: seen.append((host.layout.live(), *further(host)))
    host.run(**several(host, 3, settings="{}"))
    host.clock.watch = lambda: None
    assert {*seen} == {(1, "1 at 1.1.sock", "1 at 1.2.sock"), (2, "2 at 2.1.sock", "2 at 2.2.sock")}
    host.is_served_by(2)
    assert sorted(path.name for path in host.layout.runtime.iterdir()) == ["2.1.sock", "2.2.sock", "2.sock"]


def test_a_release_with_fewer_instances_answers_at_all_links(host: Host) -> None:
    host.run()
    host.run(**several(host, 3))
    context = host.context(**several(host, 3))
    assert roll_back(context, 1, "original") == 1
    assert further(host) == ["1 at 1.sock", "1 at 1.sock"]
    assert roll_back(context, 2, "original") == 2
    assert further(host) == ["2 at 2.1.sock", "2 at 2.2.sock"]
    host.run()
    host.is_served_by(3)
    assert sorted(path.name for path in host.layout.runtime.iterdir()) == ["3.sock"]


def test_one_lame_instance_is_reason_enough(host: Host) -> None:
    host.run(**several(host, 3))
    with pytest.raises(
        ReleaseError, match=r"stopped right after it was started[\s\S]*No module named 'shop'[\s\S]*Release 1 still serves"
    ):
        host.run(**several(host, 3, mode="lame"))
    host.is_served_by(1)
    assert further(host) == ["1 at 1.1.sock", "1 at 1.2.sock"]
    # One that dies later makes the same release again.
    os.kill(host.supervisor.pids("shop-1")[2], 9)
    host.supervisor.settle()
    assert needed(host.context(**several(host, 3))) == "release 1 is unhealthy on its socket"


def test_an_instance_that_dies_after_the_switch_leads_back(host: Host) -> None:
    host.supervisor.settle()
    host.run(**several(host, 2))
    when_live(host, 2, lambda: os.kill(host.supervisor.pids("shop-2")[1], 9) if 2 in host.supervisor.running() else None)
    with pytest.raises(ReleaseError, match=r"its program ended in the \d+ s since"):
        host.run(**several(host, 2, settings="{}", watch=10.0))
    host.is_served_by(1)
    assert further(host) == ["1 at 1.1.sock"]


# How it is


def told(host: Host, **changes: Any) -> dict[str, Any]:
    """Return what app_status tells."""
    keys = ("layout", "name", "program_directory", "program_suffix", "health", "endpoint")
    return app_status.status({**{key: host.arguments()[key] for key in keys}, **changes})


def test_the_status_of_an_app(host: Host) -> None:
    found = told(host)
    assert (found["release"], found["health"], found["last"]) == (None, "nothing is live", "")
    host.supervisor.settle()
    host.run("workers")
    found = told(host)
    assert (found["release"], found["version"], found["who"]) == (1, "r-b1", "ann@laptop")
    assert (found["health"], found["workers"], found["last"], found["certificate_days"]) == ("ok", 4, "1 live", None)
    assert 0 < found["disk_percent"] <= 100
    with pytest.raises(ReleaseError):
        host.run("500", settings="{}", health={**IMPATIENT, "timeout": 1})
    assert (told(host)["last"], told(host)["health"]) == ("2 failed", "ok")


def test_the_status_of_an_app_that_is_not_well(host: Host) -> None:
    host.run()
    assert told(host, health={**IMPATIENT, "status": 204})["health"] == "200 at 1.sock"
    host.door.answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert told(host)["health"] == "502 at the public endpoint"
    host.door.answer = b"HTTP/1.1 200 OK\r\nX-Release: 9\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert told(host)["health"] == "public endpoint answers from release 9"
    host.supervisor.kill("shop-1")
    assert told(host)["health"].startswith("no answer: ")
