"""How the backups of an app are, for status, doctor and metrics: one definition of failed and of too old."""

from __future__ import annotations

import time
from typing import Any

from slipway.host.backup.settings import (
    DRILL,
    FAILED,
    INTERRUPTED,
    OK,
    RUNNING,
    DrillState,
    State,
    is_on,
    is_running,
    load,
    load_drill,
    load_state,
)


def row(app: str) -> dict[str, Any]:
    """Return how the backups of an app are; empty if it is not backed up.

    Returns:
        `result` of the last one (empty before the first), its `run`, `start`, `seconds` and `error`; of the last good one
        `success`, when it was made, in seconds since 1970, its `size` and what it `added` in bytes, and the `release` in it;
        `overdue`, whether that is longer ago than `backup_max_age_hours`; `checked`, when the repository was; and of the last
        `drill` the same, with the `backup` that was restored and what was `found`, or nothing before the first.
    """
    if not is_on(app):
        return {}
    settings, state = load(app), load_state(app)
    return {
        "run": state.run,
        **outcome(state, is_running(app)),
        **{"success": state.success, "size": state.size, "added": state.added, "release": state.release},
        "overdue": time.time() - (state.success or state.since or time.time()) > settings.max_age_hours * 3600,
        "checked": state.checked,
        "drill": drill_row(app),
    }


def drill_row(app: str) -> dict[str, Any]:
    """Return how the last drill of an app was; empty before the first."""
    state = load_drill(app)
    if not state.start:
        return {}
    more = {"backup": state.backup, "success": state.success, "found": state.found}
    return {**outcome(state, is_running(app, DRILL)), **more}


def outcome(state: State | DrillState, active: bool) -> dict[str, Any]:
    """Return what became of a backup or a drill, and how long it took.

    Args:
        state: what was written down.
        active: whether one is under way.
    """
    began = bool(state.start)
    result = state.result if state.end else "" if not began else RUNNING if active else INTERRUPTED
    ended = state.end or (time.time() if began and active else state.start)
    seconds = round(max(0.0, ended - state.start), 1)
    return {"result": result, "start": state.start, "seconds": seconds, "error": state.error if result == FAILED else ""}


def has_failed(found: dict[str, Any]) -> bool:
    """Say whether the last backup failed, or the last drill by its row; one that is under way left aside."""
    return found.get("result", "") not in ("", RUNNING, OK)


def summary(found: dict[str, Any]) -> str:
    """Return how backups are in a few words; nothing for an app that is not backed up."""
    if not found:
        return ""
    good = f"{age(time.time() - found['success'])} ago" if found["success"] else "none yet"
    if has_failed(found):
        return f"{found['result']}; last good: {good}"
    words = f"too old: {good}" if found["overdue"] else good
    return f"{words}; drill {found['drill']['result']}" if has_failed(found["drill"]) else words


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
