"""The table at the end of a run: what became of each host."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from ansible import constants as C

from slipway.host.tables import text_table

# What a role may have in the table, by the keys of a result's `summary`.
COLUMNS = {
    "host": "HOST",
    "changed": "CHANGED",
    "url": "URL",
    "release": "RELEASE",
    "version": "VERSION",
    "canary": "CANARY",
    "certificate_days": "CERT DAYS",
    "certificate": "CERTIFICATE",
}


class Summary:
    """What was noted of each host.

    Attributes:
        changed: hosts, with how many changes there were in each role.
        changed_tasks: hosts, with the names of the tasks that changed something.
        noted: hosts, with what roles want in the table.
        failed: hosts, with the role, empty for the playbook's own tasks, and the task that failed last.
        messages: hosts, with the message of that task.
    """

    def __init__(self) -> None:
        self.changed: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.changed_tasks: dict[str, list[str]] = collections.defaultdict(list)
        self.noted: dict[str, dict[str, str]] = collections.defaultdict(dict)
        self.failed: dict[str, tuple[str, str]] = {}
        self.messages: dict[str, str] = {}

    def note(self, host: str, summary: Any) -> None:
        """Note what the `summary` of a result says, which is whatever a host likes."""
        if isinstance(summary, Mapping):
            for key, value in summary.items():
                self.noted[host][key] = "".join(filter(str.isprintable, str("" if value is None else value)))

    def fail(self, host: str, role: str, task: str, message: Any) -> None:
        """Note a failure of a host, in place of an earlier one.

        Args:
            host: its name.
            role: the role of the task; empty for the playbook's own.
            task: its name.
            message: that of its result; None if there is none.
        """
        self.failed[host] = (role, task)
        self.messages[host] = "" if message is None else str(message)

    def failures(self, stats: Any) -> dict[tuple[str, str], list[str]]:
        """Return the role and the task of each failure, with its hosts in order.

        Where a task of the playbook's own fails, as the doctor's last does, its message has said it all.

        Args:
            stats: Ansible's, of the whole run.
        """
        failures: dict[tuple[str, str], list[str]] = {}
        for host in sorted(stats.processed):
            count = stats.summarize(host)
            if count["unreachable"] or (count["failures"] and self.failed.get(host, [""])[0]):
                failures.setdefault(self.failed[host], []).append(host)
        return failures

    def table(self, stats: Any, check: bool) -> list[tuple[str, str | None]]:
        """Return the lines of the table, with their colours; empty if there is nothing to tell of any host.

        Args:
            stats: Ansible's, of the whole run.
            check: whether it was a dry run.
        """
        broken = {host for hosts in self.failures(stats).values() for host in hosts}
        rows, colors = [], []
        for host in sorted(stats.processed):
            changed = self.changed[host]
            if host in broken or changed or self.noted[host]:
                changes = ", ".join(f"{role} {times}" for role, times in changed.items()) or "nothing"
                rows.append({**self.noted[host], "host": host, "changed": changes})
                colors.append(C.COLOR_ERROR if host in broken else C.COLOR_CHANGED if changed else C.COLOR_OK)
        if not rows:
            return []
        lines = text_table(rows, {**COLUMNS, "changed": "WOULD CHANGE"} if check else COLUMNS)
        return list(zip(lines, [None, *colors], strict=True))
