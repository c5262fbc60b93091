"""How files change: whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from pathlib import Path

from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout


def write(path: Path, content: str | bytes, mode: int = 0o644, group: int | None = None) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, and a crash leaves one of the two.

    Args:
        path: the file; its directory exists.
        content: what it is to hold.
        mode: permission bits.
        group: numeric id of the group that owns the file; None leaves it to the system.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
            file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(path.parent)


def atomic_symlink(link: Path, target: str | Path, over_file: bool = False) -> None:
    """Make the symbolic link `link` point at `target` in one step, whether or not it exists.

    Args:
        link: the link.
        target: where it is to lead.
        over_file: whether it may take the place of a file.

    Raises:
        ReleaseError: when something other than a symbolic link stands at `link`.
    """
    if link.exists() and not link.is_symlink() and not (over_file and link.is_file()):
        raise ReleaseError(f"{link} is in the way: it should be a symbolic link. Move it elsewhere, then run again.")
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.replace(temporary, link)
    fsync_directory(link.parent)


def on_disk(path: Path) -> None:
    """Have all that was written to the file system of `path` survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(handle)
    finally:
        os.close(handle)


def fsync_directory(directory: Path) -> None:
    """Have the file system remember the renames in `directory` across a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory; it need not exist.

    A directory takes a hidden name first: nobody ever finds half of it under its own.
    """
    if path.is_dir() and not path.is_symlink():
        hidden = path if path.name.startswith(".") else path.parent / f".{path.name}.removed"
        if hidden != path:
            remove(hidden)
            path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def require_free_space(layout: Layout, needed: float) -> None:
    """See to it that there is room for a build or a release, before either is begun.

    Args:
        layout: the app's paths; its home exists.
        needed: MiB that must be free.

    Raises:
        ReleaseError: when the file system of the app's home is nearly full.
    """
    system = os.statvfs(layout.home)
    free = system.f_bavail * system.f_frsize / 2**20
    if free < needed:
        raise ReleaseError(
            f"The disk that holds {layout.home} is nearly full: {free:.0f} MiB are free, "
            f"and app_min_free_disk_mb asks for {needed:.0f}. "
            "Make room, or keep fewer releases (app_keep_releases)."
        )
    if system.f_files and system.f_favail < 20000:
        raise ReleaseError(f"The file system that holds {layout.home} has only {system.f_favail} inodes left. Remove files.")
