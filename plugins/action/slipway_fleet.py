"""Plan a release or a rollback for all hosts of each app of the play, and follow it from phase to phase."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from slipway.controller.commands import as_typed
from slipway.controller.progress import Progress

DOCUMENTATION = """
action: slipway_fleet
short_description: Plan a release or a rollback over hosts, and follow it
description:
  - With O(command), makes a plan for each app of several hosts, from what the hosts have answered.
  - With O(app), records for one app what became of a phase of its plan, or, with O(report), of the whole plan.
  - The task runs once for the play, with C(run_once), which registers its result for all hosts.
options:
  command: {type: str, choices: [release, rollback], description: "What is planned."}
  apps: {type: dict, description: "The name of the app of each host, in the order of the inventory."}
  app: {type: str, description: "The app whose phase has ended."}
  fleets: {type: dict, description: "The result of this action before."}
  report: {type: bool, default: false, description: "Whether a report of a failure is wanted."}
  results: {type: str, required: true, description: "The variable with a host's last result."}
  settings: {type: str, description: "The variable with a host's settings, those of Settings in src/slipway/controller/fleet.py."}
"""

EXAMPLES = """
- name: Plan the release
  slipway_fleet:
    command: release
    apps: {one.example.com: shop, two.example.com: shop}
    results: found
    settings: wanted
  register: planned
"""

RETURN = """
fleets: {type: dict, returned: always, description: "By app, C(plan), C(failures) and what else Progress in
  src/slipway/controller/progress.py has."}
"""


class ActionModule(ActionBase):
    """Makes plans, and follows them."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("command", "apps", "app", "fleets", "report", "results", "settings"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the progress of each app."""
        super().run(tmp, task_vars)
        given, known = self._task.args, task_vars or {}

        def of(hosts: list[str], name: str) -> dict[str, Any]:
            return {host: known["hostvars"][host].get(name) or {} for host in hosts}

        if "command" in given:
            fleets = {}
            for app in dict.fromkeys(given["apps"].values()):
                hosts = [host for host, name in given["apps"].items() if name == app]
                present = [host for host in hosts if host in known["ansible_play_hosts"]]
                settings = of(present, given["settings"])
                if app and len(hosts) > 1 and all(settings.values()) and present:
                    results = of(present, given["results"])
                    fleets[app] = Progress.begin(given["command"], app, results, settings, self._task.check_mode).values()
            return {"fleets": fleets}
        before = Progress.of(given["fleets"][given["app"]])
        results = of(list(before.plan.before), given["results"])
        progress = before.reported(results) if given.get("report") else before.after(results)
        values = progress.values()
        return {"fleets": {**given["fleets"], given["app"]: {**values, "reports": as_typed(values["reports"])}}}
