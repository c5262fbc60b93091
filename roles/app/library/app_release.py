#!/usr/bin/python
"""Release a build: start it beside the live release, let it prove itself, switch to it, and stop the old one; or go back."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.app_layout import ReleaseError, masked, version_of
from ansible.module_utils.app_lock import LEASE_SECONDS, Busy, TakenOver, lock
from ansible.module_utils.app_releaser import GOOD, Releaser
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_release
short_description: Release a build of an app without dropping a request, or go back to an earlier release
description:
  - A release is a build plus its settings. Where the live one is made of the same and answers, nothing happens.
  - The new release starts on a socket of its own. Only when it is healthy does one rename make it live; only when the public
    door answers from it, and it was watched for a while, is the old one drained and stopped. Until then every failure ends with
    the old one serving.
  - What a run that was interrupted left behind is cleared first.
  - In C(files) and C(program), C(@RELEASE@) stands for the number of the release and C(@REVISION@) for what it was built from.
options:
  step:
    type: str
    choices: [plan, claim, prepare, migrate, release, look, rollback, take_back, let_go]
    required: true
    description: >-
      C(prepare) writes the new release and imports the app in it; C(migrate) does that, too, and runs the migration; C(release)
      does whatever of it is not done, and makes it live. C(look) finds the release to go back to and changes nothing;
      C(rollback) goes back to it. The others are for several hosts of one app: C(plan) says what a host has and needs, C(claim)
      keeps others from changing the app, C(take_back) has again what was live before this run, and C(let_go) ends the claim.
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  name: {type: str, required: true, description: "The app's name. A program is called C(<name>-<release>)."}
  user: {type: str, required: true, description: "The user that runs the app. Its group may read the settings."}
  directory: {type: str, required: true, description: "The folder of the build in which the app runs."}
  build: {type: str, required: true, description: "The build to release."}
  revision: {type: str, required: true, description: "What the state of the source is called, such as a commit."}
  version: {type: str, default: "", description: "What the operator called it, such as a tag."}
  origin: {type: str, required: true, description: "Where the source came from."}
  files: {type: dict, required: true, description: "Files of the release, name to content."}
  engine: {type: str, default: "", description: "What runs containers, where the release is run in one."}
  settings: {type: str, required: true, description: "The environment of the app, as a JSON object."}
  secret_names: {type: list, elements: str, required: true, description: "Which of the settings are shown nowhere."}
  program: {type: str, required: true, description: "The section for Supervisor."}
  program_directory: {type: path, required: true, description: "Where Supervisor looks for sections."}
  program_suffix: {type: str, required: true, description: "What the names of those files end with."}
  health:
    type: dict
    required: true
    description: "C(path), C(status), C(body), C(host), C(attempts), and C(timeout) in seconds."
  openapi_path: {type: str, required: true, description: "Where the OpenAPI document is that is compared; empty to compare none."}
  door: {type: dict, required: true, description: "C(host), C(port) and C(tls) of the public door on this host."}
  access_log: {type: path, required: true, description: "Where Nginx logs the app's answers, as JSON."}
  migrate: {type: dict, required: true, description: "The C(command) of the migration, and its C(timeout) in seconds."}
  hooks: {type: dict, required: true, description: "Commands by the names of hooks."}
  hook_timeout: {type: float, required: true, description: "Seconds that a hook may take."}
  instances: {type: int, default: 1, description: "How many of the release's programs Nginx hands requests to."}
  watch: {type: float, required: true, description: "Seconds after the switch in which the release is watched."}
  hang: {type: float, default: 0, description: "Seconds after which a request hangs that has no answer; 0 to look at none."}
  drain: {type: float, required: true, description: "Seconds between the switch and the end of the old release, at least."}
  stop: {type: float, required: true, description: "Seconds that Supervisor gives a program to stop."}
  keep: {type: int, required: true, description: "How many earlier releases stay on the host."}
  room: {type: float, required: true, description: "MiB that must be free on the disk of the app's home."}
  to: {type: str, default: "", description: "The release to go back to; empty for the last good one before the live one."}
  number: {type: int, default: 0, description: "The number of the release on all hosts of the app; 0 for the next one here."}
  before: {type: int, default: 0, description: "What C(take_back) makes live again; 0 for nothing."}
  lease: {type: float, default: 0, description: "Seconds that the app stays held for the next step; 0 for as many as usual."}
  limit: {type: float, default: 0, description: "Seconds after which nothing is switched to any more; 0 for no limit."}
  note: {type: str, default: "", description: "What the end of a run tells of the canary."}
  across_migrations: {type: bool, default: false, description: "Whether to go back to one made for another schema."}
  rollback_settings:
    type: str
    choices: [theirs, current]
    default: theirs
    description: "Whether a release that is gone back to runs with the settings that it had, or with today's."
  url: {type: str, default: "", description: "Where clients find the app, for what the end of a run tells."}
  run: {type: dict, required: true, description: "The run of Ansible that this is a step of."}
"""


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
    days = releaser.door.certificate_days()
    return {"url": releaser.arguments["url"], "release": release, "version": version, "certificate_days": days, **told}


