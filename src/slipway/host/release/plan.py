"""What a host has and needs, before anything is done there but clearing up after a run that was interrupted."""

from __future__ import annotations

import os
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import point
from slipway.host.release.activate import run_owed_hook
from slipway.host.release.context import Context
from slipway.host.release.failure import stop
from slipway.host.release.gate import answers
from slipway.host.release.prepare import prepared
from slipway.host.release.record import GOOD, next_number, remember, wanted_digest
from slipway.host.release.rollback import find_target


def needed(context: Context) -> str | None:
    """Say why a release is needed; None when what is live is what is wanted, and answers."""
    live = context.layout.live()
    if live is None:
        return "nothing was live yet"
    if context.layout.record(live).get("digest") != wanted_digest(context):
        return "the build or its settings changed"
    if live not in context.supervisor.installed():
        return f"Supervisor had no program for release {live}"
    if not answers(context, live, patience=10):
        return f"release {live} did not answer on its socket"
    return None


def tidy(context: Context) -> bool:
    """Clear what an interrupted run left: programs other than the live one, and links that lag behind.

    Returns:
        Whether there was anything.
    """
    live = context.layout.live()
    leftovers = [number for number in context.supervisor.known() if number != live]
    for number in leftovers:
        stop(context, number)
    if live is None:
        return bool(leftovers)
    target = f"releases/{live}"
    lagging = not context.layout.current.is_symlink() or os.readlink(context.layout.current) != target
    if lagging:
        point(context.layout.current, target)
    left = context.layout.record(live).get("back_from")  # a way back that was interrupted after its switch
    if left and context.layout.release(left).is_dir():
        remember(context, left, outcome="rolled back", reason=f"rolled back to release {live}")
    unsaid = bool(left) or context.layout.record(live).get("outcome") != GOOD
    if unsaid:
        remember(context, live, outcome=GOOD, back_from=None)
    return bool(leftovers) or lagging or unsaid


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
        taken back, both of what is wanted.
    """
    changed = tidy(context)
    reason, live = needed(context), context.layout.live()
    hook = run_owed_hook(context, live) if reason is None and live is not None else ""
    return {"changed": changed or bool(hook), "release": live, "reason": reason, "hook": hook, **numbers(context)}


def choices(context: Context) -> dict[str, Any]:
    """Say which releases the host can go back to, for an agreement with the others.

    Returns:
        `choices` has the good releases; `problems` says of each release that is kept, and of the one that is asked for, what
        keeps it from being chosen, if anything does. `release` is what is live, `newest` what was before a way back that was
        interrupted.
    """
    layout, to = context.layout, context.arguments["to"]
    live = layout.live()
    problems = {}
    for wanted in {*map(str, layout.numbers()), to} - {""}:
        try:
            find_target(context, wanted, context.arguments["across_migrations"])
            problems[wanted] = ""
        except ReleaseError as error:
            problems[wanted] = str(error)
    return {
        "changed": False,
        "release": live,
        "newest": max(live or 0, layout.record(live).get("back_from") or 0) if live else 0,
        "choices": [number for number in layout.numbers() if layout.record(number).get("outcome") == GOOD],
        "problems": problems,
        **numbers(context),
    }
