"""A certificate to start with: made where there is none that Nginx could start with, and nowhere else."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import certify

from slipway.host.certificate import PLACEHOLDER, fits

DOMAINS = ["api.example.com", "www.api.example.com"]


def openssl(*arguments: Any) -> str:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


class Pair:
    """A certificate and its key, and the step that looks after them."""

    def __init__(self, directory: Path, run_step: Callable[..., dict[str, Any]]) -> None:
        self.certificate = directory / "site/fullchain.pem"
        self.key = directory / "site/privkey.pem"
        self.step = functools.partial(run_step, "tls_placeholder")

    def run(self, domains: list[str] = DOMAINS, **options: Any) -> dict[str, Any]:
        pair = {"certificate": str(self.certificate), "key": str(self.key), "domains": domains}
        return self.step(certificates=[pair], **options)

    def state(self) -> tuple[bytes, bytes]:
        return self.certificate.read_bytes(), self.key.read_bytes()

    def fits(self) -> bool:
        return openssl("x509", "-in", self.certificate, "-noout", "-pubkey") == openssl("pkey", "-in", self.key, "-pubout")

    def names(self) -> set[str]:
        return set(re.findall(r"DNS:([^\s,]+)", openssl("x509", "-in", self.certificate, "-noout", "-ext", "subjectAltName")))

    def make(self, subject: str, days: int = 90, domains: list[str] = DOMAINS) -> None:
        """Make a pair as someone else would."""
        self.key.parent.mkdir(exist_ok=True)
        names = ",".join(f"DNS:{domain}" for domain in domains)
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        options = ["-subj", subject, "-days", days, "-addext", f"subjectAltName={names}"]
        openssl("req", "-x509", "-noenc", *curve, *options, "-keyout", self.key, "-out", self.certificate)


@pytest.fixture
def pair(tmp_path: Path, run_step: Callable[..., dict[str, Any]], program: Callable[[str, str], Path]) -> Pair:
    program("nginx", '#!/bin/sh\n[ "$*" = -V ] && echo "nginx version: nginx/1.26.3" >&2\n')
    return Pair(tmp_path, run_step)


def test_a_placeholder_is_made_once(pair: Pair) -> None:
    result = pair.run()
    assert (result["changed"], result["reasons"]) == (True, {str(pair.certificate): "there is none"})
    assert pair.fits()
    assert pair.names() == set(DOMAINS)
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert pair.certificate.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in pair.key.parent.iterdir()) == ["fullchain.pem", "privkey.pem"]
    before = pair.state()
    assert pair.run()["changed"] is False
    assert pair.run(list(reversed(DOMAINS)))["changed"] is False
    assert pair.state() == before


def test_a_client_takes_it_for_a_servers(pair: Pair) -> None:
    pair.run()
    text = openssl("x509", "-in", pair.certificate, "-noout", "-text")
    for word in ("CA:FALSE", "TLS Web Server Authentication", "Digital Signature", "prime256v1", "Version: 3"):
        assert word in text
    assert openssl("verify", "-CAfile", pair.certificate, "-verify_hostname", DOMAINS[1], pair.certificate)
    openssl("x509", "-in", pair.certificate, "-noout", "-checkend", 390 * 86400)


def test_nginx_can_look_into_the_directory_whatever_the_umask(pair: Pair) -> None:
    os.umask(0o077)
    pair.run()
    # Its error page lies there, too, and is read by a worker.
    assert pair.key.parent.stat().st_mode & 0o777 == 0o755
    assert pair.certificate.stat().st_mode & 0o777 == 0o644


def test_a_long_name_is_no_obstacle(pair: Pair) -> None:
    name = ".".join(["a" * 60] * 4)
    pair.run([name])
    assert pair.names() == {name}


@pytest.mark.parametrize(
    ("domains", "subject", "days"), [(["other.example.com"], "/CN=Let's Encrypt", 90), (DOMAINS, "/O=Corp/CN=x", 1)]
)
def test_a_real_certificate_is_left_alone(pair: Pair, domains: list[str], subject: str, days: int) -> None:
    pair.make(subject, days, domains)
    before = pair.state()
    assert pair.run()["changed"] is False
    assert pair.state() == before


def test_a_placeholder_follows_the_names(pair: Pair) -> None:
    pair.run()
    assert pair.run(DOMAINS[:1])["reasons"] == {str(pair.certificate): "the names changed"}
    assert pair.names() == set(DOMAINS[:1])
    assert pair.run(DOMAINS)["changed"] is True
    assert pair.names() == set(DOMAINS)


@pytest.mark.parametrize("lifetime", [397, 30])
@pytest.mark.parametrize(("share", "renewed"), [(0.32, True), (0.35, False), (-0.01, True)])
def test_a_placeholder_is_renewed_with_a_third_left(pair: Pair, lifetime: int, share: float, renewed: bool) -> None:
    pair.key.parent.mkdir()
    certify(pair.certificate, pair.key, DOMAINS, PLACEHOLDER, days=share * lifetime, lifetime=lifetime)
    result = pair.run()
    assert result["changed"] is renewed
    assert result["reasons"] == ({str(pair.certificate): "the placeholder is about to expire"} if renewed else {})
    assert pair.run()["changed"] is False


def damage(pair: Pair, kind: str) -> None:
    pair.make("/CN=Let's Encrypt")
    if kind == "no key":
        pair.key.unlink()
    elif kind == "no certificate":
        pair.certificate.unlink()
    elif kind == "empty certificate":
        pair.certificate.write_text("", encoding="utf-8")
    elif kind == "cut certificate":
        pair.certificate.write_text(pair.certificate.read_text(encoding="utf-8")[:300], encoding="utf-8")
    elif kind == "empty key":
        pair.key.write_text("", encoding="utf-8")
    elif kind == "both":
        pair.certificate.write_text("x", encoding="utf-8")
        pair.key.write_text("x", encoding="utf-8")
    elif kind == "other key":
        certificate = pair.certificate.read_bytes()
        pair.make("/CN=Let's Encrypt")
        pair.certificate.write_bytes(certificate)
    elif kind == "lost links":
        for file in (pair.certificate, pair.key):
            file.unlink()
            file.symlink_to("/etc/letsencrypt/live/nowhere/file.pem")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no key", "there is none"),
        ("no certificate", "there is none"),
        ("lost links", "there is none"),
        ("empty certificate", "the certificate is damaged"),
        ("cut certificate", "the certificate is damaged"),
        ("both", "the certificate is damaged"),
        ("empty key", "the key does not fit the certificate"),
        ("other key", "the key does not fit the certificate"),
    ],
)
def test_what_nginx_could_not_start_with_is_replaced(pair: Pair, kind: str, reason: str) -> None:
    damage(pair, kind)
    result = pair.run()
    assert (result["changed"], result["reasons"]) == (True, {str(pair.certificate): reason})
    assert pair.fits()
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert not pair.key.is_symlink()
    assert pair.run()["changed"] is False


def test_two_files_that_cannot_be_read_do_not_fit(pair: Pair) -> None:
    damage(pair, "both")
    assert not fits(pair.certificate, pair.key)


def test_what_a_link_led_to_is_left_as_it_was(pair: Pair, tmp_path: Path) -> None:
    pair.make("/CN=Let's Encrypt")
    archive = tmp_path / "archive"
    archive.mkdir()
    for file in (pair.certificate, pair.key):
        file.rename(archive / file.name)
        file.symlink_to(archive / file.name)
    (archive / "privkey.pem").write_text("damaged", encoding="utf-8")
    pair.run()
    assert (archive / "privkey.pem").read_text(encoding="utf-8") == "damaged"
    assert pair.fits()


def test_an_interruption_between_the_two_files_is_made_good(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.run()
    replace = os.replace
    done: list[Any] = []

    def killed(source: Any, target: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        pair.run(DOMAINS[:1])
    assert not pair.fits()
    assert pair.run(DOMAINS[:1])["changed"] is True
    assert pair.fits()
    assert len(list(pair.key.parent.iterdir())) == 2


def test_a_dry_run_makes_none(pair: Pair) -> None:
    assert pair.run(check=True)["changed"] is True
    assert not pair.certificate.exists()
    pair.run()
    assert pair.run(check=True)["changed"] is False


def test_what_openssl_says_is_passed_on(pair: Pair, program: Callable[[str, str], Path]) -> None:
    program("openssl", "#!/bin/sh\necho no entropy >&2; exit 1\n")
    result = pair.run()
    assert result["failed"]
    assert "no entropy" in result["msg"]
    assert not pair.certificate.exists()
    assert not pair.key.exists()


def test_without_names_none_is_made_and_nginx_is_asked_all_the_same(pair: Pair) -> None:
    result = pair.run(domains=[])
    assert (result["changed"], result["version"]) == (False, "nginx version: nginx/1.26.3\n")
    assert not pair.certificate.exists()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", "#!/no/such/interpreter\n"])
def test_an_nginx_that_does_not_run_is_told(pair: Pair, program: Callable[[str, str], Path], script: str) -> None:
    program("nginx", script)
    assert pair.run(check=True)["version"] == ""  # before it is installed
    result = pair.run()
    assert result["failed"]
    assert "nginx does not report its version" in result["msg"]
    assert not pair.certificate.exists()