def main() -> None:
    """Take one step."""
    module = AnsibleModule(
        argument_spec={
            "step": {
                "type": "str",
                "choices": ["plan", "claim", "prepare", "migrate", "release", "look", "rollback", "take_back", "let_go"],
                "required": True,
            },
            "layout": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "directory": {"type": "str", "required": True},
            "build": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "origin": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
            "engine": {"type": "str", "default": ""},
            "settings": {"type": "str", "required": True, "no_log": True},
            "secret_names": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "program": {"type": "str", "required": True},
            "program_directory": {"type": "path", "required": True},
            "program_suffix": {"type": "str", "required": True},
            "health": {"type": "dict", "required": True},
            "openapi_path": {"type": "str", "required": True},
            "door": {"type": "dict", "required": True},
            "access_log": {"type": "path", "required": True},
            "migrate": {"type": "dict", "required": True},
            "hooks": {"type": "dict", "required": True},
            "hook_timeout": {"type": "float", "required": True},
            "instances": {"type": "int", "default": 1},
            "watch": {"type": "float", "required": True},
            "hang": {"type": "float", "default": 0},
            "drain": {"type": "float", "required": True},
            "stop": {"type": "float", "required": True},
            "keep": {"type": "int", "required": True},
            "room": {"type": "float", "required": True},
            "to": {"type": "str", "default": ""},
            "number": {"type": "int", "default": 0},
            "before": {"type": "int", "default": 0},
            "lease": {"type": "float", "default": 0},
            "limit": {"type": "float", "default": 0},
            "note": {"type": "str", "default": ""},
            "across_migrations": {"type": "bool", "default": False},
            "rollback_settings": {"type": "str", "choices": ["theirs", "current"], "default": "theirs"},
            "url": {"type": "str", "default": ""},
            "run": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # the app must be able to read its release
    releaser = Releaser(module.params)
    step = module.params["step"]
    before = releaser.layout.live()
    try:
        if step == "look":
            module.exit_json(**choices(releaser), before=before, summary=summary(releaser, before))
        if module.check_mode:
            result = trial(releaser, step)
            then = result.pop("then")
            module.exit_json(**result, before=before, summary=summary(releaser, before, then))
        lease = module.params["lease"] or (LEASE_SECONDS if step in ("prepare", "migrate") else 0.0)
        with lock(releaser.layout, module.params["run"], lease=0.0 if step == "let_go" else lease):
            result = take(releaser, step)
    except (ReleaseError, OSError) as error:
        if step == "let_go" and isinstance(error, (Busy, TakenOver)):  # the claim had ended, and another run began
            module.exit_json(changed=False, release=before, before=before, reason=None, summary=summary(releaser, before))
        if isinstance(error, Busy):
            module.fail_json(msg=str(error), holder=error.holder, summary=summary(releaser, before))
        module.fail_json(msg=masked(str(error), releaser.secrets), live=releaser.layout.live(), summary=summary(releaser, before))
    for warning in releaser.warnings:
        module.warn(masked(warning, releaser.secrets))
    record = releaser.layout.record(result["release"]) if result["release"] else {}
    module.exit_json(
        **{**result, "said": masked(result.get("said", ""), releaser.secrets)},
        before=before,
        summary=summary(releaser, before),
        version=version_of(record),
        record={key: value for key, value in record.items() if key not in ("digest", "health")},
        diff={"before": f"release {before}\n", "after": f"release {result['release']}\n"} if result["changed"] else {},
    )


if __name__ == "__main__":
    main()
