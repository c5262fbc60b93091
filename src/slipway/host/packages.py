"""Which packages of its distribution a host has."""

from __future__ import annotations

import contextlib
import subprocess

# What lists a package on each line, by family of distributions, after its state: some that a host knows are not installed.
QUERIES = (
    ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"],
    ["rpm", "--query", "--all", "--queryformat=installed %{NAME}\n"],
)

SECONDS = 60.0


def installed() -> list[str]:
    """Return the names of the installed packages, sorted; none if no package manager that is known here answers."""
    for command in QUERIES:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
            entries = (line.split(" ") for line in listed.splitlines())
            return sorted({name for state, name in entries if state == "installed"})
    return []
