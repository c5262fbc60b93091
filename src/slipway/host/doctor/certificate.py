"""The certificate that is served, and the one in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slipway.host.certificate import PLACEHOLDER, read, served
from slipway.host.doctor.subject import Subject
from slipway.host.finding import Finding, error


def certificate(subject: Subject) -> Iterator[Finding]:
    """The certificate that is served, and the one in the file."""
    if not subject.endpoint.tls:
        return
    mend = "ansible-playbook site.yml --tags certbot"
    stored = Path(subject.arguments["certificate"])
    if not stored.exists():
        yield error("There is no certificate", str(stored), "ansible-playbook site.yml")
        return
    shown = served(subject.endpoint)
    if shown.fingerprint != read(stored.read_text(encoding="ascii")).fingerprint:
        yield error("Nginx serves another certificate than the one in its file", str(stored), "systemctl reload nginx")
    for severity, what, evidence in shown.overdue():
        yield Finding(severity, what, evidence, mend if subject.arguments["authority"] else newer(shown.issuer))
    if subject.arguments["authority"] and shown.self_signed:
        yield error("The certificate is a placeholder, which browsers refuse", f"Its issuer is {shown.issuer}.", mend)
    lacking = [name for name in subject.arguments["domains"] if name not in shown.names]
    if lacking:
        yield error(f"The certificate is not for {', '.join(lacking)}", f"It is for {', '.join(shown.names)}.", mend)


def newer(issuer: str) -> str:
    """Say how a certificate is renewed that no authority is asked for, by who issued it."""
    if PLACEHOLDER in issuer:
        return "ansible-playbook site.yml --tags nginx"
    return "Put a newer one where certbot_own_certificate says, and its key, then: ansible-playbook site.yml --tags certbot"


CHECKS = (certificate,)
