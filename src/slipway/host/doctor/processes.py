"""What the app runs beside its web server."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.host.doctor.subject import Subject
from slipway.host.finding import Finding, error, warning
from slipway.host.logs import ends
from slipway.host.processes import defined, overview


def processes(subject: Subject) -> Iterator[Finding]:
    """Whether each process of the live release runs, and no other does that was not told to end."""
    if subject.live is None:
        return
    programs = subject.supervisor.programs()
    expected = defined(subject.layout, subject.live)
    for each in overview(expected, programs, subject.live):
        name, state = each["process"], each["state"]
        if each["release"] == subject.live and name in expected:
            if state not in ("RUNNING", "STARTING"):
                found = ends(subject.layout, subject.arguments["name"], subject.live, 5, name)
                yield error(
                    f"The process {name} is {state}" if state != "UNKNOWN" else f"The process {name} does not run",
                    found[0][1] if found else "It logged nothing.",
                    "ansible-playbook playbooks/deploy.yml",
                )
        elif state != "STOPPING":
            yield warning(
                f"The process {name} of release {each['release']} still runs, and does not belong here",
                "A run was interrupted, or app_processes has changed.",
                "ansible-playbook playbooks/deploy.yml",
            )


CHECKS = (processes,)
