"""The controller's cache: packed sources, clones and downloads, and how long they are kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# How long what nobody asks for stays on the controller, and how much of it.
KEEP_SECONDS = 14 * 86400
KEEP_BYTES = 10 * 2**30
BUSY_SECONDS = 3600


def cache_directory(*parts: str) -> Path:
    """Return the directory in which packed sources and clones are kept, or one in it, and make it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base, "slipway")
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)  # sources are not for everyone
    directory = Path(directory, *parts)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def locked(what: Path) -> Iterator[None]:
    """Lock the file or directory `what`: hosts are fetched for at the same time."""
    with open(what.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(files: Iterable[Path]) -> None:
    """Remove those of `files` that nobody asked for in a long time, and the oldest if all are too much."""
    found = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
            found.append((file.stat().st_mtime, file.stat().st_size, file))
    remaining, now = KEEP_BYTES, time.time()
    for asked, size, file in sorted(found, reverse=True):
        remaining -= size
        if asked < now - KEEP_SECONDS or (remaining < 0 and asked < now - BUSY_SECONDS):
            file.unlink(missing_ok=True)


def sweep_clones(directory: Path) -> None:
    """Remove those clones in `directory` that nobody asked for in a long time, unless somebody just does."""
    for clone in directory.glob("*[0-9a-f]"):
        with contextlib.suppress(OSError), open(clone.with_suffix(".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if clone.is_dir() and clone.stat().st_mtime < time.time() - KEEP_SECONDS:
                shutil.rmtree(clone)
