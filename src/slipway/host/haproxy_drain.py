"""Drain an app host on a load balancer and wait until nothing is in flight there, or put it back in use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.haproxy import DRAIN, MAINT, MASTER_SOCKET, SOCKET, STATE_FILE, UP, Backend, HAProxy

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The host's name in the inventory.
    "host": str,
    # Whether to drain it; else it is put back in use.
    "drain": bool,
    # How long to wait.
    "seconds": int,
    # HAProxy's stats socket.
    "socket": SOCKET,
    # The socket of its master process, if it has one.
    "master_socket": MASTER_SOCKET,
    # The file from which HAProxy loads the states of its backends.
    "state_file": STATE_FILE,
}

PAUSE = 0.2

DRAINED = (DRAIN, MAINT)


class Change:
    """A change of a backend's state."""

    def __init__(self, haproxy: HAProxy, host: str, state_file: Path, seconds: float) -> None:
        """Change nothing yet.

        Args:
            haproxy: the load balancer.
            host: the backend.
            state_file: the file that keeps its state.
            seconds: how long to wait.
        """
        self.haproxy, self.host, self.state_file = haproxy, host, state_file
        self.deadline = time.monotonic() + seconds

    def backend(self) -> Backend:
        """Return how the backend is now.

        Raises:
            ReleaseError: when there is none of its name.
        """
        found = self.haproxy.backends().get(self.host)
        if not found:
            raise ReleaseError(f"The load balancer has no backend {self.host}: run site.yml for the load balancer first.")
        return found

    def save(self) -> None:
        """Keep the state over a restart.

        Raises:
            ReleaseError: when it cannot be written.
        """
        try:
            self.haproxy.save(self.state_file)
        except OSError as error:
            raise ReleaseError(
                f"{self.host} has its new state, but HAProxy would forget it at its next start: "
                f"{self.state_file} cannot be written ({error.strerror}). Then run this again."
            ) from error

    def drain(self) -> bool:
        """Let no new request in, wait until nothing is in flight, then set maintenance; if that takes too long, leave it out.

        Returns:
            Whether nothing is in flight.
        """
        backend = self.backend()
        if backend.state not in DRAINED:
            # A drained backend still gets the requests of clients with a cookie for it; one in maintenance gets none.
            self.haproxy.set_state(self.host, MAINT if backend.is_sticky else DRAIN)
        self.save()
        while self.backend().sessions:
            if time.monotonic() > self.deadline:
                return False
            time.sleep(PAUSE)
        if self.backend().state != MAINT:
            self.haproxy.set_state(self.host, MAINT)
            self.save()
        return True

    def restore(self) -> bool:
        """Put the backend back in use, and wait until it gets requests; if that takes too long, it comes in once it is healthy.

        HAProxy takes a backend that leaves maintenance for healthy, and shows the last check before that. As one that is down, it
        gets no request until it has passed its health checks.

        Returns:
            Whether it gets requests.
        """
        backend = self.backend()
        if backend.state in DRAINED:
            if backend.state == MAINT:
                self.haproxy.set_state(self.host, DRAIN)
            if backend.state == MAINT or not backend.check.passed:
                self.haproxy.set_down(self.host)
            self.haproxy.set_state(self.host, "ready")
        self.save()
        while self.backend().state != UP:
            if time.monotonic() > self.deadline:
                return False
            time.sleep(PAUSE)
        # A reload must not begin with what was down a moment ago.
        self.save()
        return True


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Drain a host, or put it back in use.

    Returns:
        `settled`, whether that is finished; `state`, `connections` that are in flight, and `reason`, the last health check if
        it failed.

    Raises:
        ReleaseError: when it cannot be done.
    """
    host, drain = given["host"], given["drain"]
    haproxy = HAProxy(Path(given["socket"]), Path(given["master_socket"]))
    change = Change(haproxy, host, Path(given["state_file"]), given["seconds"])
    before = change.backend().state
    in_use = [name for name, other in haproxy.backends().items() if name != host and other.state == UP]
    if drain and before not in DRAINED and not in_use:
        raise ReleaseError(
            f"Nothing was changed: {host} is the last host in use there. Put another one in use first: -e drain=false -l HOST"
        )
    changed = before != MAINT if drain else before in DRAINED
    if check:
        return {"changed": changed}
    settled = change.drain() if drain else change.restore()
    after = change.backend()
    reason = "" if after.check.passed else str(after.check)
    return {
        "changed": before != after.state if drain else changed,
        "settled": settled,
        "state": after.state,
        "connections": after.sessions,
        "reason": reason,
    }
