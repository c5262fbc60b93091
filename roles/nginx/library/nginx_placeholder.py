#!/usr/bin/python
"""Put a self-signed certificate where Nginx looks for one, so that it can start before a real one is there."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: nginx_placeholder
short_description: Put a self-signed certificate where Nginx looks for one
description:
  - A usable pair of certificate and key is left alone, whoever made it. One that is missing, damaged or does not fit together is
    replaced, since Nginx would not start with it.
  - A placeholder made earlier is renewed when the names change, or when less than a third of its lifetime is left.
  - Returns in C(nginx) what C(nginx -V) says, on which the rest of the configuration depends. Empty in a dry run without Nginx.
  - Returns in C(pem) the certificate that is there now, whoever made it. Empty where there is none.
options:
  certificate: {type: path, required: true, description: "File of the certificate."}
  key: {type: path, required: true, description: "File of the private key."}
  domains: {type: list, elements: str, required: true, description: "Names that it is for; with none, nothing is made."}
"""

MARK = "Slipway placeholder"
DAYS = 397  # the longest that browsers accept
RENEW_SHARE = 1 / 3  # of its lifetime that is left, as certbot does

CONFIGURATION = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
O = {mark}
CN = {name}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def openssl(*arguments: str) -> str | None:
    """Run openssl and return what it prints; None when it fails."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else None


def nginx() -> str:
    """Return what Nginx says of itself: its version and that of OpenSSL.

    Raises:
        OSError: when there is none.
        subprocess.CalledProcessError: when it fails.
    """
    return subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True, timeout=60).stderr


def reason_to_replace(certificate: str, key: str, domains: list[str]) -> str | None:
    """Say why the pair must be replaced; None when it may stay."""
    if not (os.path.exists(certificate) and os.path.exists(key)):
        return "there is none"
    public = openssl("x509", "-in", certificate, "-noout", "-pubkey")
    if public is None:
        return "the certificate is damaged"
    if openssl("pkey", "-in", key, "-pubout") != public:
        return "the key does not fit the certificate"
    text = openssl("x509", "-in", certificate, "-noout", "-issuer", "-dates", "-ext", "subjectAltName") or ""
    if MARK not in text:
        return None
    if set(re.findall(r"DNS:([^\s,]+)", text)) != set(domains):
        return "the names changed"
    begin, end = map(ssl.cert_time_to_seconds, re.findall(r"^not(?:Before|After)=(.+)$", text, re.MULTILINE))
    if end - time.time() < RENEW_SHARE * (end - begin):
        return "the placeholder is about to expire"
    return None


def create(certificate: Path, key: Path, domains: list[str]) -> None:
    """Write a new self-signed pair.

    Raises:
        subprocess.CalledProcessError: when openssl fails.
    """
    for file in (certificate, key):
        file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=certificate.parent) as directory:
        configuration, new_key, new_certificate = (Path(directory, name) for name in ("configuration", "key", "certificate"))
        names = ",".join(f"DNS:{domain}" for domain in domains)
        # A common name holds 64 characters; nobody looks at it where there are alternative names.
        configuration.write_text(CONFIGURATION.format(mark=MARK, name=domains[0][:64], names=names), encoding="utf-8")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
        command += [
            "-days",
            str(DAYS),
            "-config",
            str(configuration),
            "-keyout",
            str(new_key),
            "-out",
            str(new_certificate),
        ]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        new_key.chmod(0o600)
        new_certificate.chmod(0o644)
        os.replace(new_key, key)
        os.replace(new_certificate, certificate)


def main() -> None:
    """Make a placeholder where one is needed."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # Nginx looks into the directory
    certificate, key, domains = (module.params[name] for name in ("certificate", "key", "domains"))
    says = ""
    try:
        says = nginx()
    except (OSError, subprocess.CalledProcessError) as error:
        if not module.check_mode:
            module.fail_json(msg=f"Nginx does not say its version: {error}")
    reason = reason_to_replace(certificate, key, domains) if domains else None
    if reason and not module.check_mode:
        try:
            create(Path(certificate), Path(key), domains)
        except subprocess.CalledProcessError as error:
            module.fail_json(msg=f"openssl could not make a certificate: {error.stderr.strip()}")
    pem = Path(certificate).read_text(encoding="ascii", errors="replace") if domains and os.path.exists(certificate) else ""
    module.exit_json(changed=reason is not None, reason=reason, nginx=says, pem=pem)


if __name__ == "__main__":
    main()
