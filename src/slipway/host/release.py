"""Release a build: start it beside the live release, let it prove itself, switch to it, and stop the old one; or go back."""

from __future__ import annotations

from typing import Any

from slipway.host.certificate import days_left
from slipway.host.configuration import configured, load, save
from slipway.host.errors import ReleaseError
from slipway.host.lock import LEASE_SECONDS, Busy, TakenOver, lock
from slipway.host.process import masked
from slipway.host.releaser import GOOD, Releaser
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


def plan(releaser: Releaser) -> dict[str, Any]:
    """Say what the host has, and whether it needs a release, for an agreement with the others.

    Returns:
        `next` is the first number that is free on this host; `prepared` a release that lies there ready, `again` one that was
        taken back, both of what is wanted.
    """
    changed = releaser.tidy()
    reason, live = releaser.needed(), releaser.layout.live()
    hook = releaser.last_hook(live) if reason is None and live is not None else ""
    return {"changed": changed or bool(hook), "release": live, "reason": reason, "hook": hook, **numbers(releaser)}


def numbers(releaser: Releaser) -> dict[str, Any]:
    """Return which numbers a release can have on this host."""
    return {
        "next": releaser.next_number(),
        "prepared": releaser.prepared(),
        "again": releaser.prepared("rolled back"),
    }


def forward(releaser: Releaser, step: str) -> dict[str, Any]:
    """Take the steps up to `step` towards a release, where one is needed.

    Raises:
        ReleaseError: when a step failed; what was live still is.
    """
    live = number = releaser.layout.live()
    agreed = releaser.arguments["number"] or None
    changed = releaser.tidy()
    reason = releaser.needed()
    if reason is None and agreed not in (None, live):
        reason = "another host of the app needed it"
    said = hook = ""
    if reason is None and step == "release" and live is not None:
        hook = releaser.last_hook(live)
        changed = changed or bool(hook)
    if reason is not None:
        changed = True
        if step == "release":
            number = releaser.release(agreed)
            releaser.prune()
        else:
            number = releaser.try_out(agreed)
        if step == "migrate":
            said = releaser.migrate(number)
    return {"changed": changed, "release": number, "reason": reason, "said": said, "hook": hook}


def back(releaser: Releaser, look: bool) -> dict[str, Any]:
    """Go back to an earlier release, or only find it.

    Raises:
        ReleaseError: when there is none, or going there failed; what was live still is.
    """
    arguments = releaser.arguments
    live = releaser.layout.live()
    target = releaser.target(arguments["to"], arguments["across_migrations"])
    if look:
        return {"changed": False, "release": target, "reason": None}
    changed = releaser.tidy()  # one that was interrupted after its switch has got there, and left the rest
    if target == live:
        hook = releaser.last_hook(live)
        return {"changed": changed or bool(hook), "release": target, "reason": None, "hook": hook}
    number = releaser.roll_back(target, arguments["rollback_settings"], arguments["number"] or None)
    return {"changed": True, "release": number, "reason": f"rolled back from release {live}"}


def choices(releaser: Releaser) -> dict[str, Any]:
    """Say which releases the host can go back to, for an agreement with the others.

    Returns:
        `choices` has the good releases; `problems` says of each release that is kept, and of the one that is asked for, what
        keeps it from being chosen, if anything does. `release` is what is live, `newest` what was before a way back that was
        interrupted.
    """
    layout, to = releaser.layout, releaser.arguments["to"]
    live = layout.live()
    problems = {}
    for wanted in {*map(str, layout.numbers()), to} - {""}:
        try:
            releaser.target(wanted, releaser.arguments["across_migrations"])
            problems[wanted] = ""
        except ReleaseError as error:
            problems[wanted] = str(error)
    return {
        "changed": False,
        "release": live,
        "newest": max(live or 0, layout.record(live).get("back_from") or 0) if live else 0,
        "choices": [number for number in layout.numbers() if layout.record(number).get("outcome") == GOOD],
        "problems": problems,
        **numbers(releaser),
    }


def take_back(releaser: Releaser) -> dict[str, Any]:
    """Have again what was live before this run switched, if it did.

    Raises:
        ReleaseError: when that failed.
    """
    number, before = releaser.arguments["number"], releaser.arguments["before"] or None
    changed = releaser.tidy()
    if releaser.layout.live() not in (number, None) or number == before:
        return {"changed": changed, "release": releaser.layout.live(), "reason": None}
    if releaser.layout.live() is None:
        return {"changed": changed, "release": None, "reason": None}
    releaser.take_back(number, before)
    return {"changed": True, "release": before, "reason": f"taken back from release {number}"}


