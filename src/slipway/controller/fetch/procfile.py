"""The Procfile of a source, which names the processes of an app."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from slipway.controller.fetch.error import FetchError
from slipway.controller.processes import NOT_PROCESSES, errors

LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")


def procfile(folder: Path, exclude: Sequence[str] = ()) -> dict[str, str]:
    """Return the commands of the processes that the Procfile in a folder names; none where there is no such file.

    Its `web` and `release` are left out: app_module and app_migrate_command say that.
    https://devcenter.heroku.com/articles/procfile

    Args:
        folder: the app's directory in the source.
        exclude: patterns of names that are left out of the source.

    Raises:
        FetchError: when it cannot be read, or names what cannot be a process.
    """
    file = folder / "Procfile"
    if not file.is_file() or any(fnmatch(file.name, pattern) for pattern in exclude):
        return {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise FetchError(f"The Procfile of the source cannot be read: {error}") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if not match:
            raise FetchError(f"Line {number} of the Procfile must be a name, a colon and a command. {_remedy()}")
        if match[1] not in NOT_PROCESSES:
            found[match[1]] = match[2].strip()
    errors_found = errors(found)
    if errors_found:
        raise FetchError(f"The Procfile of the source cannot be used: {'; '.join(errors_found)}. {_remedy()}")
    return found


def _remedy() -> str:
    """Return how an operator does without the file."""
    return "Change it there, or set app_processes, in place of which it is read."
