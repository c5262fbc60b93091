"""Packed code: unpacked as root, packed for other hosts, and told by its digest."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import os
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.build.links import outward
from slipway.host.errors import ReleaseError


def unpack(archive: Path, directory: Path, links_out: bool = False) -> None:
    """Unpack the source that slipway_fetch packed, or what another host built, into the new `directory`.

    Args:
        archive: the packed files.
        directory: where they go.
        links_out: whether links may lead outside, which are looked over later. Nothing is ever written through one.

    Raises:
        ReleaseError: when the archive is damaged or holds a path that leads outside.
    """
    directory.mkdir()
    links: set[str] = set()
    now = int(time.time())  # what slipway_fetch packs has no time
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
                    raise ReleaseError(f"The source contains {member.name}, which leads outside of it or is not a regular file.")
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
            raise ReleaseError("The packed source cannot be unpacked: it is empty.")
        if not links_out and outward(directory):  # by way of other links
            raise ReleaseError(f"The source contains {outward(directory)}, which leads outside of it or is not a regular file.")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ReleaseError(f"The packed source cannot be unpacked: {error}") from error


def pack(directory: Path, file: Path) -> str:
    """Pack a directory into the new `file`, and return the digest of that."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if member.name == "./.complete":
            return None
        if member.islnk():  # files that are one file to the file system need not be so elsewhere
            member.type, member.linkname = tarfile.REGTYPE, ""
            member.size = (directory / member.name).stat().st_size
        return member

    # Little is won by packing harder what two machines of one data centre send each other.
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(directory, ".", filter=plain)
    file.chmod(0o644)  # its directory is the login user's alone
    return sha256(file)


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()


@contextlib.contextmanager
def packed(given: dict[str, Any]) -> Iterator[None]:
    """Have the source that came along as `packed` in a file, which `archive` names while the context lasts."""
    with contextlib.ExitStack() as stack:
        if given["packed"]:
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".tar.gz"))
            file.write(base64.b64decode(given["packed"]))
            file.flush()
            given["archive"] = file.name
        yield
