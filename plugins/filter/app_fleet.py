"""Release and roll back an app over several hosts: agree on a release, split hosts into batches, and report the outcome."""

from __future__ import annotations

from typing import Any

from slipway.controller.fleet import agree, agree_rollback, failures, report

DOCUMENTATION = """
name: app_agree
short_description: Plan a release or a rollback over the hosts of one app
description:
  - C(app_agree) and C(app_agree_rollback) plan a release or a rollback from what each host has; C(app_failures) and C(app_report)
    report what failed. All take results of the step release by host, in the order of the inventory.
options:
  _input: {type: dict, required: true, description: "Results of the hosts."}
"""

EXAMPLES = """
plan: "{{ results | app_agree('25%', 0) }}"
"""

RETURN = """
_value: {type: dict, description: "The plan: the C(release) that all can have, the C(batches) that activate it, and more."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_agree": agree, "app_agree_rollback": agree_rollback, "app_failures": failures, "app_report": report}
