"""Where names lead, as the controller sees it."""

from __future__ import annotations

import socket
from typing import Any

DOCUMENTATION = """
name: addresses
short_description: Resolve a name to its addresses
options:
  _input: {type: str, required: true, description: "A domain name or an address."}
"""

EXAMPLES = """
addresses: "{{ 'shop.example.com' | addresses }}"
"""

RETURN = """
_value: {type: list, description: "The addresses, none if the name does not resolve."}
"""


def addresses(name: str) -> list[str]:
    """Return the addresses that `name` leads to; none where it cannot be resolved."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"addresses": addresses}
