"""What the service of a balancer says of its hosts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

# A state that is older than this nobody keeps.
STALE_SECONDS = 30


class NoState(Exception):
    """The service says nothing, and why."""


def read(runtime: Path) -> dict[str, Any]:
    """Return the state: `when` it was written, in seconds since 1970, and `hosts` by their names.

    Args:
        runtime: the directory in which the service writes it.

    Raises:
        NoState: when there is none, or only an old one.
    """
    try:
        state: dict[str, Any] = json.loads((runtime / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoState(f"the balancer does not say how its hosts are ({error}): run site.yml for it first") from error
    if time.time() - state["when"] > STALE_SECONDS:
        raise NoState("the balancer's service is not at work: systemctl status 'slipway-balancer-*'")
    return state
