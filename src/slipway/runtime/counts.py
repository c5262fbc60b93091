"""What the processes of a release count together (prometheus_client's multiprocess mode), once some of them have ended."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

# A value, and when it was set where that counts.
Value = tuple[float, ...]


def add(one: Value, other: Value) -> Value:
    """Return the sum of two values."""
    return (one[0] + other[0], *one[1:])


def newer(one: Value, other: Value) -> Value:
    """Return the value that was set later."""
    return max(one, other, key=lambda each: each[1:])


# How values of processes become one, by the kind of metric.
COMBINED: dict[str, Callable[[Value, Value], Value]] = {
    "counter": add,
    "histogram": add,
    "summary": add,
    "gauge_sum": add,
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": newer,
}


def dead(files: Iterable[Path]) -> list[Path]:
    """Return those of some files whose process, which is the end of their name, is no more."""
    numbers = {file: re.search(r"(\d+)(\.db)?$", file.name) for file in files}
    return sorted(file for file, number in numbers.items() if number and not Path("/proc", number[1]).exists())


def forget_ended(place: Path | None) -> None:
    """Take away what processes that have ended had under way (prometheus_client's live gauges); their counters stay.

    In the directory that is ours, they are added up in one file of each kind, as long as nobody counts what is in there.

    Args:
        place: that directory; None where there is none.
    """
    counted = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    directory = Path(counted) if counted else None
    for file in dead([*(directory.glob("gauge_live*.db") if directory else ()), *(place.glob("waiting.*") if place else ())]):
        file.unlink(missing_ok=True)
    if place is None or directory != place or importlib.util.find_spec("prometheus_client") is None:
        return
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import MultiProcessCollector

    collector: Any = MultiProcessCollector
    collect = collector.collect

    def collect_alone(self: Any) -> Any:
        with alone(place, fcntl.LOCK_SH):
            return collect(self)

    collector.collect = collect_alone
    with alone(place, fcntl.LOCK_EX):
        for kind, combine in COMBINED.items():
            files = dead(place.glob(f"{kind}_*.db"))
            if files:  # a file that a killed process left half written is in the way of no start
                with contextlib.suppress(OSError, ValueError, RuntimeError, struct.error):
                    fold(MmapedDict, files, place / f"{kind}_ended.db", combine)
        # The gauges of each process, by its number, which is nobody's any more.
        for file in dead(place.glob("gauge_all_*.db")):
            file.unlink()


@contextlib.contextmanager
def alone(place: Path, how: int) -> Iterator[None]:
    """Hold the lock of a directory of counts: whoever adds files up has it alone, and whoever counts with others."""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def fold(kind_of_file: Any, files: list[Path], whole: Path, combine: Callable[[Value, Value], Value]) -> None:
    """Put the values of some files into the file `whole`, beside what it holds, and take them away.

    Raises:
        OSError: when there is no room.
        ValueError, RuntimeError, struct.error: when one of them is broken.
    """
    values: dict[str, Value] = {}
    for file in [whole, *files]:
        if file.exists():
            for key, *value in kind_of_file.read_all_values_from_file(str(file)):
                found = tuple(value[:-1])  # the last is a place in the file
                values[key] = combine(values[key], found) if key in values else found
    new = whole.with_suffix(".new")
    used = sum(struct.unpack_from("i", file.read_bytes())[0] for file in [whole, *files] if file.exists())
    with open(new, "wb") as reserved:
        os.posix_fallocate(reserved.fileno(), 0, used)  # who writes where there is no room in the end is killed
    written = kind_of_file(str(new))
    for key, found in values.items():
        written.write_value(key, *found)
    written.close()
    new.rename(whole)
    for file in files:
        file.unlink()
