"""The shared directory of an app: restored beside the live one, compared, and switched by rename."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from slipway.host.backup.restic import Repository
from slipway.host.backup.settings import STATES
from slipway.host.errors import ReleaseError
from slipway.host.files import fsync_directory, on_disk, remove, write
from slipway.host.paths import Layout

FORMER = re.compile(r"shared\.before-\d{8}-\d{6}")

# Of renameat2(2): paths are relative to this directory, and both names change at once.
HERE, EXCHANGE = -100, 2


def restored_path(layout: Layout, run: str) -> Path:
    """Return the folder that a backup is restored into."""
    return layout.home / f"shared.restored-{run}"


def formers(layout: Layout) -> list[str]:
    """Return the names of the former folders of the app, oldest first."""
    return sorted(path.name for path in layout.home.glob("shared.before-*") if FORMER.fullmatch(path.name))


def fixed(layout: Layout) -> str:
    """Return why the live folder cannot be exchanged with another one; empty if it can."""
    live = layout.home / "shared"
    if live.is_symlink():
        return f"{live} is a link to {os.readlink(live)}"
    return f"{live} is a mount of its own" if os.path.ismount(live) else ""


def restore(layout: Layout, repository: Repository, saved: dict[str, Any], run: str, new: dict[str, int]) -> Path:
    """Restore the folder of a backup beside the live one, whole or not at all, and return its path.

    Args:
        layout: the app's paths.
        repository: where the backup is.
        saved: what was noted of its files: restic's id of their `snapshot`, where `shared` was, and the `owner`, which are the
            `user` and the `group` of the app.
        run: the id of the backup.
        new: the user and the group on this host.

    Raises:
        ReleaseError: when restic fails.
        OSError: when something cannot be renamed.
    """
    target = restored_path(layout, run)
    for path in layout.home.glob("shared.restored-*"):
        if path != target:
            remove(path)
    if target.is_dir():
        return target
    scratch = layout.home / ".shared.restoring"
    found = fetch(repository, saved, run, new, scratch)
    on_disk(layout.home)
    found.rename(target)
    remove(scratch)
    return target


def fetch(repository: Repository, saved: dict[str, Any], run: str, new: dict[str, int], scratch: Path, *options: str) -> Path:
    """Restore the folder of a backup below another one, which is made anew, and return where it is then.

    Args:
        repository: where the backup is.
        saved: as for `restore`.
        run: the id of the backup.
        new: the user and the group on this host.
        scratch: the other folder, which is for root alone.
        options: further options of restic.

    Raises:
        ReleaseError: when restic fails, or the backup does not have the folder.
    """
    remove(scratch)
    scratch.mkdir(mode=0o700)
    source = Path(saved["shared"])
    repository.read("restore", saved["snapshot"], f"--target={scratch}", f"--include={source}", *options)
    found = scratch / source.relative_to("/")
    if not found.is_dir():
        raise ReleaseError(f"Backup {run} has no {source}.")
    if saved["owner"] != new:
        change_owner(found, saved["owner"], new)
    return found


def change_owner(folder: Path, owner: dict[str, int], new: dict[str, int]) -> None:
    """Give what belonged to the app's user, on the host that was backed up, to the one of this host."""
    for path in [folder, *folder.rglob("*")]:
        known = path.lstat()
        user = new["user"] if known.st_uid == owner["user"] else -1
        group = new["group"] if known.st_gid == owner["group"] else -1
        os.chown(path, user, group, follow_symlinks=False)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files below a folder by their paths in it, each with its size in bytes and its time in nanoseconds."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_symlink() or path.is_file():
                known = path.lstat()
                found[str(path.relative_to(folder))] = (known.st_size, known.st_mtime_ns)
    return found


def compared(live: Path, other: Path) -> dict[str, Any]:
    """Return how the live folder differs from another one: numbers of files, and the first names of those that would be lost."""
    now, then = files(live), files(other)
    lost = sorted(set(now) - set(then))
    return {
        **{"live": len(now), "backup": len(then), "lost": len(lost), "back": len(set(then) - set(now))},
        "changed": sum(now[path] != then[path] for path in set(now) & set(then)),
        "names": lost[:10],
    }


def switch(layout: Layout, app: str, other: Path, former: str) -> Path:
    """Have another folder take the name of the live one in one step, and return where the live one is then.

    Args:
        layout: the app's paths.
        app: its name.
        other: the folder.
        former: the name that the live one is to have.

    Raises:
        OSError: when it cannot be renamed.
    """
    live, target = layout.home / "shared", layout.home / former
    noted = STATES / f"{app}.switch.json"
    entry = {"inode": other.stat().st_ino, "other": other.name, "former": former}
    write(noted, json.dumps(entry), mode=0o600)
    exchange(live, other)
    finish_switch(layout, app)
    return target


def finish_switch(layout: Layout, app: str) -> None:
    """Finish a switch that was interrupted after the step that counts: the former folder gets its name.

    Raises:
        OSError: when it cannot be renamed.
    """
    noted = STATES / f"{app}.switch.json"
    try:
        entry = json.loads(noted.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    other, former = layout.home / entry["other"], layout.home / entry["former"]
    if (layout.home / "shared").stat().st_ino == entry["inode"] and other.exists() and not former.exists():
        other.rename(former)
        fsync_directory(layout.home)
    remove(noted)


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders at once.

    Raises:
        OSError: when the file system cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, f"{one} and {other} cannot be exchanged: {os.strerror(code)}")
    fsync_directory(one.parent)


def require_space(layout: Layout, size: int) -> None:
    """Require free space for a folder beside the live one.

    Raises:
        ReleaseError: when there is too little.
    """
    free = shutil.disk_usage(layout.home).free
    if free < size * 1.1:
        raise ReleaseError(f"The disk that holds {layout.home} has {free >> 20} MiB free, and the backup needs {size >> 20}.")
