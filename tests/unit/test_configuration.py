"""A set of files: in place as a whole or not at all, and a service that is seen to work with them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import grp
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from slipway.controller.configuration import contents as sourced
from slipway.controller.secrets import split
from slipway.host.configure import change as changes
from slipway.host.configure import lock as locks
from slipway.host.configure import step as configuration
from slipway.host.configure.change import Change, newest, read
from slipway.host.configure.service import Service
from slipway.host.errors import ReleaseError

TITLE = "nginx: worker process"

# Where it is on a host: the tests have their own.
LOCK = locks.LOCK

# A master whose workers have a title of their own, and that replaces them when it is asked to; or ignores it.
MASTER = """
import os, signal, subprocess, sys
title, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def start():
    return [subprocess.Popen([title], executable="/bin/cat", stdin=pipe) for _ in range(count)]

def reload(*_):
    global workers
    if mode == "deaf":
        return
    old, workers = workers, start() if mode != "dies" else []
    if mode != "lingers":
        for worker in old:
            worker.kill()
            worker.wait()

pipe, keep = os.pipe()
workers = start()
signal.signal(signal.SIGHUP, reload)
print("ready", flush=True)
while True:
    signal.pause()
"""

SYSTEMCTL = """#!/bin/sh
echo "$*" >>{state}/calls
case "$*" in
is-active*) test -e {state}/active ;;
is-enabled*) test -e {state}/enabled ;;
enable*)
    if test -e {state}/broken; then
        echo "Job failed."
        exit 1
    fi
    touch {state}/active {state}/enabled
    ;;
show*) cat {state}/master 2>/dev/null || echo 0 ;;
reload*)
    test ! -e {state}/unreloadable || exit 1
    test ! -e {state}/master || kill -HUP "$(cat {state}/master)"
    ;;
status*) echo "Active: failed" ;;
esac
"""


class Systemd:
    """A systemd of one's own."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "systemd"
        self.state.mkdir()
        (self.state / "calls").touch()
        self.masters: list[subprocess.Popen[str]] = []

    def run_service(self, title: str = TITLE, count: int = 2, mode: str = "good") -> subprocess.Popen[str]:
        """Start a service that runs, now and at boot."""
        command = [sys.executable, "-IS", "-c", MASTER, title, str(count), mode]
        master = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert master.stdout is not None
        assert master.stdout.readline() == "ready\n"
        self.masters.append(master)
        for name, text in {"master": f"{master.pid}\n", "active": "", "enabled": ""}.items():
            (self.state / name).write_text(text, encoding="utf-8")
        return master

    def calls(self) -> list[str]:
        """Return what it was asked to do, without mere questions."""
        questions = ("is-active", "is-enabled", "show", "status")
        calls = (self.state / "calls").read_text(encoding="utf-8").splitlines()
        return [call for call in calls if not call.startswith(questions)]

    def close(self) -> None:
        for master in self.masters:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(master.pid, signal.SIGKILL)
            master.communicate()


@pytest.fixture
def systemd(tmp_path: Path, program: Callable[[str, str], Path]) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    program("systemctl", SYSTEMCTL.format(state=systemd.state))
    program("journalctl", "#!/bin/sh\necho 'nginx[1]: bind() to 0.0.0.0:80 failed'\n")
    yield systemd
    systemd.close()


