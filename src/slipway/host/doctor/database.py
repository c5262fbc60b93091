"""The database of the app on this host: whether its server runs, and whether the app can use it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from slipway.host.doctor.subject import Subject, output
from slipway.host.finding import Finding, error, warning
from slipway.host.process import tail

SERVICE = "postgresql"
SOCKET = ".s.PGSQL.5432"
RESTART = f"systemctl restart {SERVICE}"

# Asked as the app: that the server lets it in is what matters. What waits for a restart is known to all.
QUESTION = "SELECT string_agg(name, ', ' ORDER BY name) FROM pg_settings WHERE pending_restart"


def database(subject: Subject) -> Iterator[Finding]:
    """Whether the server listens, will after a reboot, and lets the app use its database."""
    name, user, directory = (subject.arguments[key] for key in ("database", "user", "database_directory"))
    if not name:
        return
    place = Path(directory) / SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(place))
    except OSError as failure:
        log = output("journalctl", "--unit", f"{SERVICE}*", "--lines=3", "--no-pager", "--output=cat")[1]
        evidence = f"PostgreSQL does not listen on {place}: {failure.strerror or failure}\n{log}"
        yield error("The database is down", evidence, RESTART)
        return
    if output("systemctl", "is-enabled", "--quiet", SERVICE)[0]:
        yield warning("The database will not start after a reboot", f"{SERVICE} is not enabled.", f"systemctl enable {SERVICE}")
    command = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--host={directory}", f"--dbname={name}")
    code, text = output("runuser", "--user", user, "--", *command, f"--command={QUESTION}")
    if code:
        evidence = f"{user} asked for {name}: {tail(text, 3)}"
        yield error("The app cannot use its database", evidence, "ansible-playbook site.yml --tags postgresql")
    elif text:
        evidence = f"It takes {text} then. Requests that need the database fail meanwhile."
        yield warning("The database server waits for a restart", evidence, RESTART)


CHECKS = (database,)
