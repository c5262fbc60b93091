"""The user without rights as whom all code runs that is in a build, or makes it."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.host.errors import ReleaseError
from slipway.host.files import remove

# How long what a build has downloaded is kept for others of the same app.
KEEP_SECONDS = 30 * 86400

# How much of it is kept, in bytes.
CACHE_BYTES = 2 * 2**30


class Builder:
    """The user without rights as whom all code runs that is in a build, or makes it, and that user's own directory.

    Args:
        user: the user.
        cache: where that directory lies. Only root writes there.

    Raises:
        ReleaseError: when there is no such user.
    """

    def __init__(self, user: str, cache: str | Path) -> None:
        self.user = user
        try:
            account = pwd.getpwnam(user)
        except KeyError as error:
            raise ReleaseError(f"There is no user {user} on this host.") from error
        self.uid, self.gid = account.pw_uid, account.pw_gid
        self.cache = Path(cache)

    def directory(self, name: str) -> Path:
        """Return a directory of the user's own, which is begun anew when it has been there for long."""
        path, old = self.cache / name, time.time() - KEEP_SECONDS
        # Only this function changes what is directly in the cache.
        if path.is_dir() and (self.cache.stat().st_mtime < old or path.stat().st_uid != self.uid):
            remove(path)
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(0o700)
            os.chown(path, self.uid, self.gid)
        return path

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """Return what the user's processes are told: a home that goes with the context, and a cache that stays."""
        cache, homes = self.directory("downloads"), self.cache / "homes"
        homes.mkdir(exist_ok=True)
        for left in homes.iterdir():  # by a build that was killed
            remove(left)
        home = Path(tempfile.mkdtemp(dir=homes))
        os.chown(home, self.uid, self.gid)
        caches = {"UV_CACHE_DIR": str(cache / "uv"), "PIP_CACHE_DIR": str(cache / "pip")}
        try:
            yield {"HOME": str(home), "USER": self.user, "LOGNAME": self.user, **caches}
        finally:
            remove(home)

    def limit(self) -> None:
        """Have the cache begun anew where it has grown too large. No process of the user may be left."""
        cache, size = self.directory("downloads"), 0
        for folder, _, names in os.walk(cache):
            size += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
        if size > CACHE_BYTES:
            remove(cache)

    @contextlib.contextmanager
    def having(self, *paths: Path) -> Iterator[dict[str, str]]:
        """Give `paths`, and all below them, to the user, and take them back with the end of the context.

        Yields:
            What the processes of that user find in their environment.

        Raises:
            ReleaseError: when the user left a second name of another's file there.
        """
        gone, taken = [], set[tuple[int, int]]()
        try:
            for path in paths:
                give(path, self.uid, self.gid)
            with self.environment() as variables:
                yield variables
        finally:
            for path in paths:
                gone += reclaim_ownership(path, self.uid, taken)
        if gone:
            raise ReleaseError(
                f"{gone[0]} is a second name (a hard link) of a file that is not the build's own: have what makes it, such as a "
                "hook (app_hooks), copy that file."
            )


def give(path: Path, user: int, group: int) -> None:
    """Give `path` and all below it to a user. What is given comes last, so that nobody can put a link into the way."""
    if path.is_dir() and not path.is_symlink():
        for entry in os.scandir(path):
            give(Path(entry.path), user, group)
    os.lchown(path, user, group)


def reclaim_ownership(path: Path, user: int | None = None, taken: set[tuple[int, int]] | None = None) -> list[Path]:
    """Take `path` and all below it back, so that all can read it and only its owner write. No process of `user` may be left.

    A second name of a file that is not the user's own is removed: what others keep to themselves must not be taken for a part of
    a build. So is what is neither file, link nor directory.

    Args:
        path: what is taken.
        user: who had it; None for one who could not make names of others' files.
        taken: devices and inodes of what was the user's own and is root's by now.

    Returns:
        The second names that were removed.
    """
    found, taken = path.lstat(), set() if taken is None else taken
    if stat.S_ISDIR(found.st_mode):
        os.lchown(path, os.geteuid(), os.getegid())
        path.chmod(0o755)
        return [gone for entry in os.scandir(path) for gone in reclaim_ownership(Path(entry.path), user, taken)]
    identity = (found.st_dev, found.st_ino)
    if stat.S_ISREG(found.st_mode) and (user is None or found.st_uid == user or found.st_nlink == 1 or identity in taken):
        if found.st_nlink > 1:
            taken.add(identity)
        os.lchown(path, os.geteuid(), os.getegid())
        path.chmod(0o755 if found.st_mode & 0o111 else 0o644)
    elif stat.S_ISLNK(found.st_mode):
        os.lchown(path, os.geteuid(), os.getegid())
    else:
        path.unlink()
        return [path] if stat.S_ISREG(found.st_mode) else []
    return []
