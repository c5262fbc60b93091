"""Certificates as an authority would have issued them some time ago, and when certbot would renew them."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# What Let's Encrypt issues, in days: so far, from 2027 on, from 2028 on, and as profile `shortlived`.
LIFETIMES = (90.0, 64.0, 45.0, 160 / 24)


def certify(
    certificate: Path,
    key: Path,
    domains: list[str],
    issuer: str = "Authority",
    days: float = 60,
    lifetime: float = 90,
) -> None:
    """Write a certificate and its key.

    Args:
        certificate: file of the certificate.
        key: file of its private key.
        domains: names that it is for; the first is its subject.
        issuer: who issued it.
        days: days until it ends.
        lifetime: days from its beginning to its end.
    """
    secret = ec.generate_private_key(ec.SECP256R1())
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)  # noqa: UP017  for Python 3.9
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domains[0])]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=lifetime))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains]), critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(secret.private_bytes(*form))


def renewed_at_the_latest(lifetime: float) -> float:
    """Return with how many days left certbot renews at the latest, where all goes well.

    It does so with a third left, or half of less than ten days, and older ones no later. An authority that names the time (ARI)
    may name one that is a hundredth of the lifetime later. The timer fires twice a day at random: up to a day passes in between.
    """
    return lifetime / (2 if lifetime < 10 else 3) - lifetime / 100 - 1
