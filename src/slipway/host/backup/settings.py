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
    try:
        return State(**json.loads((STATES / f"{app}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return State()


def save_state(app: str, state: State) -> None:
    """Write down what became of the last backup.

    Raises:
        OSError: when it cannot be written.
    """
    STATES.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(STATES / f"{app}.json", json.dumps(asdict(state), indent=2, sort_keys=True) + "\n", mode=0o600)


@contextlib.contextmanager
def alone(app: str, seconds: float = 1.0) -> Iterator[None]:
    """Keep others from backing up or restoring an app meanwhile. The kernel ends that with the process.

    Args:
        app: its name.
        seconds: how long to wait for another backup to end.

    Raises:
        ReleaseError: when another one is still under way then.
    """
    STATES.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(STATES / f"{app}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ReleaseError(f"A backup or a restore of {app} is under way. Try again once it has ended.") from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def is_running(app: str) -> bool:
    """Say whether a backup or a restore of an app is under way, also for who may only read."""
    try:
        handle = os.open(STATES / f"{app}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
