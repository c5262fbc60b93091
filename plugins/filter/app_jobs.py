"""Jobs of an app, as the inventory has them and as a host gets them."""

from __future__ import annotations

from typing import Any

from slipway.controller.jobs import normalized, unfit

DOCUMENTATION = """
name: app_jobs
short_description: Translate the schedules of jobs for systemd
description:
  - C(app_jobs) returns jobs with all that they have by default, and each schedule as calendars of systemd.
  - C(app_jobs_unfit) returns what is wrong with jobs, in words; nothing if all are right.
options:
  _input: {type: dict, required: true, description: "Jobs by name, as in the variable of this name."}
"""

EXAMPLES = """
jobs: "{{ {'cleanup': {'schedule': '0 3 * * *', 'command': 'python -m shop.cleanup'}} | app_jobs }}"
"""

RETURN = """
_value:
  type: dict
  description: By name, C(schedule), C(calendars), C(command), C(hosts) and C(timeout) in seconds.
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_jobs": normalized, "app_jobs_unfit": unfit}
