"""Take an app host out of a balancer's use and wait until nothing is in flight there, or bring it back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from slipway.host.balancer_state import NoState, read
from slipway.host.errors import ReleaseError

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # What the inventory calls it.
    "host": str,
    # Whether to take it out; else it comes back.
    "drain": bool,
    # Where the balancer's service tells how it is.
    "runtime": str,
    # Where the hosts are noted that are out of use.
    "drained": str,
    # How long to wait.
    "seconds": int,
}

PAUSE = 0.2


class DrainError(Exception):
    """It cannot be done, and why."""


def settled(told: dict[str, Any], host: str, drain: bool) -> bool:
    """Say whether the balancer has done what it was told."""
    entry = told["hosts"].get(host, {})
    if drain:
        return entry.get("state") == "drained" and not entry["slots"] and not entry["connections"]
    return entry.get("state") == "in use" and entry["slots"] > 0


def wait(runtime: Path, host: str, drain: bool, seconds: float) -> dict[str, Any]:
    """Wait until the balancer has done it, and return what is said of the host then, or after `seconds`.

    Raises:
        NoState: when the balancer says nothing.
    """
    begin = time.monotonic()
    # What was told before the note was made does not count.
    first = read(runtime)["when"]
    while True:
        told = read(runtime)
        if (told["when"] > first and settled(told, host, drain)) or time.monotonic() - begin > seconds:
            entry: dict[str, Any] = told["hosts"].get(host, {})
            return {**entry, "settled": settled(told, host, drain)}
        time.sleep(PAUSE)


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Take the host out, or bring it back.

    Raises:
        ReleaseError: when that cannot be done.
    """
    host, drain, runtime = given["host"], given["drain"], Path(given["runtime"])
    note = Path(given["drained"], host)
    changed = note.exists() != drain
    try:
        told = read(runtime)
        if host not in told["hosts"]:
            raise DrainError(f"the balancer does not know {host}: run site.yml for it first")
        others = [name for name, entry in told["hosts"].items() if name != host and entry["state"] == "in use"]
        if drain and not others:
            raise DrainError(f"{host} is the last host in use there. Bring another one in first: -e drain=false -l HOST")
        if check:
            return {"changed": changed}
        if drain:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        else:
            note.unlink(missing_ok=True)
        entry = wait(runtime, host, drain, given["seconds"])
    except (DrainError, NoState) as error:
        raise ReleaseError(f"Nothing was changed: {error}") from error
    return {"changed": changed, **entry}
