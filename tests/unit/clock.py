"""A clock for tests of what waits."""

from __future__ import annotations

import time


class Clock:
    """Stands in for the module `time`, and moves as somebody sleeps.

    Attributes:
        now: what it shows, in seconds.
        naps: the seconds of each sleep.
    """

    strftime, gmtime = staticmethod(time.strftime), staticmethod(time.gmtime)

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        """Return what it shows."""
        return self.now

    def time(self) -> float:
        """Return the same."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.now += seconds
        self.naps.append(seconds)
