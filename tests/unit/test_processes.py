"""What an app runs beside its web server: what may be said of it, what runs it, and what a release does with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rendering
from ansible.template import trust_as_template
from test_app_release import RUNTIME, Host, clock, host  # noqa: F401

from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.procfile import procfile
from slipway.controller.processes import errors, full
from slipway.host import status
from slipway.host.doctor.processes import processes as diagnose
from slipway.host.doctor.subject import Subject
from slipway.host.errors import ReleaseError
from slipway.host.processes import in_words, lacking, overview
from slipway.host.release import activate as activate_module
from slipway.host.release import processes as release_processes
from slipway.host.release.deploy import run_step
from slipway.host.release.plan import needed, place, plan
from slipway.host.release.rollback import roll_back
from slipway.host.supervisor import Program
from slipway.runtime.process import is_single

ROOT = Path(__file__).resolve().parents[2]
USUAL = {"hosts": "all", "instances": 1, "stop_seconds": 30, "memory_mb": 0}

# A process of an app: it notes when it begins and ends, and takes its time to end where it is told to.
PROCESS = """
import os, signal, sys, time
name, release, log, mode = sys.argv[1:]

def note(what):
    with open(log, "a") as file:
        file.write(f"{name} {release} {what}\\n")

def stop(signum, frame):
    if mode == "slow":
        time.sleep(2)
    note("ends")
    os._exit(0)

signal.signal(signal.SIGTERM, stop)
note("begins")
if mode == "crash":
    sys.exit("no broker")
while True:
    time.sleep(0.05)
    if mode == "fragile" and os.path.exists(log + ".break"):
        sys.exit("broker is gone")