@pytest.fixture
def module(
    tmp_path: Path, run_step: Callable[..., dict[str, Any]], systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(locks, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(configuration, "PENDING", tmp_path / "pending")
    monkeypatch.setattr(configuration, "UNIT_DIRECTORY", f"{tmp_path}/units/")
    monkeypatch.setattr(Service.reload, "__defaults__", (0.5,))
    return functools.partial(run_step, "configuration")


def files(**texts: str) -> list[dict[str, str]]:
    """Return the option `files`: names below the current directory, and their contents."""
    return [{"path": str(Path.cwd() / name), "content": text} for name, text in texts.items()]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "etc"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def contents(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text(encoding="utf-8") for path in sorted(place.rglob("*")) if path.is_file()}


# Files


def test_files_are_brought_in_once(place: Path, module: Any) -> None:
    (place / "two").write_text("old", encoding="utf-8")
    wanted = {"one": "1\n", "two": "2\r\nü"}
    result = module(files=files(**wanted))
    assert result["changed"]
    assert contents(place)["one"] == "1\n"
    assert (place / "two").read_bytes() == "2\r\nü".encode()
    assert [(diff["before"], diff["after"]) for diff in result["diff"]] == [("", "1\n"), ("old", "2\r\nü")]
    again = module(files=files(**wanted))
    assert (again["changed"], again["diff"]) == (False, [])


def test_files_and_their_directories_can_be_read_whatever_the_umask(place: Path, module: Any) -> None:
    os.umask(0o077)
    wanted = [
        {"path": str(place / "new/deep/file"), "content": "x"},
        {"path": str(place / "new/script"), "content": "#!/bin/sh\n"},
    ]
    module(files=wanted, directories=[str(place / "web/root")])
    assert (place / "new/deep/file").stat().st_mode & 0o777 == 0o644
    assert (place / "new/script").stat().st_mode & 0o777 == 0o755, "a script cannot be run"
    for name in ("new", "new/deep", "web", "web/root"):
        assert (place / name).stat().st_mode & 0o777 == 0o755, name


def test_what_must_not_be_there_is_taken_away(place: Path, module: Any) -> None:
    (place / "old").touch()
    (place / "dangling").symlink_to("/nowhere")
    absent = [str(place / name) for name in ("old", "dangling", "never")]
    assert module(files=[], absent=absent)["changed"]
    assert list(place.iterdir()) == []
    assert not module(files=[], absent=absent)["changed"]


def test_directories_are_made(place: Path, module: Any) -> None:
    assert module(files=[], directories=[str(place / "a/b")])["changed"]
    assert (place / "a/b").is_dir()
    assert not module(files=[], directories=[str(place / "a/b")])["changed"]


def test_a_dry_run_shows_the_change_and_makes_none(place: Path, module: Any, systemd: Systemd) -> None:
    (place / "old").write_text("old", encoding="utf-8")
    arguments = {"files": files(new="new"), "absent": [str(place / "old")], "directories": [str(place / "folder")]}
    result = module(check=True, test=["false"], apply=["false"], service="nginx", **arguments)
    assert result["changed"]
    assert [(diff["before"], diff["after"]) for diff in result["diff"]] == [("", "new"), ("old", "")]
    assert contents(place) == {"old": "old"}
    assert not (place / "folder").exists()
    assert systemd.calls() == []


def test_what_fails_its_test_is_put_back(place: Path, module: Any) -> None:
    for name in ("changed", "removed"):
        (place / name).write_text("old", encoding="utf-8")
    (place / "target").write_text("old", encoding="utf-8")
    (place / "linked").symlink_to("target")
    (place / "dangling").symlink_to("/nowhere")
    before = contents(place)
    test = ["sh", "-c", f"echo 'line 3 of new is wrong'; grep -q old {place}/changed"]
    absent = [str(place / name) for name in ("removed", "dangling")]
    result = module(files=files(changed="new", new="new", linked="new"), absent=absent, test=test, apply=["false"])
    assert result["failed"]
    for words in ("line 3 of new is wrong", "previous files were restored"):
        assert words in result["msg"]
    assert contents(place) == before
    assert os.readlink(place / "linked") == "target"
    assert os.readlink(place / "dangling") == "/nowhere"


def test_what_was_wrong_before_is_said_to_be(place: Path, module: Any) -> None:
    result = module(files=files(new="new"), test=["sh", "-c", "echo neighbour.conf is wrong; exit 1"])
    assert "already invalid before this change" in result["msg"]
    assert contents(place) == {}


def test_a_command_is_run_when_files_changed_and_only_then(place: Path, module: Any, tmp_path: Path) -> None:
    apply = ["sh", "-c", f"cat {place}/file >>{tmp_path}/applied"]
    module(files=files(file="1"), apply=apply)
    module(files=files(file="1"), apply=apply)
    module(files=files(file="2"), apply=apply)
    assert (tmp_path / "applied").read_text(encoding="utf-8") == "12"


def test_a_command_that_fails_is_tried_again(place: Path, module: Any, tmp_path: Path) -> None:
    assert module(files=files(file="1"), apply=["false"])["failed"]
    assert contents(place) == {}
    module(files=files(file="1"), apply=["touch", str(tmp_path / "applied")])
    assert (tmp_path / "applied").exists()


def test_a_command_that_was_not_reached_is_run_by_the_next_run(
    place: Path, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*command: Any) -> None:
        raise KeyboardInterrupt

    apply = ["touch", str(tmp_path / "applied")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(configuration, "run", killed)
        module(files=files(file="1"), apply=apply)
    module(files=files(file="1"), apply=apply)
    assert (tmp_path / "applied").exists()


@pytest.mark.parametrize("option", ["test", "apply"])
def test_a_command_that_is_not_there_puts_the_files_back(place: Path, module: Any, option: str) -> None:
    result = module(files=files(file="1"), **{option: ["/no/such/program"]})
    assert result["failed"]
    assert "/no/such/program" in result["msg"]
    assert contents(place) == {}


def test_a_command_that_hangs_puts_the_files_back(place: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "SECONDS", 0.2)
    result = module(files=files(file="1"), apply=["sleep", "60"])
    assert result["failed"]
    assert "sleep 60" in result["msg"]
    assert contents(place) == {}


def test_a_file_that_cannot_be_written_puts_the_others_back(place: Path, module: Any) -> None:
    (place / "first").write_text("old", encoding="utf-8")
    (place / "wall").symlink_to("/nowhere")
    result = module(files=[*files(first="new"), {"path": str(place / "wall/inside"), "content": "x"}])
    assert result["failed"]
    assert "wall" in result["msg"]
    assert contents(place) == {"first": "old"}


def test_nobody_reads_half_of_a_file(place: Path) -> None:
    texts = ["a" * 200_000, "b" * 300_000]
    changes.write(str(place / "file"), texts[0])
    torn: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            text = read(str(place / "file"))
            if text not in texts:
                torn.append(len(text or ""))

    reader = threading.Thread(target=watch)
    reader.start()
    for turn in range(30):
        changes.write(str(place / "file"), texts[turn % 2])
    done.set()
    reader.join()
    assert torn == []
    assert [path.name for path in place.iterdir()] == ["file"]


def test_a_temporary_file_is_no_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nginx reads *.conf, and so do Supervisor and systemd.
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        changes.write(str(place / "site.conf"), "x")
    assert [path.name for path in place.iterdir() if path.suffix in (".conf", ".ini")] == []


def test_a_file_that_is_no_text_is_put_back_as_it_was(place: Path) -> None:
    (place / "file").write_bytes(b"caf\xe9\r\n")
    change = Change({str(place / "file"): "new"}, [], {})
    change.apply()
    assert (place / "file").read_bytes() == b"new"
    change.revert()
    assert (place / "file").read_bytes() == b"caf\xe9\r\n"


@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_what_others_cannot_read_is_not_shown_when_it_goes_nor_readable_when_it_is_put_back(
    place: Path, mode: int, absent: bool
) -> None:
    file = place / "password"
    file.write_text("hunter2-hunter2", encoding="ascii")
    file.chmod(mode)
    change = Change({} if absent else {str(file): "hunter2-hunter2, edited"}, [str(file)] if absent else [], {})
    assert "hunter2" not in str(change.diff())
    assert change.diff()[0]["before"] == "(not shown)\n"
    change.apply()
    change.revert()
    assert (file.read_text(encoding="ascii"), file.stat().st_mode & 0o777) == ("hunter2-hunter2", mode)


@pytest.mark.parametrize(("group", "mode"), [("root", 0o600), ("app", 0o640)])
def test_a_secret_is_readable_by_its_group_or_by_root_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, group: str, mode: int
) -> None:
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=os.getegid()))
    changes.write(str(place / "password"), "hunter2-hunter2", group)
    assert (place / "password").stat().st_mode & 0o777 == mode


