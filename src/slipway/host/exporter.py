"""Tell Prometheus how an app is, whatever it is made of: what Nginx answered, what runs, and what its certificate is like.

Started with a file of settings in JSON, it writes a file of metrics again and again, which Nginx serves to who has the password.
On a load balancer, where there is no app and no Nginx, it serves the file to HAProxy itself.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, write_to_textfile

from slipway.host.access_log import AccessLog
from slipway.host.backup import report as backup_report
from slipway.host.errors import ReleaseError
from slipway.host.gauges import Gatherer, Gauges, Value
from slipway.host.jobs import report
from slipway.host.processes import defined, overview
from slipway.host.state import masters, workers
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor

# Upper bounds in seconds, the same as in the example app.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Metrics of a job, each with the key of its value, which is 0 for none.
JOB_TIMES = {
    "slipway_job_last_success_timestamp_seconds": "success",
    "slipway_job_last_duration_seconds": "seconds",
    "slipway_job_next_timestamp_seconds": "next",
}

# Metrics of backups, likewise.
BACKUP_VALUES = {
    "slipway_backup_last_success_timestamp_seconds": "success",
    "slipway_backup_last_duration_seconds": "seconds",
    "slipway_backup_size_bytes": "size",
    "slipway_backup_added_bytes": "added",
}

# A client may make others up.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


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


class State(Gauges):
    """Finds out how the app is, at each collection.

    Args:
        settings: those of the file.
        registry: what counts are added to.
    """

    def __init__(self, settings: dict[str, Any], registry: CollectorRegistry) -> None:
        self.layout = Store(**settings["layout"])
        self.supervisor = Supervisor(settings["name"], settings["program_directory"], settings["program_suffix"], 0)
        self.exits = Counter("slipway_process_exits", "Processes of the live release that ended.", registry=registry)
        self.live: int | None = None
        self.processes: set[int] = set()
        self.first: list[int] = []
        super().__init__(settings, registry)

    def gatherers(self) -> list[Gatherer]:
        """Return what gathers the metrics of the app."""
        return [
            self.health,
            self.endpoint_health,
            self.connections,
            self.releases,
            self.programs,
            self.processes_beside,
            self.runtime,
        ]

    def health(self) -> Iterator[Value]:
        """Check the app at its sockets."""
        live = self.layout.live()
        sockets = [] if live is None else self.layout.sockets(live)
        answers = [self.healthy(partial(self.check.ask, socket)) for socket in sockets]
        yield "slipway_up", float(bool(answers) and all(answers)), []

    def connections(self) -> Iterator[Value]:
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

    def releases(self) -> Iterator[Value]:
        """Look at what is remembered of releases."""
        entries, live = self.layout.entries(), self.layout.live()
        yield "slipway_release_failed", float(bool(entries) and entries[-1].get("outcome") == "failed"), []
        if live is None:
            return
        record = self.layout.record(live)
        version = str(record.get("revision") or "")[:20]
        yield "slipway_release_info", 1, [str(live), version, self.settings["server"], self.settings["runtime"]]
        yield "slipway_release_timestamp_seconds", os.lstat(self.layout.live_socket).st_mtime, []

    def programs(self) -> Iterator[Value]:
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

    def occasional(self) -> Iterator[Value]:
        """Gather how jobs and backups are, beside the state of the certificate."""
        yield from super().occasional()
        yield from self.backups()
        with suppress(OSError, ValueError):
            for row in (row for row in report.rows(self.layout, self.settings["name"]) if row["here"]):
                name = [row["job"]]
                yield "slipway_job_failed", float(report.has_failed(row)), name
                yield "slipway_job_running", float(row["result"] == "running"), name
                for metric, key in JOB_TIMES.items():
                    if row[key]:
                        yield metric, row[key], name

    def backups(self) -> Iterator[Value]:
        """Gather how backups are, if the app is backed up."""
        with suppress(OSError, ReleaseError):
            found = backup_report.row(self.settings["name"])
            if found:
                yield "slipway_backup_failed", float(backup_report.has_failed(found)), []
                yield "slipway_backup_overdue", float(found["overdue"]), []
                for metric, key in BACKUP_VALUES.items():
                    if found[key]:
                        yield metric, found[key], []
                if drill := found["drill"]:
                    yield "slipway_restore_drill_failed", float(backup_report.has_failed(drill)), []
                    yield "slipway_restore_drill_last_duration_seconds", drill["seconds"], []
                    if drill["success"]:
                        yield "slipway_restore_drill_last_success_timestamp_seconds", drill["success"], []

    def processes_beside(self) -> Iterator[Value]:
        """Look at what Supervisor runs beside the web server, also of releases whose processes are at their last task."""
        live, programs = self.layout.live(), self.supervisor.programs()
        for program in programs:
            for state in {*program.states}:
                yield "slipway_program_state", 1, [str(program.release), program.name, state]
            if program.starts:
                yield "slipway_program_start_timestamp_seconds", max(program.starts), [str(program.release), program.name]
        if live is None:
            return
        for each in overview(defined(self.layout, live), programs, live):
            if each["release"] == live:
                yield "slipway_processes", each["running"], [each["process"]]
                yield "slipway_processes_expected", each["instances"], [each["process"]]

    def runtime(self) -> Iterator[Value]:
        """Look at the file system of the sockets, which the exporter of the machine leaves out."""
        system = os.statvfs(self.layout.runtime)
        used = system.f_blocks - system.f_bfree
        yield "slipway_runtime_used_ratio", used / max(1, used + system.f_bavail), []


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class BalancerState(Gauges):
    """Finds out how a load balancer is, at each collection, beside what HAProxy measures itself."""

    def occasional(self) -> Iterator[Value]:
        """Gather the state of services, beside that of the certificate."""
        yield from super().occasional()
        yield from self.services()

    def services(self) -> Iterator[Value]:
        """Ask systemd which of the host's units are active."""
        for service in self.settings["services"]:
            command = ["systemctl", "is-active", "--quiet", service]
            yield "slipway_service_up", float(subprocess.run(command, timeout=30, check=False).returncode == 0), [service]


class Server(ThreadingHTTPServer):
    """Serves a file of metrics at /metrics on 127.0.0.1.

    Args:
        port: its port.
        file: the file.

    Raises:
        OSError: when the port is taken.
    """

    daemon_threads = True

    def __init__(self, port: int, file: Path) -> None:
        self.file = file
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers a request for the file of metrics."""

    server: Server
    timeout = 10.0

    def do_GET(self) -> None:
        """Answer with the file, or with 404 if there is none yet."""
        content = None
        if self.path == "/metrics":
            with suppress(OSError):
                content = self.server.file.read_bytes()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        """Write nothing to the journal: each scrape would be a line."""


def main(file: str) -> None:
    """Write the file of metrics again and again, as the settings in `file` say."""
    settings = json.loads(Path(file).read_text(encoding="utf-8"))
    registry = CollectorRegistry()
    traffic = None
    if "port" in settings:
        BalancerState(settings, registry)
        Thread(target=Server(settings["port"], Path(settings["file"])).serve_forever, daemon=True).start()
    else:
        traffic = Traffic(Path(settings["access_log"]), registry)
        State(settings, registry)
    while True:
        begin = time.monotonic()
        if traffic:
            traffic.follow()
        write_to_textfile(settings["file"], registry)
        time.sleep(max(0.5, settings["seconds"] - (time.monotonic() - begin)))
