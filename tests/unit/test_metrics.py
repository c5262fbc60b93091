"""What the exporter counts in Nginx's log, and what it tells of an app."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from accesses import line
from certificates import certify
from prometheus_client import CollectorRegistry, generate_latest

from slipway.host import certificate, gauges
from slipway.host.endpoint import AGENT
from slipway.host.exporter import BalancerState, Server, State, Traffic
from slipway.host.supervisor import Program


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(line())
    return path


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return what a registry holds."""
    rows = [row.rpartition(" ") for row in generate_latest(registry).decode().splitlines() if row and row[0] != "#"]
    return {name: float(value) for name, _, value in rows}


def test_answers_are_counted(log: Path) -> None:
    registry = CollectorRegistry()
    traffic = Traffic(log, registry)
    with log.open("ab") as file:
        file.write(line() + line(seconds=3) + line(status=502, release="") + line(method="BREW"))
        file.write(line(status=101, seconds=900))
        file.write(line(agent=AGENT))  # somebody else who says that it is Slipway
        file.write(b"not JSON\n" + line(bytes="many") + b'{"status": 200}\n[]\n')
    traffic.follow()
    found = samples(registry)
    assert {name: value for name, value in found.items() if name.startswith("slipway_http_requests_total")} == {
        'slipway_http_requests_total{method="GET",release="7",status="200"}': 3,
        'slipway_http_requests_total{method="GET",release="",status="502"}': 1,
        'slipway_http_requests_total{method="other",release="7",status="200"}': 1,
        'slipway_http_requests_total{method="GET",release="7",status="101"}': 1,
    }
    assert found["slipway_http_request_duration_seconds_count"] == 5
    assert found['slipway_http_request_duration_seconds_bucket{le="0.025"}'] == 4
    assert found["slipway_http_response_bytes_total"] == 60


def never_released(tmp_path: Path) -> dict[str, Any]:
    """Return the settings of an app that was never released."""
    for name in ("home", "run", "logs"):
        (tmp_path / name).mkdir()
    return {
        "name": "shop",
        "server": "gunicorn",
        "runtime": "venv",
        "layout": {"home": str(tmp_path / "home"), "runtime": str(tmp_path / "run"), "logs": str(tmp_path / "logs")},
        "program_directory": str(tmp_path),
        "program_suffix": ".conf",
        "health": {"path": "/healthz", "status": 200, "host": "shop.example.com"},
        "endpoint": {"host": "shop.example.com", "port": 1, "tls": True},
        "certificate": str(tmp_path / "none.pem"),
        "certbot": "",
        "nginx": {"port": 1, "workers": 2, "connections": 8192},
    }


def test_an_app_that_was_never_released_is_not_up(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    State(never_released(tmp_path), registry)
    found = samples(registry)
    assert (found["slipway_up"], found["slipway_endpoint_up"], found["slipway_release_failed"]) == (0, 0, 0)
    # What does not answer has no number of connections, and a limit all the same.
    assert ("slipway_connections" in found, found["slipway_connections_limit"]) == (False, 16384)
    assert abs(found["slipway_gathered_timestamp_seconds"] - time.time()) < 60
    assert not [name for name in found if name.startswith(("slipway_release_info", "slipway_certificate"))]


def test_when_the_certificate_begins_and_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert is a share of what lies in between."""
    certify(tmp_path / "none.pem", tmp_path / "none.key", ["shop.example.com"], days=60, lifetime=64)
    pem = tmp_path / "none.pem"
    monkeypatch.setattr(gauges, "served", lambda door: certificate.read(pem.read_text(encoding="ascii")))
    registry = CollectorRegistry()
    State(never_released(tmp_path), registry)
    found = samples(registry)
    for which in ("served", "stored"):
        end = found[f'slipway_certificate_not_after_timestamp_seconds{{which="{which}"}}']
        assert end - found[f'slipway_certificate_not_before_timestamp_seconds{{which="{which}"}}'] == 64 * 86400
        assert abs(end - time.time() - 60 * 86400) < 60


def test_a_connection_that_is_answered_counts_with_that_to_the_app() -> None:
    class Status(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b"Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070465 \n"
                b"Reading: 6 Writing: 179 Waiting: 106 \n"
            )

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Status) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        state = State.__new__(State)
        state.settings = {"nginx": {"port": server.server_port, "workers": 1, "connections": 512}}
        assert list(state.connections()) == [("slipway_connections_limit", 512, []), ("slipway_connections", 470, [])]


def test_the_services_of_a_load_balancer_and_its_public_endpoint_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text('#!/bin/sh\ntest "$3" = haproxy.service\n', encoding="utf-8")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    registry = CollectorRegistry()
    health = {"path": "/healthz", "status": 200, "host": "shop.test"}
    endpoint = {"host": "shop.test", "port": 1, "tls": False}
    BalancerState({"health": health, "endpoint": endpoint, "services": ["haproxy.service", "certbot.timer"]}, registry)
    found = samples(registry)
    assert found["slipway_endpoint_up"] == 0
    assert found['slipway_service_up{service="haproxy.service"}'] == 1
    assert found['slipway_service_up{service="certbot.timer"}'] == 0
    assert "slipway_up" not in found


def test_the_file_of_metrics_is_served_at_one_path(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.prom"
    with Server(0, file) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/metrics")
        file.write_text("slipway_endpoint_up 1.0\n", encoding="utf-8")
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert answer.read() == b"slipway_endpoint_up 1.0\n"
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/../{file.name}")
        server.shutdown()
    assert server.server_address[0] == "127.0.0.1"


def test_processes_beside_the_web_server_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = never_released(tmp_path)
    release = tmp_path / "home" / "releases" / "7"
    release.mkdir(parents=True)
    (tmp_path / "home" / "live.sock").symlink_to(tmp_path / "run" / "7.sock")
    beat = {"hosts": "first", "instances": 1}
    (release / "runtime.json").write_text(
        json.dumps({"processes": {"worker": {"hosts": "all", "instances": 3}, "beat": beat}}), encoding="utf-8"
    )
    (release / "release.json").write_text('{"first": false}', encoding="utf-8")
    registry = CollectorRegistry()
    state = State(settings, registry)
    running = Program("shop-7.worker", 7, "worker", ["RUNNING", "RUNNING", "BACKOFF"], [1, 2], [5.0, 9.0, 7.0])
    ending = Program("shop-6.worker", 6, "worker", ["STOPPING"], [3], [1.0])
    monkeypatch.setattr(state.supervisor, "programs", lambda: [ending, running])
    monkeypatch.setattr(state.supervisor, "processes", dict)
    found = samples(registry)
    assert found['slipway_processes{process="worker"}'] == 2
    assert found['slipway_processes_expected{process="worker"}'] == 3
    assert not any("beat" in name for name in found)  # it belongs on another host
    assert found['slipway_program_state{program="shop-7.worker",release="7",state="BACKOFF"}'] == 1
    assert found['slipway_program_state{program="shop-6.worker",release="6",state="STOPPING"}'] == 1
    assert found['slipway_program_start_timestamp_seconds{program="shop-7.worker",release="7"}'] == 9
