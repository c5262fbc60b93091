#!/usr/bin/python
"""Take an app host out of a balancer's use and wait until nothing is in flight there, or bring it back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: balancer_drain
short_description: Take an app host out of a balancer's use, or bring it back
description:
  - It is refused where no other host is in use there.
  - Returns in C(connections) how many connections are left, which is none unless it took too long.
options:
  host: {type: str, required: true, description: "What the inventory calls it."}
  drain: {type: bool, required: true, description: "Whether to take it out; else it comes back."}
  runtime: {type: path, required: true, description: "Where the balancer's service tells how it is."}
  drained: {type: path, required: true, description: "Where the hosts are noted that are out of use."}
  seconds: {type: int, required: true, description: "How long to wait."}
"""

# A state that is older than this nobody keeps.
STALE_SECONDS = 30
PAUSE = 0.2


class DrainError(Exception):
    """It cannot be done, and why."""


def state(runtime: Path) -> dict[str, Any]:
    """Return what the balancer's service says.

    Raises:
        DrainError: when it says nothing.
    """
    try:
        told: dict[str, Any] = json.loads((runtime / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DrainError(f"the balancer does not say how its hosts are ({error}): run site.yml for it first") from error
    if time.time() - told["when"] > STALE_SECONDS:
        raise DrainError("the balancer's service is not at work: systemctl status 'slipway-balancer-*'")
    return told


def settled(told: dict[str, Any], host: str, drain: bool) -> bool:
    """Say whether the balancer has done what it was told."""
    entry = told["hosts"].get(host, {})
    if drain:
        return entry.get("state") == "drained" and not entry["slots"] and not entry["connections"]
    return entry.get("state") == "in use" and entry["slots"] > 0


def wait(runtime: Path, host: str, drain: bool, seconds: float) -> dict[str, Any]:
    """Wait until the balancer has done it, and return what is said of the host then, or after `seconds`.

    Raises:
        DrainError: when the balancer says nothing.
    """
    begin = time.monotonic()
    # What was told before the note was made does not count.
    first = state(runtime)["when"]
    while True:
        told = state(runtime)
        if (told["when"] > first and settled(told, host, drain)) or time.monotonic() - begin > seconds:
            entry: dict[str, Any] = told["hosts"].get(host, {})
            return {**entry, "settled": settled(told, host, drain)}
        time.sleep(PAUSE)


def main() -> None:
    """Take it out, or bring it back."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "drain": {"type": "bool", "required": True},
            "runtime": {"type": "path", "required": True},
            "drained": {"type": "path", "required": True},
            "seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    host, drain, runtime = module.params["host"], module.params["drain"], Path(module.params["runtime"])
    note = Path(module.params["drained"], host)
    changed = note.exists() != drain
    try:
        told = state(runtime)
        if host not in told["hosts"]:
            raise DrainError(f"the balancer does not know {host}: run site.yml for it first")
        others = [name for name, entry in told["hosts"].items() if name != host and entry["state"] == "in use"]
        if drain and not others:
            raise DrainError(f"{host} is the last host in use there. Bring another one in first: -e drain=false -l HOST")
        if module.check_mode:
            module.exit_json(changed=changed)
        if drain:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        else:
            note.unlink(missing_ok=True)
        entry = wait(runtime, host, drain, module.params["seconds"])
    except DrainError as error:
        module.fail_json(msg=f"Nothing was changed: {error}")
    module.exit_json(changed=changed, **entry)


if __name__ == "__main__":
    main()
