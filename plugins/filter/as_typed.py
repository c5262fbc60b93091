"""Commands of Ansible in what an operator reads, as they are typed for the inventory at hand."""

from __future__ import annotations

from typing import Any

from slipway.controller.commands import as_given, as_typed, given_options

DOCUMENTATION = """
name: as_typed
short_description: Complete the commands of Ansible in a text for this inventory
description:
  - C(as_typed) turns the name of each playbook in a text into a command with the inventory, the limit and the vault options of
    this run. C(given_options) returns those options without the limit.
  - C(as_given) returns the whole value of an extra variable, also if Ansible took its later words for something else.
options:
  _input: {type: raw, required: true, description: "The text, or a list or dict of texts."}
"""

EXAMPLES = """
text: "{{ 'Run playbooks/status.yml' | as_typed }}"
"""

RETURN = """
_value: {type: raw, description: "The same with complete commands."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"as_given": as_given, "as_typed": as_typed, "given_options": given_options}
