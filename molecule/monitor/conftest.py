"""What the tests of monitoring share: questions to Prometheus through its door, and somebody who is told of alerts."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any
from urllib.parse import quote

import pytest

from molecule.conftest import ARTEFACTS, Answer, Host, Run, play, within

MADE = "/var/lib/slipway/overview"
PASSWORD = "canary-of-the-monitoring"
LOGIN = {"Authorization": "Basic " + base64.b64encode(f"monitor:{PASSWORD}".encode()).decode()}


class Vouched(Host):
    """A host whose certificate is the authority's."""

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """A context that trusts that authority."""
        return ssl.create_default_context(cafile=str(ARTEFACTS / "acme2.lab.test-root.pem"))


WATCHED, WATCH = Vouched("watched.test"), Vouched("watch.test")


def look(host: Host, path: str) -> Answer:
    """Ask for what is kept to who has the password."""
    return host.ask(path, headers=LOGIN)


def query(expression: str) -> list[dict[str, Any]]:
    """Return what Prometheus finds, each with `metric` (labels) and `value` (time and text)."""
    answer = look(WATCH, f"/.slipway/prometheus/api/v1/query?query={quote(expression)}")
    assert answer.status == 200, answer.body
    return list(answer.json()["data"]["result"])


def number(expression: str) -> float:
    """Return the one number that Prometheus finds; 0 where it finds nothing."""
    found = query(expression)
    assert len(found) <= 1, found
    return float(found[0]["value"][1]) if found else 0.0


def told(path: str) -> dict[str, float]:
    """Return the samples that a host tells at a path, as Prometheus would see them now."""
    answer = look(WATCHED, f"/.slipway/metrics/{path}")
    assert answer.status == 200, answer.body
    lines = [line.rpartition(" ") for line in answer.body.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def summed(samples: dict[str, float], beginning: str) -> float:
    """Return the sum of all samples whose name and labels begin so."""
    return sum(value for name, value in samples.items() if name.startswith(beginning))


def site(**variables: object) -> Run:
    """Run site.yml for the watched host, with variables on top of the inventory."""
    return play(f"--limit={WATCHED.name}", f"--extra-vars={json.dumps(variables)}")


def ask_for(count: int) -> None:
    """Send so many requests to the app, on connections of their own, some at a time."""

    def one(item: int) -> int:
        return WATCHED.ask(f"/items/{item}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(count))) == {200}


class Told:
    """Somebody whom Alertmanager tells of alerts: `firing` has the names of those that it was told of."""

    def __init__(self, address: str) -> None:
        outer = self
        self.firing: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.firing |= {alert["labels"]["alertname"] for alert in body["alerts"] if alert["status"] == "firing"}
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hears(self, alert: str, seconds: float = 90) -> None:
        """Wait until it was told of an alert.

        Raises:
            AssertionError: when it is not told within `seconds`; with what fires.
        """
        try:
            within(seconds, lambda: alert in self.firing, pause=0.5)
        except AssertionError as error:
            raise AssertionError(f"told of {sorted(self.firing)}, not of {alert}; {query('ALERTS')}") from error


@pytest.fixture(scope="module")
def older() -> None:
    """Have the host that watches as an older Slipway left it, which made pages each minute."""
    unit = "/etc/systemd/system/slipway-overview"
    WATCH.run(
        f"printf '[Service]\\nType=oneshot\\nExecStart=touch {MADE}/index.html\\n' > {unit}.service;"
        f"printf '[Timer]\\nOnCalendar=*:*:*\\n[Install]\\nWantedBy=timers.target\\n' > {unit}.timer;"
        f"mkdir -p {MADE}; touch /opt/slipway/overview/overview.py; systemctl enable --now slipway-overview.timer"
    )
    WATCH.run("systemctl is-active slipway-overview.timer")


@pytest.fixture(scope="module")
def somebody(older: None) -> Iterator[Told]:
    """Somebody on this machine whom Alertmanager tells of alerts, from now on.

    The limits of memory, which is the machine's, and of connections are drawn where a test can bring this host beyond them.
    """
    listing = subprocess.run(["podman", "network", "inspect", "slipway"], capture_output=True, text=True, check=True).stdout
    found = json.loads(listing)[0]
    address = (found.get("subnets") or found["plugins"][0]["ipam"]["ranges"][0])[0]["gateway"]
    listener = Told(address)
    variables = {
        "prometheus_alert_webhook": listener.url,
        "prometheus_alert_memory_percent": 1,
        "prometheus_alert_connections_percent": 1,
    }
    run = play(f"--limit={WATCH.name}", "--tags=prometheus", f"--extra-vars={json.dumps(variables)}")
    assert run.code == 0, run.output[-3000:]
    yield listener
    listener.server.shutdown()
