"""What a candidate must pass before it is activated: its health check, its root, and its interface."""

from __future__ import annotations

import contextlib
import http.client
import time

from slipway.host.endpoint import NO_ANSWER
from slipway.host.errors import ReleaseError
from slipway.host.openapi import breaking_changes
from slipway.host.release.advice import log_tail
from slipway.host.release.context import Context

# An OpenAPI document may be longer than an answer usually is, in bytes.
LONGEST_DOCUMENT = 16 * 2**20

# What answers within so many seconds is quick.
QUICK_SECONDS = 2.0


def unhealthy_reason(context: Context, number: int) -> str:
    """Say why release `number` is not healthy, the first of its instances that is not; empty when all are.

    Raises:
        OSError: when one does not answer.
        http.client.HTTPException: when its answer is not HTTP.
    """
    return context.check.unhealthy_reason(context.layout.sockets(number))


def answers(context: Context, number: int, patience: float = 0.0) -> bool:
    """Say whether release `number` is healthy, giving it `patience` seconds to become so."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(*NO_ANSWER):
            if not unhealthy_reason(context, number):
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)


def wait_until_healthy(context: Context, number: int) -> None:
    """Wait until the candidate `number` is healthy.

    Raises:
        ReleaseError: when it crashes, or is not healthy in time; with the last lines of its log.
    """
    deadline = time.monotonic() + context.health["timeout"]
    next_check, first, attempts = time.monotonic() + 0.5, list[int](), 0
    reason, unresponsive = "it does not listen on its socket", True
    while time.monotonic() < deadline:
        try:
            reason, unresponsive = unhealthy_reason(context, number), False
            if not reason:
                return
            attempts += 1
            if attempts == context.health["attempts"]:
                raise ReleaseError(
                    f"it was not healthy at the {attempts}. attempt (app_health_attempts): {reason}.\n{log_tail(context, number)}"
                )
            time.sleep(0.9 if context.health["attempts"] else 0.0)
        except (ConnectionRefusedError, FileNotFoundError):  # as at its beginning
            pass
        except TimeoutError:
            reason, unresponsive = f"it listens on its socket, and has not answered GET {context.health['path']} yet", True
        except (http.client.HTTPException, OSError, ValueError) as error:
            reason = f"it listens on its socket, but gives no answer in HTTP ({str(error) or type(error).__name__})"
        if time.monotonic() > next_check:
            state, processes = context.supervisor.state(number)
            first = first or processes
            if state in ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN") or processes != first:
                raise ReleaseError(f"it stopped right after its start ({state}).\n{log_tail(context, number)}")
            next_check = time.monotonic() + 0.5
        time.sleep(0.1)
    longer = " It may still be starting: if it needs longer, raise app_health_timeout." if unresponsive else ""
    seconds = f"{context.health['timeout']:g} s (app_health_timeout)"
    raise ReleaseError(f"it was not healthy after {seconds}: {reason}.{longer}\n{log_tail(context, number)}")


def check_root(context: Context, number: int, live: int | None) -> None:
    """See that the candidate answers what is at its root, where the live release has something there, and quickly.

    Raises:
        ReleaseError: when it does not begin to answer in time, nor when it is asked again: the first may warm it up.
    """
    patience = float(context.arguments.get("hang") or 0.0)
    if live is None or not patience:
        return
    begin = time.monotonic()
    try:
        status = context.ask(context.layout.socket(live), "/", QUICK_SECONDS, longest=0).status
    except NO_ANSWER:
        return
    usual = time.monotonic() - begin
    if status == 404 or status >= 500:
        return
    late: TimeoutError | None = None
    for _ in range(2):
        try:
            context.ask(context.layout.socket(number), "/", patience, longest=0)
            return
        except TimeoutError as error:
            late = error
        except NO_ANSWER:
            return
    raise ReleaseError(
        f"it hangs: GET / has no answer after {patience:g} s (app_watch_hang_seconds), twice, and release {live} gives one "
        f"in {usual:.1f} s.\n{log_tail(context, number)}"
    ) from late


def compare_interfaces(context: Context, number: int, live: int | None) -> None:
    """Stop a release whose interface would break clients of the live one.

    Raises:
        ReleaseError: when it would; with all that is missing or narrower.
    """
    path = context.arguments["openapi_path"]
    if not path or live is None:
        return
    documents = []
    for release in (live, number):
        try:
            answer = context.ask(context.layout.socket(release), path, longest=LONGEST_DOCUMENT)
            documents.append(answer.json() if answer.status == 200 else None)
        except NO_ANSWER:
            documents.append(None)
    before, after = documents
    if not isinstance(before, dict):
        context.warnings.append(f"Release {live} has no OpenAPI document at {path}, so nothing was compared (app_openapi_gate).")
        return
    if not isinstance(after, dict):
        raise ReleaseError(f"it has no OpenAPI document at {path} (app_openapi_path), and release {live} has one.")
    changes = breaking_changes(before, after)
    if changes:
        listed = "\n".join(f"  - {change}" for change in changes)
        raise ReleaseError(
            f"its interface would break clients of release {live} (app_openapi_gate):\n{listed}\n"
            "To release it all the same: -e app_openapi_gate=false"
        )
