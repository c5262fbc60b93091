#!/usr/bin/python
"""Get a certificate from an ACME authority, after a look at whether the authority will find this host."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import os
import re
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: certbot_certificate
short_description: Get a certificate from an ACME authority
description:
  - A certificate that is for these names, from this authority, and valid is left to certbot's own timer. Nothing is ordered,
    unless less than a quarter of its lifetime is left, so that the timer must have failed.
  - Before an order, each name must lead to this host, and a challenge must be found there. Where that fails nothing is ordered,
    since authorities count failures.
options:
  name: {type: str, required: true, description: "What certbot calls the certificate."}
  domains: {type: list, elements: str, required: true, description: "Names that it is for."}
  server: {type: str, required: true, description: "Directory address of the authority."}
  email: {type: str, default: "", description: "Address for the authority's letters; empty for none."}
  webroot: {type: path, required: true, description: "Where challenges are answered."}
  preflight: {type: bool, default: true, description: "Whether to look before ordering."}
  certificate: {type: path, required: true, description: "Link to the certificate with its chain."}
  key: {type: path, required: true, description: "Link to the private key."}
  directory: {type: path, default: /etc/letsencrypt, description: "Where certbot keeps what it has."}
"""

CHALLENGES = ".well-known/acme-challenge"
SECONDS = 10

# The share of a certificate's lifetime that is left when its renewal is overdue. certbot renews with a third left at the
# latest, or half of less than ten days.
OVERDUE = 1 / 4


class CertificateError(Exception):
    """No certificate, and why. Its text is for the operator."""


def why_order(live: Path, renewal: Path, domains: list[str], server: str) -> str | None:
    """Say why a certificate must be ordered; None when the one that is there will do.

    Args:
        live: certbot's directory with the current certificate.
        renewal: certbot's file that says how it was ordered.
        domains: the names that it must be for, in any order.
        server: the authority that it must be from.
    """
    certificate = live / "fullchain.pem"
    if not certificate.exists() or not renewal.exists():
        return "there is none"
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName", "-dates", "-checkend", "0"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if set(re.findall(r"DNS:([^\s,]+)", answer.stdout)) != set(domains):
        return "the names changed"
    if answer.returncode:
        return "it expired"
    dates = re.findall(r"^not(?:Before|After)=(.+)$", answer.stdout, re.MULTILINE)
    begin, end = map(ssl.cert_time_to_seconds, dates)
    if end - time.time() < OVERDUE * (end - begin):
        return "its renewal is overdue"
    known = re.search(r"^server\s*=\s*(\S+)", renewal.read_text(encoding="utf-8"), re.MULTILINE)
    if known is None or known[1] != server:
        return "the authority changed"
    return None


