"""The processes of a release beside its web server: started once it is good, replaced, and given the time to end their work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable

from slipway.host.errors import ReleaseError
from slipway.host.logs import ends
from slipway.host.process import run
from slipway.host.processes import defined, lacking
from slipway.host.release.advice import advised
from slipway.host.release.context import Context
from slipway.host.supervisor import Program

# Seconds in which Supervisor says whether a process stays.
START_SECONDS = 30.0

# Seconds in which a process of the live release that has just ended may be started again by Supervisor.
PATIENCE_SECONDS = 10.0

# Seconds after a program's time is over in which Supervisor has killed it.
KILL_SECONDS = 60.0


def unfit(context: Context, number: int) -> str:
    """Say which process of the live release `number` does not run as it should, and is not about to; empty where all do."""
    expected = defined(context.layout, number, context.first)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = lacking(expected, context.supervisor.programs(), number) if expected else ""
        if "BACKOFF" not in found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def end(context: Context, programs: Iterable[Program], wait: bool = False) -> bool:
    """Have programs end; what they are at may take the time that they were given.

    Args:
        context: the step, and its host.
        programs: the programs.
        wait: whether this returns when they have ended.

    Returns:
        Whether one of them was to go on running.

    Raises:
        ReleaseError: when Supervisor does not answer.
    """
    ran = False
    for program in programs:
        if program.ended:
            forget(context, program)
        elif wait or program.state != "STOPPING":
            ran = ran or program.state != "STOPPING"
            given = defined(context.layout, program.release, True).get(program.process, {})
            seconds = float(given.get("stop_seconds", 30))
            context.supervisor.end(program.name, seconds if wait else 0.0)
            if wait:
                _await_end(context, program.name, seconds + KILL_SECONDS)
                forget(context, program)
    return ran


def _await_end(context: Context, name: str, seconds: float) -> None:
    """Wait until a program has ended: Supervisor itself waits for none that it was told to stop before."""
    deadline = time.monotonic() + seconds
    while any(each.name == name and not each.ended for each in context.supervisor.programs()) and time.monotonic() < deadline:
        time.sleep(0.2)


def forget(context: Context, program: Program) -> None:
    """Have Supervisor forget a program that has ended, and take away what is left of its containers.

    Raises:
        ReleaseError: when Supervisor does not answer.
    """
    context.supervisor.forget(program)
    container = context.layout.release(program.release) / "container.py"
    if container.exists():
        with contextlib.suppress(ReleaseError):
            run([sys.executable, container, "--remove-program", program.name], 60, check=False)


def tidy_processes(context: Context, live: int | None) -> bool:
    """End the processes that do not belong to the live release, or not on this host any more, and forget those that have ended.

    What may run on the first host alone has ended when this returns on another.

    Returns:
        Whether one of them was to go on running.

    Raises:
        ReleaseError: when Supervisor does not answer.
    """
    expected = defined(context.layout, live, context.first) if live is not None else {}
    programs = context.supervisor.programs()
    surplus = [each for each in programs if each.release != live or each.process not in expected or each.ended]
    # The new first host starts its own after this step; the lock that keeps two apart is on one host alone.
    moved = [each for each in surplus if not context.first and _runs_once(context, each)]
    ran = end(context, moved, wait=True)
    return end(context, [each for each in surplus if each not in moved]) or ran


def _runs_once(context: Context, program: Program) -> bool:
    """Say whether a program may run on one host of the app alone."""
    definition = defined(context.layout, program.release, True).get(program.process, {})
    return definition.get("hosts") == "first"


class ReleaseProcesses:
    """The processes of a release that is being activated.

    Args:
        context: the step, and its host.
        number: the release.

    Attributes:
        started: when the last of them was started, in seconds of the monotonic clock; 0 while none was.
    """

    def __init__(self, context: Context, number: int) -> None:
        self.context = context
        self.number = number
        self.started = 0.0
        self._definitions = defined(context.layout, number, context.first)
        self._known: dict[str, list[int]] = {}  # the process ids of those that run
        self._replaced: list[Program] = []

    def start(self, once: bool) -> None:
        """Start processes, and wait until they run.

        Args:
            once: whether to start those that may run only once, in place of those of other releases; the others run beside these.

        Raises:
            ReleaseError: when one does not stay.
        """
        names = [name for name, each in self._definitions.items() if (each["hosts"] == "first") == once]
        if once:
            former = [each for each in self._others() if each.process in names and not each.ended]
            self._replaced = [each for each in former if each.state != "STOPPING"]
            end(self.context, former, wait=True)
        self._start(self.number, names)

    def restore(self) -> None:
        """Start again what was stopped in favour of a release that failed.

        Raises:
            ReleaseError: when Supervisor refuses.
        """
        own = [each for each in self.context.supervisor.programs() if each.release == self.number]
        end(self.context, [each for each in own if each.process in {each.process for each in self._replaced}], wait=True)
        for program in self._replaced:
            self._start(program.release, [program.process])

    def take_over(self) -> bool:
        """Start those of the live release that may run only once, as far as they do not run here, and say whether any did not.

        Raises:
            ReleaseError: when one does not stay.
        """
        running = {each.process for each in self._own()}
        missing = sorted(self._once() - running)
        self._start(self.number, missing)
        return bool(missing)

    def end_once(self) -> None:
        """Have those of this release end that may run only once, and wait for that.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        own = [each for each in self.context.supervisor.programs() if each.release == self.number]
        end(self.context, [each for each in own if each.process in self._once()], wait=True)

    def end_others(self) -> None:
        """Have the processes of all other releases end, and wait for none.

        Raises:
            ReleaseError: when Supervisor does not answer.
        """
        end(self.context, self._others())

    def changed(self) -> tuple[str, str]:
        """Return which of those that were started does not run as it did then, and its state; nothing where all do."""
        if not self._known:
            return "", ""
        programs = {each.process: each for each in self._own()}
        for name, pids in self._known.items():
            if name not in programs or programs[name].state != "RUNNING" or programs[name].pids != pids:
                return name, programs[name].state if name in programs else "UNKNOWN"
        return "", ""

    def log_tail(self, number: int, name: str) -> str:
        """Return the last lines that a process of a release logged, for the operator."""
        found = ends(self.context.layout, self.context.arguments["name"], number, 30, name)
        output = "\n".join(f"Last lines of {place}:\n{text}" for place, text in found)
        return advised(self.context, output, number) if output else "It wrote nothing to its log."

    def _own(self) -> list[Program]:
        """Return the programs of this release, but for those that are about to end."""
        programs = self.context.supervisor.programs()
        return [each for each in programs if each.release == self.number and each.state != "STOPPING" and not each.ended]

    def _once(self) -> set[str]:
        """Return the names of those that may run only once."""
        return {name for name, each in self._definitions.items() if each["hosts"] == "first"}

    def _others(self) -> list[Program]:
        """Return the programs of all other releases."""
        return [each for each in self.context.supervisor.programs() if each.release != self.number]

    def _start(self, number: int, names: list[str]) -> None:
        """Start processes of release `number`, and wait until they run.

        Raises:
            ReleaseError: when one does not stay, or Supervisor refuses it.
        """
        taken = {each.name: each for each in self.context.supervisor.programs()}
        started = dict[str, str]()
        for name in names:
            copy, copies = "", 1
            while (program := f"{self.context.arguments['name']}-{number}.{name}{copy}") in taken:
                if taken[program].ended:
                    forget(self.context, taken[program])
                    break
                copies += 1
                copy = f".c{copies}"
            source = self.context.layout.release(number) / "processes" / f"{name}.conf"
            self.context.supervisor.install(program, source.read_text(encoding="utf-8").replace("@COPY@", copy), source)
            started[name] = program
        if started:
            self._wait(number, started)
            self.started = time.monotonic()

    def _wait(self, number: int, started: dict[str, str]) -> None:
        """Wait until Supervisor says that what was started stays.

        Args:
            number: the release.
            started: the names of programs by those of processes.

        Raises:
            ReleaseError: when one does not.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            programs = {each.name: each for each in self.context.supervisor.programs()}
            states = {name: programs[program].state if program in programs else "UNKNOWN" for name, program in started.items()}
            for name, state in states.items():
                if state not in ("STARTING", "RUNNING"):
                    what = f"its process {name} (app_processes) ended right after it was started ({state})"
                    raise ReleaseError(f"{what}.\n{self.log_tail(number, name)}")
            if all(state == "RUNNING" for state in states.values()):
                break
            if time.monotonic() > deadline:
                late = ", ".join(name for name, state in states.items() if state != "RUNNING")
                raise ReleaseError(
                    f"its process {late} (app_processes) was not running {START_SECONDS:.0f} s after it was started."
                )
            time.sleep(0.2)
        if number == self.number:
            self._known.update({name: programs[program].pids for name, program in started.items()})
