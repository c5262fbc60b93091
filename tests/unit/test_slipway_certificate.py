"""One certificate on several balancers: handed over so that only those can read it who should, and taken from nobody else."""

from __future__ import annotations

import http.server
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slipway_certificate
from slipway_certificate import CertificateError, fetch, publish

from slipway.host.tls.ca import create_ca

Settings = dict[str, Any]


def pair(directory: Path, name: str, *domains: str, days: int = 40) -> tuple[Path, Path]:
    """Make a certificate and its key, as who orders it has them, or a host for itself."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-noenc",
        "-subj",
        f"/CN={name}",
    ]
    names = ["-addext", "subjectAltName=" + ",".join(f"DNS:{domain}" for domain in domains)] if domains else []
    command += ["-days", str(days), *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def issuer(tmp_path: Path) -> Settings:
    """The host that ordered a certificate, which two others are to have."""
    authority = tmp_path / "authority.pem"
    create_ca(authority, authority.with_suffix(".key"))
    for name in ("spare.test", "third.test"):
        (tmp_path / name).mkdir()
        own, _ = pair(tmp_path / name, "own")
        (tmp_path / "recipients").mkdir(exist_ok=True)
        (tmp_path / "recipients" / f"{name}.pem").write_bytes(own.read_bytes())
    certificate, key = pair(tmp_path, "ordered", "shop.test", "www.shop.test")
    return {
        "certificate": str(certificate),
        "key": str(key),
        "authority": str(authority),
        "recipients": str(tmp_path / "recipients"),
        "to": str(tmp_path / "to"),
    }


@pytest.fixture
def spare(tmp_path: Path, issuer: Settings, short: Path, program: Callable[[str, str], Path]) -> Iterator[Settings]:
    """Another balancer, which reaches the first one at a socket."""

    class Published(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = Path(issuer["to"], Path(self.path).name)
            found = self.path.startswith("/.slipway/peer/") and self.headers["Host"] == "shop.test" and file.exists()
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(file.read_bytes() if found else b"")

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    server = socketserver.ThreadingUnixStreamServer(str(short / "issuer.sock"), Published)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program("systemctl", f'#!/bin/sh\necho "$@" >>{tmp_path}/systemctl\n')
    yield {
        "socket": str(short / "issuer.sock"),
        "name": "spare.test",
        "domains": ["shop.test"],
        "authority": issuer["authority"],
        "own": str(tmp_path / "spare.test" / "own.pem"),
        "own_key": str(tmp_path / "spare.test" / "own.key"),
        "certificate": str(tmp_path / "nginx" / "fullchain.pem"),
        "key": str(tmp_path / "nginx" / "privkey.pem"),
    }
    server.shutdown()
    server.server_close()


def test_a_certificate_comes_with_its_key_and_nginx_is_told_once(issuer: Settings, spare: Settings, tmp_path: Path) -> None:
    publish(issuer)
    assert fetch(spare) is True
    certificate, key = Path(spare["certificate"]), Path(spare["key"])
    assert certificate.read_bytes() == Path(issuer["certificate"]).read_bytes()
    assert key.read_bytes() == Path(issuer["key"]).read_bytes()
    assert (certificate.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o644, 0o600)
    assert fetch(spare) is False
    assert (tmp_path / "systemctl").read_text(encoding="ascii") == "reload nginx\n"


def test_a_renewed_one_takes_its_place(issuer: Settings, spare: Settings, tmp_path: Path) -> None:
    publish(issuer)
    fetch(spare)
    pair(tmp_path, "ordered", "shop.test", days=80)
    publish(issuer)
    assert fetch(spare) is True
    assert Path(spare["certificate"]).read_bytes() == Path(issuer["certificate"]).read_bytes()


def test_nothing_that_is_published_can_be_read_by_others(issuer: Settings, spare: Settings, tmp_path: Path) -> None:
    publish(issuer)
    files = sorted(Path(issuer["to"]).iterdir())
    assert [file.name for file in files] == ["spare.test.cms", "third.test.cms"]
    secret = Path(issuer["key"]).read_bytes().splitlines()[1]
    assert all(secret not in file.read_bytes() for file in files)
    spare |= {"own": str(tmp_path / "third.test" / "own.pem"), "own_key": str(tmp_path / "third.test" / "own.key")}
    with pytest.raises(CertificateError, match="openssl cms failed"):
        fetch(spare)


def spoilt(kind: str, issuer: Settings, spare: Settings, tmp_path: Path) -> None:
    """Have something published that must not be taken."""
    if kind == "stranger":
        stranger = tmp_path / "stranger.pem"
        create_ca(stranger, stranger.with_suffix(".key"))
        issuer |= {"authority": str(stranger)}
    elif kind == "other name":
        pair(tmp_path, "ordered", "evil.test")
    elif kind == "over":
        certificate, key = pair(tmp_path, "ordered", "shop.test")
        command: list[str | Path] = ["openssl", "x509", "-in", certificate, "-signkey", key, "-days", "0", "-out", certificate]
        subprocess.run(command, check=True, capture_output=True)
    elif kind == "no pair":
        issuer |= {"key": str(pair(tmp_path, "other", "shop.test")[1])}
    publish(issuer)
    if kind == "not for it":
        spare |= {"name": "fourth.test"}
    elif kind == "cut":
        file = Path(issuer["to"], "spare.test.cms")
        file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("stranger", "openssl cms failed"),
        ("other name", "is not for shop.test"),
        ("over", "openssl x509 failed"),
        ("no pair", "no certificate with its key"),
        ("not for it", "answers 404: run site.yml"),
        ("cut", "openssl cms failed"),
    ],
)
def test_what_will_not_do_leaves_the_old_one(issuer: Settings, spare: Settings, tmp_path: Path, kind: str, why: str) -> None:
    publish(issuer)
    fetch(spare)
    before = Path(spare["certificate"]).read_bytes(), Path(spare["key"]).read_bytes()
    spoilt(kind, issuer, spare, tmp_path)
    with pytest.raises(CertificateError, match=why):
        fetch(spare)
    assert (Path(spare["certificate"]).read_bytes(), Path(spare["key"]).read_bytes()) == before


def test_an_issuer_that_is_away_is_told_of(spare: Settings, short: Path) -> None:
    spare |= {"socket": str(short / "nobody.sock")}
    with pytest.raises(CertificateError, match="does not answer"):
        fetch(spare)


def test_the_program_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slipway_certificate.sys, "argv", ["it", "publish", str(tmp_path / "settings")])
    (tmp_path / "settings").write_text('{"certificate": "/nowhere", "key": "/nowhere"}', encoding="ascii")
    with pytest.raises(SystemExit, match=r"No certificate: .*nowhere"):
        slipway_certificate.main()