def look(domain: str, address: str, path: str, expected: str) -> str | None:
    """Fetch the challenge at one address as the authority will.

    Returns:
        What is wrong there; None when the challenge was found.
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
    """See that every name leads here.

    Raises:
        CertificateError: when one does not; it names all of them.
    """
    os.umask(0o022)  # Nginx reads the challenge
    token = secrets.token_hex(16)
    file = webroot / CHALLENGES / f"slipway-{token}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(token, encoding="utf-8")
    problems = []
    try:
        for domain in domains:
            try:
                found = socket.getaddrinfo(domain, 80, type=socket.SOCK_STREAM)
            except socket.gaierror:
                problems.append(f"{domain} has no address: add an A record for it at your DNS provider")
                continue
            addresses = sorted({str(entry[4][0]) for entry in found}, key=lambda text: ipaddress.ip_address(text).version)
            answers = [look(domain, address, f"/{CHALLENGES}/{file.name}", token) for address in addresses]
            wrong = [answer for answer in answers if answer]
            if wrong:
                hint = "Point its A and AAAA records at this host, and nowhere else, and open port 80 to everybody"
                problems.append(f"{domain}: {' and '.join(wrong)}. {hint}")
    finally:
        file.unlink()
    if problems:
        raise CertificateError(
            f"No certificate was ordered, since the authority would not find this host. {'; '.join(problems)}. "
            "Then run this again; set certbot_preflight to false if the host cannot reach itself by its public name."
        )


def reach(server: str) -> None:
    """See that the authority answers.

    Raises:
        CertificateError: when it does not.
    """
    try:
        with urllib.request.urlopen(server, timeout=SECONDS) as answer:
            answer.read(1)
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CertificateError(
            f"No certificate was ordered: the authority at {server} (certbot_server) does not answer ({reason}). "
            "If that is the right address, try again later."
        ) from error


def order(arguments: dict[str, object], domains: list[str]) -> None:
    """Have certbot order the certificate; another certbot at work is waited for, up to two minutes.

    Raises:
        CertificateError: when it fails, with what certbot says.
    """
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot"]
    command += ["--webroot-path", str(arguments["webroot"]), "--cert-name", str(arguments["name"])]
    command += ["--server", str(arguments["server"]), "--key-type", "ecdsa"]
    command += ["--email", str(arguments["email"])] if arguments["email"] else ["--register-unsafely-without-email"]
    command += ["--config-dir", str(arguments["directory"]), "--renew-with-new-domains", "--force-renewal"]
    command += ["--deploy-hook", "systemctl reload nginx"]
    for domain in domains:
        command += ["--domain", domain]
    deadline = time.monotonic() + 120
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CertificateError(f"The order failed: certbot did not do its work ({error}).") from error
        output = f"{done.stdout}\n{done.stderr}".strip()
        if done.returncode == 0:
            return
        if "Another instance of Certbot" not in output or time.monotonic() > deadline:
            kept = [line for line in output.splitlines() if line.strip() and "Saving debug log" not in line]
            raise CertificateError("The order failed; certbot says:\n" + "\n".join(kept[-15:]))
        time.sleep(5)


def usable(certificate: str) -> bool:
    """Say whether what Nginx serves now is an authority's certificate that has not expired."""
    command = ["openssl", "x509", "-in", certificate, "-noout", "-issuer", "-subject", "-checkend", "0"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    names = re.findall(r"^(?:issuer|subject)=(.*)$", answer.stdout, re.MULTILINE)
    return answer.returncode == 0 and len(set(names)) == 2


def point(link: str, target: Path) -> bool:
    """Have `link` lead to `target`, in one step. Returns whether it did not before."""
    if os.path.islink(link) and os.readlink(link) == str(target):
        return False
    temporary = f"{link}.{os.getpid()}"
    os.symlink(target, temporary)
    os.replace(temporary, link)
    return True


def main() -> None:
    """Get the certificate where there is none that will do, and link it where Nginx looks."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "server": {"type": "str", "required": True},
            "email": {"type": "str", "default": ""},
            "webroot": {"type": "path", "required": True},
            "preflight": {"type": "bool", "default": True},
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True},
            "directory": {"type": "path", "default": "/etc/letsencrypt"},
        },
        supports_check_mode=True,
    )
    arguments, domains = module.params, module.params["domains"]
    live = Path(arguments["directory"], "live", arguments["name"])
    renewal = Path(arguments["directory"], "renewal", f"{arguments['name']}.conf")
    reason = why_order(live, renewal, domains, arguments["server"])
    links = {arguments["certificate"]: live / "fullchain.pem", arguments["key"]: live / "privkey.pem"}
    linked = all(os.path.islink(link) and os.readlink(link) == str(target) for link, target in links.items())
    if module.check_mode or (reason is None and linked):
        module.exit_json(changed=reason is not None or not linked, reason=reason)
    try:
        if reason is not None:
            if arguments["preflight"]:
                preflight(domains, Path(arguments["webroot"]))
            reach(arguments["server"])
            order(arguments, domains)
    except CertificateError as error:
        summary = {"certificate": "could not be ordered"}
        module.fail_json(msg=str(error), reason=reason, usable=usable(arguments["certificate"]), summary=summary)
    for link, target in links.items():
        point(link, target)
    module.exit_json(changed=True, reason=reason)


if __name__ == "__main__":
    main()
