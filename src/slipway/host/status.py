"""Tell how an app is: what is live, whether it answers, and what may soon keep it from that."""

from __future__ import annotations

import os
from typing import Any

from slipway.host import pythons
from slipway.host.backup import report as backup_report
from slipway.host.certificate import days_left
from slipway.host.endpoint import PublicEndpoint
from slipway.host.errors import ReleaseError
from slipway.host.health import HealthCheck
from slipway.host.jobs import report
from slipway.host.processes import defined, in_words, lacking, overview, programs_beside
from slipway.host.state import health, masters, workers
from slipway.host.store import Store, version_of
from slipway.host.supervisor import Supervisor

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name.
    "name": str,
    # Where Supervisor looks for sections.
    "program_directory": str,
    # What the names of those files end with.
    "program_suffix": str,
    # `path`, `status`, `body`, `headers` and `host` of the health check.
    "health": dict,
    # `host`, `port` and `tls` of the public endpoint on this host.
    "endpoint": dict,
}


def hook_to_do(record: dict[str, Any]) -> str:
    """Say which hook the live release still owes; empty where it owes none."""
    pending = record.get("owed") or {}
    return f", hook {pending['hook']} pending" if pending.get("hook") else ""


def status(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return how the app is.

    Returns:
        `release`, `version`, `since` and `who` of what is live, `python` (its version), `workers` (processes of the web server),
        `processes` (those beside it, as `overview` tells of them), `jobs` (how each of them is) and `backup` (how the last one
        is; empty if there are none), each with a summary in words, `health` (`ok`, or what is wrong), `certificate_days`,
        `disk_percent` of the app's file system, and `last`, what became of the last release.
    """
    layout, endpoint = Store(**arguments["layout"]), PublicEndpoint(**arguments["endpoint"])
    supervisor = Supervisor(arguments["name"], arguments["program_directory"], arguments["program_suffix"], 0)
    live = layout.live()
    record = layout.record(live) if live is not None else {}
    entries = layout.entries()
    last = entries[-1] if entries else {}
    place = next(path for path in (layout.home, *layout.home.parents) if path.exists())
    disk = os.statvfs(place)
    found: dict[str, Any] = {
        "release": live,
        "version": version_of(record),
        "since": str(record.get("when", "")),
        "who": str(record.get("who", "")),
        "python": pythons.version_of_build(layout.release(live) / "build") if live is not None else "",
        "workers": 0,
        "processes": [],
        "processes_summary": "",
        "health": "nothing is live",
        "certificate_days": days_left(endpoint),
        "disk_percent": round(100 * (1 - disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail))),
        "last": f"{last['release']} {last.get('outcome', '?')}{hook_to_do(record)}" if last else "",
        "reason": str(last.get("reason", "")),
    }
    jobs = report.rows(layout, arguments["name"])
    found.update(jobs=jobs, jobs_summary=report.summary(jobs))
    backup = backup_report.row(arguments["name"])
    found.update(backup=backup, backup_summary=backup_report.summary(backup))
    if live is not None:
        found["health"] = health(layout, live, HealthCheck.of(arguments["health"]), endpoint)
        try:
            found["workers"] = len(workers(masters(layout, supervisor, live)))
            expected = defined(layout, live)
            programs = programs_beside(supervisor, expected)
            found["processes"] = overview(expected, programs, live)
            found["processes_summary"] = in_words(found["processes"], live)
            if found["health"] == "ok":
                found["health"] = lacking(expected, programs, live) or "ok"
        except ReleaseError as error:
            found["health"] = str(error).splitlines()[0]
    return found


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the `status` of the app."""
    return {"changed": False, "status": status(given)}