def take(releaser: Releaser, step: str) -> dict[str, Any]:
    """Take one step that changes something, or may.

    Raises:
        ReleaseError: when it failed.
    """
    if step in ("claim", "let_go"):
        return {"changed": False, "release": releaser.layout.live(), "reason": None}
    if step == "plan":
        return plan(releaser)
    if step == "take_back":
        return take_back(releaser)
    return back(releaser, look=False) if step == "rollback" else forward(releaser, step)


def trial(releaser: Releaser, step: str) -> dict[str, Any]:
    """Say what a step would do, and change nothing.

    Returns:
        Its result, and in `then` what would be live, in words; empty where nothing would change.

    Raises:
        ReleaseError: when there is nothing to go back to.
    """
    live, agreed = releaser.layout.live(), releaser.arguments["number"]
    if step == "rollback":
        found = back(releaser, look=True)
        changed = found["release"] != live
        return {**found, "changed": changed, "then": str(found["release"]) if changed else ""}
    reason = releaser.needed()
    if step == "plan":
        return {"changed": False, "release": live, "reason": reason, "then": "", **numbers(releaser)}
    needed = reason is not None or agreed not in (0, live)
    return {"changed": needed, "release": live, "reason": reason, "then": "a new one" if needed else ""}


def summary(releaser: Releaser, before: int | None, then: str = "") -> dict[str, Any]:
    """Return what the end of a run tells of the host.

    Args:
        releaser: what knows the host.
        before: the release that was live before this step.
        then: what would be live instead, where this run only tries.
    """
    live = releaser.layout.live()
    step = releaser.arguments["step"]
    if then:
        release = f"{live}, then {then}" if live is not None else then
    elif live == before:
        release = f"{live}, as before" if live is not None else "none"
    elif step == "take_back":
        release = f"{live or 'none'}, taken back from {before}"
    else:
        release = f"{live}, back from {before}" if step == "rollback" else f"{live}, new"
    told = {"canary": releaser.arguments["note"]} if releaser.arguments["note"] else {}
    if step == "let_go":  # what was done is told already
        return told
    version = version_of(releaser.layout.record(live)) if live is not None else ""
    days = days_left(releaser.door)
    return {"url": releaser.arguments["url"], "release": release, "version": version, "certificate_days": days, **told}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Take one step, and return what came of it."""
    sent = given.pop("configuration")
    configuration = configured(sent) if sent else load(given["app"])
    return change(Releaser({**configuration, **given}), given, check, configuration if sent else None)


def written(configuration: dict[str, Any] | None, wanted: str, check: bool) -> bool:
    """Write the app's configuration, if this step does that, and say whether it is another one than before."""
    return configuration is not None and wanted in WRITING and save(configuration, check)


def change(releaser: Releaser, given: dict[str, Any], check: bool, configuration: dict[str, Any] | None) -> dict[str, Any]:
    """Take one step.

    Args:
        releaser: what knows the app.
        given: what the step is told.
        check: whether nothing may change.
        configuration: what the app's file is to hold from now on; None leaves that alone.

    Returns:
        What came of it, also if it failed.
    """
    wanted, before = given["step"], releaser.layout.live()
    try:
        if wanted == "look":
            return {**choices(releaser), "before": before, "summary": summary(releaser, before)}
        if check:
            result = trial(releaser, wanted)
            then = result.pop("then")
            result["changed"] = result["changed"] or written(configuration, wanted, check)
            return {**result, "before": before, "summary": summary(releaser, before, then)}
        lease = given["lease"] or (LEASE_SECONDS if wanted in ("prepare", "migrate") else 0.0)
        with lock(releaser.layout, given["run"], lease=0.0 if wanted == "let_go" else lease):
            another = written(configuration, wanted, check)
            result = take(releaser, wanted)
    except (ReleaseError, OSError) as error:
        told = summary(releaser, before)
        if wanted == "let_go" and isinstance(error, (Busy, TakenOver)):  # the claim had ended, and another run began
            return {"changed": False, "release": before, "before": before, "reason": None, "summary": told}
        if isinstance(error, Busy):
            return {"failed": True, "msg": str(error), "holder": error.holder, "summary": told}
        live = releaser.layout.live()
        return {"failed": True, "msg": masked(str(error), releaser.secrets), "live": live, "summary": told}
    record = releaser.layout.record(result["release"]) if result["release"] else {}
    return {
        **result,
        "changed": result["changed"] or another,
        "said": masked(result.get("said", ""), releaser.secrets),
        "before": before,
        "summary": summary(releaser, before),
        "version": version_of(record),
        "record": {key: value for key, value in record.items() if key not in ("digest", "health")},
        "diff": {"before": f"release {before}\n", "after": f"release {result['release']}\n"} if result["changed"] else {},
        "warnings": [masked(warning, releaser.secrets) for warning in releaser.warnings],
    }
