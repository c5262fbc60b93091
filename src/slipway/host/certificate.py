"""A certificate: the one that an app's endpoint shows, or one in a file, and whether it should have been renewed by now."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from dataclasses import dataclass

from slipway.host.endpoint import Door

# certbot renews with a third of a certificate's lifetime left, or half of less than ten days; older ones with 30 days left, if
# that is sooner. Less than the first of these shares says that it missed that; less than the second, that nobody mended it.
OVERDUE, URGENT = 1 / 4, 1 / 10

# Errors that mean that there is no certificate to read.
NO_CERTIFICATE = (OSError, ValueError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    Attributes:
        fingerprint: its SHA-256 digest, as openssl writes it; empty if it cannot be read.
        subject: whom it is for.
        issuer: who vouches for it.
        names: the DNS names that it is for.
        begin: since when it is valid, in seconds since 1970; 0 if it cannot be read.
        end: until when, likewise.
    """

    fingerprint: str
    subject: str
    issuer: str
    names: list[str]
    begin: float
    end: float

    @property
    def self_signed(self) -> bool:
        """Whether nobody but its owner vouches for it."""
        return self.issuer == self.subject

    @property
    def days(self) -> int:
        """How many whole days it lasts."""
        return int((self.end - time.time()) // 86400)

    def overdue(self) -> list[tuple[str, str, str]]:
        """Say that it should have been renewed by now, by the share of its own lifetime that is left.

        Returns:
            `error` or `warning`, what is wrong, and the evidence; nothing while enough is left.
        """
        left, lifetime = self.end - time.time(), self.end - self.begin
        end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.end))
        if left <= 0:
            return [("error", "The certificate has expired", f"It ended {end}.")]
        if left >= OVERDUE * lifetime:
            return []
        number, unit = (left // 86400, "day") if left >= 2 * 86400 else (left // 3600, "hour")
        what = f"The certificate ends in {number:.0f} {unit}{'' if number == 1 else 's'}"
        evidence = f"It should have been renewed by now: {100 * left / lifetime:.0f} % of its lifetime is left, until {end}."
        return [("error" if left < URGENT * lifetime else "warning", what, evidence)]


def read(text: str) -> Certificate:
    """Return what a certificate in PEM says.

    Raises:
        OSError: when there is no openssl.
        subprocess.SubprocessError: when it does not end.
    """
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-subject", "-issuer", "-dates", "-ext", "subjectAltName"]
    told = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False).stdout
    wanted = re.compile(r"(subject|issuer|notBefore|notAfter|sha256 Fingerprint)=", re.I)
    found = dict(line.split("=", 1) for line in told.splitlines() if wanted.match(line))
    known = {name.lower(): value.strip() for name, value in found.items()}
    return Certificate(
        fingerprint=known.get("sha256 fingerprint", ""),
        subject=known.get("subject", ""),
        issuer=known.get("issuer", ""),
        names=re.findall(r"DNS:([^\s,]+)", told),
        begin=ssl.cert_time_to_seconds(known["notbefore"]) if "notbefore" in known else 0,
        end=ssl.cert_time_to_seconds(known["notafter"]) if "notafter" in known else 0,
    )


def served(door: Door) -> Certificate:
    """Return what the certificate says that the endpoint shows.

    Raises:
        OSError: when nobody listens there, or the handshake fails.
        subprocess.SubprocessError: when it cannot be read.
    """
    with door.open() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        text = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
    return read(text)


def served_if_any(door: Door) -> Certificate | None:
    """Return what the certificate says that the endpoint shows; None if it shows none."""
    if not door.tls:
        return None
    try:
        found = served(door)
    except NO_CERTIFICATE:
        return None
    return found if found.fingerprint else None


def days_left(door: Door) -> int | None:
    """Return how many days the certificate lasts that the endpoint shows; None if it shows none."""
    found = served_if_any(door)
    return found.days if found else None
