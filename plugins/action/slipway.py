"""Take a step on a host by its program."""

from __future__ import annotations

from typing import Any

from slipway.controller.step import StepAction


class ActionModule(StepAction):
    """Has the program take the step that the task names."""

    _VALID_ARGS = frozenset(("step", "arguments"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self.step(self._task.args["step"], self._task.args.get("arguments") or {}, task_vars))
        return result
