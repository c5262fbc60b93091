"""Commands of Ansible in what an operator reads, as they are typed for the inventory at hand."""

from __future__ import annotations

from typing import Any

from slipway.controller.commands import as_given, as_typed, given_options

DOCUMENTATION = """
name: as_typed
short_description: A text whose commands of Ansible can be typed as they stand
description:
  - C(as_typed) completes each playbook of the project that a text names to a command, with the inventory, the limit and the vault
    that this run was given. C(given_options) are those options but the limit.
  - C(as_given) is the value of an extra variable with the words that followed it, which Ansible takes for others.
options:
  _input: {type: raw, required: true, description: "The text, or a list or dict of texts."}
"""

EXAMPLES = """
text: "{{ 'Run playbooks/status.yml' | as_typed }}"
"""

RETURN = """
_value: {type: raw, description: "The same with commands as they are typed for this inventory."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"as_given": as_given, "as_typed": as_typed, "given_options": given_options}
