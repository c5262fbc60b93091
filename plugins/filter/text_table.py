"""A table for people at a terminal."""

from __future__ import annotations

from typing import Any

from slipway.host.tables import text_table

DOCUMENTATION = """
name: text_table
short_description: Format rows as a table with aligned columns
description:
  - Empty columns are left out.
options:
  _input: {type: list, elements: dict, required: true, description: "The rows."}
  columns: {type: dict, required: true, description: "Keys of the rows, in order, with the headings of their columns."}
"""

EXAMPLES = """
lines: "{{ [{'host': 'one', 'release': 7}] | text_table({'host': 'HOST', 'release': 'RELEASE'}) }}"
"""

RETURN = """
_value: {type: list, description: "The lines."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"text_table": text_table}
