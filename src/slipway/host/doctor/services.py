"""What clients need before they come to the app: names, services, and who listens."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator

from slipway.host.doctor.subject import Subject, output
from slipway.host.finding import Finding, error, warning
from slipway.host.process import tail


def names(subject: Subject) -> Iterator[Finding]:
    """Where the app's names lead."""
    for name, addresses in subject.arguments["resolved"].items():
        if not addresses:
            yield error(f"{name} has no address", "The controller cannot resolve it.", f"Add an A record for {name}.")
        strange = [address for address in addresses if address not in subject.arguments["addresses"]]
        if strange:
            own = ", ".join(subject.arguments["addresses"]) or "unknown"
            yield warning(
                f"{name} leads elsewhere",
                f"It leads to {', '.join(strange)}; this host has {own}.",
                f"Point the A and AAAA records of {name} at this host, unless something in front of it hands requests on.",
            )


def services(subject: Subject) -> Iterator[Finding]:
    """Whether the services run, and will after a reboot."""
    for role, service in subject.arguments["services"].items():
        if not service:
            continue
        active = output("systemctl", "is-active", service)[1]
        if active != "active":
            log = output("journalctl", "--unit", service, "--lines=3", "--no-pager", "--output=cat")[1]
            yield error(f"{service} does not run", f"{active}\n{log}", f"systemctl restart {service}")
        if output("systemctl", "is-enabled", service)[1].splitlines()[-1:] not in (["enabled"], ["static"], ["enabled-runtime"]):
            yield warning(f"{service} will not start after a reboot", "It is not enabled.", f"systemctl enable {service}")
        if role == "nginx" and shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin"):
            code, text = output("nginx", "-t")
            if code:
                yield error(
                    "Nginx would refuse its configuration",
                    tail(text, 3),
                    "ansible-playbook site.yml --tags nginx",
                )


def ports(subject: Subject) -> Iterator[Finding]:
    """Who listens."""
    for port in sorted({80, subject.endpoint.port}):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError as failure:
            yield error(f"Nobody listens on port {port}", str(failure), "systemctl restart nginx")
            continue
        listeners = output("ss", "-Hltnp", f"sport = :{port}")[1]
        if listeners and "users:" in listeners and "nginx" not in listeners:
            yield error(
                f"Port {port} belongs to another program than Nginx",
                listeners,
                "Stop it, then: systemctl restart nginx",
            )


CHECKS = (names, services, ports)
