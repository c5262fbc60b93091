"""List the jobs of an app for an operator, and run one now: by its own service, so that it never runs twice at once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from slipway.host import configuration
from slipway.host.errors import ReleaseError
from slipway.host.jobs.definition import OK, Run, identifier, jobs_of, last_run, log_of
from slipway.host.jobs.report import rows, table
from slipway.host.jobs.units import RUNNING_STATES, show, systemctl, unit
from slipway.host.logs import File, Journal, readable
from slipway.host.operator import DONE, FAILED, live_release, note
from slipway.host.operator import show as show_result
from slipway.host.process import masked
from slipway.host.store import Store

# Exit code for a job that took too long, as timeout(1) has it.
TIMED_OUT = 124

START_SECONDS = 60.0
PAUSE_SECONDS = 0.3


def show_jobs(app: str, as_json: bool) -> int:
    """Show the jobs of an app's live release: the last result of each, and when it runs next."""
    found = rows(Store(**configuration.load(app)["layout"]), app)
    show_result(found, table(found) or [f"The live release of {app} has no jobs. To add one, set app_jobs."], as_json)
    return DONE


def run_now(app: str, name: str, who: dict[str, Any], write: Callable[[str], None]) -> int:
    """Run a job now, and follow its log to the end. One that is running already is followed.

    Args:
        app: the app's name.
        name: the job's.
        who: who asks, for the history.
        write: takes what the job prints, a line at a time.

    Returns:
        0 if it ended well; else the exit code of its command, 124 if it took too long, or 1.

    Raises:
        ReleaseError: when the live release has no such job, this host does not run it, or it does not start.
    """
    context, live = live_release(app, who)
    layout = context.layout
    jobs = jobs_of(layout, live)
    if name not in jobs:
        raise ReleaseError(f"Release {live} of {app} has no job {name}; it has {', '.join(jobs) or 'none'}.")
    if jobs[name].hosts == "first" and layout.was_first() is False:
        raise ReleaseError(f"The job {name} of {app} runs on its first host alone (hosts: first), and this is another one.")
    service, before = unit(app, name, "service"), last_run(layout, name)
    if before.run and not before.end and is_running(service):
        write(f"The job {name} runs already: it began at {time.strftime('%H:%M:%S UTC', time.gmtime(before.start))}.")
    else:
        begin = time.time()
        systemctl("start", "--no-block", service)  # which its timer may have done this very moment
        before = await_start(layout, app, name, before.run, begin)
    journal = Journal([identifier(app, name)])
    log: Any = File(log_of(layout, name)) if logs_to_files(layout, before.release) else journal
    position: Any = [0, 0] if isinstance(log, File) else ""
    pattern = re.escape(before.run)
    while True:
        over = not is_running(service)  # asked first: what it wrote last is to be read
        ended = last_run(layout, name).result_of(before.run)
        lines, position = log.since(position, pattern)
        for line in lines:
            write(masked(readable(line), context.secrets))
        if ended or over:
            break
        time.sleep(PAUSE_SECONDS)
    result, number = (ended or {}).get("result"), (ended or {}).get("code")
    code = DONE if result == OK else TIMED_OUT if result == "timeout" else number or FAILED
    code = code if code >= 0 else 128 - code
    note(context, before.release, f"job {name}", code)
    return code


def is_running(service: str) -> bool:
    """Say whether a service has not ended."""
    return show([service]).get(service, {}).get("ActiveState") in RUNNING_STATES


def await_start(layout: Store, app: str, name: str, before: str, begin: float) -> Run:
    """Wait until a job has begun, and return its run.

    Args:
        layout: the app's paths.
        app: its name.
        name: the job's name.
        before: the id of the run before.
        begin: when its service was started, in seconds since 1970.

    Raises:
        ReleaseError: when it does not.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = last_run(layout, name)
        if found.run and found.run != before:
            return found
        if found.end >= begin and not found.run:
            break
        time.sleep(PAUSE_SECONDS)
    raise ReleaseError(f"The job {name} did not begin. To see why: journalctl --identifier {identifier(app, name)} --lines 20")


def logs_to_files(layout: Store, number: int) -> bool:
    """Say whether the jobs of release `number` log to files."""
    settings = json.loads((layout.release(number) / "runtime.json").read_text(encoding="utf-8"))
    return bool(settings["log_target"] == "files")
