"""What a host exports to Prometheus beside counts, whatever it serves: values that are gathered anew at each collection."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from slipway.host.certificate import NO_CERTIFICATE, read, served
from slipway.host.endpoint import NO_ANSWER, Answer, PublicEndpoint
from slipway.host.errors import ReleaseError
from slipway.host.health import HealthCheck

# The name of a metric, its value, and the values of its labels.
Value = tuple[str, float, list[str]]
Gatherer = Callable[[], Iterator[Value]]

# What takes a process or two is gathered once in so many collections.
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
    "slipway_processes": ("Instances of a process beside the web server that run.", ["process"]),
    "slipway_processes_expected": ("Instances of a process beside the web server that belong on this host.", ["process"]),
    "slipway_workers": ("Worker processes.", ["release"]),
    "slipway_memory_bytes": ("Resident memory of all processes.", ["release"]),
    "slipway_runtime_used_ratio": ("Used share of the runtime file system, which holds sockets and counters, from 0 to 1.", []),
    "slipway_connections": ("Connections of the machine's Nginx, those to apps included.", []),
    "slipway_connections_limit": ("Maximum number of connections.", []),
    "slipway_certificate_not_before_timestamp_seconds": ("When the certificate begins.", ["which"]),
    "slipway_certificate_not_after_timestamp_seconds": ("When the certificate ends.", ["which"]),
    "slipway_certificate_served_is_stored": ("Whether the host serves the certificate that is in its file.", []),
    "slipway_certificate_placeholder": ("Whether a placeholder is served instead of the real certificate.", []),
    "slipway_certificate_renewal_failed": ("Whether certbot's last run failed.", []),
    "slipway_service_up": ("Whether a unit of systemd is active.", ["service"]),
    "slipway_job_failed": ("Whether the last run of a job failed.", ["name"]),
    "slipway_job_running": ("Whether a job runs.", ["name"]),
    "slipway_job_last_success_timestamp_seconds": ("When a job last ended well.", ["name"]),
    "slipway_job_last_duration_seconds": ("How long the last run of a job took, or the present one has taken.", ["name"]),
    "slipway_job_next_timestamp_seconds": ("When a job runs next.", ["name"]),
    "slipway_backup_failed": ("Whether the last backup failed, or the check of its repository.", []),
    "slipway_backup_overdue": ("Whether the last good backup is older than backup_max_age_hours.", []),
    "slipway_backup_last_success_timestamp_seconds": ("When the last good backup was made.", []),
    "slipway_backup_last_duration_seconds": ("How long the last backup took, or the present one has taken.", []),
    "slipway_backup_size_bytes": ("Size of what is in the last good backup.", []),
    "slipway_backup_added_bytes": ("What the last good backup added to the repository.", []),
    "slipway_restore_drill_failed": ("Whether the newest backup could not be restored in the last drill.", []),
    "slipway_restore_drill_last_success_timestamp_seconds": ("When the last good drill ended.", []),
    "slipway_restore_drill_last_duration_seconds": ("How long the last drill took, or the present one has taken.", []),
    "slipway_gathered_timestamp_seconds": ("Time at which these metrics were gathered.", []),
}


class Gauges:
    """Gathers values at each collection: those of the public endpoint and its certificate, and what a subclass adds.

    Args:
        settings: those of the file.
        registry: what the values are added to.
    """

    def __init__(self, settings: dict[str, Any], registry: CollectorRegistry) -> None:
        self.settings = settings
        self.endpoint = PublicEndpoint(**settings["endpoint"])
        self.check = HealthCheck.of(settings["health"])
        self.occasional_values: list[Value] = []
        self.rounds = 0
        registry.register(self)

    def gatherers(self) -> list[Gatherer]:
        """Return what gathers the values."""
        return [self.endpoint_health]

    def occasional(self) -> Iterator[Value]:
        """Gather what takes a process or two: once in so many collections."""
        yield from self.certificate()

    def describe(self) -> list[Any]:
        """Return nothing: what is collected differs from time to time."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all that is gathered."""
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}
        if self.rounds % SLOW == 0:
            self.occasional_values = list(self.occasional())
        self.rounds += 1
        for gather in self.gatherers():
            with suppress(OSError, ReleaseError, ValueError):
                for name, value, labels in gather():
                    families[name].add_metric(labels, value)
        for name, value, labels in self.occasional_values:
            families[name].add_metric(labels, value)
        families["slipway_gathered_timestamp_seconds"].add_metric([], time.time())
        yield from families.values()

    def endpoint_health(self) -> Iterator[Value]:
        """Check the app at the public endpoint."""
        yield "slipway_endpoint_up", float(self.healthy(partial(self.check.ask_endpoint, self.endpoint))), []

    def healthy(self, question: Callable[[], Answer]) -> bool:
        """Return whether the answer to a question is healthy."""
        try:
            return not self.check.flaw(question())
        except NO_ANSWER:
            return False

    def certificate(self) -> Iterator[Value]:
        """Read the certificate in its file, the one that is served, and the result of certbot."""
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
