"""Tell how a balancer is, which hosts it uses, and what is wrong with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from slipway.host.balancer_state import NoState, read
from slipway.host.certificate import Certificate, served_if_any
from slipway.host.endpoint import PublicEndpoint
from slipway.host.finding import Finding, error, warning, worst_first

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # Where the balancer's service tells how it is.
    "runtime": str,
    # What systemd calls that service.
    "service": str,
    # `host`, `port` and `tls` of the public endpoint on this host.
    "endpoint": dict,
    # Files that differ from what the roles would write.
    "drift": [],
}


def hosts_of(runtime: Path) -> dict[str, dict[str, Any]]:
    """Return what the balancer's service says of each host; nothing where it says nothing any more."""
    try:
        hosts: dict[str, dict[str, Any]] = read(runtime)["hosts"]
    except NoState:
        return {}
    return hosts


def runs(unit: str) -> bool:
    """Say whether a service runs."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False, timeout=30).returncode == 0


def findings(
    hosts: dict[str, dict[str, Any]],
    service: str,
    certificate: Certificate | None,
    drift: list[str],
    stopped: list[str],
) -> list[dict[str, str]]:
    """Return what is wrong, the worst first.

    Args:
        hosts: what the service says of each.
        service: what systemd calls it.
        certificate: what the one says that is served; None where none is.
        drift: files that somebody changed.
        stopped: services that do not run.
    """
    found = [error(f"{unit} does not run", "It is not active.", f"systemctl start {unit}") for unit in stopped]
    if not hosts:
        found.append(error("The balancer does not look at its hosts", "Its state is old.", f"systemctl restart {service}"))
    for name, entry in hosts.items():
        if entry["state"] == "unhealthy":
            found.append(error(f"{name} is not well", entry["reason"], f"ansible-playbook playbooks/doctor.yml -l {name}"))
        elif entry["state"] == "drained":
            remedy = f"ansible-playbook playbooks/drain.yml -e drain=false -l {name}"
            found.append(warning(f"{name} is drained", "Somebody took it out of use.", remedy))
    for severity, what, evidence in certificate.overdue() if certificate else []:
        found.append(Finding(severity, what, evidence, "ansible-playbook site.yml --tags certbot"))
    if drift:
        remedy = "ansible-playbook site.yml --check --diff"
        found.append(warning("Files are not what the roles would write", ", ".join(drift), remedy))
    return worst_first(found)


def status(hosts: dict[str, dict[str, Any]], certificate: Certificate | None) -> dict[str, Any]:
    """Return the row of the table: `health` is `ok`, or what is wrong."""
    unwell = [f"{name} is not well" for name, entry in hosts.items() if entry["state"] == "unhealthy"]
    disk = os.statvfs("/var")
    return {
        "server": "balancer",
        "health": "; ".join(unwell) or ("ok" if hosts else "it does not look at its hosts"),
        "certificate_days": certificate.days if certificate else None,
        "disk_percent": round(100 * (1 - disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail))),
    }


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the balancer's `status`, its `hosts`, and `findings`."""
    service = given["service"]
    hosts, certificate = hosts_of(Path(given["runtime"])), served_if_any(PublicEndpoint(**given["endpoint"]))
    stopped = [unit for unit in ("nginx", service) if not runs(unit)]
    found = findings(hosts, service, certificate, given["drift"], stopped)
    told = {name: entry["state"] for name, entry in hosts.items()}
    return {"changed": False, "status": status(hosts, certificate), "hosts": told, "findings": found}
