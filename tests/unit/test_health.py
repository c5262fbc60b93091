"""One health check: what makes an app unhealthy does so for status, doctor and exporter alike, as at the release gate."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from slipway.host.endpoint import Answer
from slipway.host.exporter import State
from slipway.host.health import HealthCheck

HEALTH = {"path": "/healthz", "status": 200, "host": "shop.test", "body": "", "headers": {}}


class App(BaseHTTPRequestHandler):
    """Release 7 of an app, which tells how it is at /healthz, and at /reserved to who brings the right header."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" or self.headers["X-Probe"] == "yes" else 403)
        self.send_header("X-Release", "7")
        self.end_headers()
        self.wfile.write(b"database: ok")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def app(short: Path) -> Iterator[dict[str, Any]]:
    """Return what a step is told of the app, which listens at its socket, and at a port as its endpoint."""
    for name in ("home", "run", "logs", "conf"):
        (short / name).mkdir()
    (short / "home" / "live.sock").symlink_to(short / "run" / "7.sock")
    servers = [ThreadingUnixStreamServer(str(short / "run" / "7.sock"), App), ThreadingHTTPServer(("127.0.0.1", 0), App)]
    for server in servers:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield {
        "layout": {"home": str(short / "home"), "runtime": str(short / "run"), "logs": str(short / "logs")},
        "name": "shop",
        "program_directory": str(short / "conf"),
        "program_suffix": ".conf",
        "endpoint": {"host": "shop.test", "port": servers[1].server_address[1], "tls": False},
    }
    for server in servers:
        server.shutdown()
        server.server_close()


Told = Callable[[dict[str, Any]], bool]


@pytest.fixture
def status(app: dict[str, Any], run_step: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr("slipway.host.status.masters", lambda *words: [])
    return lambda health: bool(run_step("status", **app, health=health)["status"]["health"] == "ok")


@pytest.fixture
def doctor(app: dict[str, Any], run_step: Callable[..., dict[str, Any]]) -> Told:
    more = {"user": "shop", "group": "www-data", "services": {}, "certificate": "", "authority": False, "domains": []}
    more |= {"resolved": {}, "addresses": [], "now": 0.0}

    def told(health: dict[str, Any]) -> bool:
        found = [each["what"] for each in run_step("doctor", **app, **more, health=health)["findings"]]
        unhealthy = [what for what in found if what.startswith(("The app is unhealthy", "The app answers"))]
        assert len(unhealthy) in (0, 2), f"it is the same at the socket and at the endpoint: {unhealthy}"
        return not unhealthy

    return told


@pytest.fixture
def exporter(app: dict[str, Any]) -> Told:
    more = {"nginx": {"port": 1, "workers": 1, "connections": 1}, "certificate": "", "certbot": ""}

    def told(health: dict[str, Any]) -> bool:
        registry = CollectorRegistry()
        State({**app, **more, "server": "gunicorn", "runtime": "venv", "health": health}, registry)
        rows = dict(row.split(" ") for row in generate_latest(registry).decode().splitlines() if " " in row and row[0] != "#")
        assert rows["slipway_up"] == rows["slipway_endpoint_up"]
        return float(rows["slipway_up"]) == 1

    return told


@pytest.mark.parametrize("teller", ["status", "doctor", "exporter"])
@pytest.mark.parametrize(
    ("differing", "healthy"),
    [
        pytest.param({"path": "/reserved", "headers": {"X-Probe": "yes"}}, True, id="the header that the app asks for"),
        pytest.param({"path": "/reserved", "headers": {"X-Probe": "no"}}, False, id="another header"),
        pytest.param({"path": "/reserved"}, False, id="no header"),
        pytest.param({"body": "database: o."}, True, id="the body that is asked for"),
        pytest.param({"body": "cache: ok"}, False, id="another body"),
        pytest.param({"status": 204}, False, id="another status"),
    ],
)
def test_whoever_tells_of_an_app_asks_the_same(
    request: pytest.FixtureRequest, teller: str, differing: dict[str, Any], healthy: bool
) -> None:
    assert request.getfixturevalue(teller)({**HEALTH, **differing}) is healthy


PATH_ADVICE = "is not healthy; set app_health_path to a path that does not redirect"


@pytest.mark.parametrize(
    ("answer", "flaw", "words"),
    [
        pytest.param(Answer(200, {}, b"database: ok"), "", "", id="as asked for"),
        pytest.param(
            Answer(200, {}, b"\xff down"),
            "another body",
            "GET /up answers 200, but its body does not match app_health_body (: ok$)",
            id="another body, which is no text",
        ),
        pytest.param(Answer(299, {}, b": ok"), "299", "GET /up answers 299, not 200", id="another status"),
        pytest.param(
            Answer(300, {"location": "/login"}, b""),
            "300",
            f"GET /up answers 300, not 200: a redirect (to /login) {PATH_ADVICE}",
            id="a redirect",
        ),
        pytest.param(
            Answer(399, {}, b""), "399", f"GET /up answers 399, not 200: a redirect (to nowhere) {PATH_ADVICE}", id="to nowhere"
        ),
        pytest.param(Answer(400, {}, b""), "400", "GET /up answers 400, not 200", id="a refusal"),
        pytest.param(
            Answer(404, {}, b""),
            "404",
            "GET /up answers 404, not 200: set app_health_path to a path that the app has",
            id="no path",
        ),
        pytest.param(Answer(500, {}, b": ok"), "500", "GET /up answers 500, not 200", id="an error"),
    ],
)
def test_an_unhealthy_answer_is_told_of_with_the_setting_to_look_at(answer: Answer, flaw: str, words: str) -> None:
    check = HealthCheck("/up", 200, "shop.test", body=": ok$")
    assert (check.flaw(answer), check.unhealthy(answer)) == (flaw, words)


def test_an_app_is_healthy_when_it_is_at_each_of_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    says = {"a": Answer(200, {}, b""), "b": Answer(503, {}, b""), "c": Answer(500, {}, b"")}
    monkeypatch.setattr(HealthCheck, "ask", lambda check, path: says[path.name])
    check = HealthCheck("/up", 200, "shop.test")
    assert check.unhealthy_reason([Path("a"), Path("a")]) == ""
    assert check.unhealthy_reason([Path("a"), Path("b"), Path("c")]) == "GET /up answers 503, not 200"


def test_an_answer_is_waited_for_no_longer_than_the_timeout(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(short / "deaf.sock"))
        deaf.listen()
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            HealthCheck("/up", 200, "shop.test").ask(short / "deaf.sock", timeout=0.2)
        assert time.monotonic() - begin < 4
