"""Check that a release answers at the public endpoint, and watch it after the switch."""

from __future__ import annotations

import time

from slipway.host.endpoint import NO_ANSWER
from slipway.host.errors import ReleaseError
from slipway.host.release.advice import log_tail
from slipway.host.release.context import Context
from slipway.host.release.processes import ReleaseProcesses
from slipway.host.watch import LEAST_ERRORS, LEAST_SHARE, Processes, Traffic, hanging, waiting

# What waits as long, in seconds, may hang.
SUSPECT_SECONDS = 1.0


def prove(context: Context, number: int, seconds: float = 10.0) -> None:
    """Ask at the public endpoint until release `number` answers there.

    Raises:
        ReleaseError: when it does not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = context.check.ask_endpoint(context.endpoint)
            if answer.release == str(number):
                return
            origin = f"from release {answer.release}" if answer.release else "naming no release"
            reason = f"status {answer.status}, {origin}"
        except NO_ANSWER as error:
            reason = str(error) or type(error).__name__
        time.sleep(0.1)
    raise ReleaseError(
        f"the public endpoint ({context.endpoint.host}, port {context.endpoint.port}) does not answer from it: {reason}."
    )


def watch(
    context: Context,
    number: int,
    switched: float,
    traffic: Traffic,
    usual_ends: float,
    drained: float,
    beside: ReleaseProcesses,
) -> None:
    """Watch release `number` for a while after the switch.

    Args:
        context: the step, and its host.
        number: the release.
        switched: when it was made live, in seconds of the monotonic clock.
        traffic: what Nginx logs, with what was usual before the switch.
        usual_ends: how many worker processes of the release before it ended in a second.
        drained: seconds after which nothing reaches the release before it any more; 0 where there was none.
        beside: its processes beside the web server, which are watched as long.

    Raises:
        ReleaseError: when it stops being healthy, its program starts again, one of its processes ends, more of its workers end
            than was usual, more of its answers are errors than was usual, or requests hang that did not before.
    """
    since, seconds = time.time() - (time.monotonic() - switched), context.arguments["watch"]
    processes, workers = list[int](), Processes([])
    allowed = max(1.0, 2 * usual_ends * seconds)
    bad, proved = 0, False
    hang = float(context.arguments.get("hang") or 0.0) if seconds and drained else 0.0
    while True:
        passed = time.monotonic() - switched
        after = f"in the {passed:.0f} s since the switch (app_watch_seconds)"
        state, now = context.supervisor.state(number)
        if not processes and len(now) == len(context.layout.sockets(number)):
            processes, workers = now, Processes(context.masters(number))
        if (processes and now != processes) or state not in ("RUNNING", "STARTING"):
            raise ReleaseError(f"its program ended {after} ({state}).\n{log_tail(context, number)}")
        if workers.sample() > allowed:
            raise ReleaseError(f"{workers.ended} of its worker processes ended {after}.\n{log_tail(context, number)}")
        ended, how = beside.changed()
        if ended:
            raise ReleaseError(f"its process {ended} ended {after} ({how}).\n{beside.log_tail(number, ended)}")
        try:
            reason = context.check.unhealthy(context.check.ask_endpoint(context.endpoint))
        except NO_ANSWER as error:
            reason = str(error) or type(error).__name__
        bad = bad + 1 if reason else 0
        if bad == 3:
            raise ReleaseError(f"it became unhealthy {after}: {reason}.\n{log_tail(context, number)}")
        count = traffic.follow(number, since)
        if count.errors >= LEAST_ERRORS and count.share > traffic.usual.share + LEAST_SHARE:
            raise ReleaseError(
                f"{count} were answered with a 5xx status {after}, against {traffic.usual} before.\n{log_tail(context, number)}"
            )
        hung = hung_requests(context, number, switched, traffic, hang) if hang else ""
        if hung:
            raise ReleaseError(f"it hangs: {hung} (app_watch_hang_seconds).\n{log_tail(context, number)}")
        if not proved and passed >= drained:
            prove(context, number, seconds=5)
            proved = True
        watched = time.monotonic() - max(switched, beside.started)
        if (
            proved
            and watched >= seconds
            and not bad
            and not may_hang(context, number, switched, traffic, hang, watched - seconds)
        ):
            return
        time.sleep(0.5 if bad else 1.0)


def hung_requests(context: Context, number: int, switched: float, traffic: Traffic, hang: float, least: float = 0.0) -> str:
    """Say which requests to release `number` hang, as `hanging` does.

    Args:
        context: the step, and its host.
        number: the release.
        switched: when it was made live, in seconds of the monotonic clock.
        traffic: what Nginx logs.
        hang: how long one has waited that hangs.
        least: leave out what has waited for less than this.
    """
    waits = waiting(context.layout.runtime, number, switched)
    if least:  # as if all of them were going to
        waits = [(max(waited, hang), path) for waited, path in waits if waited >= least]
    return hanging(waits, hang, traffic)


def may_hang(context: Context, number: int, switched: float, traffic: Traffic, hang: float, late: float) -> bool:
    """Say whether the watch must go on beyond its end: requests that began before that wait, and may turn out to hang.

    Args:
        context: the step, and its host.
        number: the release.
        switched: when it was made live, in seconds of the monotonic clock.
        traffic: what Nginx logs.
        hang: how long one has waited that hangs; 0 where nobody looks at that.
        late: how long ago the watch was to end, in seconds.
    """
    return hang > 0 and late <= hang and bool(hung_requests(context, number, switched, traffic, hang, late + SUSPECT_SECONDS))
