"""What may stand in an app's environment as it was written, and what YAML has made something else of."""

from __future__ import annotations

from typing import Any

from slipway.controller.environment import unfit

DOCUMENTATION = """
name: app_unfit
short_description: Say which values of an environment are not what somebody wrote
description:
  - Texts and whole numbers are taken as they stand. Of a truth value nobody knows how it was written.
options:
  _input: {type: dict, required: true, description: "Names to values."}
"""

EXAMPLES = """
unfit: "{{ app_env | app_unfit }}"
"""

RETURN = """
_value: {type: list, description: "What is unfit, in words."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_unfit": unfit}
