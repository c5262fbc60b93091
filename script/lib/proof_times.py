"""Where the time of the proof went, and how fast the machine is that it ran on."""

from __future__ import annotations

import statistics
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

SLOWEST = 20
LOOP = 2_000_000


def speed(loop: int = LOOP) -> float:
    """Return the seconds of a processor that a fixed loop of plain Python takes: the median of five."""
    taken = []
    for _ in range(5):
        begin = time.thread_time()
        total = 0
        for number in range(loop):
            total += number & 7
        taken.append(time.thread_time() - begin)
    return statistics.median(taken)


def busy(stat: Path = Path("/proc/stat")) -> float:
    """Return the seconds that all processors of the machine have been busy since it started, whoever asked for it."""
    # user, nice, system, idle, waiting, interrupts, and soft ones; in hundredths
    user, nice, system, _, _, hard, soft, *_ = map(int, stat.read_text(encoding="ascii").splitlines()[0].split()[1:])
    return (user + nice + system + hard + soft) / 100


def slowest(reports: Iterable[Path], most: int = SLOWEST) -> list[str]:
    """Return a line for each of the tests that took longest, by the reports of those steps that wrote one."""
    cases = []
    for report in filter(Path.is_file, reports):
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            cases.append((float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}"))
    return [f"{seconds:8.1f} s  {name}" for seconds, name in sorted(cases, reverse=True)[:most]]
