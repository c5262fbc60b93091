"""How an app and its certificate are, as whoever looks at a host sees it: nothing is changed."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from slipway.host.endpoint import NO_ANSWER, Door, UnixConnection, ask
from slipway.host.process import run
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor
from slipway.host.watch import children

# certbot renews with a third of a certificate's lifetime left, or half of less than ten days; older ones with 30 days left, if
# that is sooner. Less than the first of these shares says that it missed that; less than the second, that nobody mended it.
OVERDUE, URGENT = 1 / 4, 1 / 10


def masters(layout: Store, supervisor: Supervisor, number: int) -> list[int]:
    """Return the processes of release `number` that Supervisor, or a container, starts with."""
    program = layout.release(number) / "container.py"
    inside = run([sys.executable, program, "--pids"], 60, check=False).stdout.split() if program.exists() else []
    return [int(pid) for pid in inside if pid.isdigit()] or supervisor.state(number)[1]


def workers(first: list[int]) -> list[int]:
    """Return the processes that serve: the children of `first`, or those of them that have none."""
    serving: list[int] = []
    for master in first:
        serving += [pid for pid in sorted(children([master])) if b"resource_tracker" not in command(pid)] or [master]
    return serving


def command(pid: int) -> bytes:
    """Return the command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def health(layout: Store, live: int, question: dict[str, Any], door: Door) -> str:
    """Say `ok`, or what is wrong with the answers at the sockets and at the door."""
    wanted = int(question["status"])
    try:
        for socket in layout.sockets(live):
            answer = ask(UnixConnection(socket, timeout=5), question["path"], question["host"])
            if answer.status != wanted:
                return f"{answer.status} at {socket.name}"
    except NO_ANSWER as error:
        return f"silent: {error}"
    try:
        answer = door.ask(question["path"])
    except NO_ANSWER as error:
        return f"door silent: {error}"
    if answer.status != wanted:
        return f"{answer.status} at the door"
    return "ok" if answer.release == str(live) else f"door answers from release {answer.release}"


def served(door: Door) -> str:
    """Return the certificate that the door shows, in PEM.

    Raises:
        OSError: when nobody listens there, or the handshake fails.
    """
    with door.open() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def facts_of(certificate: str) -> dict[str, Any]:
    """Return what a certificate in PEM says.

    Returns:
        `fingerprint`, `subject`, `issuer`, `names`, and `begin` and `end` (seconds since 1970; 0 where they cannot be read).
    """
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        options = ["-noout", "-fingerprint", "-sha256", "-subject", "-issuer", "-dates", "-ext", "subjectAltName"]
        command = ["openssl", "x509", "-in", file.name, *options]
        text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    wanted = re.compile(r"(subject|issuer|notBefore|notAfter|sha256 Fingerprint)=", re.I)
    found = dict(line.split("=", 1) for line in text.splitlines() if wanted.match(line))
    known = {name.lower(): value.strip() for name, value in found.items()}
    return {
        "fingerprint": known.get("sha256 fingerprint", ""),
        "subject": known.get("subject", ""),
        "issuer": known.get("issuer", ""),
        "begin": ssl.cert_time_to_seconds(known["notbefore"]) if "notbefore" in known else 0,
        "end": ssl.cert_time_to_seconds(known["notafter"]) if "notafter" in known else 0,
        "names": re.findall(r"DNS:([^\s,]+)", text),
    }


def overdue(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Say that a certificate should have been renewed by now, by the share of its own lifetime that is left.

    Args:
        facts: those of the certificate.

    Returns:
        `error` or `warning`, what is wrong, and the evidence; nothing while enough is left.
    """
    left, lifetime = facts["end"] - time.time(), facts["end"] - facts["begin"]
    end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(facts["end"]))
    if left <= 0:
        return [("error", "The certificate has expired", f"It ended {end}.")]
    if left >= OVERDUE * lifetime:
        return []
    number, unit = (left // 86400, "day") if left >= 2 * 86400 else (left // 3600, "hour")
    what = f"The certificate ends in {number:.0f} {unit}{'' if number == 1 else 's'}"
    evidence = f"It should have been renewed by now: {100 * left / lifetime:.0f} % of its lifetime is left, until {end}."
    return [("error" if left < URGENT * lifetime else "warning", what, evidence)]
