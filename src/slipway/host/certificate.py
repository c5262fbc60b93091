"""A certificate: the one that an app's endpoint shows, or one in a file, and whether it should have been renewed by now."""

from __future__ import annotations

import re
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from slipway.host.endpoint import PublicEndpoint
from slipway.host.errors import ReleaseError
from slipway.host.files import write

# certbot renews with a third of a certificate's lifetime left, or half of less than ten days; older ones with 30 days left, if
# that is sooner. Less than the first of these shares says that it missed that; less than the second, that nobody mended it.
OVERDUE, URGENT = 1 / 4, 1 / 10

# Who issues the certificates that Slipway makes.
PLACEHOLDER = "Slipway placeholder"

# What a certificate is to say, in openssl's configuration format.
REQUEST = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
O = {issuer}
CN = {name}
[extensions]
{extensions}"""

# Errors that mean that there is no certificate to read.
NO_CERTIFICATE = (OSError, ValueError, ReleaseError)

# How long openssl may take.
SECONDS = 60.0


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
    def expired(self) -> bool:
        """Whether it is valid no more."""
        return self.end <= time.time()

    @property
    def share_left(self) -> float:
        """The share of its lifetime that is left; below 0 once it has expired."""
        return (self.end - time.time()) / (self.end - self.begin)

    @property
    def days(self) -> int:
        """How many whole days it lasts."""
        return int((self.end - time.time()) // 86400)

    def overdue(self) -> list[tuple[str, str, str]]:
        """Say that it should have been renewed by now, by the share of its own lifetime that is left.

        Returns:
            `error` or `warning`, what is wrong, and the evidence; nothing while enough is left.
        """
        left = self.end - time.time()
        end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.end))
        if self.expired:
            return [("error", "The certificate has expired", f"It ended {end}.")]
        share = self.share_left
        if share >= OVERDUE:
            return []
        number, unit = (left // 86400, "day") if left >= 2 * 86400 else (left // 3600, "hour")
        what = f"The certificate ends in {number:.0f} {unit}{'' if number == 1 else 's'}"
        evidence = f"It should have been renewed by now: {100 * share:.0f} % of its lifetime is left, until {end}."
        return [("error" if share < URGENT else "warning", what, evidence)]


def openssl(*arguments: str | Path, given: str = "", check: bool = True) -> str:
    """Run openssl, and return what it prints.

    Args:
        arguments: its arguments.
        given: its standard input.
        check: whether an exit code other than 0 is an error.

    Raises:
        OSError: when there is no openssl.
        ReleaseError: when it does not end, or fails and `check` is set; with what it says.
    """
    command = ["openssl", *map(str, arguments)]
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"openssl {arguments[0]} took longer than {SECONDS:g} s and was stopped.") from error
    if check and done.returncode:
        raise ReleaseError(f"openssl {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def read(text: str) -> Certificate:
    """Return what a certificate in PEM says.

    Raises:
        OSError: when there is no openssl.
        ReleaseError: when it does not end.
    """
    parts = ["-fingerprint", "-sha256", "-subject", "-issuer", "-dates", "-ext", "subjectAltName"]
    output = openssl("x509", "-noout", *parts, given=text, check=False)
    fields = re.compile(r"(subject|issuer|notBefore|notAfter|sha256 Fingerprint)=", re.I)
    found = dict(line.split("=", 1) for line in output.splitlines() if fields.match(line))
    known = {name.lower(): value.strip() for name, value in found.items()}
    return Certificate(
        fingerprint=known.get("sha256 fingerprint", ""),
        subject=known.get("subject", ""),
        issuer=known.get("issuer", ""),
        names=re.findall(r"DNS:([^\s,]+)", output),
        begin=ssl.cert_time_to_seconds(known["notbefore"]) if "notbefore" in known else 0,
        end=ssl.cert_time_to_seconds(known["notafter"]) if "notafter" in known else 0,
    )


def read_file(path: Path) -> Certificate | None:
    """Return what the certificate in a file says; None if there is none, or none that can be read.

    Raises:
        OSError: when the file cannot be read, or there is no openssl.
        ReleaseError: when openssl does not end.
    """
    if not path.exists():
        return None
    found = read(path.read_text(encoding="ascii", errors="replace"))
    return found if found.fingerprint else None


def fits(certificate: Path, key: Path) -> bool:
    """Return whether a private key is that of a certificate.

    Raises:
        OSError: when there is no openssl.
        ReleaseError: when it does not end.
    """
    public = openssl("x509", "-in", certificate, "-noout", "-pubkey", check=False)
    return bool(public) and openssl("pkey", "-in", key, "-pubout", check=False) == public


def create(certificate: Path, key: Path, name: str, extensions: str, days: int) -> None:
    """Create a private key and a certificate that is signed with it, in place of what was there.

    Args:
        certificate: the file of the certificate, which everybody may read.
        key: the file of the key, which its owner alone may read.
        name: its common name.
        extensions: what else it is to say, in openssl's configuration format, a line each.
        days: how long it lasts.

    Raises:
        OSError: when a file cannot be written, or there is no openssl.
        ReleaseError: when openssl fails.
    """
    with tempfile.TemporaryDirectory() as directory:
        asked, new_key, new = (Path(directory, name) for name in ("request", "key", "certificate"))
        asked.write_text(REQUEST.format(issuer=PLACEHOLDER, name=name, extensions=extensions), encoding="utf-8")
        command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", str(days)]
        openssl(*command, "-config", asked, "-keyout", new_key, "-out", new)
        for file, made, mode in ((key, new_key, 0o600), (certificate, new, 0o644)):
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, made.read_text(encoding="ascii"), mode)


def served(endpoint: PublicEndpoint) -> Certificate:
    """Return what the certificate says that the endpoint shows.

    Raises:
        OSError: when nobody listens there, or the handshake fails.
        ReleaseError: when openssl does not end.
    """
    with endpoint.open() as connection:
        assert isinstance(connection, ssl.SSLSocket)
        text = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
    return read(text)


def served_if_any(endpoint: PublicEndpoint) -> Certificate | None:
    """Return what the certificate says that the endpoint shows; None if it shows none."""
    if not endpoint.tls:
        return None
    try:
        found = served(endpoint)
    except NO_CERTIFICATE:
        return None
    return found if found.fingerprint else None


def days_left(endpoint: PublicEndpoint) -> int | None:
    """Return how many days the certificate lasts that the endpoint shows; None if it shows none."""
    found = served_if_any(endpoint)
    return found.days if found else None
