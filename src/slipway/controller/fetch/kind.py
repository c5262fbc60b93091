"""What a source is: a package, a wheel, an archive, a git repository or a directory."""

from __future__ import annotations

import os
import re
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
    if not is_url(source) and os.path.isdir(os.path.expanduser(source)):
        return "git" if is_git(source) else "directory"
    if WHEEL.fullmatch(place):
        return "wheel"
    if ARCHIVE.fullmatch(place):
        return "archive"
    return "git" if is_git(source) else "directory"


def may_be_fetched(source: str) -> bool:
    """Say whether `source` can be fetched, as far as this machine sees it: what is said to lie here must be there."""
    kind = kind_of(source)
    if source.startswith("-"):  # git would take it for an option
        return False
    if kind == "directory":
        return os.path.isdir(os.path.expanduser(source))
    if kind in ("archive", "wheel") and not is_url(source):
        return os.path.isfile(os.path.expanduser(on_this_machine(source)))
    return True


def is_download(source: str) -> bool:
    """Say whether `source` is an archive or a wheel by its address."""
    return is_url(source) and kind_of(source) in ("archive", "wheel")


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
