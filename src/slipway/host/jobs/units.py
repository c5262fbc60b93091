"""The units of systemd that run the jobs of an app: a service and a timer for each, as the live release says."""

from __future__ import annotations

import calendar
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.jobs.definition import Job, identifier, jobs_of
from slipway.host.process import run, tail
from slipway.host.store import Store

DIRECTORY = Path("/etc/systemd/system")

# Where systemd remembers when a timer last elapsed.
STAMPS = Path("/var/lib/systemd/timers")

# What a unit of ours says of whose it is. systemd ignores names that begin with X-.
OWNER = "X-Slipway-App="

# Seconds from SIGTERM to SIGKILL, for a job that takes too long or is stopped.
STOP_SECONDS = 30

SERVICE = """\
# Written by Slipway with the live release: app_jobs says what is in it.
[Unit]
Description=Job {job} of {app}
{owner}{app}
# One that was missed starts with the host: not before what it may need. Units that are not there do no harm.
Wants=network-online.target
After=network-online.target postgresql.service redis-server.service redis.service valkey.service
After=slipway-redis-{app}.service docker.service podman.service supervisor.service supervisord.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/usr/local/bin/slipway job {app} {job}
ExecStopPost=/usr/local/bin/slipway job {app} {job} --ended
TimeoutStartSec={timeout}
TimeoutStopSec={stop}
SyslogIdentifier={identifier}
UMask=0027
{memory}"""

TIMER = """\
# Written by Slipway with the live release: app_jobs says what is in it.
[Unit]
Description=Schedule of the job {job} of {app}
{owner}{app}

[Timer]
{calendars}
# One that was missed, while the host was off, runs after its start.
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""

# States of a service that has not ended.
RUNNING_STATES = ("activating", "active", "deactivating", "reloading")


def unit(app: str, job: str, kind: str) -> str:
    """Return the name of a job's unit; `kind` is service or timer."""
    return f"slipway-job-{app}-{job}.{kind}"


def texts(app: str, job: Job, memory_mb: int) -> dict[str, str]:
    """Return the units of a job by name.

    Args:
        app: the app's name.
        job: the job.
        memory_mb: what all of its processes may take, in MiB; 0 for no limit.
    """
    known = {"app": app, "job": job.name, "owner": OWNER}
    limit = f"MemoryMax={memory_mb}M\nMemorySwapMax=0\n" if memory_mb else ""
    calendars = "\n".join(f"OnCalendar={when}" for when in job.calendars)
    called = identifier(app, job.name)
    return {
        unit(app, job.name, "service"): SERVICE.format(
            **known, timeout=job.timeout, stop=STOP_SECONDS, identifier=called, memory=limit
        ),
        unit(app, job.name, "timer"): TIMER.format(**known, calendars=calendars),
    }


def jobs_here(layout: Store, number: int | None, first: bool) -> dict[str, Job]:
    """Return the jobs of release `number` that this host runs, by name.

    Args:
        layout: the app's paths.
        number: the release; None for none.
        first: whether this is the app's first host.
    """
    return {name: job for name, job in jobs_of(layout, number).items() if first or job.hosts == "all"}


def required_units(layout: Store, app: str, number: int | None, first: bool) -> dict[str, str]:
    """Return the units that the jobs of release `number` need on this host, by name."""
    found: dict[str, str] = {}
    for job in jobs_here(layout, number, first).values():
        assert number is not None
        release: dict[str, Any] = json.loads((layout.release(number) / "runtime.json").read_text(encoding="utf-8"))
        # The engine limits a container by itself.
        found |= texts(app, job, 0 if release["container"] else release["memory_mb"])
    return found


def installed(app: str) -> dict[str, str]:
    """Return the units of an app's jobs that this host has, by name. A name alone does not tell: `a-b` may be an app, too."""
    units = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob(f"slipway-job-{app}-*.*") if path.is_file()}
    return {name: text for name, text in units.items() if f"{OWNER}{app}" in text.splitlines()}