"""
SECTION = """[program:shop-@RELEASE@.{name}@COPY@]
command={python} -IS {script} {name} @RELEASE@ {log} {mode}
stdout_logfile={logs}/@RELEASE@.{name}@COPY@.log
"""


class Shop:
    """An app with processes on one host.

    Args:
        host: the host.
    """

    def __init__(self, host: Host) -> None:  # noqa: F811
        self.host = host
        self.script = host.layout.home.parent / "process.py"
        self.script.write_text(PROCESS, encoding="utf-8")
        self.log = host.layout.home.parent / "noted"
        self.log.touch()
        self.log.chmod(0o666)

    def arguments(self, modes: dict[str, str], once: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
        """Return what is set with processes in these modes, of which some run only once."""
        python = os.path.realpath(sys.executable)
        place = {"python": python, "script": self.script, "log": self.log, "logs": self.host.layout.logs}
        definitions = {name: {"command": "x", **USUAL, "hosts": "first" if name in once else "all"} for name in modes}
        return {
            "process_programs": {name: SECTION.format(name=name, mode=mode, **place) for name, mode in modes.items()},
            "runtime": {**RUNTIME, "processes": definitions},
            **changes,
        }

    def release(self, *, once: tuple[str, ...] = (), first: bool = True, settings: str = "{}", **modes: str) -> int | None:
        """Release an app with these processes, and return the number of the new release; None where none was needed."""
        return self.host.run(**self.arguments(modes, once, first_host="yes" if first else "no", settings=settings))

    def noted(self) -> list[str]:
        """Return what the processes noted, in order."""
        return self.log.read_text(encoding="utf-8").splitlines()

    def until(self, *lines: str) -> None:
        """Wait until processes have noted these lines."""
        deadline = time.monotonic() + 20
        while not {*lines} <= {*self.noted()}:
            assert time.monotonic() < deadline, self.noted()
            time.sleep(0.02)


@pytest.fixture
def shop(host: Host, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:  # noqa: F811
    shim = SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
    monkeypatch.setattr(release_processes, "time", shim)
    clock.pace = 0.02
    return Shop(host)


def test_processes_follow_the_release(shop: Shop) -> None:
    assert shop.release(worker="calm") == 1
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    assert shop.release(worker="calm") is None
    assert shop.release(worker="calm", settings='{"A": "1"}') == 2
    assert shop.host.supervisor.beside() == ["shop-2.worker"]
    shop.until("worker 1 ends")
    # The new one begins before the old one is told to end.
    assert shop.noted() == ["worker 1 begins", "worker 2 begins", "worker 1 ends"]
    assert [name for name in shop.host.sections() if "worker" in name] == ["shop-2.worker.conf"]


def test_what_runs_once_ends_before_the_next_begins(shop: Shop) -> None:
    shop.release(once=("beat",), beat="slow")
    shop.until("beat 1 begins")
    assert shop.release(once=("beat",), beat="slow", settings='{"A": "1"}') == 2
    shop.until("beat 2 begins")
    assert shop.noted() == ["beat 1 begins", "beat 1 ends", "beat 2 begins"]


def test_what_runs_once_and_is_at_its_last_task_is_waited_for_by_a_later_release(shop: Shop) -> None:
    shop.release(once=("beat",), beat="slow")
    shop.until("beat 1 begins")
    shop.release(settings='{"A": "1"}')
    assert shop.release(once=("beat",), beat="slow", settings='{"A": "2"}') == 3
    shop.until("beat 3 begins")
    assert shop.noted() == ["beat 1 begins", "beat 1 ends", "beat 3 begins"]


def test_an_old_process_is_not_waited_for_and_keeps_its_release(shop: Shop) -> None:
    shop.release(worker="slow")
    shop.until("worker 1 begins")
    begin = time.monotonic()
    shop.host.run(**shop.arguments({"worker": "slow"}, settings='{"A": "1"}', keep=0))
    shop.host.run(**shop.arguments({"worker": "slow"}, settings='{"A": "2"}', keep=0))
    if time.monotonic() - begin < 1.5:  # it is at its last task still
        assert shop.host.layout.release(1).is_dir()
    shop.until("worker 1 ends", "worker 2 ends")
    deadline = time.monotonic() + 10
    while len(shop.host.supervisor.programs()) > 2 and time.monotonic() < deadline:
        shop.host.run(**shop.arguments({"worker": "slow"}, settings='{"A": "2"}', keep=0))
    assert sorted(shop.host.supervisor.programs()) == ["shop-3", "shop-3.worker"]


@pytest.mark.parametrize("once", [(), ("worker",)], ids=["beside", "once"])
def test_a_process_that_ends_right_away_fails_the_release(shop: Shop, once: tuple[str, ...]) -> None:
    shop.release(once=once, worker="calm")
    shop.until("worker 1 begins")
    with pytest.raises(
        ReleaseError, match=r"(?s)its process worker \(app_processes\) ended right after.*no broker.*Release 1 still"
    ):
        shop.release(once=once, worker="crash")
    assert shop.host.layout.live() == 1
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    assert needed(shop.host.context(**shop.arguments({"worker": "calm"}, once, settings="{}"))) is None


def test_a_process_that_dies_in_the_watch_reverts_the_release(shop: Shop) -> None:
    shop.release(worker="calm", once=("beat",), beat="calm")
    broken = Path(f"{shop.log}.break")
    shop.host.clock.watch = lambda: broken.touch() if shop.host.layout.live() == 2 else None
    shop.host.clock.pace = 0.2
    with pytest.raises(ReleaseError, match=r"its process worker ended in the .* s since the switch \(app_watch_seconds\)"):
        shop.host.run(**shop.arguments({"worker": "fragile", "beat": "calm"}, ("beat",), watch=30.0))
    assert shop.host.supervisor.beside() == ["shop-1.beat", "shop-1.worker"]
    # What runs once was stopped for the new one, and is started again when that has ended.
    assert [line for line in shop.noted() if line.startswith("beat")][:4] == [
        "beat 1 begins",
        "beat 1 ends",
        "beat 2 begins",
        "beat 2 ends",
    ]


def test_a_release_without_processes_ends_those_of_the_one_before_and_a_rollback_brings_them_back(shop: Shop) -> None:
    shop.release(worker="calm")
    assert shop.release() == 2
    assert shop.host.supervisor.beside() == []
    roll_back(shop.host.context(), 1, "original")
    assert shop.host.supervisor.beside() == ["shop-1.worker"]


def test_a_process_that_is_at_its_last_task_is_told_apart_from_its_successor_in_the_same_release(shop: Shop) -> None:
    shop.release(worker="slow")
    shop.until("worker 1 begins")
    shop.release(settings='{"A": "1"}')
    roll_back(shop.host.context(), 1, "original")
    assert shop.host.supervisor.beside() in (["shop-1.worker.c2"], ["shop-1.worker"])  # the latter where it has ended by then
    shop.until("worker 1 ends")
    assert len(shop.host.supervisor.beside()) == 1


def test_what_runs_once_runs_on_the_first_host_alone_and_follows_it(shop: Shop) -> None:
    both: dict[str, Any] = {"once": ("beat",), "beat": "calm", "worker": "calm"}
    shop.release(first=False, **both)
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    modes = {"worker": "calm", "beat": "calm"}
    asked = shop.host.context(**shop.arguments(modes, ("beat",), first_host="yes", settings="{}"))
    assert "beat does not run" in str(needed(asked))
    assert shop.release(**both) == 2
    assert shop.host.supervisor.beside() == ["shop-2.beat", "shop-2.worker"]
    # It has become the first no longer: nothing is released for that, and what does not belong here ends.
    assert shop.release(first=False, **both) is None
    assert shop.host.supervisor.beside() == ["shop-2.worker"]
    shop.until("beat 2 ends")


@pytest.mark.parametrize("stopping", [False, True])
def test_what_runs_once_has_ended_on_the_former_first_host_before_another_starts_its_own(shop: Shop, stopping: bool) -> None:
    shop.release(once=("beat",), beat="slow", worker="slow")
    shop.until("beat 1 begins", "worker 1 begins")
    both: dict[str, Any] = shop.arguments({"beat": "slow", "worker": "slow"}, ("beat",), first=False, settings="{}")
    # A run for all hosts leaves it where it is, until they serve the release.
    found = plan(shop.host.context(**both))
    assert (found["reason"], found["changed"], found["first"], found["runs_once"]) == (None, False, False, True)
    assert shop.host.supervisor.beside() == ["shop-1.beat", "shop-1.worker"]
    if stopping:  # a run that was interrupted told it to end
        shop.host.supervisor._stopProcessGroup("shop-1.beat", wait=False)

    def take(step: str, now: bool) -> tuple[bool, bool | None]:
        """Take a step as a run for all hosts does, whose plan says where it runs until then."""
        context = shop.host.context(**both, step=step, first_host="yes" if now else "no")
        result = run_step(context, step)
        return result["changed"], result["runs_once"]

    assert take("hand_over", True) == (True, False)
    assert "beat 1 ends" in shop.noted()
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    assert take("hand_over", True) == (False, False)
    # Where it could not start on the next one, it is started here again, and no second time.
    assert take("take_over", False) == (True, True)
    assert take("take_over", False) == (False, True)
    assert shop.host.supervisor.beside() == ["shop-1.beat", "shop-1.worker"]


def test_a_run_for_the_former_first_host_alone_ends_what_runs_once_when_the_release_is_live(shop: Shop) -> None:
    modes = {"beat": "calm", "worker": "calm"}
    shop.release(once=("beat",), beat="calm", worker="calm")
    before: dict[str, Any] = shop.arguments(modes, ("beat",), settings="{}")
    assert not run_step(shop.host.context(**before, first_host="yes"), "activate")["changed"]
    broken = shop.host.context(**{**shop.arguments({**modes, "worker": "crash"}, ("beat",)), "first_host": "leave"})
    with pytest.raises(ReleaseError, match="its process worker"):
        run_step(broken, "activate")
    assert shop.host.supervisor.beside() == ["shop-1.beat", "shop-1.worker"]
    given = shop.host.context(**before, first_host="leave")
    assert run_step(given, "prepare")["changed"] is False
    result = run_step(given, "activate")
    assert (result["changed"], result["runs_once"]) == (True, True)
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    result = run_step(shop.host.context(**before, first_host="leave"), "activate")
    assert (result["changed"], result["runs_once"]) == (False, False)


def test_a_step_that_is_cut_off_after_its_switch_leaves_the_host_where_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[str, Any] = {"once": ("beat",), "first": False, "beat": "calm", "worker": "calm"}
    shop.release(**modes)

    class CutOffError(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    def cut(*arguments: object) -> None:
        raise CutOffError

    monkeypatch.setattr(activate_module, "prove", cut)
    monkeypatch.setattr(activate_module, "switch_back", cut)
    with pytest.raises(CutOffError):
        shop.release(settings='{"A": "1"}', **modes)
    assert shop.host.layout.live() == 2
    assert shop.host.layout.was_first() is False


def test_a_host_whose_scheduler_was_stopped_by_hand_has_none(shop: Shop) -> None:
    shop.release(once=("beat",), beat="calm", worker="calm")
    assert place(shop.host.context()) == {"first": True, "runs_once": True}
    shop.host.supervisor.kill("shop-1.beat")
    assert place(shop.host.context()) == {"first": True, "runs_once": False}
    shop.release(worker="calm")
    assert place(shop.host.context()) == {"first": True, "runs_once": None}


def test_what_does_not_start_on_the_next_host_is_left_on_none_of_it(shop: Shop) -> None:
    both: dict[str, Any] = {"once": ("beat", "clock"), "beat": "calm", "clock": "fragile", "worker": "calm"}
    shop.release(first=False, **both)
    modes = {name: mode for name, mode in both.items() if name != "once"}
    asked = shop.host.context(**shop.arguments(modes, ("beat", "clock"), step="take_over", settings="{}"))
    shop.log.with_suffix(".break").touch()
    with pytest.raises(ReleaseError, match="its process clock"):
        run_step(asked, "take_over")
    assert shop.host.supervisor.beside() == ["shop-1.worker"]
    assert place(asked)["runs_once"] is False


def test_a_process_that_was_lost_is_repaired_by_the_next_run(shop: Shop) -> None:
    shop.release(worker="calm")
    shop.host.supervisor.kill("shop-1.worker")
    assert shop.release(worker="calm") == 2
    assert shop.host.supervisor.beside() == ["shop-2.worker"]


def options(shop: Shop) -> dict[str, Any]:
    """Return what a look at the app goes by."""
    arguments = shop.host.arguments()
    return {name: arguments[name] for name in ("layout", "name", "program_directory", "program_suffix", "health", "endpoint")}


def test_status_and_doctor_name_the_processes(shop: Shop) -> None:
    shop.release(worker="calm", once=("beat",), beat="calm")
    said = status.status(options(shop))
    assert said["processes_summary"] == "beat 1/1, worker 1/1"
    assert {"process": "worker", "release": 1, "instances": 1, "state": "RUNNING", "running": 1} in said["processes"]
    assert list(diagnose(Subject({**options(shop), "user": shop.host.user}))) == []
    shop.host.supervisor.kill("shop-1.worker")
    assert status.status(options(shop))["health"] == "its process worker does not run"
    (finding,) = diagnose(Subject({**options(shop), "user": shop.host.user}))
    assert "worker does not run" in finding.what


def program(process: str = "worker", release: int = 7, **more: Any) -> Program:
    """Return a program as Supervisor knows it, which runs."""
    return Program(
        **{
            "name": f"shop-{release}.{process}",
            "release": release,
            "process": process,
            "pids": [1],
            "starts": [0.0],
            "states": ["RUNNING"],
            **more,
        }
    )


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ([program()], ""),
        ([program(states=["STARTING"])], ""),
        ([program(states=["RUNNING", "FATAL"])], "its process worker is FATAL"),
        ([program(states=["STOPPING"])], "its process worker does not run"),
        ([program(states=["STOPPING"]), program(name="shop-7.worker.c2")], ""),
        ([program(), program(name="shop-7.worker.c2", states=["STOPPED", "STOPPING"])], ""),
        ([program(release=6)], "its process worker does not run"),
        ([], "its process worker does not run"),
    ],
)
def test_what_a_release_lacks(programs: list[Program], words: str) -> None:
    assert lacking(["worker"], programs, 7) == words


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["STOPPED", "STOPPING"], "STOPPING"),
        (["EXITED", "STOPPING"], "STOPPING"),
        (["STOPPED", "STOPPED"], "STOPPED"),
        (["STOPPED", "RUNNING"], "STOPPED"),
        (["STOPPED", "STOPPING", "RUNNING"], "STOPPED"),
        (["BACKOFF", "STOPPING"], "BACKOFF"),
    ],
)
def test_a_program_is_stopping_until_its_last_instance_has_ended(states: list[str], expected: str) -> None:
    assert program(states=states).state == expected


def test_an_overview_has_what_is_at_its_last_task() -> None:
    found = overview(
        {"worker": {**USUAL, "instances": 2}},
        [program(states=["RUNNING", "BACKOFF"]), program(release=6, states=["STOPPING"])],
        7,
    )
    assert in_words(found, 7) == "worker 1/2, worker of release 6 stopping"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"worker": "celery -A shop worker"}, ""),
        ({"worker": {"command": "celery", "hosts": "first"}}, ""),
        ({"worker": {"command": "celery", "instances": "4", "stop_seconds": 600, "memory_mb": 0}}, ""),
        ({"Worker": "x"}, "'Worker' is no name"),
        ({"2nd": "x"}, "'2nd' is no name"),
        ({"a b": "x"}, "'a b' is no name"),
        ({"a.b": "x"}, "'a.b' is no name"),
        ({7: "x"}, "7 is no name"),
        ({"w" * 32: "x"}, "is no name"),
        ({"web": "x"}, "web cannot be the name of a process: app_module and app_server"),
        ({"release": "x"}, "release cannot be the name of a process: app_migrate_command"),
        ({"worker": ""}, "worker must be a command"),
        ({"worker": "  "}, "worker must be a command"),
        ({"worker": "a\0b"}, "worker must be a command"),
        ({"worker": ["celery"]}, "worker must be a command"),
        ({"worker": None}, "worker must be a command"),
        ({"worker": True}, "worker must be a command"),
        ({"worker": {}}, "worker: `command` must be a command"),
        ({"worker": {"command": 5}}, "worker: `command` must be a command"),
        ({"worker": {"command": "x", "replicas": 2}}, "worker: replicas cannot be set; command, hosts, instances"),
        ({"worker": {"command": "x", "hosts": "one"}}, "worker: `hosts` must be all, or first"),
        ({"worker": {"command": "x", "hosts": None}}, "worker: `hosts` must be all, or first"),
        ({"worker": {"command": "x", "instances": 0}}, "worker: `instances` must be from 1 to 64"),
        ({"worker": {"command": "x", "instances": 65}}, "worker: `instances` must be from 1 to 64"),
        ({"worker": {"command": "x", "instances": 1.5}}, "worker: `instances` must be from 1 to 64"),
        ({"worker": {"command": "x", "instances": True}}, "worker: `instances` must be from 1 to 64"),
        ({"worker": {"command": "x", "stop_seconds": 0}}, "worker: `stop_seconds` must be from 1 to 86400"),
        ({"beat": {"command": "x", "hosts": "first", "stop_seconds": 301}}, "beat: `stop_seconds` must be from 1 to 300 with"),
        ({"beat": {"command": "x", "hosts": "first", "stop_seconds": "300"}}, ""),
        ({"worker": {"command": "x", "stop_seconds": "10m"}}, "worker: `stop_seconds` must be from 1 to 86400"),
        ({"worker": {"command": "x", "memory_mb": 8}}, "worker: `memory_mb` must be from 16 to 1048576, or 0 for no limit"),
        ({"worker": {"command": "x", "memory_mb": -1}}, "worker: `memory_mb` must be from 16 to 1048576, or 0 for no limit"),
        ({"worker": {"command": "x", "hosts": "first", "instances": 2}}, "worker: `instances` must be 1 with `hosts: first`"),
    ],
)
def test_what_may_be_said_of_a_process(given: dict[Any, Any], words: str) -> None:
    found = errors(given)
    assert words in found[0] if words else found == []
    assert len(found) <= 1


def test_definitions_are_completed() -> None:
    beat = {"command": " celery beat ", "hosts": "first", "memory_mb": "128"}
    assert full({"worker": "celery worker", "beat": beat}, 512) == {
        "worker": {"command": "celery worker", **USUAL, "memory_mb": 512},
        "beat": {"command": "celery beat", **USUAL, "hosts": "first", "memory_mb": 128},
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("web: uvicorn app\nworker: celery -A shop worker\n", {"worker": "celery -A shop worker"}),
        ("release: alembic upgrade head\n\n# a note\nbeat:celery beat\n", {"beat": "celery beat"}),
        ("", {}),
        ("worker\n", "Line 1 of the Procfile must be a name, a colon and a command"),
        ("web: x\nworker:\n", "Line 2 of the Procfile"),
        ("Worker: x\n", "'Worker' is no name"),
    ],
)
def test_a_procfile(tmp_path: Path, text: str, found: dict[str, str] | str) -> None:
    assert procfile(tmp_path) == {}
    (tmp_path / "Procfile").write_text(text, encoding="utf-8")
    assert procfile(tmp_path, ["*.pyc", "Proc*"]) == {}
    if isinstance(found, dict):
        assert procfile(tmp_path) == found
    else:
        with pytest.raises(FetchError, match=found):
            procfile(tmp_path)


def worked_out(name: str, **inventory: Any) -> Any:
    """Return a variable of the role for a host with these variables."""
    return rendering.Host(inventory).work_out(trust_as_template(f"{{{{ {name} }}}}"), "app")


def test_what_is_set_wins_over_a_procfile() -> None:
    fetched = {"source": {"processes": {"worker": "from the file"}}}
    assert worked_out("__app_processes", __app_fetched=fetched)["worker"]["command"] == "from the file"
    assert list(worked_out("__app_processes", __app_fetched=fetched, app_processes={"beat": "b"})) == ["beat"]


@pytest.mark.parametrize(
    ("processes", "more"),
    [
        ({"worker": {"command": "x", "stop_seconds": 600}}, 0),
        ({"worker": "x", "beat": {"command": "y", "hosts": "first", "stop_seconds": "200"}}, 460),
        ({"a": {"command": "y", "hosts": "first", "stop_seconds": 5}, "b": {"command": "y", "hosts": "first"}}, 130),
    ],
)
def test_a_step_on_a_host_among_others_may_take_as_long_as_what_runs_once(processes: dict[str, Any], more: int) -> None:
    name = "__app_fleet_settings.step_seconds"
    assert int(worked_out(name, app_processes=processes)) - int(worked_out(name)) == more


def test_each_process_has_a_section_of_its_own() -> None:
    texts = worked_out(
        "__app_process_programs", app_processes={"worker": "x", "many": {"command": "y", "instances": 3, "memory_mb": 64}}
    )
    assert "[program:api-example-com-@RELEASE@.worker@COPY@]\n" in texts["worker"]
    assert "launch.py --process worker\n" in texts["worker"]
    assert "MemoryMax" not in texts["worker"]
    assert 'environment=SLIPWAY_PROGRAM="%(program_name)s",SLIPWAY_INSTANCE="%(process_num)d"\n' in texts["many"]
    assert "--property=MemoryMax=64M " in texts["many"]
    assert "numprocs=3\n" in texts["many"]
    assert "stopwaitsecs=30\n" in texts["many"]


@pytest.mark.parametrize(
    ("command", "direct"),
    [
        ("celery -A shop worker", True),
        ("python -m worker --queue $QUEUE", True),
        ("cd /tmp && python worker.py", False),
        ("A=1 python worker.py", False),
        ("exec python worker.py", False),
        ("python a.py | tee b", False),
        ("python a.py &", False),
        ("python a.py\npython b.py", False),
        ("echo `date`", False),
        ("echo 'a", False),
        ('python -c "main()"', True),
        ("python -c 'print(1); print(2)'", True),
        ("python a.py --select='a|b'", True),
    ],
)
def test_a_single_command_replaces_the_shell(command: str, direct: bool) -> None:
    assert is_single(command) is direct


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start process.py as launch.py does, with a command of its own."""
    runtime = ROOT / "src" / "slipway" / "runtime"
    package = tmp_path / "slipway" / "runtime"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for file in runtime.glob("*.py"):
        (package / file.name).write_bytes(file.read_bytes())
    (tmp_path / "process.py").write_bytes((runtime / "process.py").read_bytes())

    def start(
        command: str, hosts: str = "all", stop_seconds: int = 30, through: tuple[str, ...] = (), **more: Any
    ) -> subprocess.Popen[str]:
        facts = {"app": "shop", "number": 7, "revision": "", "build": "b", "user": "", "home": "", "sockets": str(tmp_path)}
        definitions = {"worker": {"command": command, **USUAL, "hosts": hosts, "stop_seconds": stop_seconds}}
        settings = {**RUNTIME, **facts, "processes": definitions, "secrets": ["KEY"], **more}
        (tmp_path / "runtime.json").write_text(json.dumps(settings), encoding="utf-8")
        environment = {**os.environ, "KEY": "hunter2hunter2", "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [*through, sys.executable, str(tmp_path / "process.py"), "worker"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    return start


def test_what_a_process_prints_is_logged_in_the_form_of_the_log_without_secrets(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    output, _ = run("""printf 'took task 5 with %s\\n{"message": "done", "level": "WARNING"}\\n' "$KEY"; exit 3""").communicate(
        timeout=30
    )
    first, second = map(json.loads, output.splitlines())
    assert (first["message"], first["logger"], first["release"]) == ("took task 5 with ********", "worker", "7")
    assert second == {"message": "done", "level": "WARNING", "release": "7"}


def test_text_stays_text(run: Callable[..., subprocess.Popen[str]]) -> None:
    output, _ = run("echo took task 5", log_format="text").communicate(timeout=30)
    assert output == "took task 5\n"


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("true", 0), ("kill -9 $$", 137)])
def test_a_process_ends_as_its_command_does(run: Callable[..., subprocess.Popen[str]], command: str, code: int) -> None:
    process = run(command + ";")
    process.communicate(timeout=30)
    assert process.returncode == code


