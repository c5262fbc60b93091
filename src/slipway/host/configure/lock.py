"""The lock on the configuration of a host: two apps on one host are configured one after the other."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.host.configure.change import read
from slipway.host.errors import ReleaseError

# Nobody but root may open it, for who may open a file may lock it.
LOCK = "/var/lib/slipway/configuration.lock"
LOCK_SECONDS = 300.0


@contextlib.contextmanager
def lock(seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lock the configuration of this host.

    Args:
        seconds: how long to wait for another process that has locked it.

    Raises:
        OSError: when the lock's file is not one of this user alone, or cannot be created.
        ReleaseError: when the lock is not free in time, with the process that has it.
    """
    Path(LOCK).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "is not a file of root's alone; remove it, then run this again", LOCK)
        deadline = time.monotonic() + seconds
        while not _taken(handle):
            if time.monotonic() > deadline:
                raise ReleaseError(_who(file.read(20), seconds))
            time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _taken(handle: int) -> bool:
    """Take the lock of an open file, and return whether that was possible."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who(pid: str, seconds: float) -> str:
    """Say which process has the lock, as it wrote itself down, and what to do."""
    command = (read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()[:200] if pid.isdigit() else ""
    owner = f"process {pid} ({command or 'which is gone'})" if pid.isdigit() else "another process"
    return (
        f"The configuration of this host is locked by {owner}, and this run waited {seconds:g} s for it. Nothing was changed. "
        f"When that process is done, or ended by you, run this again. See who has the lock: fuser -v {LOCK}"
    )
