"""The step of a release: plan it, prepare it, activate it, or go back."""

from __future__ import annotations

from typing import Any

from slipway.host.certificate import days_left
from slipway.host.configuration import UnknownApp, configured, load, save
from slipway.host.errors import ReleaseError
from slipway.host.lock import LEASE_SECONDS, Busy, TakenOver, lock
from slipway.host.process import masked
from slipway.host.release.context import Context
from slipway.host.release.deploy import back, take
from slipway.host.release.plan import choices, needed, numbers
from slipway.host.store import version_of

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's name.
    "app": str,
    # `prepare` writes the new release and imports the app in it; `migrate` does that, too, and runs the migration; `release`
    # does whatever of it is not done, and makes it live. `look` finds the release to go back to and changes nothing;
    # `rollback` goes back to it. The others are for several hosts of one app: `plan` says what a host has and needs, `claim`
    # keeps others from changing the app, `take_back` has again what was live before this run, and `let_go` ends the claim.
    "step": str,
    # The release to go back to; empty for the last good one before the live one.
    "to": "",
    # The number of the release on all hosts of the app; 0 for the next one here.
    "number": 0,
    # What `take_back` makes live again; 0 for nothing.
    "before": 0,
    # Seconds that the app stays held for the next step; 0 for as many as usual.
    "lease": 0.0,
    # Seconds after which nothing is switched to any more; 0 for no limit.
    "limit": 0.0,
    # What the end of a run tells of the canary.
    "note": "",
    # The run of Ansible that this is a step of.
    "run": dict,
    # The app's configuration, in the first step of a run; without it the host's own is taken.
    "configuration": {},
}


# Steps that write the configuration that they bring along.
WRITING = ("claim", "prepare", "release", "rollback")


def trial(context: Context, step: str) -> dict[str, Any]:
    """Say what a step would do, and change nothing.

    Returns:
        Its result, and in `then` what would be live, in words; empty where nothing would change.

    Raises:
        ReleaseError: when there is nothing to go back to.
    """
    live, agreed = context.layout.live(), context.arguments["number"]
    if step == "rollback":
        found = back(context, look=True)
        changed = found["release"] != live
        return {**found, "changed": changed, "then": str(found["release"]) if changed else ""}
    reason = needed(context)
    if step == "plan":
        return {"changed": False, "release": live, "reason": reason, "then": "", **numbers(context)}
    changed = reason is not None or agreed not in (0, live)
    return {"changed": changed, "release": live, "reason": reason, "then": "a new one" if changed else ""}


def summary(context: Context, before: int | None, then: str = "") -> dict[str, Any]:
    """Return what the end of a run tells of the host.

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
        release = f"{live}, as before" if live is not None else "none"
    elif step == "take_back":
        release = f"{live or 'none'}, taken back from {before}"
    else:
        release = f"{live}, back from {before}" if step == "rollback" else f"{live}, new"
    told = {"canary": context.arguments["note"]} if context.arguments["note"] else {}
    if step == "let_go":  # what was done is told already
        return told
    version = version_of(context.layout.record(live)) if live is not None else ""
    days = days_left(context.door)
    return {"url": context.arguments["url"], "release": release, "version": version, "certificate_days": days, **told}


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
        if given["step"] != "let_go":  # of what was refused before this host was told of it
            raise
        return {"changed": False, "release": None, "before": None, "reason": None, "summary": {}}
    return change(Context.of({**configuration, **given}), given, check, configuration if sent else None)


def written(configuration: dict[str, Any] | None, wanted: str, check: bool) -> bool:
    """Write the app's configuration, if this step does that, and say whether it is another one than before."""
    return configuration is not None and wanted in WRITING and save(configuration, check)


def change(context: Context, given: dict[str, Any], check: bool, configuration: dict[str, Any] | None) -> dict[str, Any]:
    """Take one step.

    Args:
        context: the step, and its host.
        given: what the step is told.
        check: whether nothing may change.
        configuration: what the app's file is to hold from now on; None leaves that alone.

    Returns:
        What came of it, also if it failed.
    """
    wanted, before = given["step"], context.layout.live()
    try:
        if wanted == "look":
            return {**choices(context), "before": before, "summary": summary(context, before)}
        if check:
            result = trial(context, wanted)
            then = result.pop("then")
            result["changed"] = result["changed"] or written(configuration, wanted, check)
            return {**result, "before": before, "summary": summary(context, before, then)}
        lease = given["lease"] or (LEASE_SECONDS if wanted in ("prepare", "migrate") else 0.0)
        with lock(context.layout, given["run"], lease=0.0 if wanted == "let_go" else lease):
            another = written(configuration, wanted, check)
            result = take(context, wanted)
    except (ReleaseError, OSError) as error:
        told = summary(context, before)
        if wanted == "let_go" and isinstance(error, (Busy, TakenOver)):  # the claim had ended, and another run began
            return {"changed": False, "release": before, "before": before, "reason": None, "summary": told}
        if isinstance(error, Busy):
            return {"failed": True, "msg": str(error), "holder": error.holder, "summary": told}
        live = context.layout.live()
        return {"failed": True, "msg": masked(str(error), context.secrets), "live": live, "summary": told}
    record = context.layout.record(result["release"]) if result["release"] else {}
    return {
        **result,
        "changed": result["changed"] or another,
        "said": masked(result.get("said", ""), context.secrets),
        "before": before,
        "summary": summary(context, before),
        "version": version_of(record),
        "record": {key: value for key, value in record.items() if key not in ("digest", "health")},
        "diff": {"before": f"release {before}\n", "after": f"release {result['release']}\n"} if result["changed"] else {},
        "warnings": [masked(warning, context.secrets) for warning in context.warnings],
    }
