"""Work out which load balancers of an inventory are in front of which hosts, and what each needs of the others."""

from __future__ import annotations

from typing import Any

from slipway.controller.balancing import balancer_relations

DOCUMENTATION = """
name: balancer_relations
short_description: Work out which load balancers and hosts belong together
description:
  - One filter replaces a dozen templates, which Ansible would evaluate anew for each use.
options:
  _input: {type: dict, required: true, description: "The groups of the inventory."}
  hostvars: {type: dict, required: true, description: "Variables and facts of its hosts."}
  host: {type: str, required: true, description: "The host in question."}
"""

EXAMPLES = """
relations: "{{ groups | balancer_relations(hostvars, inventory_hostname) }}"
"""

RETURN = """
_value: {type: dict, description: "Load balancers in front of the host, with their addresses and domains; hosts behind it."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"balancer_relations": balancer_relations}