def test_a_secret_is_written_for_its_group_alone_and_shown_nowhere(place: Path, module: Any) -> None:
    secret = {str(place / "password"): "hunter2-hunter2"}
    wanted = [{"path": str(place / "password"), "group": grp.getgrgid(os.getegid()).gr_name}, *files(plain="x")]
    result = module(files=wanted, secrets=secret)
    assert contents(place) == {"password": "hunter2-hunter2", "plain": "x"}
    assert (place / "password").stat().st_mode & 0o777 == (0o600 if wanted[0]["group"] == "root" else 0o640)
    assert "hunter2" not in str(result)
    assert [diff["after"] for diff in result["diff"]] == ["(not shown)\n", "x"]
    assert not module(files=wanted, secrets=secret)["changed"]


def test_a_secret_that_is_empty_is_an_empty_file(place: Path, module: Any) -> None:
    wanted = [{"path": str(place / "password"), "group": grp.getgrgid(os.getegid()).gr_name}]
    assert module(files=wanted, secrets={str(place / "password"): None})["changed"]
    assert contents(place) == {"password": ""}
    assert not module(files=wanted, secrets={str(place / "password"): None})["changed"]


def test_a_secret_that_everybody_could_read_is_refused(place: Path, module: Any) -> None:
    result = module(files=files(plain="x"), secrets={str(place / "password"): "hunter2-hunter2"})
    assert result["failed"]
    assert "has no group" in result["msg"]
    assert contents(place) == {}


