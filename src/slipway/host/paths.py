"""Where an app's builds and releases lie on a host."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

# Characters of a digest that stand in a directory's name: 48 bits tell a few dozen builds apart.
DIGEST_LENGTH = 12


class Layout:
    """The paths of one app on one host.

    Args:
        home: the app's directory, `/opt/<app>` on a real host.
        runtime: the directory of its sockets, `/run/<app>`.
        logs: the directory of its logs, `/var/log/<app>`.
    """

    def __init__(self, home: str | Path, runtime: str | Path, logs: str | Path) -> None:
        self.home = Path(home)
        self.runtime = Path(runtime)
        self.logs = Path(logs)
        self.builds = self.home / "builds"
        self.venvs = self.home / "venvs"
        self.releases = self.home / "releases"
        self.live_socket = self.home / "live.sock"
        self.current = self.home / "current"
        self.history = self.home / "history.jsonl"

    def release(self, number: int) -> Path:
        """Return the directory of release `number`."""
        return self.releases / str(number)

    def socket(self, number: int, instance: int = 0) -> Path:
        """Return the socket on which an instance of release `number` answers."""
        return self.runtime / (f"{number}.{instance}.sock" if instance else f"{number}.sock")


def digest(*parts: object) -> str:
    """Return a digest of `parts`, which must be made of what JSON can carry, `DIGEST_LENGTH` hex digits long."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_LENGTH]
