"""Run a job as its service does: with the code, the settings and the user of the live release, to its end."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import IO, Any

from slipway.host import configuration
from slipway.host.errors import ReleaseError
from slipway.host.jobs.definition import OK, Job, Run, jobs_of, last_run, log_of, remember, using
from slipway.host.jobs.output import Output
from slipway.host.operator import as_user, live_release
from slipway.host.process import run as run_command
from slipway.host.release.context import Context

# Who runs it, for the context of the release.
TIMER = {"id": "", "who": "systemd", "where": "this host"}

# A line that is longer is logged in parts.
LINE_BYTES = 65536

# After its command has ended, what that left behind may print for so long.
REST_SECONDS = 2.0

# What systemd says of a service that ended, for an operator.
RESULTS = {
    **{"success": OK, "exit-code": "failed", "timeout": "timeout", "signal": "killed", "core-dump": "killed"},
    "oom-kill": "out of memory",
}
STOPPED, NOT_STARTED = "stopped", "not started"


@contextlib.contextmanager
def live(app: str) -> Iterator[tuple[Context, int]]:
    """Give the context of an app and its live release, which stays on the host meanwhile.

    Raises:
        ReleaseError: when nothing is live.
    """
    while True:
        context, number = live_release(app, TIMER)
        with using(context.layout, number):
            if context.layout.live() == number:  # and not another since
                yield context, number
                return


def output_of(context: Context, job: str, run: Run) -> Output:
    """Return the log of a run."""
    settings = json.loads((context.layout.release(run.release) / "runtime.json").read_text(encoding="utf-8"))
    return Output(settings, job, run.run, log_of(context.layout, job), context.secrets)


def run_job(app: str, name: str) -> int:
    """Run a job of the live release, and return the exit code of its command.

    Raises:
        ReleaseError: when nothing is live.
        OSError: when it cannot be started.
    """
    with live(app) as (context, number):
        job = jobs_of(context.layout, number).get(name)
        if job is None:  # a release or a rollback is about to remove its timer
            print(f"Release {number} of {app} has no job {name}, so nothing was run.")
            return 0
        last = last_run(context.layout, name)
        before = {"run": last.run, "result": last.result, "code": last.code}
        run = Run(secrets.token_hex(4), number, time.time(), success=last.success, before=before)
        remember(context.layout, name, run)
        output = output_of(context, name, run)
        output.record("INFO", f"The job {name} begins.", command=job.command)
        run.code = execute(context, number, job, run, output)
        remember(context.layout, name, run)
        output.close()
    return run.code if run.code >= 0 else 128 - run.code


def execute(context: Context, number: int, job: Job, run: Run, output: Output) -> int:
    """Run the command of a job, log what it prints, and return its exit code; that of a signal is negative."""
    launch = context.launch(number)
    through = launch["through"]
    if (context.layout.release(number) / "container.py").exists():  # one that a stopped release does not take with it
        through = [*through[:-1], "--job", job.name]
    environment = {**os.environ, "SLIPWAY_JOB": job.name, "SLIPWAY_RUN": run.run}

    def stop(signum: int, frame: FrameType | None) -> None:
        """Go on: systemd sends the command the same signal, and its last words are still to be logged."""
        run.result = STOPPED

    # Not ignored: the command would inherit that.
    signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(
        [*through, job.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        **as_user(launch),
    )
    assert process.stdout is not None
    reader = threading.Thread(target=copy, args=(process.stdout, output), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(REST_SECONDS)  # what it left behind may have its output for ever; systemd ends that with this service
    return code


def copy(stream: IO[bytes], output: Output) -> None:
    """Log each line of a stream."""
    for raw in iter(lambda: stream.readline(LINE_BYTES), b""):
        output.line(raw.decode("utf-8", "replace").rstrip("\r\n"))


def end_job(app: str, name: str, environment: Mapping[str, str]) -> int:
    """Write down what became of a job, after its service has ended, whatever ended it.

    Args:
        app: the app's name.
        name: the job's.
        environment: what systemd says of the service: `SERVICE_RESULT`, and `EXIT_STATUS`.
    """
    context = Context.of({**configuration.load(app), "run": TIMER, "limit": 0.0})
    layout, result = context.layout, environment.get("SERVICE_RESULT", "")
    run = last_run(layout, name)
    if run.end or not run.run:  # this time it has not begun
        if result not in ("", "success"):
            now = time.time()
            remember(layout, name, Run("", layout.live() or 0, now, now, NOT_STARTED, None, run.success))
        return 0
    release = layout.release(run.release)
    if (release / "container.py").exists():  # it may have outlived the client that systemd ended
        with contextlib.suppress(ReleaseError):
            run_command([sys.executable, release / "container.py", "--end-job", name], 60, check=False)
    run.result, run.end = outcome(run, result), time.time()
    if run.result == OK:
        run.success = run.end
    with contextlib.suppress(FileNotFoundError):  # its release may have been pruned since
        context.keep_secrets_of(run.release)
        output = output_of(context, name, run)
        facts: dict[str, Any] = {"result": run.result, "code": run.code, "seconds": round(run.end - run.start, 3)}
        text = f"The job {name} ended after {run.end - run.start:.1f} s: {described(run)}."
        output.record("INFO" if run.result == OK else "ERROR", text, **facts)
        output.close()
    remember(layout, name, run)  # and no sooner: who follows the log goes by that
    return 0


def outcome(run: Run, result: str) -> str:
    """Return what became of a run.

    Args:
        run: what it wrote down itself.
        result: what systemd says of its service.
    """
    if run.result == STOPPED and result != "timeout":
        return STOPPED
    if result == "exit-code" and run.code is not None and run.code < 0:  # of its command, which the service has outlived
        result = "signal"
    return RESULTS.get(result, result or "unknown")


def described(run: Run) -> str:
    """Return what became of a run, for people."""
    return f"{run.result}, exit code {run.code}" if run.code and run.result == "failed" else run.result
