"""The result of a run as a JSON file, for programs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import context

from slipway.controller.commands import near
from slipway.controller.display.advice import next_command
from slipway.controller.display.summary import COLUMNS, Summary
from slipway.host.files import write

# The version of the format. It changes if a key is renamed, removed or gets another meaning.
FORMAT = 1
LONGEST_MESSAGE = 4000  # characters
# What Ansible exits with.
FAILED, UNREACHABLE = 2, 4


class ResultFile:
    """Writes the result of a run: once when it begins, without an end, and once when it ends.

    Args:
        path: the file, which is replaced as a whole and only its owner may read; None for none.
        playbook: the one that is run.
        inventories: those it is run with.
    """

    def __init__(self, path: Path | None, playbook: str, inventories: list[str]) -> None:
        self.path = path
        self.began = datetime.datetime.now(datetime.UTC)
        self.result: dict[str, Any] = {
            "format": FORMAT,
            "playbook": near(playbook),
            "inventories": [each if "," in each else near(each) for each in inventories],
            "check": bool(context.CLIARGS.get("check")),
            "start": timestamp(self.began),
            "end": None,
            "seconds": None,
            "exit": None,
            "error": None,
            "hosts": {},
        }
        self.write()

    def finish(self, exit_code: int, hosts: Mapping[str, Any], error: str | None = None) -> None:
        """Write the result of a run that has ended.

        Args:
            exit_code: what the run exits with.
            hosts: the result of each host.
            error: why nothing was done, if nothing was.
        """
        now = datetime.datetime.now(datetime.UTC)
        seconds = round((now - self.began).total_seconds(), 1)
        self.result.update(end=timestamp(now), seconds=seconds, exit=exit_code, error=error, hosts=hosts)
        self.write()

    def write(self) -> None:
        """Replace the file.

        Raises:
            OSError: if it cannot be written.
        """
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(self.path, json.dumps(self.result, indent=2, ensure_ascii=False) + "\n", mode=0o600)


def timestamp(time: datetime.datetime) -> str:
    """Return a time in ISO 8601, in UTC and whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def exit_code(stats: Any) -> int:
    """Return what Ansible exits with: 4 if a host is unreachable, 2 if one failed, 0 otherwise."""
    counts = [stats.summarize(host) for host in stats.processed]
    if any(count["unreachable"] for count in counts):
        return UNREACHABLE
    return FAILED if any(count["failures"] for count in counts) else 0


def host_results(playbook: str, summary: Summary, stats: Any) -> dict[str, dict[str, Any]]:
    """Return the result of each host: no more than what the run has shown.

    Args:
        playbook: the one that was run.
        summary: what was noted of each host.
        stats: Ansible's, of the whole run.
    """
    next_commands = {
        host: next_command(playbook, role, task, hosts).partition("\n")[2].strip()
        for (role, task), hosts in summary.failures(stats).items()
        for host in hosts
    }
    results = {}
    for host in sorted(stats.processed):
        count = stats.summarize(host)
        changed = summary.changed_tasks[host]
        state = "unreachable" if count["unreachable"] else "failed" if count["failures"] else "changed" if changed else "ok"
        noted = {key: summary.noted[host].get(key) for key in COLUMNS if key not in ("host", "changed")}
        days = noted["certificate_days"]
        failure = None
        if state in ("unreachable", "failed"):
            _, task = summary.failed[host]
            message = summary.messages.get(host, "")[:LONGEST_MESSAGE]
            failure = {"task": task, "message": message, "next": next_commands.get(host)}
        results[host] = {
            "state": state,
            "changed_tasks": [*changed],
            **noted,
            "certificate_days": int(days) if days and days.isascii() and days.lstrip("-").isdigit() else None,
            "failure": failure,
        }
    return results
