"""A packed source on a host: unpacked as root, and given to a user without rights while code of others runs in it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pwd
import re
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.files import remove
from slipway.host.process import shell

# How long what a build has downloaded is kept for others of the same app.
KEEP_SECONDS = 30 * 86400

# How much of it is kept, in bytes.
CACHE_BYTES = 2 * 2**30


def unpack(archive: Path, directory: Path, links_out: bool = False) -> None:
    """Unpack the source that app_fetch packed, or what another host built, into the new `directory`.

    Args:
        archive: the packed files.
        directory: where they go.
        links_out: whether links may lead outside, which are looked over later. Nothing is ever written through one.

    Raises:
        ReleaseError: when the archive is damaged or holds a path that leads outside.
    """
    directory.mkdir()
    links: set[str] = set()
    now = int(time.time())  # what app_fetch packs has no time
    try:
        with gzip.open(archive) as stream:
            while stream.read(2**20):  # to its end, where the checksum is
                pass
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                inside = os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname))
                name = os.path.normpath(member.name)
                folders = {os.path.normpath(folder) for folder in Path(name).parents}
                if (
                    not (member.isfile() or member.isdir() or member.issym())
                    or any(path == ".." or path.startswith(("/", "../")) for path in (name, *([] if links_out else [inside])))
                    or (folders | {name}) & links
                ):
                    raise ReleaseError(f"The source holds {member.name}, which leads outside or is no ordinary file.")
                if member.issym():
                    links.add(name)
                member.uid = member.gid = 0
                member.mtime = member.mtime or now
                member.uname = member.gname = "root"
                member.mode = 0o755 if member.isdir() or member.mode & 0o111 else 0o644
            if hasattr(tarfile, "fully_trusted_filter"):
                tar.extraction_filter = tarfile.fully_trusted_filter  # checked above
            tar.extractall(directory)
        if not any(directory.iterdir()):
            raise ReleaseError("The packed source cannot be unpacked: there is nothing in it.")
        if not links_out and outward(directory):  # by way of other links
            raise ReleaseError(f"The source holds {outward(directory)}, which leads outside or is no ordinary file.")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ReleaseError(f"The packed source cannot be unpacked: {error}") from error


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()


def outward(root: Path, apart: str = r"\.venv") -> str:
    """Return a link below `root` that leads out of it, or would when `root` has another name; empty where none does.

    Args:
        root: the directory; nobody else may write to it.
        apart: links that may, a regular expression for their paths from `root`.
    """
    place = os.path.realpath(root)
    pending = [place]
    while pending:
        for entry in os.scandir(pending.pop()):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_symlink():
                name = os.path.relpath(entry.path, place)
                inside = f"{os.path.realpath(entry.path)}/".startswith(f"{place}/")
                if not re.fullmatch(apart, name) and (not inside or os.path.isabs(os.readlink(entry.path))):
                    return name
    return ""


def give(path: Path, user: int, group: int) -> None:
    """Give `path` and all below it to a user. What is given comes last, so that nobody can put a link into the way."""
    if path.is_dir() and not path.is_symlink():
        for entry in os.scandir(path):
            give(Path(entry.path), user, group)
    os.lchown(path, user, group)


def take_back(path: Path, user: int | None = None, taken: set[tuple[int, int]] | None = None) -> list[Path]:
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
        return [gone for entry in os.scandir(path) for gone in take_back(Path(entry.path), user, taken)]
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
            with self.environment() as told:
                yield told
        finally:
            for path in paths:
                gone += take_back(path, self.uid, taken)
        if gone:
            raise ReleaseError(
                f"{gone[0]} is a second name (a hard link) of a file that is not the build's own: have what makes it, such as a "
                "hook (app_hooks), copy that file."
            )


def look_over(partial: Path) -> None:
    """See that no link in a build leads out of it: Nginx, which serves static files from there, would follow it.

    Raises:
        ReleaseError: when one does.
    """
    found = outward(partial)
    if found:
        raise ReleaseError(
            f"{found} in the build is a link that leads out of it ({os.readlink(partial / found)}): have the source, or the hook "
            "that makes it (app_hooks), hold a copy or a relative link within the build, or name it in app_exclude."
        )


def hook(name: str, partial: Path, arguments: dict[str, Any], path: str = "") -> None:
    """Run one of the operator's commands as the build's user in a build that is not finished, where it is set.

    Args:
        name: which one.
        partial: the build, which that user may write to meanwhile.
        arguments: those of the module.
        path: a directory that goes before all others in PATH; empty for none.

    Raises:
        ReleaseError: when it fails or takes too long, or leaves a link that leads out of the build.
    """
    command = arguments["hooks"].get(name)
    if not command:
        return
    builder = Builder(arguments["user"], arguments["cache"])
    environment = {key: str(value) for key, value in arguments["environment"].items()}
    environment["PATH"] = ":".join(filter(None, [path, os.environ.get("PATH", "/usr/bin:/bin")]))
    with builder.having(partial) as own:
        shell(
            f"The hook {name} (app_hooks)",
            command,
            arguments["hook_timeout"],
            "app_hook_timeout",
            environment={**environment, **own, "SLIPWAY_HOOK": name},
            directory=partial / arguments["source"]["directory"],
            user=builder.user,
            confined=True,
        )
    look_over(partial)


def hooks_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the commands that take part in a build."""
    return {name: arguments["hooks"][name] for name in ("before_build", "after_build") if arguments["hooks"].get(name)}
