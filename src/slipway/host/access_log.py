"""What Nginx logs of an app's answers, in lines of JSON: the entries that are added, across rotations."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from slipway.host.endpoint import AGENT

# So many seconds after its last line a log that was moved away is done with.
LATE_SECONDS = 30.0

# Who may say that it is Slipway that asks: this host.
OWN_ADDRESSES = ("127.0.0.1", "::1")


class AccessLog:
    """The entries that are added to a log, but for those of Slipway's own probes.

    Args:
        path: the log. It need not exist.
        before: how many bytes of what it holds already are read, too.
    """

    def __init__(self, path: Path, before: int = 0) -> None:
        self.path = path
        self.parts: list[Part] = []
        with suppress(OSError):
            self.parts.append(Part(path, before))

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of the whole lines that were added since the last call."""
        for line in self.lines():
            entry = entry_of(line)
            if entry is not None and not is_probe(entry):
                yield entry

    def lines(self) -> Iterator[bytes]:
        """Yield what was added since the last call: first to logs that were moved away, then to the one in their place.

        Nginx goes on writing to one that was moved away until it is told.
        """
        with suppress(OSError):
            found = self.path.stat()
            if not self.parts or not self.parts[-1].is_at(found):
                # One that was cut is read from its beginning.
                self.parts = [part for part in self.parts if part.inode != found.st_ino] + [Part(self.path)]
        for part in self.parts:
            yield from part.lines()
        for part in [part for part in self.parts[:-1] if part.is_over()]:
            part.file.close()
            self.parts.remove(part)


class Part:
    """A log between two rotations.

    Args:
        path: where it lies now.
        before: how many bytes at its end are read, too; None for all of it.

    Raises:
        OSError: when there is none.
    """

    def __init__(self, path: Path, before: int | None = None) -> None:
        self.file = path.open("rb")
        found = os.fstat(self.file.fileno())
        self.inode = found.st_ino
        if before is not None:
            self.file.seek(max(0, found.st_size - before))
        self.rest = b""
        self.seen = time.monotonic()

    def is_at(self, found: os.stat_result) -> bool:
        """Say whether this is the file that was found, and has not been cut since."""
        return found.st_ino == self.inode and found.st_size >= self.file.tell()

    def is_over(self) -> bool:
        """Say whether nothing has been added to it for a while."""
        return time.monotonic() - self.seen > LATE_SECONDS

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines that were added since the last call."""
        for line in self.file:
            self.seen = time.monotonic()
            self.rest += line
            if line.endswith(b"\n"):
                yield self.rest
                self.rest = b""


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, with `status` and, where it has them, `at` and `seconds` as numbers; None if it has none.

    The first line may be torn, and lines of another format are nobody's.
    """
    try:
        entry = json.loads(line)
        seconds = float(entry["seconds"]) if "seconds" in entry else None
        return {**entry, "status": int(entry["status"]), "at": float(entry.get("at", 0)), "seconds": seconds}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def is_probe(entry: dict[str, Any]) -> bool:
    """Say whether it was Slipway on this host that asked, and no client."""
    return entry.get("agent") == AGENT and entry.get("client") in OWN_ADDRESSES
