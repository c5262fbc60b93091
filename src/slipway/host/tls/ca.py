"""Create the CA between the balancers and the hosts behind them, and issue a certificate for one of those.

The CA's key never leaves the host that this runs on, and that of the certificate never comes here. A certificate that the CA has
issued is issued again when the CA is another one or the certificate is about to expire, and not otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.certificate import PLACEHOLDER, create, openssl, read
from slipway.host.errors import ReleaseError

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The file of the CA's own certificate. Its key lies beside it as .key.
    "ca": str,
    # A certificate to issue again as the CA's, in PEM. Empty for none.
    "certificate": "",
}

CA_DAYS, DAYS = 3650, 825
RENEW_SECONDS = 30 * 86400

CA_EXTENSIONS = """basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, digitalSignature
subjectKeyIdentifier = hash
"""

EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Have a directory to oneself: a run asks for all balancers and all hosts behind them at once.

    Raises:
        OSError: when it cannot be created.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def create_ca(certificate: Path, key: Path) -> None:
    """Create a CA.

    Raises:
        OSError: when a file cannot be written, or there is no openssl.
        ReleaseError: when openssl fails.
    """
    # Two CAs of one name would be taken for each other.
    create(certificate, key, f"balancers {secrets.token_hex(8)}", CA_EXTENSIONS, CA_DAYS)


def issued(text: str, ca: Path, key: Path) -> tuple[str, bool]:
    """Return a certificate that the CA has issued, and whether that is another one than `text`.

    Raises:
        OSError: when there is no openssl.
        ReleaseError: when openssl fails.
    """
    with tempfile.TemporaryDirectory() as directory:
        given, made, public, extensions = (Path(directory, name) for name in ("given", "made", "public", "extensions"))
        given.write_text(text, encoding="ascii")
        try:
            openssl("verify", "-CAfile", ca, "-attime", str(int(time.time()) + RENEW_SECONDS), given)
            return text, False
        except ReleaseError:
            names = ",".join(f"DNS:{name}" for name in read(text).names)
            extensions.write_text(EXTENSIONS.format(names=names), encoding="ascii")
            public.write_text(openssl("x509", "-in", given, "-noout", "-pubkey"), encoding="ascii")
            # Of the old one the key and the names alone: the rest is its issuer's, who may be a CA that is no more.
            command: list[str | Path] = ["x509", "-new", "-force_pubkey", public, "-CA", ca, "-CAkey", key, "-days", str(DAYS)]
            command += ["-subj", f"/O={PLACEHOLDER}/CN=behind balancers", "-extfile", extensions]
            openssl(*command, "-set_serial", f"0x0{secrets.token_hex(16)[1:]}", "-out", made)
        return made.read_text(encoding="ascii"), True


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Create the CA if there is none, and issue the certificate.

    Returns:
        As `ca` the CA's own certificate, empty in a dry run without one; as `certificate` the one that is issued.

    Raises:
        OSError: when a file cannot be written.
        ReleaseError: when openssl fails, or there is none.
    """
    ca, text = Path(given["ca"]), given["certificate"]
    key = ca.with_suffix(".key")
    missing = not (ca.exists() and key.exists())
    if missing and check:
        return {"changed": True, "ca": "", "certificate": text}
    try:
        if missing:
            with alone_in(ca.parent):
                missing = not (ca.exists() and key.exists())
                if missing:
                    create_ca(ca, key)
        certificate, changed = issued(text, ca, key) if text else ("", False)
    except FileNotFoundError as error:
        raise ReleaseError(f"openssl cannot be started ({error.strerror}): run site.yml for this balancer first") from error
    return {"changed": missing or changed, "ca": ca.read_text(encoding="ascii"), "certificate": certificate}
