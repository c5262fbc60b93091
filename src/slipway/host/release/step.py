"""The step of a release: plan it, prepare it, activate it, or go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host.canary import measure
from slipway.host.certificate import days_left
from slipway.host.configuration import UnknownApp, configured, load, save
from slipway.host.errors import ReleaseError
from slipway.host.lock import LEASE_SECONDS, Locked, LockTakenOver, lock, lock_owner
from slipway.host.process import masked
from slipway.host.release.context import MOVES, Context
from slipway.host.release.deploy import given_up, rollback_step, run_step
from slipway.host.release.plan import choices, needed, numbers, place
from slipway.host.store import version_of

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's name.
    "app": str,
    # `prepare` writes the new release and imports the app in it; `migrate` does that, too, and runs the migration; `activate`
    # does whatever of it is not done yet, and makes the release live. `inspect` finds the release to roll back to and changes
    # nothing; `rollback` rolls back to it. The others are for apps on several hosts: `plan` returns what a host has and needs,
    # `lock` keeps others from changing the app, `measure` measures what clients get of the live release, `revert` makes the
    # previous release live again, and `unlock` ends the lock. `hand_over` ends what only one host may run,
    # on the host that was the first one of the app, and `take_over` starts it on the one that is.
    "step": str,
    # The release to roll back to; empty for the last good one before the live one.
    "to": "",
    # The number of the release on all hosts of the app; 0 for the next one here.
    "number": 0,
    # What `revert` makes live again; 0 for nothing.
    "before": 0,
    # Whether what only one host may run belongs on this one in this step: yes or no; empty for as it is, and `leave` for no
    # longer, once the release is live.
    "first_host": "",
    # Seconds that the app stays locked for the next step; 0 for the default.
    "lease": 0.0,
    # Seconds after which no release is activated any more; 0 for no limit.
    "limit": 0.0,
    # Seconds for which is measured.
    "seconds": 0.0,
    # The canary's verdict, for the summary at the end of the run.
    "note": "",
    # The run of Ansible that this is a step of.
    "run": dict,
    # The app's configuration, in the first step of a run; without it the host's own is taken.
    "configuration": {},
}


# Steps that write the configuration that they bring along.
WRITING = ("lock", "prepare", "activate", "rollback")


def trial(context: Context, step: str) -> dict[str, Any]:
    """Return what a step would do, and change nothing.

    Returns:
        Its result, and in `then` what would be live, in words; empty where nothing would change.

    Raises:
        ReleaseError: when there is no release to roll back to.
    """
    live, agreed = context.layout.live(), context.arguments["number"]
    if step == "rollback":
        found = rollback_step(context, inspect_only=True)
        changed = found["release"] != live
        return {**found, "changed": changed, "then": str(found["release"]) if changed else ""}
    reason = needed(context)
    if step == "plan":
        return {"changed": False, "release": live, "reason": reason, "then": "", **numbers(context), **place(context)}
    if step in MOVES:
        return {"changed": context.layout.was_first() is not context.first, "release": live, "reason": None, "then": ""}
    left = given_up(context)
    changed = reason is not None or agreed not in (0, live)
    return {"changed": changed or left, "release": live, "reason": reason, "then": "a new one" if changed else ""}


def summary(context: Context, before: int | None, then: str = "") -> dict[str, Any]:
    """Return the summary of the host for the end of a run.

    Args:
        context: the step, and its host.
        before: the release that was live before this step.
        then: what would be live instead, where this run only tries.
    """
    live = context.layout.live()
    step = context.arguments["step"]
    if then:
        release = f"{live}, then {then}" if live is not None else then
    elif live == before:
        release = f"{live}, unchanged" if live is not None else "none"
    elif step == "revert":
        release = f"{live or 'none'}, reverted from {before}"
    else:
        release = f"{live}, rolled back from {before}" if step == "rollback" else f"{live}, new"
    notes = {"canary": context.arguments["note"]} if context.arguments["note"] else {}
    if step == "unlock":  # the summary is complete already
        return notes
    version = version_of(context.layout.record(live)) if live is not None else ""
    days = days_left(context.endpoint)
    return {"url": context.arguments["url"], "release": release, "version": version, "certificate_days": days, **notes}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Take one step, and return what came of it.

    Raises:
        UnknownApp: when the host has no such app.
        ReleaseError: when its configuration cannot be read.
    """
    sent = given.pop("configuration")
    try:
        configuration = configured(sent) if sent else load(given["app"])
    except UnknownApp:
        if given["step"] != "unlock":  # the run was refused before it reached this host
            raise
        return {"changed": False, "release": None, "before": None, "reason": None, "summary": {}}
    return change(Context.of({**configuration, **given}), given, check, configuration if sent else None)


def written(configuration: dict[str, Any] | None, name: str, check: bool) -> bool:
    """Write the app's configuration, if this step does that, and say whether it is another one than before."""
    return configuration is not None and name in WRITING and save(configuration, check)


def change(context: Context, given: dict[str, Any], check: bool, configuration: dict[str, Any] | None) -> dict[str, Any]:
    """Take one step.

    Args:
        context: the step, and its host.
        given: the arguments of the step.
        check: whether nothing may change.
        configuration: what the app's file is to hold from now on; None leaves that alone.

    Returns:
        What came of it, also if it failed; in `locked` whether this run has the app's lock after it.
    """
    name, before = given["step"], context.layout.live()
    try:
        if name == "measure":
            found = measure(context.layout, context.supervisor, Path(context.arguments["access_log"]), given["seconds"])
            return {"changed": False, **found, "locked": lock_owner(context.layout).get("id") == given["run"]["id"]}
        if name == "inspect":
            return {**choices(context), "before": before, "summary": summary(context, before)}
        if check:
            result = trial(context, name)
            then = result.pop("then")
            result["changed"] = result["changed"] or written(configuration, name, check)
            return {**result, "before": before, "summary": summary(context, before, then)}
        lease = given["lease"] or (LEASE_SECONDS if name in ("prepare", "migrate") else 0.0)
        with lock(context.layout, given["run"], lease=0.0 if name == "unlock" else lease):
            another = written(configuration, name, check)
            result = run_step(context, name)
    except (ReleaseError, OSError) as error:
        notes = summary(context, before)
        if name == "unlock" and isinstance(error, (Locked, LockTakenOver)):  # the lease had ended, and another run began
            return {"changed": False, "release": before, "before": before, "reason": None, "summary": notes}
        if isinstance(error, Locked):
            return {"failed": True, "msg": str(error), "locked_by": error.owner, "locked": False, "summary": notes}
        live = context.layout.live()
        return {"failed": True, "msg": masked(str(error), context.secrets), "live": live, "locked": False, "summary": notes}
    record = context.layout.record(result["release"]) if result["release"] else {}
    return {
        **result,
        "changed": result["changed"] or another,
        "output": masked(result.get("output", ""), context.secrets),
        "before": before,
        "locked": bool(lease) and name != "unlock",
        "summary": summary(context, before),
        "version": version_of(record),
        "record": {key: value for key, value in record.items() if key not in ("digest", "health")},
        "diff": {"before": f"release {before}\n", "after": f"release {result['release']}\n"} if result["changed"] else {},
        "warnings": [masked(warning, context.secrets) for warning in context.warnings],
    }
