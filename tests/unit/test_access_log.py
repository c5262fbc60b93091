"""What is read of Nginx's access log, across rotations, and that Slipway's own probes count nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from accesses import line
from prometheus_client import CollectorRegistry, generate_latest

from slipway.host import access_log, canary, exporter, watch
from slipway.host.access_log import AccessLog
from slipway.host.endpoint import PublicEndpoint
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(line())
    return path


def test_what_is_added_is_read_once(log: Path) -> None:
    reader = AccessLog(log)
    assert list(reader.lines()) == []
    with log.open("ab") as file:
        file.write(b"one\ntw")
        file.flush()
        assert list(reader.lines()) == [b"one\n"]
        file.write(b"o\nthree\n")
        file.flush()
        assert list(reader.lines()) == [b"two\n", b"three\n"]
    assert list(reader.lines()) == []


def test_a_rotation_loses_nothing_and_repeats_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = AccessLog(log)
    with log.open("ab") as old:
        old.write(b"before\n")
        old.flush()
        log.rename(log.with_suffix(".1"))
        assert list(reader.lines()) == [b"before\n"]  # nothing has its place yet
        old.write(b"late\n")
        old.flush()
        log.write_bytes(b"after\n")
        assert list(reader.lines()) == [b"late\n", b"after\n"]
        old.write(b"later still\n")
        old.flush()
        assert list(reader.lines()) == [b"later still\n"]
    monkeypatch.setattr(access_log, "LATE_SECONDS", -1)
    assert list(reader.lines()) == []
    assert len(reader.parts) == 1
    log.write_bytes(b"cut\n")  # copytruncate
    os.truncate(log, 0)
    log.write_bytes(b"x\n")
    assert list(reader.lines()) == [b"x\n"]


def test_a_log_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    reader = AccessLog(tmp_path / "access.log")
    assert list(reader.lines()) == []
    (tmp_path / "access.log").write_bytes(b"first\n")
    assert list(reader.lines()) == [b"first\n"]


def test_some_of_what_a_log_holds_already_can_be_read_too(log: Path) -> None:
    log.write_bytes(line(bytes=1) + line(bytes=2) + line(bytes=3))
    reader = AccessLog(log, before=2 * len(line(bytes=2)) + 5)
    assert [entry["bytes"] for entry in reader.entries()] == [2, 3], "the first of these bytes are the end of a line"
    assert list(reader.entries()) == []


class Front(ThreadingHTTPServer):
    """What stands in for Nginx in front of release 7: it logs as Nginx does."""

    log: Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with self.server.log.open("ab") as file:  # type: ignore[attr-defined]
            file.write(line(client=self.client_address[0], agent=self.headers["User-Agent"], status=503))
        self.send_response(503)
        self.send_header("X-Release", "7")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def door(log: Path) -> Iterator[PublicEndpoint]:
    server = Front(("127.0.0.1", 0), Handler)
    server.log = log
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield PublicEndpoint("shop.test", server.server_address[1], False)
    server.shutdown()
    server.server_close()


def probe(door: PublicEndpoint) -> None:
    """Ask in each way in which Slipway asks at the public endpoint."""
    door.ask("/healthz")
    door.findings("token")


def test_own_probes_are_no_traffic_for_the_exporter(log: Path, door: PublicEndpoint) -> None:
    registry = CollectorRegistry()
    traffic = exporter.Traffic(log, registry)
    probe(door)
    assert len(log.read_bytes().splitlines()) == 10, "each probe comes by the front, those that fail twice"
    with log.open("ab") as file:
        file.write(line(client="127.0.0.1"))
    traffic.follow()
    counts = [row for row in generate_latest(registry).decode().splitlines() if row.startswith("slipway_http_requests_total")]
    assert counts == ['slipway_http_requests_total{method="GET",release="7",status="200"} 1.0']


def test_own_probes_are_no_requests_for_a_release_that_is_watched(log: Path, door: PublicEndpoint) -> None:
    probe(door)
    traffic = watch.Traffic(log)
    assert str(traffic.usual) == "0 of 1 requests"
    probe(door)
    assert str(traffic.follow(7, since=0)) == "0 of 0 requests"


def test_own_probes_are_no_requests_for_a_canary(
    log: Path, door: PublicEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "masters", lambda *words: [])
    monkeypatch.setattr(Supervisor, "state", lambda *words: ("RUNNING", [1]))
    (tmp_path / "live.sock").symlink_to("7.sock")
    layout, supervisor = Store(tmp_path, tmp_path, tmp_path), Supervisor("shop", str(tmp_path), ".conf", 0)

    def ask(seconds: float) -> None:
        probe(door)
        with log.open("ab") as file:
            file.write(line())

    found = canary.measure(layout, supervisor, log, 0.0, sleep=ask)
    assert (found["total"], found["errors"]) == (1, 0)
