"""The times of an app's files, by which browsers, Nginx and the app itself tell whether a file changed.

A packed source has no times, so that the same content is the same build everywhere. Each file is given one when its build goes
live: that which it had in the release before, if its content is the same, and otherwise a time later than any that was served.
So a changed file never looks unchanged, not even to a client that knows its time alone, and not after a rollback either; and
what did not change stays in the caches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

# Compiled code names the time of its source, and our own record that of the build.
KEPT = (".py", ".pyc", ".build.json")


def freshen(new: Path, old: Path | None, at: float) -> dict[Path, int]:
    """Give the files of the build `new` their times, its environment's included, before it is served after `old`.

    Args:
        new: the build.
        old: the build that was served until now; None for none.
        at: seconds since the epoch; the time of what changed, unless something of `old` is as new.

    Returns:
        The times, in seconds since the epoch, of those files of `old` that differ: for `renew`, before `old` is served again.
    """
    again: dict[Path, int] = {}
    if old is not None and new.resolve() == old.resolve():
        return again
    pairs = [(new, old)]
    venv, other = _environment(new), _environment(old)
    if venv is not None and venv != other:
        pairs.append((venv, other))
    for current, previous in pairs:
        before = dict(_files(previous)) if previous is not None else {}
        stamp = max([int(at), *(int(stat.st_mtime) + 1 for stat in before.values())])
        same = set()
        for name, stat in _files(current):
            known = before.get(name)
            if (
                previous is not None
                and known is not None
                and known.st_mtime > 0
                and _same(current / name, stat, previous / name, known)
            ):
                time = known.st_mtime_ns
                same.add(name)
            else:
                time = stamp * 10**9
            if stat.st_mtime_ns != time and not name.endswith(KEPT):
                os.utime(current / name, ns=(time, time), follow_symlinks=False)
        if previous is not None:
            again.update({previous / name: stamp + 1 for name in before if name not in same and not name.endswith(KEPT)})
    return again


def renew(times: Mapping[Path, int]) -> None:
    """Give files the times that `freshen` returned."""
    for file, time in times.items():
        os.utime(file, (time, time), follow_symlinks=False)


def _environment(build: Path | None) -> Path | None:
    """Return where the packages of a build are; None where it has no environment."""
    libraries = build / ".venv" / "lib" if build is not None else None
    return libraries.resolve() if libraries is not None and libraries.is_dir() else None


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name of each file below `root`, from there, and what the file system says of it; links are left out."""
    pending = [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield os.path.relpath(entry.path, root), entry.stat(follow_symlinks=False)


def _same(one: Path, first: os.stat_result, other: Path, second: os.stat_result) -> bool:
    """Say whether two files have the same content."""
    if first.st_size != second.st_size:
        return False
    if os.path.samestat(first, second):
        return True
    with open(one, "rb") as mine, open(other, "rb") as previous:
        while chunk := mine.read(2**20):
            if chunk != previous.read(2**20):
                return False
    return True
