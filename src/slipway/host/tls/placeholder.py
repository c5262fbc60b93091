"""Put a self-signed certificate in place if there is none that Nginx could start with.

A usable pair of certificate and key is left alone, whoever made it. One that is missing, damaged or does not fit together is
replaced, since Nginx would not start with it. A placeholder made earlier is renewed when the names change, or when less than a
third of its lifetime is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host.certificate import PLACEHOLDER, create, fits, read_file
from slipway.host.errors import ReleaseError
from slipway.host.process import run

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The file of the certificate.
    "certificate": str,
    # The file of the private key.
    "key": str,
    # The names that it is for; if there are none, none is created.
    "domains": list,
}

DAYS = 397  # the longest that browsers accept
RENEW_SHARE = 1 / 3  # of its lifetime that is left, as certbot does

EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def nginx() -> str:
    """Return what Nginx says of itself: its version and that of OpenSSL.

    Raises:
        ReleaseError: when there is none, or it fails.
    """
    return run(["nginx", "-V"], 60).stdout


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


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Create a placeholder if one is needed.

    Returns:
        The `reason` for that; as `nginx` what `nginx -V` says, on which its configuration depends, empty in a dry run without
        Nginx; and as `pem` the certificate that is there now, whoever made it, empty if there is none.

    Raises:
        OSError: when a file cannot be written.
        ReleaseError: when Nginx does not say its version, or openssl fails.
    """
    certificate, key, domains = Path(given["certificate"]), Path(given["key"]), given["domains"]
    version = ""
    try:
        version = nginx()
    except ReleaseError as error:
        if not check:
            raise ReleaseError(f"Nginx does not say its version: {error}") from error
    reason = reason_to_replace(certificate, key, domains) if domains else None
    if reason and not check:
        # A common name holds 64 characters; nobody looks at it if there are alternative names.
        names = ",".join(f"DNS:{domain}" for domain in domains)
        create(certificate, key, domains[0][:64], EXTENSIONS.format(names=names), DAYS)
    pem = certificate.read_text(encoding="ascii", errors="replace") if domains and certificate.exists() else ""
    return {"changed": reason is not None, "reason": reason, "nginx": version, "pem": pem}
