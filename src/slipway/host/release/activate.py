"""Activate a release: start it beside the live one, wait until it is healthy, switch to it, and stop the old one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from slipway.host.build.times import freshen, renew
from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink, remove
from slipway.host.release.assets import publish, retire
from slipway.host.release.context import Context
from slipway.host.release.failure import recording_failure, stop
from slipway.host.release.gate import check_root, compare_interfaces, wait_until_healthy
from slipway.host.release.jobs import apply_jobs
from slipway.host.release.processes import ReleaseProcesses
from slipway.host.release.record import GOOD, image_of, remember
from slipway.host.release.shared import provide
from slipway.host.release.watch import prove, watch
from slipway.host.watch import Processes, Traffic
from slipway.runtime.agreement import CACHED_CONNECTION_SECONDS


def freshen_files(context: Context, number: int) -> dict[Path, int]:
    """Give the files of release `number` the times by which clients of what is live see which of them differ.

    Returns:
        Those times of the live release's files that it needs before it is live again.
    """
    if image_of(context, str(context.layout.record(number).get("build"))):
        return {}  # those in an image stay as they were when it was built
    live = context.layout.live()
    before = context.layout.release(live) / "build" if live is not None else None
    with contextlib.suppress(OSError):  # no reason not to switch back
        return freshen(
            context.layout.release(number) / "build",
            before if before is not None and before.is_dir() else None,
            float(context.arguments["run"].get("at") or time.time()),
        )
    return {}


def switch(context: Context, number: int) -> None:
    """Make release `number` live: from these renames on, each new connection reaches it.

    Nginx finds the sockets of further instances through the link `current`. It asks for as many as there are today: of a
    release that had fewer, some are found twice.
    """
    sockets = context.layout.sockets(number)
    for instance in range(1, context.arguments["instances"]):
        atomic_symlink(context.layout.release(number) / f"{instance}.sock", sockets[instance % len(sockets)])
    atomic_symlink(context.layout.live_socket, sockets[0])
    atomic_symlink(context.layout.current, f"releases/{number}")


def in_time(context: Context) -> None:
    """Check that the run still waits for this host.

    Raises:
        ReleaseError: when the run has given up on it: the other hosts of the app are reverted.
    """
    if time.monotonic() > context.deadline:
        raise ReleaseError(f"it took longer than the limit of {context.arguments['limit']:.0f} s for one host.")


def activate(context: Context, number: int, hooks: tuple[str, str], back: str = "") -> None:
    """Start release `number`, whose directory is there, and make it live.

    Args:
        context: the step, and its host.
        number: the release.
        hooks: the names of those before and after the switch.
        back: what becomes of the live release, if this rolls it back or reverts it, such as "rolled back".

    Raises:
        ReleaseError: when it failed; what was live still is. When only the hook after the switch did, `number` is live.
    """
    old = context.layout.live()
    with recording_failure(context, number, old):
        before = Processes(context.masters(old))
        again = freshen_files(context, number)
        provide(context, number)  # a release that is rolled back to may have other data
        publish(context, number)
        context.supervisor.add(number, context.layout.release(number) / "program.conf")
        wait_until_healthy(context, number)
        if hooks[1] != "after_rollback":  # a rollback must not fail for what was good enough then
            check_root(context, number, old)
        compare_interfaces(context, number, old)
        context.hook(hooks[0], number, old, number)
        processes = ReleaseProcesses(context, number)
        processes.start(once=False)
        before.sample()
        traffic = Traffic(Path(context.arguments["access_log"]))
        # So that the same again, after an interruption, ends here, and the next run makes up for the hook.
        owed = {"hook": hooks[1], "from": old} if context.arguments["hooks"].get(hooks[1]) else None
        # Whether it is the first host, too: a step that is cut off after the switch leaves a live release.
        remember(context, number, back_from=old if back else None, owed=owed, first=context.first)
        try:
            in_time(context)
            switched = time.monotonic()  # and no later: a request may reach the release before the last rename has ended
            switch(context, number)
            prove(context, number)
            processes.start(once=True)
            drained = CACHED_CONNECTION_SECONDS if old is not None else 0.0
            watch(context, number, switched, traffic, before.rate, drained, processes)
            in_time(context)
        except Exception:
            switch_back(context, old, again)
            with contextlib.suppress(ReleaseError):  # the error that is raised already matters more
                processes.restore()
            with contextlib.suppress(OSError):  # the error that is raised already matters more
                remember(context, number, back_from=None, owed=None)
            time.sleep(context.arguments["drain"] if old is not None else 0)
            raise
    if back and old is not None and context.layout.release(old).is_dir():
        remember(context, old, outcome="rolled back", reason=f"{back} to release {number}")
    remember(context, number, outcome=GOOD, first=context.first)
    processes.end_others()
    retire(context, number, time.time())
    # Not before all requests to the public endpoint reach this release.
    context.warnings.extend(context.endpoint.findings(context.token(number)) if context.token(number) else [])
    time.sleep(max(0.0, switched + context.arguments["drain"] - time.monotonic()) if old is not None else 0)
    for leftover in context.supervisor.known():
        if leftover != number:
            stop(context, leftover)
    remember(context, number, back_from=None)
    apply_jobs(context, number)
    run_pending_hook(context, number)


def run_pending_hook(context: Context, number: int) -> str:
    """Run the hook that release `number`, which is live, still owes: the last step, which may have failed or been cut off.

    Returns:
        The hook's name; empty where there is none to run.

    Raises:
        ReleaseError: when it fails; the next run tries it again.
    """
    owed = context.layout.record(number).get("owed") or {}
    name = str(owed.get("hook", ""))
    if not name:
        return ""
    try:
        context.hook(name, number, owed.get("from"), number)
    except ReleaseError as error:
        what, *output = str(error).split("\n")
        again = "The next run of playbooks/deploy.yml runs the hook again."
        if name == "after_rollback":  # a deploy would release again what was rolled back
            again = f"Fix the hook, then run it again: playbooks/rollback.yml -e release={number}"
            if context.arguments["number"]:
                again = f"If {context.arguments['name']} has several hosts, nothing runs the hook again: run it manually."
        raise ReleaseError("\n".join([f"Release {number} is live, but {what}", again, *output])) from error
    remember(context, number, owed=None)
    return name


def switch_back(context: Context, old: int | None, again: Mapping[Path, int]) -> None:
    """Make release `old` live again after a switch that did not hold.

    Args:
        context: the step, and its host.
        old: the release; None where there was none.
        again: the times of those of its files by which clients see that they differ. No file is read for that now.
    """
    if old is not None:
        with contextlib.suppress(OSError):  # no reason not to switch back
            renew(again)
        switch(context, old)
    else:
        remove(context.layout.live_socket)
        remove(context.layout.current)
