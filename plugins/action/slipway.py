"""Take a step on a host by its program."""

from __future__ import annotations

from typing import Any

from slipway.controller.step import StepAction

DOCUMENTATION = """
action: slipway
short_description: Take a step on a host by its program
description:
  - The program is sent first where the host has another version of it.
  - If a run of this controller that is dead had locked the app, the step is run once more.
options:
  step: {type: str, required: true, description: "The name of the step; src/slipway/host/steps.py has them all."}
  arguments: {type: dict, description: "The arguments of the step; PARAMETERS of its module lists them."}
"""

EXAMPLES = """
- name: Gather the status of the app
  slipway:
    step: canary
    arguments: {layout: "{{ layout }}", name: shop, program_directory: /etc/supervisor/conf.d, program_suffix: .conf,
                access_log: /var/log/nginx/shop.access.log, seconds: 60}
"""

RETURN = """
program: {type: str, returned: success, description: "The version of the program that took it. All else is the step's own."}
"""


class ActionModule(StepAction):
    """Has the program take the step that the task names."""

    _VALID_ARGS = frozenset(("step", "arguments"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self.step(self._task.args["step"], self._task.args.get("arguments") or {}, task_vars))
        return result
