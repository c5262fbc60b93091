"""Links that lead out of what was built: whoever follows them would see more of the host than the build."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from slipway.host.errors import ReleaseError


def outward(root: Path, apart: str = r"\.venv", beside: Path | None = None) -> str:
    """Return a link below `root` that leads out of it, or would when `root` has another name; empty where none does.

    Args:
        root: the directory; nobody else may write to it.
        apart: links that may, a regular expression for their paths from `root`.
        beside: a directory that relative links may lead into as well, by way of one of those.
    """
    place = os.path.realpath(root)
    within = tuple(f"{os.path.realpath(folder)}/" for folder in (place, beside) if folder)
    pending = [place]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_symlink():
                name = os.path.relpath(entry.path, place)
                inside = f"{os.path.realpath(entry.path)}/".startswith(within)
                if not re.fullmatch(apart, name) and (not inside or os.path.isabs(os.readlink(entry.path))):
                    return name
    return ""


def validate_links(partial: Path, shared: Mapping[str, str] | None = None, venv: Path | None = None) -> None:
    """See that no link in a build leads out of it: Nginx, which serves static files from there, would follow it.

    Args:
        partial: the build.
        shared: where those lead that lead to the app's shared directory, by their paths in the build.
        venv: its environment, into which links lead that begin with `.venv/`, such as those to what packages tell coding agents.

    Raises:
        ReleaseError: when one does.
    """
    known = [
        name
        for name, target in (shared or {}).items()
        if os.path.islink(partial / name) and os.readlink(partial / name) == target
    ]
    found = outward(partial, "|".join([r"\.venv", *map(re.escape, known)]), venv)
    if found:
        raise ReleaseError(
            f"{found} in the build is a link that points outside it ({os.readlink(partial / found)}): let the source, or the "
            "hook that makes it (app_hooks), hold a copy or a relative link within the build, or name it in app_exclude."
        )
