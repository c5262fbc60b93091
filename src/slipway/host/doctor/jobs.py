"""The jobs of the app: what became of them last time, and whether they will run."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.host.doctor.subject import Subject, minute
from slipway.host.finding import Finding, error, warning
from slipway.host.jobs.command import missing_program
from slipway.host.jobs.definition import configured, jobs_of
from slipway.host.jobs.report import end_of_log, has_failed, rows
from slipway.host.jobs.units import installed, required_units, unit


def jobs(subject: Subject) -> Iterator[Finding]:
    """What became of each job last time, whether its timer is active, and whether its command is there."""
    app, layout = subject.arguments["name"], subject.layout
    for row in rows(layout, app):
        if not row["here"]:
            continue
        name = row["job"]
        if has_failed(row):
            code = f", exit code {row['code']}" if row["code"] else ""
            evidence = f"{row['result']}{code}, in release {row['release']}, at {minute(row['start'])}, after {row['seconds']} s"
            log = end_of_log(layout, app, row, 5)
            yield warning(f"The job {name} failed", f"{evidence}\n{log}", f"Fix it, then: slipway run {app} --job {name}")
        if not row["scheduled"]:
            timer = unit(app, name, "timer")
            yield error(f"The job {name} will not run: its timer is not active", timer, f"systemctl enable --now {timer}")
    for name, job in jobs_of(layout, subject.live).items():
        assert subject.live is not None
        directory = layout.record(subject.live).get("directory", configured(app).get("directory", "."))
        program = missing_program(layout.release(subject.live), directory, job.command)
        if program:
            yield error(
                f"The live release lacks the command of the job {name}",
                f"{program} is not in release {subject.live}: {job.command}",
                "Fix the command in app_jobs, or the source, then: ansible-playbook playbooks/deploy.yml",
            )
    surplus = set(installed(app)) - set(required_units(layout, app, subject.live, layout.was_first() is not False))
    timers = sorted(name for name in surplus if name.endswith(".timer"))
    if timers:
        yield warning(
            "Timers of jobs that the live release does not have are still there",
            ", ".join(timers),
            "ansible-playbook playbooks/deploy.yml",
        )


CHECKS = (jobs,)
