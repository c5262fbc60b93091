"""Find what is wrong with a host that serves an app, or soon will be, and what mends it. Nothing is changed."""

from __future__ import annotations

import os
from typing import Any

from slipway.host.doctor import backup, certificate, database, host, interpreter, jobs, processes, redis, release, services
from slipway.host.doctor.subject import Subject
from slipway.host.errors import ReleaseError
from slipway.host.finding import Finding, warning, worst_first

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name.
    "name": str,
    # The user that runs the app.
    "user": str,
    # The group that may reach its sockets, which is Nginx's.
    "group": str,
    # Where Supervisor looks for sections.
    "program_directory": str,
    # What the names of those files end with.
    "program_suffix": str,
    # Units of `nginx`, `supervisor`, `certbot`; empty for none.
    "services": dict,
    # `path`, `status`, `body`, `headers` and `host` of the health check.
    "health": dict,
    # `host`, `port` and `tls` of the public endpoint on this host.
    "endpoint": dict,
    # The file of the certificate that Nginx serves.
    "certificate": str,
    # Whether it is to be one of a certificate authority.
    "authority": bool,
    # The app's names.
    "domains": list,
    # The name of its database on this host; empty for none.
    "database": "",
    # The directory of the database server's socket.
    "database_directory": "",
    # The socket of its Redis on this host; empty for none.
    "redis": "",
    # Names to the addresses that the controller finds them at.
    "resolved": dict,
    # The addresses of this host.
    "addresses": list,
    # The controller's time, in seconds since 1970.
    "now": float,
    # Files that differ from what the roles would write.
    "drift": [],
}

CHECKS = (
    *services.CHECKS,
    *database.CHECKS,
    *redis.CHECKS,
    *release.CHECKS,
    *processes.CHECKS,
    *jobs.CHECKS,
    *backup.CHECKS,
    *interpreter.CHECKS,
    *certificate.CHECKS,
    *host.CHECKS,
)


def examine(subject: Subject) -> list[dict[str, str]]:
    """Return all that is found, the worst first."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found.extend(check(subject))
        except (OSError, ReleaseError, ValueError, KeyError) as error:
            found.append(warning(f"{check.__name__} could not be checked", str(error), "Inspect it manually."))
    return worst_first(found)


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the `findings`."""
    os.environ["LC_ALL"] = "C.UTF-8"
    return {"changed": False, "findings": examine(Subject(given))}