def test_the_arguments_that_are_secret_are_sent_apart() -> None:
    plain, secret = split({"files": [{"path": "/password", "group": "root"}], "secrets": {"/password": "hunter2-hunter2"}})
    assert "hunter2" not in str(plain)
    assert secret == {"secrets": {"/password": "hunter2-hunter2"}}


@pytest.mark.parametrize("check", [False, True])
def test_a_group_that_is_not_there_is_told(place: Path, module: Any, check: bool) -> None:
    result = module(files=[{"path": str(place / "password"), "content": "x", "group": "no-such-group"}], check=check)
    assert check or "no-such-group" in result["msg"]
    assert contents(place) == {}


def test_a_file_with_an_option_that_is_not_known_is_refused(place: Path, module: Any) -> None:
    result = module(files=[{"path": str(place / "file"), "contents": "x"}])
    assert result["failed"]
    assert "has no argument contents" in result["msg"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def noted_replace(source: str, target: str) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    changes.write(str(place / "new/file"), "x")
    assert [Path(each).name.rpartition(".")[0] or Path(each).name for each in order] == [".file", "rename", "new"]


@contextlib.contextmanager
def locked(path: Path, text: str = "") -> Iterator[None]:
    """Hold a lock while the block runs, with what its holder wrote down."""
    path.touch(mode=0o600)
    with open(path, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(text)
        file.flush()
        yield


def test_two_changes_wait_for_each_other(place: Path, module: Any, tmp_path: Path) -> None:
    held = threading.Event()
    waited: list[float] = []

    def hold() -> None:
        with locked(tmp_path / "lock"):
            held.set()
            time.sleep(0.3)
            waited.append(time.monotonic())

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    module(files=files(file="1"))
    done = time.monotonic()
    other.join()
    assert waited[0] <= done
    assert contents(place) == {"file": "1"}


def test_a_lock_that_is_never_free_is_waited_for_so_long_and_named(
    place: Path, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect.unwrap(locks.lock), "__defaults__", (0.2,))
    with locked(tmp_path / "lock", str(os.getpid())):
        result = module(files=files(file="1"))
    assert result["failed"]
    assert f"locked by process {os.getpid()} (" in result["msg"]
    assert "pytest" in result["msg"]
    assert "Run this again" in result["msg"]
    assert contents(place) == {}
    assert module(files=files(file="1"))["changed"], "a lock that is free again is taken"


def test_a_dry_run_on_a_bare_host_makes_no_directory_for_the_lock(
    place: Path, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK", str(tmp_path / "bare" / "lock"))
    assert module(files=files(file="1"), check=True)["changed"]
    assert not (tmp_path / "bare").exists()
    assert module(files=files(file="1"))["changed"]
    assert (tmp_path / "bare" / "lock").exists()


def test_nobody_else_can_open_the_lock(tmp_path: Path, module: Any) -> None:
    os.umask(0)
    module(files=files(file="1"))
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert os.path.dirname(LOCK) == "/var/lib/slipway", "users may make files in /run/lock"


@pytest.mark.parametrize("how", ["a link", "a file that others may open"])
def test_what_somebody_else_put_in_the_place_of_the_lock_is_refused(place: Path, module: Any, tmp_path: Path, how: str) -> None:
    (tmp_path / "victim").write_text("precious", encoding="utf-8")
    if how == "a link":
        (tmp_path / "lock").symlink_to(tmp_path / "victim")
    else:
        (tmp_path / "lock").touch()
        (tmp_path / "lock").chmod(0o644)
    begin = time.monotonic()
    result = module(files=files(file="1"))
    assert result["failed"]
    assert str(tmp_path / "lock") in result["msg"]
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "precious"
    assert contents(place) == {}
    assert time.monotonic() - begin < 5


# The service


def test_a_service_that_does_not_run_is_started_with_the_new_files(place: Path, module: Any, systemd: Systemd) -> None:
    assert module(files=files(file="1"), service="nginx", workers=TITLE)["changed"]
    assert systemd.calls() == ["enable --now nginx"]
    assert not module(files=files(file="1"), service="nginx")["changed"]


@pytest.mark.parametrize("missing", ["active", "enabled"])
def test_a_service_must_run_now_and_at_boot(module: Any, systemd: Systemd, missing: str) -> None:
    systemd.run_service()
    (systemd.state / missing).unlink()
    assert module(files=[], service="nginx")["changed"]
    assert "enable --now nginx" in systemd.calls()


@pytest.mark.parametrize("missing", ["active", "enabled"])
def test_further_services_must_run_now_and_at_boot(module: Any, systemd: Systemd, missing: str) -> None:
    systemd.run_service()
    assert not module(files=[], more_services=["exporter"])["changed"]
    (systemd.state / missing).unlink()
    assert module(files=[], more_services=["exporter"], check=True)["changed"]
    assert systemd.calls() == []
    assert module(files=[], more_services=["exporter"])["changed"]
    assert systemd.calls() == ["enable --now exporter"]


@pytest.mark.parametrize(("sources", "said"), [({}, "none of"), ({"content": "x", "copy": "y"}, "content and copy of")])
def test_a_file_has_one_source(sources: dict[str, str], said: str) -> None:
    with pytest.raises(AnsibleActionFail, match=f"^/etc/x has {said} content, template, copy, edit: it needs one.$"):
        sourced([{"path": "/etc/x", **sources}], str, str)


def test_the_content_of_a_file_is_rendered_or_read_and_that_of_a_secret_one_is_apart() -> None:
    given: list[dict[str, Any]] = [
        {"path": "/a", "template": "a.j2"},
        {"path": "/b", "copy": "b"},
        {"path": "/c", "template": "c.j2", "group": "app"},
        {"path": "/d", "edit": {"x": "y"}},
    ]
    found, secrets = sourced(given, "rendered {}".format, "read {}".format)
    assert found == [
        {"path": "/a", "content": "rendered a.j2"},
        {"path": "/b", "content": "read b"},
        {"path": "/c", "group": "app"},
        {"path": "/d", "edit": {"x": "y"}},
    ]
    assert secrets == {"/c": "rendered c.j2"}


def test_a_service_that_does_not_start_takes_the_files_back(place: Path, module: Any, systemd: Systemd) -> None:
    (systemd.state / "broken").touch()
    result = module(files=files(file="1"), service="nginx")
    for words in ("nginx does not start", "Job failed.", "Active: failed"):
        assert words in result["msg"]
    assert contents(place) == {}


def test_a_running_service_is_reloaded_and_seen_to_take_it(place: Path, module: Any, systemd: Systemd) -> None:
    master = systemd.run_service()
    service = Service("nginx", TITLE)
    before = service.workers()
    assert len(before) == 2
    assert all(abs(started - time.time()) < 5 for started in before.values())
    module(files=files(file="1"), service="nginx", workers=TITLE)
    after = service.workers()
    assert len(after) == 2
    assert not set(before) & set(after)
    assert systemd.calls() == ["enable --now nginx", "reload nginx"]
    assert master.poll() is None
    assert not module(files=files(file="1"), service="nginx", workers=TITLE)["changed"]


def test_a_service_without_workers_is_not_reloaded(module: Any, systemd: Systemd) -> None:
    systemd.run_service()
    module(files=files(file="1"), service="supervisor")
    assert systemd.calls() == ["enable --now supervisor"]


@pytest.mark.parametrize("mode", ["deaf", "lingers", "dies", "unreloadable"])
def test_a_reload_that_does_not_take_is_not_believed(place: Path, module: Any, systemd: Systemd, mode: str) -> None:
    systemd.run_service(mode=mode)
    if mode == "unreloadable":
        (systemd.state / mode).touch()
    (place / "file").write_text("old", encoding="utf-8")
    result = module(files=files(file="new"), service="nginx", workers=TITLE)
    for words in ("did not take the new configuration", "bind() to 0.0.0.0:80 failed", "previous files were restored"):
        assert words in result["msg"]
    assert contents(place) == {"file": "old"}
    # Once with the new files, and once more with the old ones.
    assert [call for call in systemd.calls() if call.startswith("reload")] == ["reload nginx"] * 2


def test_files_that_fail_their_test_reload_nothing(module: Any, systemd: Systemd, place: Path) -> None:
    systemd.run_service()
    before = Service("nginx", TITLE).workers()
    test = ["sh", "-c", f"test ! -e {place}/file"]
    assert module(files=files(file="1"), test=test, service="nginx", workers=TITLE)["failed"]
    # A reload would close the connections of idle clients.
    assert (set(Service("nginx", TITLE).workers()), systemd.calls()) == (set(before), [])


@pytest.mark.parametrize("option", ["files", "reads"])
def test_workers_that_are_older_than_what_they_read_are_replaced(place: Path, module: Any, systemd: Systemd, option: str) -> None:
    systemd.run_service()
    (place / "site").write_text("1", encoding="utf-8")
    (place / "certificate").write_text("1", encoding="utf-8")
    arguments: dict[str, Any] = {"files": files(site="1"), "reads": [str(place / "certificate")]}
    for name in ("site", "certificate"):
        os.utime(place / name, (1, time.time() - 60))
    assert not module(service="nginx", workers=TITLE, **arguments)["changed"]
    before = Service("nginx", TITLE).workers()
    os.utime(place / {"files": "site", "reads": "certificate"}[option], (1, time.time() + 2))
    assert module(check=True, service="nginx", workers=TITLE, **arguments)["changed"]
    assert module(service="nginx", workers=TITLE, **arguments)["changed"]
    assert not set(Service("nginx", TITLE).workers()) & set(before)


def test_a_link_that_was_changed_counts_as_a_change(place: Path) -> None:
    (place / "old").touch()
    os.utime(place / "old", (1, 1))
    (place / "link").symlink_to("old")
    assert newest([str(place / "old")]) == 1
    assert newest([str(place / "link")]) > time.time() - 60
    assert newest([str(place / "nowhere")]) == 0


def test_only_a_masters_own_workers_are_its_workers(systemd: Systemd) -> None:
    systemd.run_service(title=TITLE + " is shutting down")
    assert Service("nginx", TITLE).workers() == {}
    systemd.run_service(count=3)
    systemd.run_service(count=1)
    assert len(Service("nginx", TITLE).workers()) == 1
    (systemd.state / "master").write_text("0\n", encoding="utf-8")
    assert Service("nginx", TITLE).workers() == {}


def test_systemd_reads_changed_units_before_it_starts_them(module: Any, systemd: Systemd, tmp_path: Path) -> None:
    unit = {"path": f"{tmp_path}/units/nginx.service.d/slipway.conf", "content": "[Service]\n"}
    module(files=[unit], service="nginx")
    assert systemd.calls() == ["daemon-reload", "enable --now nginx"]
    # What only systemd reads makes no worker old.
    systemd.run_service()
    os.utime(unit["path"], (1, time.time() + 60))
    assert not module(files=[unit], service="nginx", workers=TITLE)["changed"]


def test_systemd_reads_units_again_that_were_put_back(module: Any, systemd: Systemd, tmp_path: Path) -> None:
    (systemd.state / "broken").touch()
    module(files=[{"path": f"{tmp_path}/units/x.conf", "content": "[Service]\n"}], service="nginx")
    assert systemd.calls() == ["daemon-reload", "enable --now nginx", "daemon-reload"]


def test_an_error_of_a_service_names_it(systemd: Systemd) -> None:
    systemd.run_service(mode="deaf")
    with pytest.raises(ReleaseError, match="nginx did not take"):
        Service("nginx", TITLE).reload(0.1)


# A file of somebody else's


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("user x;\nworkers auto;\n# workers 9;\n", "user x;\nworkers 1;\n# workers 9;\n"),
        ("workers\t4;", "workers 1;"),
        ("workers 1;\n", "workers 1;\n"),
    ],
)
def test_lines_of_a_file_are_replaced(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "main.conf"
    file.write_text(before, encoding="utf-8")
    assert changes.edited(str(file), {r"workers\s.*": "workers 1;"}) == after


def test_what_a_pattern_has_in_groups_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "main.conf"
    file.write_text("events { workers 4; }\n", encoding="utf-8")
    edit = {r"(.*)workers\s[^;]*;(.*)": r"\1workers 1;\2"}
    assert changes.edited(str(file), edit) == "events { workers 1; }\n"
    file.write_text("none\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"to replace with: workers 1;$"):
        changes.edited(str(file), edit)


def test_a_line_that_is_not_there_is_told_and_a_file_that_is_not_there_is_left(tmp_path: Path) -> None:
    file = tmp_path / "main.conf"
    assert changes.edited(str(file), {"workers .*": "workers 1;"}) is None
    file.write_text("user x;\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"main\.conf has no line matching workers \.\* to replace with: workers 1;"):
        changes.edited(str(file), {"workers .*": "workers 1;"})


def test_an_edit_is_part_of_the_change(module: Callable[..., dict[str, Any]], place: Path) -> None:
    file = place / "main.conf"
    file.write_text("workers auto;\n", encoding="utf-8")
    wanted = {"path": str(file), "edit": {"workers .*": "workers 1;"}}
    failed = module(files=[wanted, *files(other="x")], test=["false"])
    assert failed["failed"]
    assert (file.read_text(encoding="utf-8"), (place / "other").exists()) == ("workers auto;\n", False)
    assert module(files=[wanted], check=True)["changed"]
    assert [module(files=[wanted])["changed"] for _ in range(2)] == [True, False]
    assert file.read_text(encoding="utf-8") == "workers 1;\n"
    file.unlink()
    assert not module(files=[wanted])["changed"]
    file.write_text("none\n", encoding="utf-8")
    assert "has no line" in module(files=[wanted])["msg"]
