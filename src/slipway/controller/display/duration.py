"""Times in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
