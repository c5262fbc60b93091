"""The jobs of an app, as the inventory has them and as a host gets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from slipway.controller.schedule import BadSchedule, calendars
from slipway.controller.variables.types import CONTROL, LONGEST

# What a job may have, with what it has by default. What it must have has none.
OPTIONS: dict[str, Any] = {"schedule": None, "command": None, "hosts": "first", "timeout_seconds": 3600}
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
HOSTS = ("first", "all")
LONGEST_SECONDS = 7 * 86400


def normalized(jobs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return jobs as a host gets them, with the calendars of systemd that each schedule means.

    Args:
        jobs: what `unfit` finds no fault with.

    Raises:
        BadSchedule: when a schedule is none.
    """
    found = {}
    for name, job in jobs.items():
        whole = {**OPTIONS, **job}
        schedule = " ".join(whole["schedule"].split())
        found[str(name)] = {
            "schedule": schedule,
            "calendars": calendars(schedule),
            "command": whole["command"].strip(),
            "hosts": whole["hosts"],
            "timeout": int(whole["timeout_seconds"]),
        }
    return found


def unfit(jobs: Any) -> str:
    """Say what is wrong with each job that is; nothing if all are right."""
    if not isinstance(jobs, Mapping):
        return ""
    return "; ".join(f"{name}: {error}" for name, job in jobs.items() if (error := error_in(name, job)))


def error_in(name: Any, job: Any) -> str:
    """Say what is wrong with a job; nothing if it is right."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "a name has 1 to 32 lower-case letters, digits, '-' or '_', and begins with a letter"
    if not isinstance(job, Mapping):
        return "a job is a mapping with a schedule and a command"
    unknown = sorted(str(option) for option in job if option not in OPTIONS)
    if unknown:
        return f"a job has no {', '.join(unknown)}; it has {', '.join(OPTIONS)}"
    for option in ("schedule", "command"):
        value = job.get(option)
        if not isinstance(value, str) or not value.strip():
            return f"{option} is missing" if value is None else f"{option} must be a text: put it in quotes"
        if CONTROL.search(value.strip()) or len(value) > LONGEST:
            return f"{option} must be on one line, of at most {LONGEST} characters"
    if job.get("hosts", "first") not in HOSTS:
        return f"hosts must be {' or '.join(HOSTS)}"
    seconds = job.get("timeout_seconds", 1)
    if isinstance(seconds, bool) or not re.fullmatch(r"[1-9]\d{0,6}", str(seconds)) or int(seconds) > LONGEST_SECONDS:
        return f"timeout_seconds must be from 1 to {LONGEST_SECONDS} seconds"
    try:
        calendars(job["schedule"])
    except BadSchedule as error:
        return str(error)
    return ""
