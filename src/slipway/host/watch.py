"""Watch a release after the switch: what Nginx logs of its answers, and which of its processes end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from slipway.host.access_log import AccessLog

# How much of the log before the switch tells what is usual.
USUAL_BYTES = 512 * 1024

# Fewer errors than this are taken for chance, and so is a share that is less than this above the usual one.
LEAST_ERRORS = 3
LEAST_SHARE = 0.05


# A request that its client gave up after so many seconds without an answer waited in vain.
GIVEN_UP_SECONDS = 2.0

# Where the same was asked this often before the switch, and the release answered each time this many times as fast, one request
# is enough to say that it hangs.
KNOWN_TIMES = 3
KNOWN_FASTER = 5

# Of this many answers or more, one that took long is taken for chance: so long as that, the machine stood still.
CHANCE_TIMES = 20

# With fewer answers than this before the switch nobody knows what is usual.
LEAST_KNOWN = 10

# A request that waits for the first byte of its answer: since when, by the monotonic clock, and the digest of what it asks for.
WAITING = struct.Struct("<dQ")
WAITING_BYTES = 64 * 1024


class Count:
    """How many requests there were, and how many of them were answered with a 5xx status.

    Attributes:
        given_up: how many their clients gave up without an answer, after a while.
        paths: digests of methods and paths that the app itself answered, with how often it did so without an error, and the
            seconds that the two slowest answers took, the slowest last.
        seconds: how many took how long, to two digits, so that this stays small however many they are.
    """

    def __init__(self) -> None:
        self.total = 0
        self.errors = 0
        self.seconds: Counter[float] = Counter()
        self.given_up = 0
        self.paths: dict[int, tuple[int, list[float]]] = {}

    def slow_share(self, seconds: float) -> float:
        """Return the share of requests, from 0 to 1, that took longer than some seconds or were given up."""
        slow = sum(times for each, times in self.seconds.items() if each >= seconds)
        return min(1.0, (slow + self.given_up) / self.total) if self.total else 0.0

    @property
    def share(self) -> float:
        """The share of errors, from 0 to 1."""
        return self.errors / self.total if self.total else 0.0

    def add(self, entry: dict[str, Any]) -> None:
        """Count one entry of the log."""
        status = int(entry.get("status", 0))
        self.total += 1
        self.errors += 500 <= status < 600
        if entry.get("seconds") is not None and status != 101:  # a WebSocket lasts as long as it is used
            self.seconds[float(f"{entry['seconds']:.2g}")] += 1
            if entry.get("release") and status < 500:
                path = digest_of(str(entry.get("method", "")), str(entry.get("path", "")))
                times, slowest = self.paths.get(path, (0, [0.0, 0.0]))
                self.paths[path] = times + (status < 400), sorted([*slowest, answered_within(entry)])[1:]
        self.given_up += given_up(entry)

    def __str__(self) -> str:
        return f"{self.errors} of {self.total} requests"


class Traffic:
    """What Nginx logs of an app, in lines of JSON with `status`, `release` and `at` (seconds since 1970).

    Args:
        log: the access log; it need not exist.
    """

    def __init__(self, log: Path) -> None:
        self.log = AccessLog(log, USUAL_BYTES)
        self.usual = Count()
        for entry in self.log.entries():
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
        for entry in self.log.entries():
            unanswered = not entry.get("release") and entry["status"] in (502, 504) and entry["at"] >= since
            self.now.given_up += given_up(entry) and entry["at"] - entry["seconds"] >= since
            if unanswered or str(entry.get("release")) == str(release):
                self.now.add(entry)
        return self.now


def given_up(entry: dict[str, Any]) -> bool:
    """Say whether a client waited for an answer, and went without one."""
    return not entry.get("release") and int(entry.get("status", 0)) == 499 and (entry.get("seconds") or 0.0) >= GIVEN_UP_SECONDS


def answered_within(entry: dict[str, Any]) -> float:
    """Return the seconds that it took whoever answered in the end: one that hung before may have been asked in vain."""
    last = str(entry.get("upstream_seconds") or "").replace(":", ",").split(",")[-1]
    with contextlib.suppress(ValueError):
        return float(last)
    return float(entry["seconds"])


def digest_of(method: str, path: str) -> int:
    """Return what the runtime (waiting.py) notes of what a request asks for."""
    return zlib.crc32(f"{method} {path}".encode("utf-8", "surrogateescape"))


def waiting(runtime: Path, number: int, since: float) -> list[tuple[float, int]]:
    """Return the requests to release `number` that wait for the first byte of their answer, as its processes tell.

    Args:
        runtime: the directory of its sockets, in which the app may write what it likes.
        number: the release.
        since: only what began after this moment, in seconds of the monotonic clock.

    Returns:
        How long each has waited, in seconds, and the digest of its method and path.
    """
    found = []
    for file in [*runtime.glob(f"{number}.metrics/waiting.*"), *runtime.glob(f"{number}.*.metrics/waiting.*")]:
        data = b""
        with contextlib.suppress(OSError):
            handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(handle, "rb", buffering=0) as opened:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    continue
                try:
                    fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which its process does not allow while it lives
                except BlockingIOError:
                    data = opened.read(WAITING_BYTES) or b""
        now = time.monotonic()
        whole = len(data) - len(data) % WAITING.size
        found += [(now - began, path) for began, path in WAITING.iter_unpack(data[:whole]) if since < began <= now]
    return found


def hanging(waits: list[tuple[float, int]], seconds: float, traffic: Traffic) -> str:
    """Say which requests hang that did not before; empty where none do.

    Args:
        waits: how long requests have waited, and the digests of their methods and paths.
        seconds: how long one waits that hangs.
        traffic: what Nginx logged before the switch and since.
    """
    usual, now = traffic.usual, traffic.now
    if usual.total < LEAST_KNOWN:
        return ""
    long = [(waited, path) for waited, path in waits if waited >= seconds]
    for waited, path in long:
        times, slowest = usual.paths.get(path, (0, [0.0, 0.0]))
        chance = times >= CHANCE_TIMES
        times, longest = times - chance, slowest[not chance]
        if times >= KNOWN_TIMES and longest * KNOWN_FASTER <= waited and path not in now.paths:
            return f"a request has been waiting for {waited:.0f} s; {times} for the same took {longest:.1f} s at most before"
    hung = len(long) + now.given_up
    if hung >= LEAST_ERRORS and hung / (hung + now.total) > usual.slow_share(seconds) + LEAST_SHARE:
        return f"{hung} requests have waited {seconds:.0f} s or more for an answer, or were given up; {now.total} were answered"
    return ""


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

    def sample(self) -> int:
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
