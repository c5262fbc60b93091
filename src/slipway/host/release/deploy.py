"""Release a build, or roll back to an earlier one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slipway.host.release.activate import activate
from slipway.host.release.context import MOVES, Context
from slipway.host.release.plan import keep, move, needed, place, plan, tidy
from slipway.host.release.prepare import migrate, prepare
from slipway.host.release.prune import prune
from slipway.host.release.rollback import find_target, revert, roll_back


def release(context: Context, agreed: int | None = None) -> int:
    """Release the build.

    Args:
        context: the step, and its host.
        agreed: the number that the release has on all hosts of the app; None where the host is alone.

    Returns:
        The number of the release that is live now.

    Raises:
        ReleaseError: when the new release failed; the old one is live, and says so.
    """
    number = prepare(context, agreed)
    activate(context, number, ("before_switch", "after_switch"))
    return number


def release_step(context: Context, step: str) -> dict[str, Any]:
    """Take the steps up to `step` towards a release, where one is needed.

    Raises:
        ReleaseError: when a step failed; what was live still is.
    """
    live = number = context.layout.live()
    runs_once = place(context)["runs_once"]
    agreed = context.arguments["number"] or None
    changed = tidy(context)
    reason = needed(context)
    if reason is None and agreed not in (None, live):
        reason = "another host of the app needs it"
    output = hook = ""
    if reason is None and step == "activate" and live is not None:
        kept, hook = keep(context, live)
        changed = kept or changed
    if reason is not None:
        changed = True
        if step == "activate":
            number = release(context, agreed)
            prune(context)
        else:
            number = prepare(context, agreed)
        if step == "migrate":
            output = migrate(context, number)
    return {"changed": changed, "release": number, "reason": reason, "output": output, "hook": hook, "runs_once": runs_once}


def rollback_step(context: Context, inspect_only: bool) -> dict[str, Any]:
    """Roll back to an earlier release, or only find it.

    Raises:
        ReleaseError: when there is none, or the rollback failed; the live release is unchanged.
    """
    arguments = context.arguments
    live = context.layout.live()
    target = find_target(context, arguments["to"], arguments["across_migrations"])
    if inspect_only:
        return {"changed": False, "release": target, "reason": None}
    runs_once = place(context)["runs_once"]
    changed = tidy(context)  # one that was interrupted after its switch has got there, and left the rest
    if target == live:
        kept, hook = keep(context, live)
        return {"changed": kept or changed, "release": target, "reason": None, "hook": hook, "runs_once": runs_once}
    number = roll_back(context, target, arguments["rollback_settings"], arguments["number"] or None)
    return {"changed": True, "release": number, "reason": f"rolled back from release {live}", "runs_once": runs_once}


def revert_step(context: Context) -> dict[str, Any]:
    """Revert to what was live before this run switched, if it did.

    Raises:
        ReleaseError: when that failed.
    """
    number, before = context.arguments["number"], context.arguments["before"] or None
    changed = tidy(context)
    if context.layout.live() not in (number, None) or number == before:
        return {"changed": changed, "release": context.layout.live(), "reason": None}
    if context.layout.live() is None:
        return {"changed": changed, "release": None, "reason": None}
    revert(context, number, before)
    return {"changed": True, "release": before, "reason": f"reverted from release {number}"}


def given_up(context: Context) -> bool:
    """Say whether this host, which a run is for alone, is to run no longer what only one host may."""
    return context.arguments.get("first_host") == "leave" and bool(context.layout.was_first())


def run_step(context: Context, step: str) -> dict[str, Any]:
    """Take one step that changes something, or may.

    Raises:
        ReleaseError: when it failed.
    """
    if step in ("lock", "unlock"):
        return {"changed": False, "release": context.layout.live(), "reason": None}
    if step == "plan":
        return plan(context)
    if step in MOVES:
        return move(context)
    if step == "revert":
        return revert_step(context)
    result = rollback_step(context, inspect_only=False) if step == "rollback" else release_step(context, step)
    if step in ("activate", "rollback") and given_up(context):
        left = move(replace(context, first=False))
        result["changed"] = left["changed"] or result["changed"]
    return result
