"""Have one certificate on several hosts: the one that orders it hands it to the others, and no controller is needed.

    python3 slipway_certificate.py publish CONFIGURATION
    python3 slipway_certificate.py fetch CONFIGURATION

What is published is signed by an authority that all of them know, and encrypted for one of them each. So it may be asked for over
plain HTTP.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 30
PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----\n[^-]+-----END \1-----\n")


class CertificateError(Exception):
    """There is no new certificate, and why."""


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """Run openssl on some data and return what it prints.

    Raises:
        CertificateError: when it fails, with what it says.
    """
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise CertificateError(f"openssl {arguments[0]} failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout


def write(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that no reader sees half of it, nor anybody else a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".slipway-")
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
    os.replace(temporary, path)


def publish(settings: Mapping[str, Any]) -> None:
    """Lay the certificate and its key out for each of the other hosts.

    Args:
        settings: C(certificate) and C(key), C(authority), whose key lies beside it with the ending key, C(recipients), a
            directory with a certificate for each host, and C(to), a directory.

    Raises:
        CertificateError: when openssl fails.
        OSError: when there is no certificate.
    """
    pair = Path(settings["certificate"]).read_bytes() + Path(settings["key"]).read_bytes()
    authority = settings["authority"]
    key = str(Path(authority).with_suffix(".key"))
    signed = openssl("cms", "-sign", "-binary", "-nodetach", "-signer", authority, "-inkey", key, "-outform", "DER", data=pair)
    for recipient in sorted(Path(settings["recipients"]).glob("*.pem")):
        sealed = openssl("cms", "-encrypt", "-binary", "-aes256", "-outform", "DER", "-recip", str(recipient), data=signed)
        write(Path(settings["to"], f"{recipient.stem}.cms"), sealed, 0o644)


def asked(path: str, host: str, name: str) -> bytes:
    """Return what the host that orders has for `name`.

    Raises:
        CertificateError: when it has nothing, or does not answer.
    """
    connection = http.client.HTTPConnection(host)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection.sock:
        try:
            connection.sock.settimeout(SECONDS)
            connection.sock.connect(path)
            connection.request("GET", f"/.slipway/peer/{name}.cms", headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise CertificateError(f"the host that orders the certificate does not answer: {error}") from error
    if answer.status != 200:
        raise CertificateError(f"the host that orders the certificate answers {answer.status}: run site.yml for all balancers")
    return body


def opened(sealed: bytes, settings: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the certificate with its chain, and its key, from what was published for this host.

    Raises:
        CertificateError: when it is for another host, or from somebody else, or no pair.
    """
    with tempfile.TemporaryDirectory() as directory:
        # Not over a pipe: openssl reads both its inputs from there.
        file = Path(directory, "sealed")
        file.write_bytes(sealed)
        own = ["-recip", settings["own"], "-inkey", settings["own_key"]]
        signed = openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(file), *own)
        file.write_bytes(signed)
        trust = ["-CAfile", settings["authority"], "-purpose", "any"]
        text = openssl("cms", "-verify", "-binary", "-inform", "DER", "-in", str(file), *trust).decode("ascii")
    blocks = [(found[1], found[0]) for found in PEM.finditer(text)]
    chain = "".join(block for kind, block in blocks if kind == "CERTIFICATE").encode("ascii")
    key = "".join(block for kind, block in blocks if kind.endswith("PRIVATE KEY")).encode("ascii")
    if not chain or openssl("x509", "-noout", "-pubkey", data=chain) != openssl("pkey", "-pubout", data=key):
        raise CertificateError("what was published is no certificate with its key")
    return chain, key


def fetch(settings: Mapping[str, Any]) -> bool:
    """Put the certificate that is published for this host where Nginx looks.

    Args:
        settings: C(socket) where the host that orders is reached, C(name) of this one, C(domains) that the certificate must
            be for, C(authority), C(own) and C(own_key) which it is encrypted for, and the paths C(certificate) and C(key).

    Returns:
        Whether it is another one than before.

    Raises:
        CertificateError: when there is none, or none that will do.
    """
    domains = settings["domains"]
    chain, key = opened(asked(settings["socket"], domains[0], settings["name"]), settings)
    current = Path(settings["certificate"])
    if current.exists() and current.read_bytes() == chain:
        return False
    text = openssl("x509", "-noout", "-checkend", "0", "-ext", "subjectAltName", data=chain).decode("utf-8", "replace")
    missing = set(domains) - set(re.findall(r"DNS:([^\s,]+)", text))
    if missing:
        raise CertificateError(f"what was published is not for {', '.join(sorted(missing))}")
    write(Path(settings["key"]), key, 0o600)
    write(current, chain, 0o644)
    subprocess.run(["systemctl", "reload", "nginx"], check=True, timeout=60)
    return True


def main() -> None:
    """Publish, or fetch."""
    what, file = sys.argv[1:]
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    try:
        if what == "publish":
            publish(settings)
        else:
            print("fetched" if fetch(settings) else "nothing new")
    except (CertificateError, OSError) as error:
        sys.exit(f"No certificate: {error}")


if __name__ == "__main__":
    main()
