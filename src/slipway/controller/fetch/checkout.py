"""Check out a version of a git repository, with its submodules, by way of a clone that is kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from slipway.controller.fetch.cache import cache_directory, locked, sweep_clones
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.git import access, find_object, git
from slipway.controller.fetch.kind import shown
from slipway.controller.fetch.submodules import REMOTE, origin, relative_to, submodules

# What git says of a clone that was damaged, such as by a loss of power.
BROKEN = re.compile(
    r"object file .* is empty|loose object|bad object|missing (blob|tree|commit)|not a git repository|corrupt|invalid sha1"
    r"|unable to (read|resolve)|bad (pack|ref)|unresolved deltas|did not send all necessary objects",
    re.IGNORECASE,
)


def checkout(
    repository: str,
    version: str,
    timeout: float,
    target: Path,
    key: str = "",
    token: str = "",
    exclude: Iterable[str] = (),
) -> str:
    """Put the files of `repository` at `version` into the new directory `target`, those of its submodules included.

    Returns:
        The commit's full hash.

    Raises:
        FetchError: when there is no such repository or version.
    """
    address = repository.removeprefix("git+")
    allowed = access(address, key, token)
    if token:
        address = re.sub(r"//[^/@\s]+@", "//", address)
    clone = cache_directory("git") / hashlib.sha256(address.encode()).hexdigest()[:16]
    with locked(clone):
        revision = version or "HEAD"
        exact = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
        if not (exact and find_object(clone, revision)):
            _update(clone, address, timeout, allowed, revision if exact else "")
        clone.touch()
        names = ["refs/slipway/HEAD"] if revision == "HEAD" else [f"refs/tags/{revision}", f"refs/heads/{revision}", revision]
        commit = next(filter(None, (find_object(clone, name) for name in names)), "")
        if not commit:
            raise FetchError(f"{shown(address)} has no branch, tag or commit {version}: app_version names one.")
        _export(clone, commit, timeout, target)
    for path, revision, place in submodules(clone, commit, exclude):
        _submodule(path, revision, place, repository.removeprefix("git+"), timeout, target, (key, token), exclude)
    sweep_clones(clone.parent)
    return commit


def _update(clone: Path, address: str, timeout: float, allowed: Mapping[str, str], commit: str) -> None:
    """Fetch all branches and tags of a repository into its clone, which nobody else uses now; anew if that is damaged.

    Raises:
        FetchError: when that fails.
    """
    everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/slipway/HEAD"]

    def fetch() -> None:
        if not (clone / "HEAD").exists():
            git(["init", "--quiet", "--bare", str(clone)], timeout)
        for left in clone.rglob("*.lock"):  # by a git that was killed
            left.unlink(missing_ok=True)
        git(["fetch", "--quiet", "--prune", "--force", "--", address, *everything], timeout, clone, allowed)
        if commit and not find_object(clone, commit):  # on no branch, as a submodule's may be
            with contextlib.suppress(FetchError):
                git(["fetch", "--quiet", "--", address, commit], timeout, clone, allowed)

    try:
        fetch()
    except FetchError as error:
        if not BROKEN.search(str(error)):
            raise
        shutil.rmtree(clone, ignore_errors=True)
        fetch()


def _submodule(
    path: str,
    commit: str,
    place: str,
    parent: str,
    timeout: float,
    target: Path,
    credentials: tuple[str, str],
    exclude: Iterable[str],
) -> None:
    """Put the files of a submodule into its folder of `target`.

    Args:
        path: that folder.
        commit: what is wanted of it.
        place: its address, which may be relative to that of its parent.
        parent: the address of the repository that it is a part of.
        timeout: seconds that a command of git may take.
        target: the files of that repository.
        credentials: the key and the token that let git in there; the token goes to no other host.
        exclude: names that are left out.

    Raises:
        FetchError: when it cannot be had.
    """
    key, token = credentials
    address = relative_to(parent, place) if place.startswith(("./", "../")) else place
    try:
        if (REMOTE.match(parent) and not REMOTE.match(address)) or re.match(r"^[A-Za-z0-9]+::", address):
            raise FetchError(f"{shown(address)} is a place on this machine, which a repository from elsewhere cannot name.")
        url, parent_url = urlsplit(address), urlsplit(parent)
        if url.scheme == parent_url.scheme and url.netloc == parent_url.netloc.rpartition("@")[2]:  # let in as its parent is
            address = url._replace(netloc=parent_url.netloc).geturl()
        elif url.netloc != parent_url.netloc:
            token = ""
        checkout(address, commit, timeout, target / path, key, token, exclude)
    except FetchError as error:
        raise FetchError(
            f"The git submodule {path} of the source cannot be fetched: {error}\n"
            f"Give git access to it, or add {os.path.basename(path)} to app_exclude where the app does not need it."
        ) from error


def checkout_folder(
    folder: Path, version: str, timeout: float, target: Path, credentials: tuple[str, str] = ("", ""), exclude: Iterable[str] = ()
) -> str:
    """Put the files of `folder`, which lies in a git work tree, at `version` into the new directory `target`.

    Returns:
        The commit's full hash.

    Raises:
        FetchError: when it lies in none, or there is no such version, or no such folder in it.
    """
    try:
        top = Path(git(["rev-parse", "--show-toplevel"], timeout, folder))
        inside = git(["rev-parse", "--show-prefix"], timeout, folder).rstrip("/")
    except FetchError as error:
        raise FetchError(
            f"app_version is {version}, and {folder} (app_source) lies in no git work tree that could be asked for it: leave "
            f"app_version empty to take the directory as it is.\n{error}"
        ) from error
    names = [f"refs/tags/{version}", f"refs/heads/{version}", version]
    commit = next(filter(None, (find_object(top, name) for name in names)), "")
    if not commit:
        raise FetchError(f"{top} has no branch, tag or commit {version}: app_version names one.")
    if not find_object(top, f"{commit}:{inside}", "tree"):
        raise FetchError(f"{version} (app_version) of {top} has no folder {inside} (app_source).")
    tree = f"{commit}:{inside}" if inside else commit
    _export(top, tree, timeout, target)
    for path, revision, place in submodules(top, tree, exclude):
        if find_object(folder / path, revision) and (folder / path / ".git").exists():
            checkout_folder(folder / path, revision, timeout, target / path, credentials, exclude)
        else:
            _submodule(path, revision, place, origin(top), timeout, target, credentials, exclude)
    return commit


def _export(repository: Path, tree: str, timeout: float, target: Path) -> None:
    """Put the files of a commit, or of a folder of one, into the new directory `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "files.tar")
        git(["archive", "--format=tar", f"--output={archive}", tree], timeout, repository)
        target.mkdir(exist_ok=True)  # git leaves an empty folder for a submodule
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="tar")  # git's own archive of a commit, whose links are judged later
