#!/usr/bin/python
"""Have an authority between the balancers and the hosts behind them, and have it vouch for one of those."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: nginx_voucher
short_description: Have an authority between the balancers and the hosts behind them
description:
  - The authority's key never leaves the host that this runs on, and that of the certificate it vouches for never comes here.
  - What it has vouched for it vouches for again when that is changed or about to expire, and not otherwise.
options:
  authority: {type: path, required: true, description: "The authority's certificate. Its key lies beside it as .key."}
  certificate: {type: str, default: "", description: "A certificate to vouch for. Empty for none."}
"""

DAYS = 825
RENEW_SECONDS = 30 * 86400

CONFIGURATION = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
O = Slipway placeholder
CN = {name}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, digitalSignature
subjectKeyIdentifier = hash
"""

EXTENSIONS = """basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class VoucherError(Exception):
    """The authority cannot do its work, and why."""


def openssl(*arguments: str) -> str:
    """Run openssl and return what it prints.

    Raises:
        VoucherError: when it fails, with what it says.
    """
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except OSError as error:
        raise VoucherError(f"openssl cannot be started ({error.strerror}): run site.yml for this balancer first") from error
    if done.returncode:
        raise VoucherError(f"openssl {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def create(certificate: Path, key: Path) -> None:
    """Make a new authority.

    Raises:
        VoucherError: when openssl fails.
    """
    certificate.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=certificate.parent) as directory:
        configuration, new_key, new = (Path(directory, name) for name in ("configuration", "key", "certificate"))
        # Two authorities of one name would be taken for each other.
        configuration.write_text(CONFIGURATION.format(name=f"balancers {secrets.token_hex(8)}"), encoding="utf-8")
        command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "3650"]
        openssl(*command, "-config", str(configuration), "-keyout", str(new_key), "-out", str(new))
        new_key.chmod(0o600)
        new.chmod(0o644)
        os.replace(new_key, key)
        os.replace(new, certificate)


def vouched(text: str, authority: Path, key: Path) -> tuple[str, bool]:
    """Return a certificate that the authority vouches for, and whether that is another one than `text`.

    Raises:
        VoucherError: when openssl fails.
    """
    with tempfile.TemporaryDirectory() as directory:
        given, made, public, extensions = (Path(directory, name) for name in ("given", "made", "public", "extensions"))
        given.write_text(text, encoding="ascii")
        try:
            openssl("verify", "-CAfile", str(authority), "-attime", str(soon()), str(given))
            return text, False
        except VoucherError:
            names = re.findall(r"DNS:[^\s,]+", openssl("x509", "-in", str(given), "-noout", "-ext", "subjectAltName"))
            extensions.write_text(EXTENSIONS.format(names=",".join(names)), encoding="ascii")
            public.write_text(openssl("x509", "-in", str(given), "-noout", "-pubkey"), encoding="ascii")
            # Of the old one the key and the names alone: the rest is its issuer's, who may be an authority that is no more.
            command = ["x509", "-new", "-force_pubkey", str(public), "-subj", "/O=Slipway placeholder/CN=behind balancers"]
            command += ["-CA", str(authority), "-CAkey", str(key), "-days", str(DAYS), "-extfile", str(extensions)]
            openssl(*command, "-set_serial", f"0x0{secrets.token_hex(16)[1:]}", "-out", str(made))
        return made.read_text(encoding="ascii"), True


def soon() -> int:
    """Return the time until which a certificate must last, in seconds since 1970."""
    return int(time.time()) + RENEW_SECONDS


def main() -> None:
    """Have the authority, and what it is to vouch for."""
    module = AnsibleModule(
        argument_spec={
            "authority": {"type": "path", "required": True},
            "certificate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    authority = Path(module.params["authority"])
    key, text = authority.with_suffix(".key"), module.params["certificate"]
    missing = not (authority.exists() and key.exists())
    try:
        if missing and module.check_mode:
            module.exit_json(changed=True, authority="", certificate=text)
        if missing:
            create(authority, key)
        certificate, changed = vouched(text, authority, key) if text else ("", False)
    except VoucherError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=missing or changed, authority=authority.read_text(encoding="ascii"), certificate=certificate)


if __name__ == "__main__":
    main()
