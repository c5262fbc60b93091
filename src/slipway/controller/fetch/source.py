"""A source of any kind, fetched into a directory of the controller."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from slipway.controller.fetch.archive import unpack
from slipway.controller.fetch.cache import cache_directory
from slipway.controller.fetch.checkout import checkout, checkout_folder
from slipway.controller.fetch.download import obtain
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.hooks import run_hook
from slipway.controller.fetch.kind import PACKAGE, WHEEL, is_url, kind_of, on_this_machine, shown
from slipway.controller.fetch.pack import pack
from slipway.controller.fetch.package import stand_in, wheel_demands
from slipway.controller.fetch.submodules import check_submodules


@dataclass(frozen=True)
class SourceRequest:
    """What the operator asks for.

    Attributes:
        source: a directory, git repository, archive, wheel, or package.
        version: the branch, tag or commit; empty for the default.
        checksum: the digest of an archive or a wheel.
        directory: the folder of the source that holds the app.
        key: the file of a private key for git.
        token: a token for git.
        exclude: names of files and folders that are left out, with wildcards.
        timeout: seconds that git, or a download, may take.
        hooks: the operator's commands, by name.
        hook_timeout: seconds that one of them may take.
    """

    source: str
    version: str
    checksum: str
    directory: str
    key: str = field(repr=False)
    token: str = field(repr=False)
    exclude: list[str]
    timeout: float
    hooks: Mapping[str, str]
    hook_timeout: float

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> SourceRequest:
        """Return what a task's `arguments` ask for."""
        text = {name: str(arguments.get(name) or "") for name in ("source", "version", "checksum", "git_key", "git_token")}
        return cls(
            on_this_machine(text["source"]),
            text["version"],
            text["checksum"],
            str(arguments.get("directory") or "."),
            text["git_key"],
            text["git_token"],
            list(arguments.get("exclude") or []),
            float(arguments["timeout"]),
            {name: str(command or "") for name, command in (arguments.get("hooks") or {}).items()},
            float(arguments.get("hook_timeout") or 300),
        )

    def hook(self, name: str, directory: Path) -> None:
        """Run one of the operator's commands, if it is set."""
        run_hook(name, self.hooks.get(name, ""), self.hook_timeout, directory)


@dataclass(frozen=True)
class Fetched:
    """A source in a directory of the controller.

    Attributes:
        root: the directory.
        revision: the source's own name for what it is; empty if it has none.
        origin: what is said of where it comes from.
        demands: what it asks of the interpreter by itself.
    """

    root: Path
    revision: str
    origin: str
    demands: list[dict[str, Any]] = field(default_factory=list)


def fetch(request: SourceRequest, scratch: Path) -> Fetched:
    """Fetch a source, which lies in `scratch` then unless it is a directory as it is.

    Raises:
        FetchError: when it cannot be had.
    """
    source, version = request.source, request.version
    kind = kind_of(source)
    if kind == "directory":
        return _directory(request, scratch)
    if kind in ("package", "wheel") and request.directory != ".":
        raise FetchError(f"app_source is a {kind}, which has no folders: leave app_directory as '.'.")
    request.hook("before_fetch", scratch)
    if kind == "git":
        target = scratch / "source"
        commit = checkout(source, version, request.timeout, target, request.key, request.token, request.exclude)
        return Fetched(target, commit, shown(source))
    if kind == "package":
        found = PACKAGE.fullmatch(source)
        return Fetched(stand_in(source, source, scratch), version or (found["version"] if found else ""), "package")
    file = obtain(source, request.checksum, request.timeout)
    name = os.path.basename(unquote(urlsplit(source).path) if is_url(source) else source)
    origin = shown(source) if is_url(source) else name
    if kind == "wheel":
        found = WHEEL.fullmatch(name)
        root = stand_in(source, f"./{name}", scratch, file)
        return Fetched(root, version or (found["version"] if found else ""), origin, wheel_demands(file, name))
    return Fetched(unpack(file, name, scratch), version, origin)


def _directory(request: SourceRequest, scratch: Path) -> Fetched:
    """Return a directory of this machine, as it is or as it was in one version."""
    root = Path(request.source).expanduser().resolve()
    if not root.is_dir():
        raise FetchError(f"app_source is {request.source}: there is no such directory on this machine, and it is no git address.")
    request.hook("before_fetch", root)
    if not request.version:
        check_submodules(root, request.exclude)
        return Fetched(root, "", "directory")
    target, credentials = scratch / "source", (request.key, request.token)
    commit = checkout_folder(root, request.version, request.timeout, target, credentials, request.exclude)
    return Fetched(target, commit, "directory")


def pack_wheels(place: str) -> dict[str, str]:
    """Return the packed wheelhouse at `place` and its digest; empty if there is none.

    Raises:
        FetchError: when no wheels are there.
    """
    if not place:
        return {}
    directory = Path(place).expanduser().resolve()
    wheels = sorted(directory.glob("*.whl"))
    if not wheels:
        raise FetchError(f"app_wheelhouse is {place}: there are no wheels (*.whl) in it on this machine.")
    digest, archive = pack(directory, [], cache_directory(), wheels)
    return {"archive": str(archive), "digest": digest}
