"""Whether an app is healthy: the one health check, of which the release gate, status, doctor and exporter all make use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.host.endpoint import Answer, PublicEndpoint, UnixConnection, ask

# What of the settings decides what is healthy: a rollback takes it from the release that it goes back to.
DEFINITION = ("path", "status", "body", "headers")


@dataclass(frozen=True)
class HealthCheck:
    """What is asked of an app, and the answer that it gives if it is healthy.

    Attributes:
        path: what is asked for (app_health_path).
        status: the status that it answers (app_health_status).
        host: the name that is asked (app_health_host).
        body: a regular expression that is found in the body; empty for any body (app_health_body).
        headers: what is sent besides (app_health_headers), values by the names of headers.
    """

    path: str
    status: int
    host: str
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> HealthCheck:
        """Return the check that the argument `health` of a step, or of the exporter, describes."""
        headers = {str(name): str(value) for name, value in (settings.get("headers") or {}).items()}
        return cls(settings["path"], int(settings["status"]), settings["host"], settings.get("body") or "", headers)

    def ask(self, socket: Path, timeout: float = 5.0) -> Answer:
        """Ask an app at one of its sockets; the whole answer must have come within `timeout` seconds.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        return ask(UnixConnection(socket, timeout=timeout), self.path, self.host, dict(self.headers))

    def ask_endpoint(self, endpoint: PublicEndpoint) -> Answer:
        """Ask at the public endpoint, as a client would.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        return endpoint.ask(self.path, dict(self.headers))

    def flaw(self, answer: Answer) -> str:
        """Say in a word or two what tells `answer` from that of a healthy app; empty if nothing does."""
        if answer.status != self.status:
            return str(answer.status)
        if self.body and not re.search(self.body, answer.body.decode("utf-8", "replace")):
            return "another body"
        return ""

    def unhealthy(self, answer: Answer) -> str:
        """Say why `answer` is not that of a healthy app, and which setting to look at; empty if it is."""
        if not self.flaw(answer):
            return ""
        reason = f"GET {self.path} answers {answer.status}, not {self.status}"
        if answer.status == self.status:
            return (
                f"GET {self.path} answers {self.status}, but its body does not have what app_health_body asks for ({self.body})"
            )
        if 300 <= answer.status < 400:
            target = answer.headers.get("location", "nowhere")
            return f"{reason}: a redirect (to {target}) is not healthy; set app_health_path to a path that answers itself"
        if answer.status == 404:
            return f"{reason}: set app_health_path to a path that the app has"
        return reason

    def unhealthy_reason(self, sockets: Iterable[Path]) -> str:
        """Say why an app is not healthy at the first of its sockets at which it is not; empty if it is at all of them.

        Raises:
            OSError: when it does not answer.
            http.client.HTTPException: when its answer is not HTTP.
        """
        return next(filter(None, (self.unhealthy(self.ask(socket)) for socket in sockets)), "")
