"""What is set for the backups of an app, and what became of the last one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.host import configuration
from slipway.host.errors import ReleaseError
from slipway.host.files import write
from slipway.host.process import masked, without_passwords
from slipway.host.store import Store
from slipway.host.values import arguments

# Where the settings are, which the role writes for root alone: they hold secrets.
DIRECTORY = Path("/etc/slipway/backup")
STATES = Path("/var/lib/slipway/backup")

PARAMETERS: dict[str, Any] = {
    # The app's name.
    "name": str,
    # What the backups of this host are stored under.
    "host": str,
    # Where restic stores them, its password, and further variables of its environment.
    "repository": str,
    "password": str,
    "environment": {},
    # How many backups are kept: `daily`, `weekly` and `monthly`.
    "keep": dict,
    # Hours after which the last good backup is too old.
    "max_age_hours": int,
    # The app's database, empty for none, its owner, and the directory of the server's socket.
    "database": "",
    "user": str,
    "database_directory": "",
}

# What is kept from running twice, beside backups and restores.
DRILL = "drill"

OK, FAILED, RUNNING, INTERRUPTED = "ok", "failed", "running", "interrupted"


@dataclass(frozen=True)
class Settings:
    """The settings of an app's backups; its attributes are those of `PARAMETERS`."""

    name: str
    host: str
    repository: str
    password: str
    environment: dict[str, Any]
    keep: dict[str, Any]
    max_age_hours: int
    database: str
    user: str
    database_directory: str

    @property
    def layout(self) -> Store:
        """The app's paths.

        Raises:
            ReleaseError: when the app was never deployed here.
        """
        return Store(**configuration.load(self.name)["layout"])

    def shown(self, text: str) -> str:
        """Return a text as it may be shown: without the secrets in it."""
        return without_passwords(masked(text, [self.password, *map(str, self.environment.values())]))


@dataclass
class State:
    """What became of the last backup.

    Attributes:
        since: when backups were first configured here, in seconds since 1970.
        repository: restic's id of the repository; another one would have none of the backups.
        location: a digest of where that is.
        run: the id of the last backup.
        start: when it began.
        end: when it ended; 0 while it runs.
        result: `ok` or `failed`; empty while it runs.
        error: why it failed.
        success: when the last good backup was made; 0 if none was.
        size: bytes in the last good backup.
        added: bytes that it added to the repository, compressed.
        release: the release that was live then.
        checked: when the repository was last checked; 0 if never.
    """

    since: float = 0.0
    repository: str = ""
    location: str = ""
    run: str = ""
    start: float = 0.0
    end: float = 0.0
    result: str = ""
    error: str = ""
    success: float = 0.0
    size: int = 0
    added: int = 0
    release: int = 0
    checked: float = 0.0


@dataclass
class DrillState:
    """What became of the last drill.

    Attributes:
        backup: the id of the backup that was restored.
        start: when the drill began, in seconds since 1970.
        end: when it ended; 0 while it runs.
        result: `ok` or `failed`; empty while it runs.
        error: why it failed.
        success: when the last good one ended; 0 if none did.
        found: what a good one found, for people.
    """

    backup: str = ""
    start: float = 0.0
    end: float = 0.0
    result: str = ""
    error: str = ""
    success: float = 0.0
    found: str = ""


def is_on(app: str) -> bool:
    """Say whether an app of this host is backed up."""
    return (DIRECTORY / f"{app}.json").exists()


def load(app: str) -> Settings:
    """Return the settings of an app's backups.

    Raises:
        ReleaseError: when it has none, or they are damaged.
    """
    file = DIRECTORY / f"{app}.json"
    try:
        return Settings(**arguments(PARAMETERS, json.loads(file.read_text(encoding="utf-8"))))
    except FileNotFoundError as error:
        raise ReleaseError(f"{app} is not backed up: set backup_repository and backup_password, then run site.yml.") from error
    except (ValueError, ReleaseError) as error:
        raise ReleaseError(f"{file} is invalid: site.yml --tags backup rewrites it.") from error


def load_state(app: str) -> State:
    """Return what became of the last backup; an empty state before the first."""
    return State(**known(f"{app}.json", State))


def save_state(app: str, state: State) -> None:
    """Write down what became of the last backup.

    Raises:
        OSError: when it cannot be written.
    """
    save(f"{app}.json", asdict(state))


def load_drill(app: str) -> DrillState:
    """Return what became of the last drill; an empty state before the first."""
    return DrillState(**known(f"{app}.{DRILL}.json", DrillState))


def save_drill(app: str, state: DrillState) -> None:
    """Write down what became of the last drill.

    Raises:
        OSError: when it cannot be written.
    """
    save(f"{app}.{DRILL}.json", asdict(state))


def known(name: str, kind: type[State] | type[DrillState]) -> dict[str, Any]:
    """Return what a file has of a state; nothing if it is not there, or damaged."""
    try:
        found: dict[str, Any] = json.loads((STATES / name).read_text(encoding="utf-8"))
        return found if {*found} <= {*kind.__annotations__} else {}
    except (OSError, ValueError, TypeError):
        return {}


def save(name: str, state: dict[str, Any]) -> None:
    """Write a state down, for root alone: errors of others are in it.

    Raises:
        OSError: when it cannot be written.
    """
    STATES.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(STATES / name, json.dumps(state, indent=2, sort_keys=True) + "\n", mode=0o600)


@contextlib.contextmanager
def alone(app: str, seconds: float = 1.0, task: str = "") -> Iterator[None]:
    """Keep others from backing up or restoring an app meanwhile. The kernel ends that with the process.

    Args:
        app: its name.
        seconds: how long to wait for another backup to end.
        task: what else others are kept from, instead.

    Raises:
        ReleaseError: when another one is still under way then.
    """
    STATES.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(lock_file(app, task), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"A {task or 'backup or a restore'} of {app} is under way. Try again once it has ended."
                    raise ReleaseError(text) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def lock_file(app: str, task: str) -> Path:
    """Return the file that is locked meanwhile."""
    return STATES / f"{app}{'.' if task else ''}{task}.lock"


def is_running(app: str, task: str = "") -> bool:
    """Say whether a backup or a restore of an app is under way, or another task, also for who may only read."""
    try:
        handle = os.open(lock_file(app, task), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
