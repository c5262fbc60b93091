"""Unpack an archive that came from elsewhere: the standard library's filter, and a guard against what it lets pass."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePath
from typing import IO, Any

from slipway.controller.fetch.error import FetchError

# An archive that unpacks to more bytes is a mistake, or an attack.
LARGEST = 2 * 2**30

# What stands at the beginning of compressed files, and what reads them.
COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, NotImplementedError)

# What a zip file's members are in a tar file; anything else is no ordinary file.
TYPES = {0: tarfile.REGTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}

# What other systems put beside the folder that was archived.
LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db"}


class Guard:
    """The filter of an extraction: the library's own for data, a limit of size, and nothing written through a link.

    Args:
        name: what the archive is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.remaining = LARGEST

    def __call__(self, member: tarfile.TarInfo, root: str) -> tarfile.TarInfo:
        """Return a member as it is unpacked below `root`.

        Raises:
            FetchError: when it is too large together with those before it, or leads outside.
        """
        self.remaining -= 512 + member.size  # as empty files are many, too
        check_remaining(self.remaining)
        plain = member.replace(name=os.path.normpath(member.name), mtime=None, deep=False)  # type: ignore[arg-type]
        try:
            data = tarfile.data_filter(plain, root)
        except tarfile.FilterError as error:
            raise self.outside(member) from error
        if os.path.isabs(member.name):  # which the library makes relative
            raise self.outside(member)
        entry_path = [data.name, *([data.linkname] if data.islnk() else [])]
        if any(_linked(Path(root), place) for place in entry_path) or (data.issym() and os.path.lexists(Path(root, data.name))):
            raise FetchError(f"{self.name} (app_source) cannot be unpacked: {member.name} in it passes through a symbolic link.")
        # The library would look for it in the archive, past this filter.
        if data.islnk() and not Path(root, data.linkname).is_file():
            raise FetchError(f"{self.name} (app_source) cannot be unpacked: {member.name} in it is a copy of what is not there.")
        return data

    def outside(self, member: tarfile.TarInfo) -> FetchError:
        """Return what is raised for a member that leads outside."""
        return FetchError(f"{self.name} contains {member.name}, which leads outside of it or is not a regular file.")


def _linked(root: Path, name: str) -> bool:
    """Say whether the way to `name` below `root`, its last part included, goes through a link."""
    place = PurePath(name)
    return any(Path(root, part).is_symlink() for part in (place, *place.parents))


def check_remaining(remaining: int) -> None:
    """Refuse an archive for which there is no more `remaining` (bytes).

    Raises:
        FetchError: when it is negative.
    """
    if remaining < 0:
        raise FetchError(f"app_source unpacks to more than {LARGEST >> 30} GiB.")


def copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a stream to its end, where its checksum is.

    Raises:
        FetchError: when it is too long.
    """
    remaining = LARGEST
    while part := source.read(2**18):
        remaining -= len(part)
        check_remaining(remaining)
        target.write(part)


def plain_tar(archive: Path, scratch: Path) -> Path:
    """Return `archive` as a tar file without compression, which is made in `scratch` if it is another.

    Raises:
        FetchError: when it is too large. Where it is not whole, one of `DAMAGED` is raised.
    """
    with open(archive, "rb") as file:
        head = file.read(6)
    plain = scratch / "archive.tar"
    if head.startswith(ZIP):
        _convert(archive, plain)
        return plain
    reader = next((reader for magic, reader in COMPRESSIONS.items() if head.startswith(magic)), None)
    if reader is None:
        return archive
    with reader(archive) as source, open(plain, "wb") as target:
        copy(source, target)
    return plain


def _convert(archive: Path, plain: Path) -> None:
    """Make a tar file of a zip file, for which the library has no filter."""
    with zipfile.ZipFile(archive) as source, tarfile.open(plain, "w") as tar:
        check_remaining(LARGEST - sum(512 + entry.file_size for entry in source.infolist()))
        for entry in source.infolist():
            if entry.flag_bits & 1:
                raise NotImplementedError("it is encrypted")
            mode = entry.external_attr >> 16
            member = tarfile.TarInfo(entry.filename)
            member.type = tarfile.DIRTYPE if entry.is_dir() else TYPES.get(stat.S_IFMT(mode), tarfile.FIFOTYPE)
            member.mode = mode & 0o777
            if member.issym():
                member.linkname = source.read(entry).decode("utf-8", "surrogateescape")
            elif member.isreg():
                member.size = entry.file_size
            with source.open(entry) as content:
                tar.addfile(member, content)


def check_end(plain: Path, end: int, complete: bool) -> None:
    """Refuse a tar file that was cut: tarfile takes whatever is no member for its end.

    Args:
        plain: the file.
        end: bytes that its members take.
        complete: whether a checksum has told that nothing is missing at its end.

    Raises:
        EOFError: when something else than its end is there.
    """
    with open(plain, "rb") as file:
        file.seek(end)
        block = file.read(512)
    if any(block) or (len(block) < 512 and not complete):
        raise EOFError("it is truncated")


def unpack(archive: Path, name: str, scratch: Path) -> Path:
    """Unpack `archive` in `scratch`, and return the folder that is the source: its only one, or all of it.

    Raises:
        FetchError: when it is damaged, too large, or holds what leads outside; it is called `name` then.
    """
    root = scratch / "source"
    root.mkdir()
    try:
        plain = plain_tar(archive, scratch)
        with tarfile.open(plain, "r:", errorlevel=2) as tar:
            tar.extractall(root, filter=Guard(name))
            check_end(plain, tar.offset, complete=plain != archive)
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise FetchError(f"{name} (app_source) cannot be unpacked: it is damaged or not an archive ({reason}).") from error
    found = [path for path in root.iterdir() if path.name not in LITTER]
    if not found:
        raise FetchError(f"{name} (app_source) cannot be unpacked: it is empty.")
    return found[0] if len(found) == 1 and found[0].is_dir() and not found[0].is_symlink() else root
