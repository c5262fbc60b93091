"""What is remembered of an app's releases on a host."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.host.paths import Layout

# The name of a state of a git repository.
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


class Store(Layout):
    """What is remembered of the releases of one app on one host, beside the paths that it has."""

    def sockets(self, number: int) -> list[Path]:
        """Return the sockets of all instances of release `number`."""
        return [self.socket(number, instance) for instance in range(int(self.record(number).get("instances", 1)))]

    def logs_of(self, number: int) -> list[Path]:
        """Return the logs of the web server of release `number`: one, which need not exist, or that of each instance."""
        found = [log for log in self.logs.glob(f"{number}.*log") if re.fullmatch(r"\d+(\.\d+)?\.log", log.name)]
        return sorted(found) or [self.logs / f"{number}.log"]

    def process_logs(self, number: int, process: str) -> list[Path]:
        """Return the logs of a process of release `number`, the one last written to first."""
        pattern = re.compile(rf"{number}\.{process}(\.c\d+)?(\.\d+)?\.log")
        found = [log for log in self.logs.glob(f"{number}.{process}*log") if pattern.fullmatch(log.name)]
        return sorted(found, key=lambda log: log.stat().st_mtime, reverse=True)

    def log(self, number: int) -> Path:
        """Return the log of release `number`, or of its first instance."""
        return self.logs_of(number)[0]

    def live(self) -> int | None:
        """Return the number of the live release; None before the first one."""
        try:
            return int(Path(os.readlink(self.live_socket)).stem)
        except (FileNotFoundError, ValueError):
            return None

    def numbers(self) -> list[int]:
        """Return the numbers of the releases that are kept, oldest first."""
        if not self.releases.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.releases.iterdir() if entry.name.isdigit())

    def record(self, number: int) -> dict[str, Any]:
        """Return what is remembered of release `number`; empty where nothing is."""
        try:
            record: dict[str, Any] = json.loads((self.release(number) / "release.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return record

    def was_first(self) -> bool | None:
        """Say whether this host runs what only one host of the app may, as its first one; None before the first release."""
        live = self.live()
        return None if live is None else bool(self.record(live).get("first", True))

    def note(self, entry: dict[str, Any]) -> None:
        """Add an entry to the app's history, which outlives the releases themselves."""
        entry = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}
        with open(self.history, "ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            torn = file.read() not in (b"", b"\n")  # a run was cut off while it wrote
            file.write((b"\n" if torn else b"") + json.dumps(entry, sort_keys=True).encode() + b"\n")

    def entries(self) -> list[dict[str, Any]]:
        """Return what the app's history says of releases, oldest first; what was cut off is left out."""
        try:
            lines = self.history.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                entry["release"] = int(entry["release"])
                if "command" not in entry:  # which an operator ran in it
                    found.append(entry)
        return found


def version_of(record: Mapping[str, Any]) -> str:
    """Return what people call the state of the source that a release was made from: the tag or branch, and the short commit.

    Args:
        record: what is remembered of the release.
    """
    version, revision = (str(record.get(key) or "") for key in ("version", "revision"))
    if COMMIT.fullmatch(revision):
        short = revision[:7]
        return f"{version} ({short})" if version and not revision.startswith(version) else short
    return revision[:20]
