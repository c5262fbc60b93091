"""Notes of the requests that wait for the first byte of their answer, in memory that whoever watches a release reads."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import zlib
from pathlib import Path

# One of them: since when it waits, by the monotonic clock, or 0; and the digest of what it asks for.
NOTE = struct.Struct("<dQ")

# Where in memory there is room for one.
PLACES = [index * NOTE.size for index in range(512)]


def digest(method: str, path: str) -> int:
    """Return what is noted of what a request asks for."""
    return zlib.crc32(f"{method} {path}".encode("utf-8", "surrogateescape"))


def place() -> Path | None:
    """Return the directory in which this instance notes what whoever watches it must know; None where nobody does."""
    socket = os.environ.get("SLIPWAY_SOCKET")
    return Path(socket).with_suffix(".metrics") if socket else None


def shared_memory(place: Path | None) -> mmap.mmap | None:
    """Return memory for the notes of this process, which is known to live by a lock; None where there is no place for it."""
    if place is None:
        return None
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
        notes = place / f"waiting.{os.getpid()}"
        lock = os.fdopen(os.open(notes, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Memory keeps what it was made of open: not the lock, which a child of this process would keep as well.
        with open(notes, "r+b") as file:
            os.posix_fallocate(
                file.fileno(), 0, NOTE.size * len(PLACES)
            )  # who writes where there is no room in the end is killed
            memory = mmap.mmap(file.fileno(), 0)
        os.register_at_fork(after_in_child=lock.close)  # and so it stays open, and locked, as long as this process lives
        return memory
    return None
