"""What the hosts of one app do as one: agree on a release, take turns, and say what became of it."""

from __future__ import annotations

from typing import Any

from slipway.controller.fleet import agree, agree_back, report, troubles

DOCUMENTATION = """
name: app_agree
short_description: What the hosts of one app do as one
description:
  - C(app_agree) and C(app_agree_back) make a plan of what each host has, for a release and for a rollback; C(app_troubles) and
    C(app_report) say what went wrong. All take results of the step release by host, in the order of the inventory.
options:
  _input: {type: dict, required: true, description: "Results of the hosts."}
"""

EXAMPLES = """
plan: "{{ results | app_agree('25%', 0) }}"
"""

RETURN = """
_value: {type: dict, description: "The plan, such as the C(release) that all can have and the C(turns) in which they get it."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_agree": agree, "app_agree_back": agree_back, "app_troubles": troubles, "app_report": report}
