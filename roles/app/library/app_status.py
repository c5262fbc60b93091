#!/usr/bin/python
"""Tell how an app is: what is live, whether it answers, and what may soon keep it from that."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.app_door import Door
from ansible.module_utils.app_layout import Layout, ReleaseError, version_of
from ansible.module_utils.app_state import health, masters, workers
from ansible.module_utils.app_supervisor import Supervisor
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_status
short_description: Tell how an app is
description:
  - Nothing is changed.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  name: {type: str, required: true, description: "The app's name."}
  program_directory: {type: path, required: true, description: "Where Supervisor looks for sections."}
  program_suffix: {type: str, required: true, description: "What the names of those files end with."}
  health: {type: dict, required: true, description: "C(path), C(status) and C(host) of the question whether it is healthy."}
  door: {type: dict, required: true, description: "C(host), C(port) and C(tls) of the public door on this host."}
"""


def hook_to_do(record: dict[str, Any]) -> str:
    """Say which hook the live release still owes; empty where it owes none."""
    owed = record.get("owed") or {}
    return f", hook {owed['hook']} not done" if owed.get("hook") else ""


def status(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return how the app is.

    Returns:
        `release`, `version`, `since` and `who` of what is live, `workers` (processes), `health` (`ok`, or what is wrong),
        `certificate_days`, `disk_percent` of the app's file system, and `last`, what became of the last release.
    """
    layout, door = Layout(**arguments["layout"]), Door(**arguments["door"])
    supervisor = Supervisor(arguments["name"], arguments["program_directory"], arguments["program_suffix"], 0)
    live = layout.live()
    record = layout.record(live) if live is not None else {}
    entries = layout.entries()
    last = entries[-1] if entries else {}
    place = next(path for path in (layout.home, *layout.home.parents) if path.exists())
    disk = os.statvfs(place)
    found: dict[str, Any] = {
        "release": live,
        "version": version_of(record),
        "since": str(record.get("when", "")),
        "who": str(record.get("who", "")),
        "workers": 0,
        "health": "nothing is live",
        "certificate_days": door.certificate_days(),
        "disk_percent": round(100 * (1 - disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail))),
        "last": f"{last['release']} {last.get('outcome', '?')}{hook_to_do(record)}" if last else "",
        "reason": str(last.get("reason", "")),
    }
    if live is not None:
        found["health"] = health(layout, live, arguments["health"], door)
        try:
            found["workers"] = len(workers(masters(layout, supervisor, live)))
        except ReleaseError as error:
            found["health"] = str(error).splitlines()[0]
    return found


def main() -> None:
    """Tell it."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "program_directory": {"type": "path", "required": True},
            "program_suffix": {"type": "str", "required": True},
            "health": {"type": "dict", "required": True},
            "door": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, status=status(module.params))


if __name__ == "__main__":
    main()