def test_a_process_ends_with_its_command_whatever_that_left_in_the_background(run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run("sleep 30 & echo left")
    assert process.wait(timeout=15) == 0
    os.killpg(process.pid, signal.SIGKILL)


WORKER = """
import signal, sys, time

def stop(number, frame):
    print("stops", flush=True)
    time.sleep(0.5)
    print("has stopped", flush=True)
    sys.exit(9)

signal.signal(signal.SIGTERM, stop)
print("runs", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("command", "code"), [("{python} {worker}", 9), ("cd / && {python} {worker}; true", 143)])
def test_signals_reach_the_command_and_it_may_finish(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path, command: str, code: int
) -> None:
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    process = run(command.format(python=sys.executable, worker=tmp_path / "worker.py"))
    assert process.stdout is not None
    assert "runs" in process.stdout.readline()
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert "has stopped" in output


SUPERVISOR = "import subprocess, sys; subprocess.call(sys.argv[1:], start_new_session=True)"


@pytest.mark.parametrize("told_before", [False, True])
def test_a_process_ends_its_command_when_supervisor_is_killed(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path, told_before: bool
) -> None:
    (tmp_path / "worker.py").write_text(WORKER.replace("0.5", "1"), encoding="utf-8")
    supervisor = run(f"{sys.executable} {tmp_path}/worker.py", through=(sys.executable, "-c", SUPERVISOR))
    assert supervisor.stdout is not None
    assert "runs" in supervisor.stdout.readline()
    output = ""
    if told_before:  # by a stop of Supervisor that took too long
        (process,) = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(process), signal.SIGTERM)
        output = supervisor.stdout.readline()
    supervisor.kill()
    output += supervisor.communicate(timeout=30)[0]
    assert (output.count('"stops"'), output.count('"has stopped"')) == (1, 1), output


def group(leader: int) -> list[str]:
    """Return those of a group of processes that live."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = file.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
            found += [file.parent.name] if of == str(leader) and state != "Z" else []
    return found


@pytest.mark.parametrize("command", ["{python} {worker}", "cd / && {python} {worker}; true"])
def test_a_command_that_does_not_end_in_its_time_is_killed_with_all_that_it_started(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path, command: str
) -> None:
    deaf = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.write(1, b'runs\\n')\n"
    (tmp_path / "worker.py").write_text(f"{deaf}time.sleep(60)\n", encoding="utf-8")
    process = run(command.format(python=sys.executable, worker=tmp_path / "worker.py"), stop_seconds=1)
    assert process.stdout is not None
    for _ in range(2):
        assert "runs" in process.stdout.readline()
    begin = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert 0.9 < time.monotonic() - begin < 15
    deadline = time.monotonic() + 10
    while group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_waits_for_the_one_before_ends_when_it_is_told_to(run: Callable[..., subprocess.Popen[str]]) -> None:
    former = run("echo begins && sleep 30", "first")
    assert former.stdout is not None
    assert "begins" in former.stdout.readline()
    waiting = run("echo begins", "first")
    assert waiting.stdout is not None
    assert "waits until the worker of another release has ended" in waiting.stdout.readline()
    waiting.terminate()
    assert waiting.communicate(timeout=30)[0] == ""
    assert waiting.returncode == 143  # by its own hand: as the first process of a container, no signal would end it
    os.killpg(former.pid, signal.SIGKILL)
    former.communicate(timeout=30)


def test_a_process_that_runs_once_waits_for_the_one_before_even_if_what_ran_that_was_killed(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    quiet = WORKER.replace(
        '    print("stops", flush=True)\n    time.sleep(0.5)\n    print("has stopped", flush=True)\n', "    time.sleep(2)\n"
    )
    (tmp_path / "worker.py").write_text(quiet, encoding="utf-8")
    former = run(f"{sys.executable} {tmp_path}/worker.py", "first")
    assert former.stdout is not None
    assert "runs" in former.stdout.readline()
    begin = time.monotonic()
    former.kill()
    output, _ = run("echo begins", "first").communicate(timeout=30)
    assert "waits until the worker of another release has ended" in output
    assert "begins" in output
    assert time.monotonic() - begin > 1.5
    former.communicate(timeout=30)
