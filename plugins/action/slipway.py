"""Take a step on a host by its program."""

from __future__ import annotations

from typing import Any

from slipway.controller.step import StepAction

DOCUMENTATION = """
action: slipway
short_description: Run a step with the program on a host
description:
  - The program is uploaded first if the host has another version.
  - The step is repeated once if the app was locked by a run of this controller that no longer exists.
options:
  step: {type: str, required: true, description: "Name of the step, one of those in src/slipway/host/steps.py."}
  arguments: {type: dict, description: "Parameters of the step: PARAMETERS of its module."}
"""

EXAMPLES = """
- name: Unlock the app
  slipway:
    step: release
    arguments: {app: shop, step: unlock}
"""

RETURN = """
program: {type: str, returned: success, description: "Version of the program that took it. Other keys are the step's own."}
"""


class ActionModule(StepAction):
    """Has the program take the step that the task names."""

    _VALID_ARGS = frozenset(("step", "arguments"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self.step(self._task.args["step"], self._task.args.get("arguments") or {}, task_vars))
        return result
