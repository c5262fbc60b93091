"""Tell Prometheus how an app is, whatever it is made of: what Nginx answered, what runs, and what its certificate is like.

Started with a file of settings in JSON, it writes a file of metrics again and again, which Nginx serves to who has the password.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, write_to_textfile
from prometheus_client.core import GaugeMetricFamily

from slipway.host.access_log import AccessLog
from slipway.host.certificate import NO_CERTIFICATE, read, served
from slipway.host.endpoint import NO_ANSWER, Answer, PublicEndpoint
from slipway.host.errors import ReleaseError
from slipway.host.health import HealthCheck
from slipway.host.state import masters, workers
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor

# Upper bounds in seconds, the same as in the example app.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# A client may make others up.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

# What takes a process or two to find out is found out once in so many looks.
SLOW = 6

# Names of metrics, with what they mean and their labels.
GAUGES: dict[str, tuple[str, list[str]]] = {
    "slipway_up": ("Whether the app is healthy on all its sockets.", []),
    "slipway_endpoint_up": ("Whether the app is healthy at the public endpoint.", []),
    "slipway_release_info": ("The live release.", ["release", "version", "server", "runtime"]),
    "slipway_release_timestamp_seconds": ("Time at which the live release was activated.", []),
    "slipway_release_failed": ("Whether the last release failed.", []),
    "slipway_program_state": ("The state a program is in.", ["release", "program", "state"]),
    "slipway_program_start_timestamp_seconds": ("When a program was started.", ["release", "program"]),
    "slipway_workers": ("Worker processes.", ["release"]),
    "slipway_memory_bytes": ("Resident memory of all processes.", ["release"]),
    "slipway_runtime_used_ratio": ("Used share of the runtime file system, which holds sockets and counters, from 0 to 1.", []),
    "slipway_connections": ("Connections of the machine's Nginx, those to apps included.", []),
    "slipway_connections_limit": ("Maximum number of connections.", []),
    "slipway_certificate_not_before_timestamp_seconds": ("When the certificate begins.", ["which"]),
    "slipway_certificate_not_after_timestamp_seconds": ("When the certificate ends.", ["which"]),
    "slipway_certificate_served_is_stored": ("Whether Nginx serves the certificate that is in its file.", []),
    "slipway_certificate_placeholder": ("Whether a placeholder is served instead of the real certificate.", []),
    "slipway_certificate_renewal_failed": ("Whether certbot's last run failed.", []),
    "slipway_gathered_timestamp_seconds": ("Time at which these metrics were gathered.", []),
}


class Traffic:
    """Counts what Nginx logs of an app's answers.

    Args:
        log: the access log, in lines of JSON.
        registry: what the counts are added to.
    """

    def __init__(self, log: Path, registry: CollectorRegistry) -> None:
        self.log = AccessLog(log)
        labels = ["method", "status", "release"]
        self.requests = Counter("slipway_http_requests", "HTTP responses, from Nginx's access log.", labels, registry=registry)
        self.seconds = Histogram(
            "slipway_http_request_duration_seconds", "Duration of HTTP requests in seconds.", buckets=BUCKETS, registry=registry
        )
        self.bytes = Counter("slipway_http_response_bytes", "Size of HTTP response bodies in bytes.", registry=registry)

    def follow(self) -> None:
        """Count what was logged since the last call."""
        for entry in self.log.entries():
            with suppress(ValueError, KeyError, TypeError):  # a line of another format is nobody's
                method = entry["method"] if entry["method"] in METHODS else "other"
                seconds, size = float(entry["seconds"]), int(entry["bytes"])
                self.requests.labels(method, str(entry["status"]), str(entry["release"])).inc()
                if entry["status"] != 101:  # a WebSocket lasts as long as its client likes
                    self.seconds.observe(seconds)
                self.bytes.inc(size)


class State:
    """Finds out how the app is, at each collection.

    Args:
        settings: those of the file.
        registry: what counts are added to.
    """

    def __init__(self, settings: dict[str, Any], registry: CollectorRegistry) -> None:
        self.settings = settings
        self.layout = Store(**settings["layout"])
        self.endpoint = PublicEndpoint(**settings["endpoint"])
        self.check = HealthCheck.of(settings["health"])
        self.supervisor = Supervisor(settings["name"], settings["program_directory"], settings["program_suffix"], 0)
        self.exits = Counter("slipway_process_exits", "Processes of the live release that ended.", registry=registry)
        self.live: int | None = None
        self.processes: set[int] = set()
        self.first: list[int] = []
        self.certificates: list[tuple[str, float, list[str]]] = []
        self.rounds = 0
        registry.register(self)

    def describe(self) -> list[Any]:
        """Return nothing: what is collected differs from time to time."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all that is found out."""
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}
        if self.rounds % SLOW == 0:
            self.certificates = list(self.certificate())
        self.rounds += 1
        for gather in (self.health, self.connections, self.releases, self.programs, self.runtime):
            with suppress(OSError, ReleaseError, ValueError):
                for name, value, labels in gather():
                    families[name].add_metric(labels, value)
        for name, value, labels in self.certificates:
            families[name].add_metric(labels, value)
        families["slipway_gathered_timestamp_seconds"].add_metric([], time.time())
        yield from families.values()

    def health(self) -> Iterator[tuple[str, float, list[str]]]:
        """Check the app at its sockets and at the public endpoint."""
        live = self.layout.live()
        sockets = [] if live is None else self.layout.sockets(live)
        answers = [self._healthy(partial(self.check.ask, socket)) for socket in sockets]
        yield "slipway_up", float(bool(answers) and all(answers)), []
        yield "slipway_endpoint_up", float(self._healthy(partial(self.check.ask_endpoint, self.endpoint))), []

    def _healthy(self, question: Callable[[], Answer]) -> bool:
        try:
            return not self.check.flaw(question())
        except NO_ANSWER:
            return False

    def connections(self) -> Iterator[tuple[str, float, list[str]]]:
        """Ask Nginx how many connections there are. A request that is being answered takes a second one, to its app."""
        nginx = self.settings["nginx"]
        yield "slipway_connections_limit", (nginx["workers"] or os.cpu_count() or 1) * nginx["connections"], []
        connection = http.client.HTTPConnection("127.0.0.1", nginx["port"], timeout=5)
        with closing(connection):
            connection.request("GET", "/")
            text = connection.getresponse().read(4096).decode("ascii", "replace")
        found = re.search(r"Active connections: (\d+)(?:.*\n)+.*Writing: (\d+)", text)
        if found:
            yield "slipway_connections", int(found[1]) + int(found[2]), []

    def releases(self) -> Iterator[tuple[str, float, list[str]]]:
        """Look at what is remembered of releases."""
        entries, live = self.layout.entries(), self.layout.live()
        yield "slipway_release_failed", float(bool(entries) and entries[-1].get("outcome") == "failed"), []
        if live is None:
            return
        record = self.layout.record(live)
        version = str(record.get("revision") or "")[:20]
        yield "slipway_release_info", 1, [str(live), version, self.settings["server"], self.settings["runtime"]]
        yield "slipway_release_timestamp_seconds", os.lstat(self.layout.live_socket).st_mtime, []

    def programs(self) -> Iterator[tuple[str, float, list[str]]]:
        """Look at what Supervisor runs, and at the processes of the live release."""
        live = self.layout.live()
        for number, programs in self.supervisor.processes().items():
            for program in programs:
                name = [str(number), program["name"]]
                yield "slipway_program_state", 1, [*name, program["statename"]]
                yield "slipway_program_start_timestamp_seconds", program["start"], name
        if live is None:
            return
        # Those in containers are asked of the engine, which is slow.
        if live != self.live or not self.first or any(not Path("/proc", str(pid)).exists() for pid in self.first):
            self.first = masters(self.layout, self.supervisor, live)
        serving = workers(self.first)
        processes = {*self.first, *serving}
        if live == self.live:
            self.exits.inc(len(self.processes - processes))
        self.live, self.processes = live, processes
        yield "slipway_workers", len(serving), [str(live)]
        yield "slipway_memory_bytes", sum(map(resident, processes)), [str(live)]

    def runtime(self) -> Iterator[tuple[str, float, list[str]]]:
        """Look at the file system of the sockets, which the exporter of the machine leaves out."""
        system = os.statvfs(self.layout.runtime)
        used = system.f_blocks - system.f_bfree
        yield "slipway_runtime_used_ratio", used / max(1, used + system.f_bavail), []

    def certificate(self) -> Iterator[tuple[str, float, list[str]]]:
        """Look at the certificate in Nginx's file, at the one that it serves, and at certbot."""
        if not self.endpoint.tls:
            return
        found = {}
        with suppress(*NO_CERTIFICATE):
            found["stored"] = read(Path(self.settings["certificate"]).read_text(encoding="ascii"))
        with suppress(*NO_CERTIFICATE):
            found["served"] = served(self.endpoint)
        for which, each in found.items():
            yield "slipway_certificate_not_before_timestamp_seconds", each.begin, [which]
            yield "slipway_certificate_not_after_timestamp_seconds", each.end, [which]
        if len(found) == 2:
            same = found["stored"].fingerprint == found["served"].fingerprint
            yield "slipway_certificate_served_is_stored", float(same), []
        if "stored" in found and self.settings["certbot"]:
            yield "slipway_certificate_placeholder", float(found["stored"].self_signed), []
            command = ["systemctl", "show", "--property=Result", "--value", self.settings["certbot"]]
            result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
            yield "slipway_certificate_renewal_failed", float(result not in ("", "success")), []


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(file: str) -> None:
    """Write the file of metrics again and again, as the settings in `file` say."""
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    registry = CollectorRegistry()
    traffic = Traffic(Path(settings["access_log"]), registry)
    State(settings, registry)
    while True:
        begin = time.monotonic()
        traffic.follow()
        write_to_textfile(settings["file"], registry)
        time.sleep(max(0.5, settings["seconds"] - (time.monotonic() - begin)))
