"""Until when each series of Python gets security fixes, by https://devguide.python.org/versions/ (PEP 602)."""

from __future__ import annotations

import re
import time

SOURCE = "https://devguide.python.org/versions/"

# By series, the month with which its support ends. The last ones are those that are stable by now.
ENDS = {
    "3.8": "2024-10",
    "3.9": "2025-10",
    "3.10": "2026-10",
    "3.11": "2027-10",
    "3.12": "2028-10",
    "3.13": "2029-10",
    "3.14": "2030-10",
    "3.15": "2031-10",
}


def series(version: str) -> str:
    """Return the series of a version, as `3.14` of `3.14.2` and of `3.14.2t`."""
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else ""


def ended(version: str, now: float) -> str:
    """Return the month in which support of a version ended; empty if it has not, or if nobody knows.

    Args:
        version: as `3.9.2`.
        now: the time, in seconds since 1970.
    """
    month = ENDS.get(series(version), "")
    return month if month and time.strftime("%Y-%m", time.gmtime(now)) > month else ""
