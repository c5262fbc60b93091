"""The jobs of a release: checked and written before it is activated, scheduled when it is live."""

from __future__ import annotations

import json

from slipway.host.errors import ReleaseError
from slipway.host.files import write
from slipway.host.jobs import units
from slipway.host.jobs.command import missing_program
from slipway.host.jobs.definition import FILE
from slipway.host.release.context import Context


def check_jobs(context: Context) -> None:
    """Check that this host can run the jobs that the next release is to have.

    Raises:
        ReleaseError: when it cannot.
    """
    units.check(context.arguments["name"], context.arguments.get("jobs") or {})


def write_jobs(context: Context, number: int) -> None:
    """Write the jobs of release `number` into its directory, if it has any."""
    jobs = context.arguments.get("jobs")
    if jobs:
        text = json.dumps(jobs, indent=2, sort_keys=True) + "\n"
        write(context.layout.release(number) / FILE, text, mode=0o640, group=context.group)


def warn_of_missing_commands(context: Context, number: int) -> None:
    """Warn of jobs of release `number` whose command it lacks, as far as that can be seen."""
    for name, job in (context.arguments.get("jobs") or {}).items():
        program = missing_program(context.layout.release(number), context.arguments["directory"], job["command"])
        if program:
            context.warnings.append(
                f"The job {name} would fail: {program} is not in release {number} (app_jobs: {job['command']})."
            )


def apply_jobs(context: Context, live: int | None) -> bool:
    """Have this host run the jobs of the live release, and no others, and say whether anything was changed.

    A job that runs is neither waited for nor stopped.

    Raises:
        ReleaseError: when systemd refuses; the next step tries it again.
    """
    try:
        return units.apply(context.layout, context.arguments["name"], live, context.first)
    except (ReleaseError, OSError) as error:
        what = f"Release {live} is live, but its jobs could not be scheduled" if live else "The jobs could not be removed"
        raise ReleaseError(f"{what}. The next run of playbooks/deploy.yml tries it again.\n{error}") from error
