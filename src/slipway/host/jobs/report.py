"""How the jobs of an app are: what became of each last time, and when it runs next."""

from __future__ import annotations

import re
import time
from typing import Any

from slipway.host.jobs.definition import OK, identifier, jobs_of, last_run, log_of
from slipway.host.jobs.units import RUNNING_STATES, is_scheduled, next_time, show, unit
from slipway.host.logs import File, Journal, readable
from slipway.host.store import Store
from slipway.host.tables import text_table

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name.
    "name": str,
}

COLUMNS = {
    **{"job": "JOB", "schedule": "SCHEDULE", "hosts": "HOSTS", "state": "LAST RESULT", "began": "BEGAN"},
    **{"duration": "DURATION", "next_time": "NEXT"},
}

INTERRUPTED = "interrupted"


def rows(layout: Store, app: str) -> list[dict[str, Any]]:
    """Return how each job of the live release is; times in seconds since 1970, 0 for none.

    Returns:
        `job`, `schedule`, `hosts` and `command`; `here`, whether this host runs it; `result` of the last run, which is empty
        before the first and `running` during one, with its `run`, `release`, `code`, `start` and `seconds`; `success`, when one
        last ended well; `scheduled`, whether its timer is active, and `next`, when that elapses.
    """
    jobs = jobs_of(layout, layout.live())
    if not jobs:
        return []
    first = layout.was_first() is not False
    known = show(unit(app, name, kind) for name in jobs for kind in ("service", "timer"))
    found = []
    for name, job in jobs.items():
        timer, last = unit(app, name, "timer"), last_run(layout, name)
        running = known.get(unit(app, name, "service"), {}).get("ActiveState") in RUNNING_STATES
        ended = last.end or (time.time() if running else last.start)
        result = last.result if last.end else INTERRUPTED if last.run else ""
        found.append(
            {
                **{"job": name, "schedule": job.schedule, "hosts": job.hosts, "command": job.command},
                "here": first or job.hosts == "all",
                "result": "running" if running else result,
                **{"run": last.run, "release": last.release, "code": last.code, "start": last.start},
                "seconds": round(max(0.0, ended - last.start), 1),
                "success": last.success,
                "scheduled": is_scheduled(timer, known),
                "next": next_time(timer, known),
            }
        )
    return found


def has_failed(row: dict[str, Any]) -> bool:
    """Say whether the last run of a job failed, one that is under way left aside."""
    return bool(row["here"]) and row["result"] not in ("", "running", OK)


def summary(found: list[dict[str, Any]]) -> str:
    """Return how jobs are in a few words; nothing where this host runs none."""
    here = [row for row in found if row["here"]]
    failed = [row["job"] for row in here if has_failed(row)]
    return f"{len(failed)} of {len(here)} failed: {', '.join(failed)}" if failed else f"{len(here)} ok" if here else ""


def moment(seconds: float) -> str:
    """Return a time as people read it, in the time zone of the host; nothing for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds)) if seconds else ""


def table(found: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of jobs for people."""
    shown = []
    for row in found:
        state = row["result"] or "never ran"
        if row["result"] == "failed" and row["code"]:
            state = f"failed, exit code {row['code']}"
        elsewhere = {"hosts": f"{row['hosts']}, not this one", "state": "", "began": "", "duration": "", "next_time": ""}
        here = {
            "state": state,
            "began": moment(row["start"]),
            "duration": f"{row['seconds']:.1f} s" if row["start"] else "",
            "next_time": moment(row["next"]) if row["scheduled"] else "its timer is not active",
        }
        shown.append({**row, **(here if row["here"] else elsewhere)})
    return text_table(shown, COLUMNS)


def end_of_log(layout: Store, app: str, row: dict[str, Any], lines: int) -> str:
    """Return the last lines that a job logged in its last run, for people.

    Args:
        layout: the app's paths.
        app: its name.
        row: the job, as `rows` has it.
        lines: how many.
    """
    if not row["run"]:
        return ""
    pattern = re.escape(row["run"])
    found = File(log_of(layout, row["job"])).last(lines, pattern)[0]
    return readable("\n".join(found or Journal([identifier(app, row["job"])]).last(lines, pattern)[0]))


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the `jobs`, and a `table` of them for people."""
    found = rows(Store(**given["layout"]), given["name"])
    lines = table(found) if found else ["The live release has no jobs (app_jobs)."]
    return {"changed": False, "jobs": found, "table": lines}
