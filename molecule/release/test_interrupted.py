"""A run that is killed at any moment leaves the service untouched; one plain run finishes it; the next changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import ROOT, Host, Run, polling
from molecule.release import program
from molecule.release.conftest import deploy, serves
from slipway.controller.identity import machine

SNAPSHOT = "twin.test"
CALLBACKS = ROOT / "molecule" / "release" / "callbacks"

# How many runs of each playbook are killed.
SAMPLES = 4

# Waits on the host until a step's program runs, and until something there is no more as it was before that; prints the program's
# id, and kills it where that is wanted. Prints nothing where the program ends before.
WATCH = """
import glob, os, signal, sys, time

step, pattern, seconds, kill = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "kill"

def seen():
    return {(path, os.readlink(path) if os.path.islink(path) else "") for path in glob.glob(pattern)}

def running():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                words = file.read().split(bytes(1))
        except OSError:
            continue
        if words[1:] and words[1].endswith(b"/slipway.pyz") and words[2:4] == [b"step", step.encode()]:
            return int(path.split("/")[2])

before, program = seen(), None
print("ready", flush=True)
while program is None:
    program = running()
while pattern and seen() == before and os.path.exists(f"/proc/{program}"):
    time.sleep(0.001)
time.sleep(seconds)
try:
    os.kill(program, signal.SIGKILL if kill else 0)
    print(program)
except ProcessLookupError:
    pass
