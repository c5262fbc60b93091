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
        raise ReleaseError("No release is live on this host, so there is nothing to measure.")
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
        raise ReleaseError(f"Release {live} was live when the measurement began, and release {layout.live()} is now.")
    return {
        "release": live,
        "total": count.total,
        "errors": count.errors,
        "seconds": {str(taken): times for taken, times in sorted(count.seconds.items())},
        "restarts": restarts + workers.ended,
    }
