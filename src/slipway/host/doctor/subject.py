"""The app that is examined, and how its host is asked."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from slipway.host.endpoint import PublicEndpoint
from slipway.host.health import HealthCheck
from slipway.host.logs import ends
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor


class Subject:
    """One app on its host.

    Args:
        arguments: those of the step `doctor`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.layout = Store(**arguments["layout"])
        self.endpoint = PublicEndpoint(**arguments["endpoint"])
        self.health_check = HealthCheck.of(arguments["health"])
        self.supervisor = Supervisor(arguments["name"], arguments["program_directory"], arguments["program_suffix"], 0)
        self.live = self.layout.live()

    def end_of_log(self, number: int) -> tuple[str, str]:
        """Return where release `number` logs, and the last of it."""
        found = ends(self.layout, self.arguments["name"], number, 5)
        return found[0] if found else (str(self.layout.log(number)), "")


def output(*command: str) -> tuple[int, str]:
    """Return the exit code of a command and what it prints; 127 where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, f"{done.stdout}{done.stderr}".strip()


def minute(seconds: float) -> str:
    """Return a time, in seconds since 1970, as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
