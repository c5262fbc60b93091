"""Data that the releases of an app share: made for the first release that has it, and left alone from then on."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from slipway.host.build.shared import SEEDS, Entry, entries
from slipway.host.errors import ReleaseError
from slipway.host.process import run
from slipway.host.release.context import Context
from slipway.host.store import Store

# Run as the app's user, who could have put a link in the way of root. Nothing is seen of it before it is whole.
MAKE = """#!/bin/sh
set -eu
umask 027
seed=$1 target=$2
mkdir -p "$(dirname "$target")"
partial="$(dirname "$target")/.$(basename "$target").partial"
rm -rf "$partial"
if [ -n "$seed" ]; then cp -R -P "$seed" "$partial"; else mkdir "$partial"; fi
[ -e "$target" ] || mv -T "$partial" "$target"
"""
SECONDS = 900

# What says that code wanted to write where it lies.
READ_ONLY = (
    r"unable to open database file|attempt to write a readonly database|Read-only file system"
    r"|Permission denied: '(?!/)|Permission denied: '{home}/(?!shared)"
)
DENIED = re.compile(r"(?:Permission denied|Read-only file system): '([^'\n]+)'")


def shared_by(layout: Store, number: int) -> list[Entry]:
    """Return what release `number` has in the app's shared directory, as its build says, which may be an older one."""
    try:
        record: dict[str, Any] = json.loads((layout.release(number) / "build" / ".build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return entries(record.get("shared") or {})


def provide(context: Context, number: int) -> None:
    """Make what release `number` has in the app's shared directory, where it is not there yet, from what its source has.

    Raises:
        ReleaseError: when that fails.
    """
    shared = context.layout.home / "shared"
    for entry in shared_by(context.layout, number):
        target, seed = shared / entry.name, context.layout.release(number) / "build" / SEEDS / entry.name
        if os.path.lexists(target):
            continue
        if not seed.exists() and not entry.folder:  # the app makes the file when it first writes to it, through the link
            target = target.parent
            if os.path.lexists(target):
                continue
        command = ["/bin/sh", "-c", MAKE, "sh", str(seed) if seed.exists() else "", str(target)]
        try:
            run(command, SECONDS, directory=Path("/"), user=context.arguments["user"])
        except ReleaseError as error:
            reason = str(error).splitlines()[-1]
            raise ReleaseError(f"{target} (app_shared) could not be created for the user of the app: {reason}") from error


def writes_beside_code(context: Context, text: str) -> bool:
    """Say whether an error is that the app may not write where its code lies."""
    return bool(re.search(READ_ONLY.format(home=re.escape(str(context.layout.home))), text))


def advice(context: Context, text: str, number: int) -> str:
    """Say what helps an app whose release `number` wants to write where its code lies: the path, if the error has it."""
    shared = context.layout.home / "shared"
    read_only = f"The code directory is read-only: the app must write to {shared}, which its releases share. "
    paths = (shareable(context, number, path) for path in reversed(DENIED.findall(text)))
    path = next(filter(None, paths), "")
    if path:
        return f'{read_only}To keep {path} there, set app_shared: {{"{path}": ""}}'
    return (
        f'{read_only}Name what it writes in app_shared, such as app_shared: {{"app.db": ""}} for SQLite, or set, in app_env, '
        f"DATABASE_URL: sqlite:///{shared}/app.db"
    )


def shareable(context: Context, number: int, path: str) -> str:
    """Return what app_shared is to name so that an app may write to `path`: the file, or the first folder that has no code.

    Args:
        context: the step, and its host.
        number: the release.
        path: what the app was denied, from its directory or absolute; empty is returned for one elsewhere.
    """
    directory = context.arguments["directory"]
    release = context.layout.release(number) / "build" / directory
    for root in (release, release.resolve(), Path("/srv/source", directory)):
        if path.startswith(f"{os.path.normpath(root)}/"):
            path = os.path.relpath(path, root)
    path = os.path.normpath(path)
    parts = path.split("/")
    if path.startswith(("/", "..")) or parts[0] == ".venv":
        return ""
    for depth in range(1, len(parts)):
        folder = release.joinpath(*parts[:depth])
        if not any(folder.rglob("*.py")):
            return "/".join(parts[:depth])
    return path
