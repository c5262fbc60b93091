"""A packed source on a host: unpacked as root, and given to the app's user only while a command of the operator's runs in it."""

from __future__ import annotations

import gzip
import hashlib
import os
import pwd
import stat
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

from ansible.module_utils.app_layout import ReleaseError, shell


def unpack(archive: Path, directory: Path, links_out: bool = False) -> None:
    """Unpack the source that app_fetch packed, or what another host built, into the new `directory`.

    Args:
        archive: the packed files.
        directory: where they go.
        links_out: whether links may lead outside, as that to an interpreter does. Nothing is ever written through one.

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
                if member.issym():
                    links.add(name)
                if (
                    not (member.isfile() or member.isdir() or member.issym())
                    or any(path == ".." or path.startswith(("/", "../")) for path in (name, *([] if links_out else [inside])))
                    or folders & links
                ):
                    raise ReleaseError(f"The source holds {member.name}, which leads outside or is no ordinary file.")
                member.uid = member.gid = 0
                member.mtime = member.mtime or now
                member.uname = member.gname = "root"
            if hasattr(tarfile, "fully_trusted_filter"):
                tar.extraction_filter = tarfile.fully_trusted_filter  # checked above
            tar.extractall(directory)
        if not any(directory.iterdir()):
            raise ReleaseError("The packed source cannot be unpacked: there is nothing in it.")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ReleaseError(f"The packed source cannot be unpacked: {error}") from error


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()


def give(path: Path, user: int, group: int) -> None:
    """Give `path` and all below it to a user. What is given comes last, so that nobody can put a link into the way."""
    if path.is_dir() and not path.is_symlink():
        for entry in os.scandir(path):
            give(Path(entry.path), user, group)
    os.lchown(path, user, group)


def take_back(path: Path) -> None:
    """Take `path` and all below it back, the directories first, so that all can read it and only its owner write."""
    os.lchown(path, os.geteuid(), os.getegid())
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        path.chmod(0o755)
        for entry in os.scandir(path):
            take_back(Path(entry.path))
    elif stat.S_ISREG(mode):
        path.chmod(0o755 if mode & 0o111 else 0o644)


def as_user(user: str, directory: Path) -> dict[str, str]:
    """Give `directory` to `user`, and return what that user's processes find in their environment.

    Raises:
        ReleaseError: when there is no such user.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise ReleaseError(f"There is no user {user} on this host.") from error
    give(directory, account.pw_uid, account.pw_gid)
    return {"HOME": account.pw_dir, "USER": user, "LOGNAME": user}


def hook(name: str, partial: Path, arguments: dict[str, Any], path: str = "") -> None:
    """Run one of the operator's commands as the app's user in a build that is not finished, where it is set.

    Args:
        name: which one.
        partial: the build, which that user may write to meanwhile.
        arguments: those of the module.
        path: a directory that goes before all others in PATH; empty for none.

    Raises:
        ReleaseError: when it fails or takes too long.
    """
    command = arguments["hooks"].get(name)
    if not command:
        return
    environment = {key: str(value) for key, value in arguments["environment"].items()}
    environment["PATH"] = ":".join(filter(None, [path, os.environ.get("PATH", "/usr/bin:/bin")]))
    try:
        environment.update(as_user(arguments["user"], partial), SLIPWAY_HOOK=name)
        shell(
            f"The hook {name} (app_hooks)",
            command,
            arguments["hook_timeout"],
            "app_hook_timeout",
            environment=environment,
            directory=partial / arguments["source"]["directory"],
            user=arguments["user"],
        )
    finally:
        take_back(partial)


def hooks_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the commands that take part in a build."""
    return {name: arguments["hooks"][name] for name in ("before_build", "after_build") if arguments["hooks"].get(name)}
