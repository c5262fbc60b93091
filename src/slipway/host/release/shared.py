"""Data that the releases of an app share: made for the first release that has it, and left alone from then on."""

from __future__ import annotations

import grp
import json
import os
import re
import stat
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

    What Nginx serves of it is made readable for it.

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
        make(context, target, seed if seed.exists() else None)
    served = context.arguments["served"]
    for name in served.get("folders", []):
        if not os.path.lexists(shared / name):
            make(context, shared / name, None, "app_static")
        try:
            admit(shared, name, grp.getgrnam(served["group"]).gr_gid)
        except OSError as error:
            raise ReleaseError(f"{shared / name} (app_static) cannot be opened to Nginx: {error.strerror}") from error


def make(context: Context, target: Path, seed: Path | None, variable: str = "app_shared") -> None:
    """Make a file or folder in the app's shared directory as the app's user: a copy of `seed`, or an empty folder.

    Raises:
        ReleaseError: when that fails; it names the variable.
    """
    command = ["/bin/sh", "-c", MAKE, "sh", str(seed) if seed else "", str(target)]
    try:
        run(command, SECONDS, directory=Path("/"), user=context.arguments["user"])
    except ReleaseError as error:
        reason = str(error).splitlines()[-1]
        raise ReleaseError(f"{target} ({variable}) could not be created for the user of the app: {reason}") from error


def admit(shared: Path, name: str, group: int) -> None:
    """Let a group read the folder `name` of a directory, and what is made in it from now on. No link is followed.

    Raises:
        OSError: when a part of the name is no folder.
    """
    handle = os.open(shared, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in name.split("/"):
            before, handle = handle, os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(before)
            found = os.fstat(handle)
            if found.st_gid != group or not found.st_mode & 0o010:
                os.fchown(handle, -1, group)
                os.fchmod(handle, stat.S_IMODE(found.st_mode) | 0o010)
        if os.fstat(handle).st_mode & 0o2050 != 0o2050:  # not done yet: what is made in it later has its group
            admit_all(handle, group)
    finally:
        os.close(handle)


def admit_all(handle: int, group: int) -> None:
    """Let a group read an open folder and all below it; what belongs to another user than it does is left alone."""
    owner = os.fstat(handle).st_uid
    os.fchown(handle, -1, group)
    os.fchmod(handle, 0o2750)
    for name in os.listdir(handle):
        try:
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        except OSError:  # a link or a socket, or it is gone
            continue
        try:
            found = os.fstat(inner)
            if found.st_uid == owner and stat.S_ISDIR(found.st_mode):
                admit_all(inner, group)
            elif found.st_uid == owner and stat.S_ISREG(found.st_mode):
                os.fchown(inner, -1, group)
                os.fchmod(inner, found.st_mode & 0o777 | 0o040)  # without setgid, which would be the other group now
        finally:
            os.close(inner)


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
