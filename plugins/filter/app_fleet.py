"""Plan a release or a rollback for all hosts of one app, and report what became of it."""

from __future__ import annotations

from typing import Any

from slipway.controller.fleet import failures, release_plan, report, rollback_plan

DOCUMENTATION = """
name: app_release_plan
short_description: Plan a release or a rollback for all hosts of one app
description:
  - C(app_release_plan) and C(app_rollback_plan) make a plan from what each host has; C(app_failures) and C(app_report) return
    what failed. All take the results of the step release by host, in the order of the inventory.
options:
  _input: {type: dict, required: true, description: "Results of the hosts."}
"""

EXAMPLES = """
plan: "{{ results | app_release_plan('25%', 0) }}"
"""

RETURN = """
_value: {type: dict, description: "The plan, such as the C(release) that all hosts can have, and its C(batches)."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {
            "app_release_plan": release_plan,
            "app_rollback_plan": rollback_plan,
            "app_failures": failures,
            "app_report": report,
        }
