"""Put self-signed certificates in place if there are none that the web server could start with.

A usable pair of certificate and key is left alone, whoever made it. One that is missing, damaged or does not fit is replaced,
since neither Nginx nor HAProxy would start with it. A placeholder made earlier is renewed when the names change, or when less
than a third of its lifetime is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host.certificate import PLACEHOLDER, create, fits, read_file
from slipway.host.errors import ReleaseError
from slipway.host.process import run
from slipway.host.values import arguments

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The program whose version is wanted: nginx or haproxy.
    "server": "nginx",
    # The certificates, each as CERTIFICATE says.
    "certificates": list,
}
CERTIFICATE: dict[str, Any] = {
    # The file of the certificate.
    "certificate": str,
    # The file of the private key.
    "key": str,
    # The names that it is for; if there are none, none is created.
    "domains": list,
    # How long it lasts. By default as long as browsers accept.
    "days": 397,
}

VERSIONS = {"nginx": ["nginx", "-V"], "haproxy": ["haproxy", "-vv"]}
RENEW_SHARE = 1 / 3  # of its lifetime that is left, as certbot does

EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def reason_to_replace(certificate: Path, key: Path, domains: list[str]) -> str | None:
    """Say why a pair of certificate and key must be replaced; None if it may stay.

    Raises:
        OSError: when there is no openssl.
        ReleaseError: when it does not end.
    """
    if not (certificate.exists() and key.exists()):
        return "there is none"
    found = read_file(certificate)
    if found is None:
        return "the certificate is damaged"
    if not fits(certificate, key):
        return "the key does not fit the certificate"
    if PLACEHOLDER not in found.issuer:
        return None
    if set(found.names) != set(domains):
        return "the names changed"
    return "the placeholder is about to expire" if found.share_left < RENEW_SHARE else None


def put(certificate: Path, key: Path, domains: list[str], days: int, check: bool) -> str | None:
    """Create a placeholder if one is needed, and return why; None if there is no need.

    Raises:
        OSError: when a file cannot be written.
        ReleaseError: when openssl fails.
    """
    reason = reason_to_replace(certificate, key, domains) if domains else None
    if reason and not check:
        # A common name holds 64 characters; nobody looks at it if there are alternative names.
        names = ",".join(f"DNS:{domain}" for domain in domains)
        create(certificate, key, domains[0][:64], EXTENSIONS.format(names=names), days)
    return reason


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Create the placeholders that are needed.

    Returns:
        By file of a certificate the `reasons` for creating one; and as `version` what the web server reports of itself, on which
        its configuration depends, empty in a dry run without it.

    Raises:
        OSError: when a file cannot be written.
        ReleaseError: when the web server does not report its version, or openssl fails.
    """
    version = ""
    try:
        version = run(VERSIONS[given["server"]], 60).stdout
    except ReleaseError as error:
        if not check:
            raise ReleaseError(f"{given['server']} does not report its version: {error}") from error
    reasons = {}
    for one in (arguments(CERTIFICATE, entry) for entry in given["certificates"]):
        reason = put(Path(one["certificate"]), Path(one["key"]), one["domains"], one["days"], check)
        if reason:
            reasons[one["certificate"]] = reason
    return {"changed": bool(reasons), "reasons": reasons, "version": version}
