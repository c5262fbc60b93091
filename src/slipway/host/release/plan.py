"""What a host has and needs, before anything is changed there but the leftovers of an interrupted run."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink
from slipway.host.jobs.definition import jobs_of
from slipway.host.processes import defined
from slipway.host.release.activate import run_pending_hook
from slipway.host.release.context import Context
from slipway.host.release.failure import stop
from slipway.host.release.gate import answers
from slipway.host.release.jobs import apply_jobs
from slipway.host.release.prepare import prepared
from slipway.host.release.processes import ReleaseProcesses, tidy_processes, unfit
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
    gone = bool(context.layout.was_first()) and not context.first
    if gone:
        apply_jobs(context, live)
        remember(context, live, first=False)
    return bool(leftovers) or ran or stale_link or unrecorded or gone


def keep(context: Context, live: int) -> tuple[bool, str]:
    """Bring up to date what the live release runs at times, and run the hook that it still owes.

    Returns:
        Whether anything was changed, and the hook's name; empty where none was due.

    Raises:
        ReleaseError: when that failed; the next run tries it again.
    """
    changed = _schedule(context, live)
    hook = run_pending_hook(context, live)
    return changed or bool(hook), hook


def _schedule(context: Context, live: int) -> bool:
    """Have this host run the live release's jobs, remember that it is the app's first host if so, and say if that changed."""
    changed, took = apply_jobs(context, live), context.first and not context.layout.was_first()
    if took:
        remember(context, live, first=True)
    return changed or took


def move(context: Context) -> dict[str, Any]:
    """Have this host run what only one host of the app may run, or no longer, without another release.

    Raises:
        ReleaseError: when a process does not stay, or its jobs cannot be scheduled; this host runs nothing of it then.
    """
    changed, live = tidy(context), context.layout.live()
    if live is not None:
        processes = ReleaseProcesses(context, live)
        try:
            changed = (context.first and processes.take_over()) or changed
            changed = _schedule(context, live) or changed
        except (ReleaseError, OSError):
            for each in (processes.end_once, lambda: apply_jobs(replace(context, first=False), live)) if context.first else ():
                with contextlib.suppress(ReleaseError, OSError):  # the error that is raised already matters more
                    each()
            raise
    return {"changed": changed, "release": live, "reason": None, **place(context)}


def numbers(context: Context) -> dict[str, Any]:
    """Return which numbers a release can have on this host."""
    return {
        "next": next_number(context),
        "prepared": prepared(context),
        "again": prepared(context, "rolled back"),
    }


def place(context: Context) -> dict[str, Any]:
    """Return where what only one host may run is, for an agreement with the others.

    Returns:
        `first`: whether it is to run on this one; `runs_once`: whether it does, None where the live release has none of it.
    """
    layout, live = context.layout, context.layout.live()
    processes = [name for name, each in defined(layout, live, True).items() if each["hosts"] == "first"] if live else []
    if not processes and all(job.hosts == "all" for job in jobs_of(layout, live).values()):
        return {"first": context.arguments["first"], "runs_once": None}
    # One that an operator has stopped may run on another host by now.
    runs = not processes or any(each.process in processes and each.pids for each in context.supervisor.programs())
    return {"first": context.arguments["first"], "runs_once": bool(layout.was_first()) and runs}


def plan(context: Context) -> dict[str, Any]:
    """Say what the host has, and whether it needs a release, for an agreement with the others.

    Returns:
        `next` is the first number that is free on this host; `prepared` a release that lies there ready, `again` one that was
        reverted; both match the requested build and settings. What `place` says is in it, too.
    """
    changed = tidy(context)
    reason, live = needed(context), context.layout.live()
    hook = ""
    if reason is None and live is not None:
        kept, hook = keep(context, live)
        changed = kept or changed
    return {"changed": changed, "release": live, "reason": reason, "hook": hook, **numbers(context), **place(context)}


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
        **place(context),
    }
