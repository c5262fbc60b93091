"""The status of a load balancer and of its backends, and findings about them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slipway.host.certificate import Certificate, served_if_any
from slipway.host.endpoint import PublicEndpoint
from slipway.host.finding import Finding, error, warning, worst_first
from slipway.host.haproxy import DOWN, DRAIN, MAINT, MASTER_SOCKET, SOCKET, Backend, HAProxy, HAProxyError

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # `host`, `port` and `tls` of the public endpoint on this host.
    "endpoint": dict,
    # HAProxy's stats socket.
    "socket": SOCKET,
    # The socket of its master process, if it has one.
    "master_socket": MASTER_SOCKET,
    # HAProxy's name for systemd.
    "service": "haproxy",
    # Files that differ from what the roles would write.
    "drift": [],
}


def runs(unit: str) -> bool:
    """Return whether a service runs."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False, timeout=30).returncode == 0


def list_backends(haproxy: HAProxy, service: str) -> tuple[list[Backend], Finding | None]:
    """Return the backends, or why they cannot be listed.

    Args:
        haproxy: the load balancer.
        service: its name for systemd.
    """
    try:
        backends = list(haproxy.backends().values())
    except HAProxyError as failure:
        if not runs(service):
            return [], error("HAProxy does not run", str(failure), f"systemctl status {service}")
        return [], error("HAProxy does not answer", str(failure), f"systemctl restart {service}")
    if not backends:
        return [], error("The load balancer has no backends", "Its configuration names none.", "ansible-playbook site.yml")
    return backends, None


def backend_findings(backends: Iterable[Backend]) -> Iterable[Finding]:
    """Yield a finding for each backend that gets no requests."""
    for backend in backends:
        if backend.state == DOWN:
            evidence = str(backend.check) or "It has not passed a health check yet."
            yield error(f"{backend.name} is down", evidence, f"ansible-playbook playbooks/doctor.yml -l {backend.name}")
        elif backend.state in (DRAIN, MAINT):
            evidence = f"Its state is {backend.state}, and its number of sessions {backend.sessions}."
            remedy = f"ansible-playbook playbooks/drain.yml -e drain=false -l {backend.name}"
            yield warning(f"{backend.name} is drained", evidence, remedy)


def findings(
    backends: Iterable[Backend], failure: Finding | None, certificate: Certificate | None, drift: list[str]
) -> list[dict[str, str]]:
    """Return the findings, the worst first.

    Args:
        backends: the backends.
        failure: why they cannot be listed, if so.
        certificate: the one that is served; None if none is.
        drift: files that somebody changed.
    """
    found = [*([failure] if failure else []), *backend_findings(backends)]
    for severity, what, evidence in certificate.overdue() if certificate else []:
        found.append(Finding(severity, what, evidence, "ansible-playbook site.yml --tags certbot"))
    if drift:
        remedy = "ansible-playbook site.yml --check --diff"
        found.append(warning("Files are not what the roles would write", ", ".join(drift), remedy))
    return worst_first(found)


def status(backends: Iterable[Backend], failure: Finding | None, certificate: Certificate | None) -> dict[str, Any]:
    """Return the row of the table: `health` is `ok`, or what is unhealthy."""
    unhealthy = [f"{backend.name} is down" for backend in backends if backend.state == DOWN]
    disk = os.statvfs("/var")
    return {
        "server": "haproxy",
        "health": failure.what if failure else "; ".join(unhealthy) or "ok",
        "certificate_days": certificate.days if certificate else None,
        "disk_percent": round(100 * (1 - disk.f_bavail / max(1, disk.f_blocks - disk.f_bfree + disk.f_bavail))),
        "backends": [row(backend) for backend in backends],
    }


def row(backend: Backend) -> dict[str, Any]:
    """Return the row of a backend."""
    return {
        "backend": backend.name,
        "state": backend.state,
        "sessions": backend.sessions,
        "requests": backend.requests,
        "check": str(backend.check),
    }


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the load balancer's `status` with its `backends`, the state of each of its `hosts`, and `findings`."""
    backends, failure = list_backends(HAProxy(Path(given["socket"]), Path(given["master_socket"])), given["service"])
    certificate = served_if_any(PublicEndpoint(**given["endpoint"]))
    return {
        "changed": False,
        "status": status(backends, failure, certificate),
        "hosts": {backend.name: backend.state for backend in backends},
        "findings": findings(backends, failure, certificate, given["drift"]),
    }
