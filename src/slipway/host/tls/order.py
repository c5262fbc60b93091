"""Order a certificate from a CA, after a look at whether the CA will find this host.

A certificate that is for these names, from this CA, and valid is left to certbot's own timer. None is ordered, unless less than a
quarter of its lifetime is left, so that the timer must have failed. Before an order, each name must lead to this host, and a
challenge must be found there. If that fails none is ordered, since CAs count failures.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import re
import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.host.certificate import OVERDUE, read_file
from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink
from slipway.host.process import run

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # What certbot calls the certificate.
    "name": str,
    # The names that it is for.
    "domains": list,
    # The address of the CA's directory.
    "server": str,
    # The address for the CA's letters; empty for none.
    "email": "",
    # Where challenges are answered.
    "webroot": str,
    # Whether to look before ordering.
    "preflight": True,
    # The link to the certificate with its chain.
    "certificate": str,
    # The link to the private key.
    "key": str,
    # Where certbot keeps what it has.
    "directory": "/etc/letsencrypt",
}

CHALLENGES = ".well-known/acme-challenge"
SECONDS = 10
ORDER_SECONDS = 600.0

# How long another certbot at work is waited for.
PATIENCE_SECONDS = 120.0


def why_order(live: Path, renewal: Path, domains: list[str], server: str) -> str | None:
    """Say why a certificate must be ordered; None if the one that is there will do.

    Args:
        live: certbot's directory with the current certificate.
        renewal: certbot's file that says how it was ordered.
        domains: the names that it must be for, in any order.
        server: the CA that it must be from.
    """
    certificate = live / "fullchain.pem"
    if not certificate.exists() or not renewal.exists():
        return "there is none"
    found = read_file(certificate)
    if found is None or set(found.names) != set(domains):
        return "the names changed"
    if found.expired:
        return "it expired"
    if found.share_left < OVERDUE:
        return "its renewal is overdue"
    known = re.search(r"^server\s*=\s*(\S+)", renewal.read_text(encoding="utf-8"), re.MULTILINE)
    return "the CA changed" if known is None or known[1] != server else None


def probe_challenge(domain: str, address: str, path: str, expected: str) -> str | None:
    """Fetch the challenge at one address as the CA will.

    Returns:
        What is wrong there; None if the challenge was found.
    """
    try:
        connection = http.client.HTTPConnection(address, 80, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": domain})
            response = connection.getresponse()
            body = response.read(1000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENETUNREACH and ":" in address:
            return None  # a host without IPv6 cannot tell
        return f"port 80 of {address} does not answer ({error})"
    if response.status == 200 and body == expected:
        return None
    return f"{address} answers {response.status} instead of the challenge: another server, or something in front of this one"


def preflight(domains: list[str], webroot: Path) -> None:
    """Check that every name leads to this host.

    Raises:
        ReleaseError: when one does not; it names all of them.
    """
    token = secrets.token_hex(16)
    file = webroot / CHALLENGES / f"slipway-{token}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(token, encoding="utf-8")
    failures = []
    try:
        for domain in domains:
            try:
                found = socket.getaddrinfo(domain, 80, type=socket.SOCK_STREAM)
            except socket.gaierror:
                failures.append(f"{domain} has no address: add an A record for it at your DNS provider")
                continue
            addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda text: ipaddress.ip_address(text).version)
            answers = [probe_challenge(domain, address, f"/{CHALLENGES}/{file.name}", token) for address in addresses]
            unexpected = [answer for answer in answers if answer]
            if unexpected:
                hint = "Point its A and AAAA records at this host, and nowhere else, and open port 80 to everybody"
                failures.append(f"{domain}: {' and '.join(unexpected)}. {hint}")
    finally:
        file.unlink()
    if failures:
        raise ReleaseError(
            f"No certificate was ordered, since the CA would not find this host. {'; '.join(failures)}. "
            "Then run this again; set certbot_preflight to false if the host cannot reach itself by its public name."
        )


def reach(server: str) -> None:
    """Check that the CA answers.

    Raises:
        ReleaseError: when it does not.
    """
    try:
        with urllib.request.urlopen(server, timeout=SECONDS) as answer:
            answer.read(1)
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ReleaseError(
            f"No certificate was ordered: the CA at {server} (certbot_server) does not answer ({reason}). "
            "If that is the right address, try again later."
        ) from error


def order(given: Mapping[str, Any]) -> None:
    """Have certbot order the certificate; another certbot at work is waited for, up to two minutes.

    Raises:
        ReleaseError: when it fails, with what certbot says.
    """
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot"]
    command += ["--webroot-path", given["webroot"], "--cert-name", given["name"]]
    command += ["--server", given["server"], "--key-type", "ecdsa"]
    command += ["--email", given["email"]] if given["email"] else ["--register-unsafely-without-email"]
    command += ["--config-dir", given["directory"], "--renew-with-new-domains", "--force-renewal"]
    command += ["--deploy-hook", "systemctl reload nginx"]
    for domain in given["domains"]:
        command += ["--domain", domain]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            done = run(command, ORDER_SECONDS, check=False)
        except ReleaseError as error:
            raise ReleaseError(f"The order failed: certbot did not do its work ({error}).") from error
        if done.returncode == 0:
            return
        if "Another instance of Certbot" not in done.stdout or time.monotonic() > deadline:
            kept = [line for line in done.stdout.splitlines() if line.strip() and "Saving debug log" not in line]
            raise ReleaseError("The order failed; certbot says:\n" + "\n".join(kept[-15:]))
        time.sleep(5)


def is_valid(certificate: Path) -> bool:
    """Return whether a file has a CA's certificate that has not expired."""
    found = read_file(certificate)
    return found is not None and not found.self_signed and not found.expired


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Order the certificate if there is none that will do, and link it for Nginx.

    Returns:
        The `reason` for an order; if it failed, whether what Nginx serves now is `is_valid`.
    """
    live = Path(given["directory"], "live", given["name"])
    renewal = Path(given["directory"], "renewal", f"{given['name']}.conf")
    reason = why_order(live, renewal, given["domains"], given["server"])
    links = {Path(given["certificate"]): live / "fullchain.pem", Path(given["key"]): live / "privkey.pem"}
    linked = all(link.is_symlink() and os.readlink(link) == str(target) for link, target in links.items())
    if check or (reason is None and linked):
        return {"changed": reason is not None or not linked, "reason": reason}
    try:
        if reason is not None:
            if given["preflight"]:
                preflight(given["domains"], Path(given["webroot"]))
            reach(given["server"])
            order(given)
    except ReleaseError as error:
        summary = {"certificate": "could not be ordered"}
        found = is_valid(Path(given["certificate"]))
        return {"failed": True, "msg": str(error), "reason": reason, "valid": found, "summary": summary}
    for link, target in links.items():
        atomic_symlink(link, target, over_file=True)
    return {"changed": True, "reason": reason}
