"""Measure for a while what clients get of the live release of an app."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.state import masters
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor
from slipway.host.watch import Processes, Traffic

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name. A program is called `<name>-<release>`.
    "name": str,
    # Where Supervisor looks for sections.
    "program_directory": str,
    # What the names of those files end with.
    "program_suffix": str,
    # Where Nginx logs the app's answers, as JSON.
    "access_log": str,
    # How long.
    "seconds": float,
}


def measure(
    layout: Store, supervisor: Supervisor, log: Path, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Return what became of the requests of the next `seconds`.

    Returns:
        `release`, `total` requests, `errors` among them, `seconds` with how many took how long, and `restarts`, the processes
        that ended.

    Raises:
        ReleaseError: when nothing is live, or another release is at the end.
    """
    live = layout.live()
    if live is None:
        raise ReleaseError("Nothing is live here, so there is nothing to measure.")
    since, begin = time.time(), time.monotonic()
    traffic, restarts = Traffic(log), 0
    programs = supervisor.state(live)[1]
    workers = Processes(masters(layout, supervisor, live))
    while True:
        left = begin + seconds - time.monotonic()
        sleep(min(1.0, max(0.0, left)))
        count = traffic.follow(live, since)
        workers.sample()
        now = supervisor.state(live)[1]
        if now and now != programs:
            restarts += workers.ended + len(set(programs) - set(now))
            programs, workers = now, Processes(masters(layout, supervisor, live))
        if left <= 0:
            break
    if layout.live() != live:
        raise ReleaseError(f"Release {live} was live when this began, and release {layout.live()} is now.")
    return {
        "release": live,
        "total": count.total,
        "errors": count.errors,
        "seconds": {str(taken): times for taken, times in sorted(count.seconds.items())},
        "restarts": restarts + workers.ended,
    }


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return what was measured.

    Raises:
        ReleaseError: as `measure` does.
        OSError: when the log cannot be read.
    """
    supervisor = Supervisor(given["name"], given["program_directory"], given["program_suffix"], 0)
    found = measure(Store(**given["layout"]), supervisor, Path(given["access_log"]), given["seconds"])
    return {"changed": False, **found}