"""


def killed(host: Host, playbook: str, at: int, after: float, **variables: object) -> Run:
    """Run a playbook that is killed before its task number `at`, or `after` seconds into it; 0 for never."""
    settings = {"ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "kill_at"}
    settings |= {"KILL_AT": str(at), "KILL_AFTER": str(after)}
    return deploy(host, playbook=playbook, settings=settings, **variables)


def moments(host: Host, playbook: str) -> list[tuple[int, float]]:
    """Return moments to kill a run at: before each of its tasks, and within those that build and release."""
    run = killed(host, playbook, 0, 0)
    assert run.code == 0, run.output[-3000:]
    tasks = re.findall(r"^BEGUN (\d+) (.*)$", run.output, re.MULTILINE)
    within = [int(number) for number, name in tasks if re.search(r"Run the step activate|Build the app", name)]
    return [(number, 0.0) for number in range(2, len(tasks) + 1)] + [(number, after) for number in within for after in (0.7, 2.0)]


def spread(found: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return some of these moments, spread over all of them, the last one included."""
    last = len(found) - 1
    return [found[last * (index + 1) // SAMPLES] for index in range(SAMPLES)]


def finished(host: Host, by: Callable[..., Run], where: str, wanted: dict[str, Any], third: bool) -> list[str]:
    """Release what an interrupted run was to release, and return what is wrong with that.

    Args:
        host: the host.
        by: what releases it.
        where: what was interrupted, in words.
        wanted: the variables of that run; its greeting is a new one.
        third: whether one more run is to change nothing.
    """
    problems = []
    again = by(host, **wanted)
    if again.code:
        problems.append(f"{where}: the next run fails: {again.output[-2000:]}")
    elif host.ask("/items/1").json()["greeting"] != wanted["app_env"]["GREETING"]:
        problems.append(f"{where}: the next run does not finish it")
    if third:
        run = by(host, **wanted)
        if run.changed != {host.name: 0}:
            problems.append(f"{where}: the run after that changes something: {run.output[-2000:]}")
    serves(host)
    return problems


def interrupt(host: Host, playbook: str, chosen: list[tuple[int, float]], problems: list[str], done: list[str]) -> None:
    """Kill runs of a playbook at the chosen moments, and check what the next runs make of that.

    The first of them is finished by the playbook, the others by what that tells the host.
    """
    for count, (at, after) in enumerate(chosen):
        where = f"{host.name}, {playbook}, task {at} + {after} s"
        wanted: dict[str, Any] = {"app_env": {"GREETING": f"{playbook} {at} {after}"}, "app_watch_seconds": 0}
        with polling(host, "/items/1") as failures:
            run = killed(host, playbook, at, after, **wanted)
            if run.code != -9:
                problems.append(f"{where}: was not killed: {run.code}")
            by = program.deploy if count else lambda host, **wanted: deploy(host, playbook=playbook, **wanted)
            problems += finished(host, by, where, wanted, count % 4 == 0)
        if failures:
            problems.append(f"{where}: {failures}")
        done.append(where)


@pytest.mark.parametrize("playbook", ["playbooks/deploy.yml", "site.yml"])
def test_a_run_that_is_killed_is_finished_by_the_next(host: Host, playbook: str) -> None:
    problems: list[str] = []
    done: list[str] = []
    interrupt(host, playbook, spread(moments(host, playbook)), problems, done)
    assert problems == [], "\n".join(problems)
    assert len(done) == SAMPLES


@dataclass
class Moment:
    """When a release ends, and how.

    Attributes:
        step: the step that it ends in, or before.
        pattern: paths on the host, of which one comes, goes or points elsewhere before that.
        seconds: how much later it ends.
        ends: what does: the `program` that takes the step on the host, and the run with it; the `run` alone, while that program
            goes on; or the run `before` the step.
        lock: whether the release has requirements of its own, for which an environment is made.
        migrates: whether it has a migration, before which it is prepared.
    """

    step: str
    pattern: str = ""
    seconds: float = 0.0
    ends: str = "program"
    lock: bool = False
    migrates: bool = False


BUILDS, VENVS, RELEASES = "/opt/shop/builds", "/opt/shop/venvs", "/opt/shop/releases"
SECTION, SOCKET = "/etc/supervisor/conf.d/shop-*.conf", "/run/shop/*.sock"
LIVE, CURRENT = "/opt/shop/live.sock", "/opt/shop/current"
MIGRATION = "touch ~/begun-$RELEASE_ID; sleep 0.5"

MOMENTS = {
    "the source is unpacked": Moment("build", f"{BUILDS}/.*.partial"),
    "the environment is begun": Moment("build", f"{VENVS}/*", lock=True),
    "packages are installed": Moment("build", f"{VENVS}/*/bin/python", 0.3, lock=True),
    "packages are installed when the run is gone": Moment("build", f"{VENVS}/*/bin/python", ends="run", lock=True),
    "the environment is complete": Moment("build", f"{VENVS}/*/.complete", lock=True),
    "the code is compiled": Moment("build", f"{BUILDS}/.*.partial/.venv"),
    "before the release": Moment("activate", ends="before"),
    "half of the release is written": Moment("prepare", f"{RELEASES}/*/program.conf", migrates=True),
    "the app is imported": Moment("prepare", f"{RELEASES}/*/release.json", 0.2, migrates=True),
    "before the migration": Moment("migrate", ends="before", migrates=True),
    "the migration runs": Moment("migrate", "/opt/shop/shared/begun-*", migrates=True),
    "Supervisor is told of it": Moment("activate", SECTION),
    "it starts when the run is gone": Moment("activate", SECTION, 0.1, ends="run"),
    "it listens": Moment("activate", SOCKET),
    "it is switched to": Moment("activate", LIVE),
    "it is live when the run is gone": Moment("activate", CURRENT, 0.2, ends="run"),
    "the old one is to end": Moment("activate", CURRENT, 1.0),
    "the old one ends": Moment("activate", "/etc/supervisor/conf.d/shop-{live}.conf"),
    "the old one has ended": Moment("activate", "/run/shop/{live}.sock"),
}


class Gone(Exception):
    """The run is gone."""


class Mortal(program.Controller):
    """The controller in a run that ends at a moment; on the host it counts as one that is dead.

    Args:
        host: the host.
        variables: what the operator gives as extra variables.
        moment: when the run ends.
    """

    def __init__(self, host: Host, variables: dict[str, Any], moment: Moment) -> None:
        super().__init__(host, variables)
        # Of a process that had this one's number before it.
        self.name_of_run["id"] = f"{machine()} {os.getpid()} before {time.monotonic()}"
        self.moment = moment
        self.step: threading.Thread | None = None

    def take(self, kind: type[program.Step], arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a step, and return its result, unless it is the last one.

        Raises:
            Failed: when it fails.
            Gone: when the run is gone.
        """
        name = "build" if kind is program.Build else arguments["step"]
        if self.moment.step != (arguments["arguments"]["step"] if name == "release" else name):
            return super().take(kind, arguments)
        if self.moment.ends == "before":
            raise Gone
        pattern = self.moment.pattern.replace("{live}", str(self.host.live()))
        kill = "kill" if self.moment.ends == "program" else ""
        watch = ["podman", "exec", self.host.container, "python3", "-c", WATCH, name, pattern, str(self.moment.seconds), kill]
        with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            assert watching.stdout.readline() == "ready\n"
            self.step = threading.Thread(target=self.alone, args=(super().take, kind, arguments))
            self.step.start()
            if not watching.stdout.readline():
                raise AssertionError("it ended before")
        raise Gone

    @staticmethod
    def alone(take: Callable[..., Any], *arguments: Any) -> None:
        """Take a step that nobody hears of, what is wrong with it included."""
        with contextlib.suppress(program.Failed, AssertionError):
            take(*arguments)

    def end(self) -> str:
        """Release, and return what kept the run from ending at its moment; empty for nothing."""
        try:
            self.release()
        except Gone:
            if self.step and self.moment.ends == "program":
                self.step.join()
            return ""
        except (program.Failed, AssertionError) as error:
            return f"was not interrupted: {error}"
        return "was not interrupted"


@pytest.mark.parametrize("where", MOMENTS)
def test_a_release_that_is_interrupted_is_finished_by_the_next(host: Host, shop: Path, where: str) -> None:
    moment = MOMENTS[where]
    for file in ("main.py", "requirements.txt") if moment.lock else ("main.py",):
        with (shop / file).open("a", encoding="utf-8") as text:
            text.write(f"\n# {where}\n")
    wanted: dict[str, Any] = {"app_source": str(shop), "app_env": {"GREETING": where}, "app_watch_seconds": 0}
    if moment.migrates:
        wanted["app_migrate_command"] = MIGRATION
    with polling(host, "/items/1") as failures:
        run = Mortal(host, wanted, moment)
        problem = run.end()
        problems = finished(host, program.deploy, where, wanted, list(MOMENTS).index(where) % 4 == 0)
    assert (problem, problems, failures) == ("", [], [])
    assert host.run("tail -1 /opt/shop/current/build/main.py").strip() == f"# {where}", "what is live was not built of it"
    if run.step:
        run.step.join()
