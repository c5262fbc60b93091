"""What a source is: a package, a wheel, an archive, a git repository or a directory."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARCHIVE = re.compile(r".+\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip)", re.IGNORECASE)
WHEEL = re.compile(r"(.*/)?[A-Za-z0-9._]+-(?P<version>[A-Za-z0-9._+!]+)(-[A-Za-z0-9._]+){3,4}\.whl")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)")
GIT = re.compile(r"^(git\+.+|git@.+|ssh://.+|git://.+|file://.+|https?://.+|.+\.git/?)$")


def kind_of(source: str) -> str:
    """Say what `source` is: package, wheel, archive, git or directory."""
    place = urlsplit(source).path if is_url(source) else source
    if PACKAGE.fullmatch(source):
        return "package"
    if not is_url(source) and Path(source).expanduser().is_dir():
        return "git" if is_git(source) else "directory"
    if WHEEL.fullmatch(place):
        return "wheel"
    if ARCHIVE.fullmatch(place):
        return "archive"
    return "git" if is_git(source) else "directory"


def on_this_machine(source: str) -> str:
    """Return the path that a file:// address of an archive or a wheel stands for; any other source as it is."""
    path = unquote(urlsplit(source).path) if source.startswith("file://") else ""
    return path if path and (WHEEL.fullmatch(path) or ARCHIVE.fullmatch(path)) else source


def is_url(source: str) -> bool:
    """Say whether `source` is an address of the web."""
    return source.startswith(("http://", "https://"))


def is_git(source: str) -> bool:
    """Say whether `source` is a git repository, and not a directory on the controller."""
    return GIT.match(source) is not None


def shown(address: str) -> str:
    """Return `address` as it may be shown: without a password, and without a query, which may be one."""
    address = re.sub(r"//[^/@\s]+@", "//", address)
    return re.sub(r"[?#].*", "", address) if is_url(address) else address