def show(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what systemd knows of some units: properties by name, by the name of the unit; nothing without systemd."""
    names = list(units)
    if not names:
        return {}
    properties = "Id,ActiveState,Result,NeedDaemonReload,NextElapseUSecRealtime"
    command = ["systemctl", "show", f"--property={properties}", *names]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30, "check": False}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env={**os.environ, "TZ": "UTC"}, **options)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in done.stdout.split("\n\n")]
    return {block["Id"]: block for block in blocks if block.get("Id")}


def next_time(timer: str, known: dict[str, dict[str, str]]) -> int:
    """Return when a timer elapses next, in seconds since 1970; 0 where that is not known, as while its service runs."""
    text = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?= UTC)", known.get(timer, {}).get("NextElapseUSecRealtime", ""))
    return calendar.timegm(time.strptime(text[0], "%Y-%m-%d %H:%M:%S")) if text else 0


def systemctl(*arguments: str, check: bool = True) -> None:
    """Have systemd do something.

    Raises:
        ReleaseError: when it refuses, and `check` is set.
    """
    run(["systemctl", *arguments], 60, check=check)


def is_scheduled(timer: str, known: dict[str, dict[str, str]]) -> bool:
    """Say whether a timer is active, and will be after a reboot."""
    link = DIRECTORY / "timers.target.wants" / timer
    return link.is_symlink() and known.get(timer, {}).get("ActiveState") == "active"


def apply(layout: Store, app: str, number: int | None, first: bool) -> bool:
    """Have this host run the jobs of release `number`, and no others. A job that runs is neither waited for nor stopped.

    Args:
        layout: the app's paths.
        app: its name.
        number: the live release; None for none.
        first: whether this is the app's first host.

    Returns:
        Whether anything was changed.

    Raises:
        ReleaseError: when systemd refuses; the next step tries it again.
        OSError: when a unit cannot be written.
    """
    present, units = installed(app), required_units(layout, app, number, first)
    if not present and not units:
        return False
    known = show({*present, *units})
    different = {name for name, text in units.items() if present.get(name) != text}
    running = {name for name in present if known.get(name, {}).get("ActiveState") in RUNNING_STATES and name.endswith(".service")}
    # What still runs needs its service to be told apart from a failure at its end.
    gone = set(present) - set(units) - running
    gone_timers = sorted(name for name in gone if name.endswith(".timer"))
    idle = {name for name in units if name.endswith(".timer") and not is_scheduled(name, known)}
    begun = sorted({name for name in different if name.endswith(".timer")} | idle)
    stale = any(each.get("NeedDaemonReload") == "yes" for name, each in known.items() if name in units)
    if not different and not gone and not begun and not stale:
        return False
    if gone_timers:
        systemctl("disable", "--now", *gone_timers)
    changed_timers = sorted(name for name in different & set(present) if name.endswith(".timer"))
    if changed_timers:
        systemctl("stop", *changed_timers)
    for name in sorted(different):
        write(DIRECTORY / name, units[name])
    for name in sorted(gone):
        remove(DIRECTORY / name)
    systemctl("daemon-reload")
    for name in gone_timers:
        remove(STAMPS / f"stamp-{name}")
    for name in (name for name in different if name.endswith(".timer")):
        begin_now(name)
    if gone:
        systemctl("reset-failed", *sorted(gone), check=False)
    if begun:
        systemctl("enable", "--now", *begun)
    return bool(different or gone_timers or begun or stale)  # the service of a job that ended since is no change


def begin_now(timer: str) -> None:
    """Have a timer count from now on: it is neither to make up for the time before, nor for what another schedule missed."""
    stamp = STAMPS / f"stamp-{timer}"
    stamp.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    stamp.touch()
    os.utime(stamp)


def check(app: str, jobs: dict[str, dict[str, Any]]) -> None:
    """Check that this host can run jobs, before a release has them.

    Args:
        app: the app's name.
        jobs: what the release is to have, by name.

    Raises:
        ReleaseError: when systemd refuses a schedule, or a unit belongs to another app.
    """
    for name, job in jobs.items():
        file = DIRECTORY / unit(app, name, "timer")
        if file.exists() and f"{OWNER}{app}" not in file.read_text(encoding="utf-8").splitlines():
            raise ReleaseError(f"the job {name} of app_jobs needs the unit {file.name}, which is another app's. Rename the job.")
        for when in job["calendars"]:
            answer = run(["systemd-analyze", "calendar", when], 30, {"LC_ALL": "C.UTF-8"}, check=False)
            if answer.returncode or "Next elapse: never" in " ".join(answer.stdout.split()):
                why = tail(answer.stdout, 3) if answer.returncode else "It never comes."
                raise ReleaseError(f"the job {name} of app_jobs has a schedule that systemd rejects: {job['schedule']}\n{why}")
