"""What may stand in an app's environment as it was written, and what YAML has made something else of."""

from __future__ import annotations

from typing import Any

from slipway.controller.environment import unfit

DOCUMENTATION = """
name: app_unfit
short_description: Find values of an environment that YAML has changed
description:
  - Texts and whole numbers are accepted. How a truth value or a number with a point was written is not known any more.
options:
  _input: {type: dict, required: true, description: "Names to values."}
"""

EXAMPLES = """
unfit: "{{ app_env | app_unfit }}"
"""

RETURN = """
_value: {type: list, description: "What is wrong with each such value."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_unfit": unfit}
