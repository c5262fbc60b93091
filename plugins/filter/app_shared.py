"""What app_shared may name."""

from __future__ import annotations

from typing import Any

from slipway.controller.shared import errors

DOCUMENTATION = """
name: app_shared_errors
short_description: Find paths that an app cannot have in its shared directory
options:
  _input: {type: dict, required: true, description: "Paths within the app to their names in its shared directory."}
  served: {type: list, required: true, description: "Folders of the source that Nginx serves."}
"""

EXAMPLES = """
errors: "{{ {'uploads': 'media'} | app_shared_errors(['app/static']) }}"
"""

RETURN = """
_value: {type: str, description: "What is wrong, separated by semicolons; empty if nothing is."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_shared_errors": errors}
