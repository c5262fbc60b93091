"""Whether a release has what the command of a job names, as far as that can be seen without running it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

# Words that the shell knows itself. What follows them is not looked at.
SHELL = frozenset(
    re.findall(
        r"\S+",
        """
        . : [ ! { ( cd command echo eval exit export for if printf read set test trap true false ulimit umask until wait while
        """,
    )
)


def missing_program(release: Path, directory: str, command: str) -> str:
    """Return the program, or the module after `python -m`, that a command begins with and a release lacks; empty if it has it.

    Args:
        release: the directory of the release.
        directory: the folder of its build in which the command runs.
        command: the shell command.
    """
    environment, place = release / "build" / ".venv", release / "build" / directory
    if (release / "container.py").exists() or not environment.exists():
        return ""  # what an image has is seen only in it
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    while words and (words[0] == "exec" or re.match(r"[A-Za-z_]\w*=", words[0])):
        words = words[1:]
    if not words or words[0] in SHELL or re.search(r"[$`*?;|&<>(){}~]", words[0]):
        return ""
    path = f"{environment.resolve()}/bin:/usr/local/bin:/usr/bin:/bin"
    if not shutil.which(str(place / words[0]) if "/" in words[0] else words[0], path=path):
        return words[0]
    if re.fullmatch(r"python[\d.]*", words[0]) and words[1:2] == ["-m"] and len(words) > 2:
        module = place.joinpath(*words[2].split("."))
        # Of another package than one of the source nobody knows without importing it.
        if (
            "." in words[2]
            and (place / words[2].split(".")[0]).is_dir()
            and not module.is_dir()
            and not module.with_suffix(".py").exists()
        ):
            return words[2]
    return ""
