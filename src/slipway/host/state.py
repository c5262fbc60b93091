"""How an app is, as whoever looks at a host sees it: nothing is changed."""

from __future__ import annotations

import sys
from pathlib import Path

from slipway.host.endpoint import NO_ANSWER, PublicEndpoint
from slipway.host.health import HealthCheck
from slipway.host.process import run
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor
from slipway.host.watch import children


def masters(layout: Store, supervisor: Supervisor, number: int) -> list[int]:
    """Return the processes of release `number` that Supervisor, or a container, starts with.

    Raises:
        ReleaseError: when the containers' engine does not answer.
    """
    program = layout.release(number) / "container.py"
    inside = run([sys.executable, program, "--pids"], 60, check=False).stdout.split() if program.exists() else []
    return sorted(int(pid) for pid in inside if pid.isdigit()) or supervisor.state(number)[1]


def workers(first: list[int]) -> list[int]:
    """Return the processes that serve: the children of `first`, or those of them that have none."""
    serving: list[int] = []
    for master in first:
        serving += [pid for pid in sorted(children([master])) if b"resource_tracker" not in command(pid)] or [master]
    return serving


def command(pid: int) -> bytes:
    """Return the command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def health(layout: Store, live: int, check: HealthCheck, endpoint: PublicEndpoint) -> str:
    """Say `ok`, or what is wrong with the answers at the sockets and at the door."""
    try:
        for socket in layout.sockets(live):
            flaw = check.flaw(check.ask(socket))
            if flaw:
                return f"{flaw} at {socket.name}"
    except NO_ANSWER as error:
        return f"silent: {error}"
    try:
        answer = check.ask_endpoint(endpoint)
    except NO_ANSWER as error:
        return f"door silent: {error}"
    flaw = check.flaw(answer)
    if flaw:
        return f"{flaw} at the door"
    return "ok" if answer.release == str(live) else f"door answers from release {answer.release}"
