"""Run a command in an app's live release, or one of its jobs, for a playbook."""

from __future__ import annotations

from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.jobs.by_hand import run_now
from slipway.host.operator import live_release, note
from slipway.host.process import masked, run

# The arguments of the step: a type stands for what must be given.
PARAMETERS: dict[str, Any] = {
    # The app's name.
    "app": str,
    # The command, for a shell; empty to run a job.
    "command": "",
    # The job to run now.
    "job": "",
    # Seconds that it may take.
    "timeout": float,
    # The run of Ansible that this is a step of.
    "run": dict,
}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Run the command with the code, the settings and the user of the live release; or the job, which takes as long as it may.

    Returns:
        `release`, its `code`, and in `lines` what it printed, without secrets.

    Raises:
        ReleaseError: when nothing is live, or it takes too long.
    """
    context, live = live_release(given["app"], given["run"])
    if check:
        return {"changed": True, "release": live, "code": 0, "lines": []}
    if given["job"]:
        lines: list[str] = []
        code = run_now(given["app"], given["job"], given["run"], lines.append)
        return {"changed": True, "release": live, "code": code, "lines": lines}
    with context.launching(live) as launch:
        command = [*launch["through"], given["command"]]
        try:
            done = run(command, given["timeout"], check=False, directory=launch["directory"], user=launch["user"])
        except ReleaseError as error:
            raise ReleaseError(masked(str(error), context.secrets)) from error
    note(context, live, given["command"], done.returncode)
    return {
        "changed": True,
        "release": live,
        "code": done.returncode,
        "lines": masked(done.stdout, context.secrets).splitlines(),
    }
