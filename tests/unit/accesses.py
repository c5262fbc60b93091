"""Lines of Nginx's log of answers."""

from __future__ import annotations

import json
from typing import Any


def line(**differing: Any) -> bytes:
    """Return a line as Nginx writes it."""
    usual = {"client": "192.0.2.1", "method": "GET", "status": 200, "bytes": 10, "seconds": 0.02, "release": "7", "agent": "curl"}
    return json.dumps({**usual, **differing}).encode() + b"\n"
