"""What a host has and needs, before anything is changed there but the leftovers of an interrupted run."""

from __future__ import annotations

import os
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink
from slipway.host.release.activate import run_pending_hook
from slipway.host.release.context import Context
from slipway.host.release.failure import stop
from slipway.host.release.gate import answers
from slipway.host.release.jobs import apply_jobs
from slipway.host.release.prepare import prepared
from slipway.host.release.processes import tidy_processes, unfit
from slipway.host.release.record import GOOD, fingerprint, next_number, remember
from slipway.host.release.rollback import find_target


def needed(context: Context) -> str | None:
    """Say why a release is needed; None when what is live is what is wanted, and answers."""
    live = context.layout.live()
    if live is None:
        return "nothing was live yet"
    if context.layout.record(live).get("digest") != fingerprint(context):
        return "the build or its settings have changed"
    if live not in context.supervisor.installed():
        return f"Supervisor has no program for release {live}"
    if not answers(context, live, patience=10):
        return f"release {live} is unhealthy on its socket"
    reason = unfit(context, live)
    return f"release {live} is not whole: {reason}" if reason else None


def tidy(context: Context) -> bool:
    """Clear what an interrupted run left: programs other than the live one's, processes included, and links that lag behind.

    Returns:
        Whether there was anything.
    """
    live = context.layout.live()
    leftovers = [number for number in context.supervisor.known() if number != live]
    for number in leftovers:
        stop(context, number)
    ran = tidy_processes(context, live)
    if live is None:
        return bool(leftovers) or ran
    target = f"releases/{live}"
    stale_link = not context.layout.current.is_symlink() or os.readlink(context.layout.current) != target
    if stale_link:
        atomic_symlink(context.layout.current, target)
    left = context.layout.record(live).get("back_from")  # a rollback that was interrupted after its switch
    if left and context.layout.release(left).is_dir():
        remember(context, left, outcome="rolled back", reason=f"rolled back to release {live}")
    unrecorded = bool(left) or context.layout.record(live).get("outcome") != GOOD
    if unrecorded:
        remember(context, live, outcome=GOOD, back_from=None)
    moved = context.layout.record(live).get("first", True) != context.arguments["first"]
    if moved:
        remember(context, live, first=context.arguments["first"])
    return bool(leftovers) or ran or stale_link or unrecorded or moved


def numbers(context: Context) -> dict[str, Any]:
    """Return which numbers a release can have on this host."""
    return {
        "next": next_number(context),
        "prepared": prepared(context),
        "again": prepared(context, "rolled back"),
    }


def plan(context: Context) -> dict[str, Any]:
    """Say what the host has, and whether it needs a release, for an agreement with the others.

    Returns:
        `next` is the first number that is free on this host; `prepared` a release that lies there ready, `again` one that was
        reverted; both match the requested build and settings.
    """
    changed = tidy(context)
    reason, live = needed(context), context.layout.live()
    hook = ""
    if reason is None and live is not None:
        changed = apply_jobs(context, live) or changed
        hook = run_pending_hook(context, live)
    return {"changed": changed or bool(hook), "release": live, "reason": reason, "hook": hook, **numbers(context)}


def choices(context: Context) -> dict[str, Any]:
    """Say which releases the host can roll back to, for an agreement with the others.

    Returns:
        `choices` has the good releases; `rejections` says, for each release that is kept and for the requested one, why it
        cannot be chosen; empty if it can. `release` is what is live, `newest` what was live before an interrupted rollback.
    """
    layout, to = context.layout, context.arguments["to"]
    live = layout.live()
    rejections = {}
    for candidate in {*map(str, layout.numbers()), to} - {""}:
        try:
            find_target(context, candidate, context.arguments["across_migrations"])
            rejections[candidate] = ""
        except ReleaseError as error:
            rejections[candidate] = str(error)
    return {
        "changed": False,
        "release": live,
        "newest": max(live or 0, layout.record(live).get("back_from") or 0) if live else 0,
        "choices": [number for number in layout.numbers() if layout.record(number).get("outcome") == GOOD],
        "rejections": rejections,
        **numbers(context),
    }
