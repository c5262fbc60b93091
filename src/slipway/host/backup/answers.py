"""What restic says: its summary, and what its errors mean, which versions say differently."""

from __future__ import annotations

import contextlib
import json
import re
from typing import IO, Any

from slipway.host.errors import ReleaseError
from slipway.host.process import tail

# What restic ends with if there is no repository: since 0.17, and how earlier ones say it.
ABSENT_CODE, ABSENT = 10, re.compile(r"Is there a repository at the following location|does not exist")

# The same if another process has locked it.
LOCKED_CODE, LOCKED = 11, re.compile(r"repository is already locked")

# What it ends with if it made a snapshot without files that it could not read, what it says then, and how it says that a file
# has gone.
INCOMPLETE_CODE, INCOMPLETE, GONE = 3, "at least one source file could not be read", "no such file or directory"


def text_of(file: IO[bytes]) -> str:
    """Return what was written to a file."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def message(line: str) -> str:
    """Return what a line says that restic wrote to its errors, which may be JSON."""
    with contextlib.suppress(ValueError, AttributeError):
        found = json.loads(line)
        error = found.get("error") or {}
        known = f"{error['Path']}: {GONE}" if error.get("Err") == 2 and "Path" in error else ""  # before 0.17
        return str(found.get("message") or error.get("message") or known or line)
    return line


def messages(text: str) -> str:
    """Return the last lines that restic wrote to its errors."""
    return tail("\n".join(line for line in map(message, text.splitlines()) if line.strip()), 5)


def is_absent(code: int, errors: str) -> bool:
    """Say whether there is no repository."""
    return code == ABSENT_CODE or bool(code and ABSENT.search(errors))


def is_locked(code: int, errors: str) -> bool:
    """Say whether somebody else has locked the repository."""
    return code == LOCKED_CODE or bool(code and LOCKED.search(errors))


def has_all_that_stayed(code: int, errors: str) -> bool:
    """Say whether a snapshot lacks nothing but files that were removed while it was made."""
    lines = [each for each in map(message, errors.splitlines()) if each.strip() and INCOMPLETE not in each]
    return code == INCOMPLETE_CODE and bool(lines) and all(each.endswith(GONE) for each in lines)


def summary(text: str) -> dict[str, Any]:
    """Return the summary that `restic backup --json` ends with.

    Raises:
        ReleaseError: when there is none.
    """
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(line)
            if found.get("message_type") == "summary" and found.get("snapshot_id"):
                return found
    raise ReleaseError("restic reported no snapshot.")
