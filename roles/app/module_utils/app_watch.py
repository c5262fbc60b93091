"""Watch a release after the switch: what Nginx logs of its answers, and which of its processes end."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

# How much of the log before the switch tells what is usual.
USUAL_BYTES = 512 * 1024

# Fewer errors than this are taken for chance, and so is a share that is less than this above the usual one.
LEAST_ERRORS = 3
LEAST_SHARE = 0.05


class Count:
    """How many requests there were, and how many of them were answered with a 5xx status.

    Attributes:
        seconds: how many took how long, to two digits, so that this stays small however many they are.
    """

    def __init__(self) -> None:
        self.total = 0
        self.errors = 0
        self.seconds: Counter[float] = Counter()

    @property
    def share(self) -> float:
        """The share of errors, from 0 to 1."""
        return self.errors / self.total if self.total else 0.0

    def add(self, entry: dict[str, Any]) -> None:
        """Count one entry of the log."""
        self.total += 1
        self.errors += 500 <= int(entry.get("status", 0)) < 600
        if entry.get("seconds") is not None and int(entry.get("status", 0)) != 101:  # a WebSocket lasts as long as it is used
            self.seconds[float(f"{entry['seconds']:.2g}")] += 1

    def __str__(self) -> str:
        return f"{self.errors} of {self.total} requests"


class Traffic:
    """What Nginx logs of an app, in lines of JSON with `status`, `release` and `at` (seconds since 1970).

    Args:
        log: the access log; it need not exist.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.inode, self.position = self._end()
        self.usual = Count()
        for entry in self._read(max(0, self.position - USUAL_BYTES)):
            self.usual.add(entry)
        self.now = Count()

    def follow(self, release: int, since: float) -> Count:
        """Count what was logged since the last call.

        Args:
            release: whose answers count.
            since: the moment (seconds since 1970) from which an error of Nginx's own counts, too: nobody answered.

        Returns:
            All that was counted so far.
        """
        inode, end = self._end()
        if inode != self.inode or end < self.position:  # the log was rotated; what was at its end is lost to us
            self.inode, self.position = inode, 0
        for entry in self._read(self.position):
            silent = not entry.get("release") and int(entry.get("status", 0)) in (502, 504) and float(entry.get("at", 0)) >= since
            if silent or str(entry.get("release")) == str(release):
                self.now.add(entry)
        return self.now

    def _end(self) -> tuple[int, int]:
        try:
            found = self.log.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def _read(self, position: int) -> list[dict[str, Any]]:
        """Return the whole lines from `position` on, and remember where they end."""
        try:
            with open(self.log, "rb") as file:
                file.seek(position)
                text = file.read(16 * 2**20)
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.position = position + len(whole)
        entries = []
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                seconds = float(entry["seconds"]) if "seconds" in entry else None
                entries.append({**entry, "status": int(entry["status"]), "at": float(entry.get("at", 0)), "seconds": seconds})
            except (ValueError, TypeError, KeyError):  # the first may be torn, and lines of another format are nobody's
                continue
        return entries


class Processes:
    """The children of a program's processes, and how many of them have ended.

    Args:
        pids: the processes that Supervisor started.
    """

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.begin = time.monotonic()
        self.known = children(pids)
        self.ended = 0

    def look(self) -> int:
        """Return how many have ended since this began."""
        present = children(self.pids)
        self.ended += len(self.known - present)
        self.known = present
        return self.ended

    @property
    def rate(self) -> float:
        """How many end in a second."""
        return self.ended / max(1.0, time.monotonic() - self.begin)


def children(pids: list[int]) -> set[int]:
    """Return the ids of the children of the processes `pids`."""
    found: set[int] = set()
    if not pids:
        return found
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
            if int(parent) in pids and state != "Z":
                found.add(int(entry.name))
    return found
