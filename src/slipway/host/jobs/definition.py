"""Which jobs a release has, what became of each, and which release a running job uses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slipway.host import configuration
from slipway.host.files import write
from slipway.host.paths import Layout

# In the directory of a release: its jobs, and what a job locks that uses it.
FILE, LOCK = "jobs.json", "job.lock"

OK = "ok"


@dataclass(frozen=True)
class Job:
    """A job of a release.

    Attributes:
        name: what it is called.
        schedule: when it runs, as the operator wrote it.
        calendars: the same, as calendars of systemd; at each of them it runs.
        command: a shell command.
        hosts: `all`, or `first` for the first host of the app alone.
        timeout: seconds that it may take.
    """

    name: str
    schedule: str
    calendars: list[str]
    command: str
    hosts: str
    timeout: int


@dataclass
class Run:
    """The last run of a job.

    Attributes:
        run: its id, which each of its records in the log has.
        release: the release that it uses.
        start: when it began, in seconds since 1970.
        end: when it ended; 0 while it runs.
        result: `ok`, or what became of it; empty while it runs.
        code: the exit code of its command; None if it has none.
        success: when the last run ended that was `ok`; 0 if none did.
        before: the run before it, for whoever still follows that: its `run`, `result` and `code`.
    """

    run: str = ""
    release: int = 0
    start: float = 0.0
    end: float = 0.0
    result: str = ""
    code: int | None = None
    success: float = 0.0
    before: dict[str, Any] = field(default_factory=dict)

    def result_of(self, run: str) -> dict[str, Any] | None:
        """Return the `result` and the `code` of a run, this one or the one before; None while it runs."""
        if run == self.run:
            return {"result": self.result, "code": self.code} if self.end else None
        return self.before if self.before.get("run") == run else {"result": "unknown", "code": None}


def jobs_of(layout: Layout, number: int | None) -> dict[str, Job]:
    """Return the jobs of release `number`, by name; none where it is None, or has none."""
    if number is None:
        return {}
    try:
        defined: dict[str, Any] = json.loads((layout.release(number) / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: Job(name=name, **job) for name, job in defined.items()}


def configured(app: str) -> dict[str, Any]:
    """Return what the last run of a playbook set for an app, as far as this host has it."""
    try:
        known: dict[str, Any] = json.loads((configuration.DIRECTORY / f"{app}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def last_run(layout: Layout, name: str) -> Run:
    """Return the last run of a job; an empty one before the first."""
    try:
        return Run(**json.loads(_state(layout, name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Run()


def remember(layout: Layout, name: str, run: Run) -> None:
    """Write down what is known of the last run of a job.

    Raises:
        OSError: when it cannot be written.
    """
    file = _state(layout, name)
    file.parent.mkdir(mode=0o755, exist_ok=True)
    write(file, json.dumps(asdict(run), indent=2, sort_keys=True) + "\n")


def _state(layout: Layout, name: str) -> Path:
    return layout.home / "jobs" / f"{name}.json"


def log_of(layout: Layout, name: str) -> Path:
    """Return the file that a job logs to, if its release logs to files."""
    return layout.logs / f"job-{name}.log"


def identifier(app: str, name: str) -> str:
    """Return what a job is called in the journal."""
    return f"{app}-job-{name}"


@contextlib.contextmanager
def using(layout: Layout, number: int) -> Iterator[None]:
    """Keep release `number` on the host while a job uses it: `in_use` says so, and nobody prunes it.

    Raises:
        OSError: when the release is not there.
    """
    # Who may open it may lock it.
    handle = os.open(layout.release(number) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def in_use(layout: Layout, number: int) -> bool:
    """Say whether a job uses release `number`. The kernel drops the lock of a job that was killed."""
    try:
        handle = os.open(layout.release(number) / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
