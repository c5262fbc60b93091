"""Which hosts of an inventory are balancers, which are behind them, and what each must know of the others."""

from __future__ import annotations

from typing import Any

from slipway.controller.balancers import balancer_relations

DOCUMENTATION = """
name: balancer_relations
short_description: What a host has to do with the balancers of the inventory
description:
  - It is one filter and not a dozen templates, since Ansible works all of those out each time that one of them is named.
options:
  _input: {type: dict, required: true, description: "The groups of the inventory."}
  hostvars: {type: dict, required: true, description: "What the inventory and their facts say of its hosts."}
  host: {type: str, required: true, description: "The host that is asked about."}
"""

EXAMPLES = """
relations: "{{ groups | balancer_relations(hostvars, inventory_hostname) }}"
"""

RETURN = """
_value: {type: dict, description: "What the host has to do with them."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"balancer_relations": balancer_relations}
