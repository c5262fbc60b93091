"""Remove the releases beyond those to keep, and what none of the rest uses."""

from __future__ import annotations

import os

from slipway.host import pythons
from slipway.host.build.engine import Engine
from slipway.host.errors import ReleaseError
from slipway.host.files import remove
from slipway.host.jobs.definition import in_use, jobs_of
from slipway.host.release.context import Context
from slipway.host.release.record import GOOD, image_of
from slipway.host.store import Store
from slipway.runtime.agreement import repository


def prune(context: Context) -> None:
    """Remove releases beyond those to keep, and the builds, environments, Pythons of uv and logs that none of the rest uses.

    What is live is never removed, nor what was live before it, whatever failed in between, nor what a job or a process uses.
    """
    live = context.layout.live()
    keep = context.arguments["keep"]
    others = [number for number in context.layout.numbers() if number != live]
    good = [number for number in others if context.layout.record(number).get("outcome") == GOOD]
    kept = {*others[-keep:], *good[-keep:]} if keep else set(good[-1:])
    kept |= {live} if live is not None else set()
    kept |= {number for number in others if in_use(context.layout, number)}
    kept |= {program.release for program in context.supervisor.programs() if not program.ended}
    for number in set(others) - kept:
        remove(context.layout.release(number))
    for log in context.layout.logs.glob("*.log*"):
        number_text = log.name.split(".", 1)[0]
        if number_text.isdigit() and int(number_text) not in kept:
            remove(log)
    prune_job_logs(context.layout, kept)
    for hidden in context.layout.releases.glob(".*"):
        remove(hidden)
    links = [context.layout.release(number) / "build" for number in kept]
    builds = {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()} | {context.arguments["build"]}
    prune_images(context, builds)
    for build in context.layout.builds.iterdir():
        if build.name not in builds:
            remove(build)
    links = [context.layout.builds / build / ".venv" for build in builds]
    venvs = {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()}
    for venv in context.layout.venvs.iterdir():
        if venv.name not in venvs:
            remove(venv)
    pythons.prune()


def prune_job_logs(layout: Store, kept: set[int]) -> None:
    """Remove the logs of jobs that no release that is kept has."""
    jobs = {name for number in kept for name in jobs_of(layout, number)}
    for log in layout.logs.glob("job-*.log*"):
        if log.name.removeprefix("job-").rpartition(".log")[0] not in jobs:
            remove(log)


def prune_images(context: Context, builds: set[str]) -> None:
    """Remove the app's images but for those of `builds`."""
    records = [image_of(context, path.name) for path in context.layout.builds.iterdir()]
    engines = {record["engine"] for record in records if record} | {context.arguments["engine"]}
    name = repository(context.arguments["name"])
    for engine in engines - {""}:
        try:
            for tag in set(Engine(engine).tags(name)) - builds:
                Engine(engine).call("rmi", f"{name}:{tag}")
        except ReleaseError as error:
            context.warnings.append(f"An image of an earlier release could not be removed. {error}")
