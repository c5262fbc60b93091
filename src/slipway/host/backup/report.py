"""How the backups of an app are, for status, doctor and metrics: one definition of failed and of too old."""

from __future__ import annotations

import time
from typing import Any

from slipway.host.backup.settings import FAILED, INTERRUPTED, OK, RUNNING, is_on, is_running, load, load_state


def row(app: str) -> dict[str, Any]:
    """Return how the backups of an app are; empty if it is not backed up.

    Returns:
        `result` of the last one (empty before the first), its `run`, `start`, `seconds` and `error`; of the last good one
        `success`, when it was made, in seconds since 1970, its `size` and what it `added` in bytes, and the `release` in it;
        `overdue`, whether that is longer ago than `backup_max_age_hours`; and `checked`, when the repository was.
    """
    if not is_on(app):
        return {}
    settings, state = load(app), load_state(app)
    active = bool(state.run) and not state.end and is_running(app)
    result = state.result if state.end else RUNNING if active else INTERRUPTED if state.run else ""
    ended = state.end or (time.time() if active else state.start)
    return {
        **{"result": result, "run": state.run, "start": state.start, "seconds": round(max(0.0, ended - state.start), 1)},
        "error": state.error if result == FAILED else "",
        **{"success": state.success, "size": state.size, "added": state.added, "release": state.release},
        "overdue": time.time() - (state.success or state.since or time.time()) > settings.max_age_hours * 3600,
        "checked": state.checked,
    }


def has_failed(found: dict[str, Any]) -> bool:
    """Say whether the last backup failed, one that is under way left aside."""
    return found["result"] not in ("", RUNNING, OK)


def summary(found: dict[str, Any]) -> str:
    """Return how backups are in a few words; nothing for an app that is not backed up."""
    if not found:
        return ""
    good = f"{age(time.time() - found['success'])} ago" if found["success"] else "none yet"
    if has_failed(found):
        return f"{found['result']}; last good: {good}"
    return f"too old: {good}" if found["overdue"] else good


def age(seconds: float) -> str:
    """Return a duration as people read it, in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size_text(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
