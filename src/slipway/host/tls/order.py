"""Order a certificate from a CA, after a look at whether the CA will find this host.

A certificate that is for these names, from this CA, and valid is left to certbot's own timer. None is ordered, unless less than a
quarter of its lifetime is left, so that the timer must have failed. Before an order, each name must lead to this host, and a
challenge must be found there. If that fails none is ordered, since CAs count failures.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import http.server
import ipaddress
import os
import re
import secrets
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from slipway.host.certificate import OVERDUE, read_file
from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink
from slipway.host.process import run

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # What certbot calls the certificate.
    "name": str,
    # The names that it is for.
    "domains": list,
    # The address of the CA's directory.
    "server": str,
    # The address for the CA's letters; empty for none.
    "email": "",
    # The directory in which a web server finds the answers to challenges. Empty if certbot answers them itself, at `port`.
    "webroot": "",
    # The port on 127.0.0.1 at which it does; a load balancer sends challenges there.
    "port": 0,
    # The service that serves the certificate.
    "service": "nginx",
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


def why_order(live: Path, renewal: Path, domains: list[str], server: str, authenticator: str) -> str | None:
    """Say why a certificate must be ordered; None if the one that is there will do.

    Args:
        live: certbot's directory with the current certificate.
        renewal: certbot's file that says how it was ordered.
        domains: the names that it must be for, in any order.
        server: the CA that it must be from.
        authenticator: what certbot calls the way in which challenges must be answered.
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
    known = dict(re.findall(r"^(server|authenticator)\s*=\s*(\S+)", renewal.read_text(encoding="utf-8"), re.MULTILINE))
    if known.get("server") != server:
        return "the CA changed"
    return "challenges are answered by another server" if known.get("authenticator") != authenticator else None


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
    return (
        f"{address} answers {response.status} instead of the challenge: another server, or a proxy in front of this one, answers"
    )


class Challenge(http.server.BaseHTTPRequestHandler):
    """Answers the challenges of `answers`, as certbot does while it orders."""

    answers: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        """Answer one."""
        body = self.answers.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write((body or "").encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def published(token: str, webroot: str, port: int) -> Iterator[str]:
    """Have a challenge answered while the block runs, and yield its path.

    Args:
        token: the answer, which also is part of the path.
        webroot: the directory in which the web server finds it; empty if it is asked for at a port.
        port: that port, on 127.0.0.1.

    Raises:
        ReleaseError: when somebody else listens at that port.
    """
    path = f"/{CHALLENGES}/slipway-{token}"
    if webroot:
        file = Path(webroot, path.lstrip("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(token, encoding="utf-8")
        try:
            yield path
        finally:
            file.unlink()
        return
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Challenge)
    except OSError as error:
        message = f"No certificate was ordered: port {port} on 127.0.0.1 (haproxy_acme_port) cannot be used ({error})."
        raise ReleaseError(message) from error
    Challenge.answers[path] = token
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


def preflight(domains: list[str], webroot: str, port: int) -> None:
    """Check that every name leads to this host.

    Raises:
        ReleaseError: when one does not; it names all of them.
    """
    token = secrets.token_hex(16)
    failures = []
    with published(token, webroot, port) as path:
        for domain in domains:
            try:
                found = socket.getaddrinfo(domain, 80, type=socket.SOCK_STREAM)
            except socket.gaierror:
                failures.append(f"{domain} has no DNS record: add an A record for it at your DNS provider")
                continue
            addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda text: ipaddress.ip_address(text).version)
            answers = [probe_challenge(domain, address, path, token) for address in addresses]
            unexpected = [answer for answer in answers if answer]
            if unexpected:
                where = "the load balancers" if port else "this host"
                hint = f"Point its A and AAAA records at {where}, and nowhere else, and open port 80 to the internet"
                failures.append(f"{domain}: {' and '.join(unexpected)}. {hint}")
    if failures:
        raise ReleaseError(
            f"No certificate was ordered, because the CA would not reach this host. {'; '.join(failures)}. "
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
            "If the address is right, try again later."
        ) from error


def order(given: Mapping[str, Any]) -> None:
    """Have certbot order the certificate; another certbot at work is waited for, up to two minutes.

    Raises:
        ReleaseError: when it fails, with what certbot says.
    """
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--cert-name", given["name"]]
    if given["webroot"]:
        command += ["--webroot", "--webroot-path", given["webroot"]]
    else:
        command += ["--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", str(given["port"])]
    command += ["--server", given["server"], "--key-type", "ecdsa"]
    command += ["--email", given["email"]] if given["email"] else ["--register-unsafely-without-email"]
    command += ["--config-dir", given["directory"], "--renew-with-new-domains", "--force-renewal"]
    command += ["--deploy-hook", f"systemctl reload {given['service']}"]
    for domain in given["domains"]:
        command += ["--domain", domain]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            done = run(command, ORDER_SECONDS, check=False)
        except ReleaseError as error:
            raise ReleaseError(f"The order failed: certbot could not run ({error}).") from error
        if done.returncode == 0:
            return
        if "Another instance of Certbot" not in done.stdout or time.monotonic() > deadline:
            kept = [line for line in done.stdout.splitlines() if line.strip() and "Saving debug log" not in line]
            raise ReleaseError("The order failed. Output of certbot:\n" + "\n".join(kept[-15:]))
        time.sleep(5)


def is_valid(certificate: Path) -> bool:
    """Return whether a file has a CA's certificate that has not expired."""
    found = read_file(certificate)
    return found is not None and not found.self_signed and not found.expired


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Order the certificate if there is none that will do, and link it for the service.

    Returns:
        The `reason` for an order; if it failed, whether what is served now is `valid`.
    """
    live = Path(given["directory"], "live", given["name"])
    renewal = Path(given["directory"], "renewal", f"{given['name']}.conf")
    reason = why_order(live, renewal, given["domains"], given["server"], "webroot" if given["webroot"] else "standalone")
    links = {Path(given["certificate"]): live / "fullchain.pem", Path(given["key"]): live / "privkey.pem"}
    linked = all(link.is_symlink() and os.readlink(link) == str(target) for link, target in links.items())
    if check or (reason is None and linked):
        return {"changed": reason is not None or not linked, "reason": reason}
    try:
        if reason is not None:
            if given["preflight"]:
                preflight(given["domains"], given["webroot"], given["port"])
            reach(given["server"])
            order(given)
    except ReleaseError as error:
        summary = {"certificate": "could not be ordered"}
        found = is_valid(Path(given["certificate"]))
        return {"failed": True, "msg": str(error), "reason": reason, "valid": found, "summary": summary}
    for link, target in links.items():
        atomic_symlink(link, target, over_file=True)
    return {"changed": True, "reason": reason}
