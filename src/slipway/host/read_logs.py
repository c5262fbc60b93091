"""Read what an app, its server and Nginx logged, or what they have logged since."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.jobs.definition import identifier, jobs_of
from slipway.host.logs import File, Journal
from slipway.host.processes import defined
from slipway.host.store import Store

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name.
    "name": str,
    # Further logs, which are Nginx's.
    "others": list,
    # How many of each log are wanted, the last ones.
    "lines": 20,
    # A regular expression that lines must have.
    "grep": "",
    # What is masked: a regular expression, whose first group stays.
    "masked": str,
    # Where an earlier call ended: what was said since is wanted, all of it.
    "positions": {},
    # Seconds to wait before.
    "wait": 0.0,
}

JOURNAL = "the journal"


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return `output`, the lines of each log that has any, below its name, and `positions`, where they end.

    Raises:
        ReleaseError: when `grep` is no regular expression.
    """
    try:
        re.compile(given["grep"])
    except re.error as error:
        raise ReleaseError(f"grep must be a regular expression, and {given['grep']!r} is not one: {error}.") from error
    time.sleep(given["wait"])
    layout = Store(**given["layout"])
    logs = [*sorted(layout.logs.glob("*.log")), *map(Path, given["others"])]
    sources: dict[str, Any] = {str(log): File(log) for log in logs}
    jobs = {name for number in layout.numbers() for name in jobs_of(layout, number)}
    programs = {f"{given['name']}-{number}": defined(layout, number, first=True) for number in layout.numbers()}
    processes = [f"{program}.{process}" for program, found in programs.items() for process in found]
    sources[JOURNAL] = Journal([*programs, *processes, *(identifier(given["name"], job) for job in sorted(jobs))])
    before, output = given["positions"], list[str]()
    after: dict[str, Any] = {}
    for name, source in sources.items():
        if before:
            position: Any = before.get(name) or ("" if name == JOURNAL else [0, 0])
            lines, after[name] = source.since(position, given["grep"])
            after[name] = after[name] or position
        else:
            lines, after[name] = source.last(given["lines"], given["grep"])
        if lines:
            output += [f"== {name}", *(re.sub(given["masked"], r"\1********", line) for line in lines)]
    return {"changed": False, "lines": output, "positions": after}
