#!/usr/bin/python
"""Measure for a while what clients get of the live release of an app."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.app_layout import Layout, ReleaseError
from ansible.module_utils.app_state import masters
from ansible.module_utils.app_supervisor import Supervisor
from ansible.module_utils.app_watch import Processes, Traffic
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: app_canary
short_description: Measure for a while what clients get of the live release of an app
description:
  - Nothing is changed. What is measured is what Nginx logs from now on, and which of the app's processes end.
options:
  layout: {type: dict, required: true, description: "The app's paths C(home), C(runtime) and C(logs)."}
  name: {type: str, required: true, description: "The app's name. A program is called C(<name>-<release>)."}
  program_directory: {type: path, required: true, description: "Where Supervisor looks for sections."}
  program_suffix: {type: str, required: true, description: "What the names of those files end with."}
  access_log: {type: path, required: true, description: "Where Nginx logs the app's answers, as JSON."}
  seconds: {type: float, required: true, description: "How long."}
"""


def measure(
    layout: Layout, supervisor: Supervisor, log: Path, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Return what became of the requests of the next `seconds`.

    Returns:
        `release`, `total` requests, `errors` among them, `seconds` with how many took how long, and `restarts`, the processes
        that ended.

    Raises:
        ReleaseError: when nothing is live, or another release is at the end.
    """
    live = layout.live()
    if live is None:
        raise ReleaseError("Nothing is live here, so there is nothing to measure.")
    since, begin = time.time(), time.monotonic()
    traffic, restarts = Traffic(log), 0
    programs = supervisor.state(live)[1]
    workers = Processes(masters(layout, supervisor, live))
    while True:
        left = begin + seconds - time.monotonic()
        sleep(min(1.0, max(0.0, left)))
        count = traffic.follow(live, since)
        workers.look()
        now = supervisor.state(live)[1]
        if now and now != programs:
            restarts += workers.ended + len(set(programs) - set(now))
            programs, workers = now, Processes(masters(layout, supervisor, live))
        if left <= 0:
            break
    if layout.live() != live:
        raise ReleaseError(f"Release {live} was live when this began, and release {layout.live()} is now.")
    return {
        "release": live,
        "total": count.total,
        "errors": count.errors,
        "seconds": {str(taken): times for taken, times in sorted(count.seconds.items())},
        "restarts": restarts + workers.ended,
    }


def main() -> None:
    """Measure."""
    module = AnsibleModule(
        argument_spec={
            "layout": {"type": "dict", "required": True},
            "name": {"type": "str", "required": True},
            "program_directory": {"type": "path", "required": True},
            "program_suffix": {"type": "str", "required": True},
            "access_log": {"type": "path", "required": True},
            "seconds": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    supervisor = Supervisor(given["name"], given["program_directory"], given["program_suffix"], 0)
    try:
        found = measure(Layout(**given["layout"]), supervisor, Path(given["access_log"]), given["seconds"])
    except (ReleaseError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
