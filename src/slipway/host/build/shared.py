"""Paths within an app that lie in its shared directory: links in the build, and apart from them what the source has there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slipway.host.errors import ReleaseError
from slipway.host.files import remove

# The folder of a build with what its source has at such paths, by their names below shared/.
SEEDS = ".slipway-shared"


class Entry(NamedTuple):
    """One path of app_shared.

    Attributes:
        path: the path, from the app's directory.
        name: what it is called below shared/.
        folder: whether it is a folder, if the source has nothing there.
    """

    path: str
    name: str
    folder: bool


def entries(shared: Mapping[str, str]) -> list[Entry]:
    """Return what app_shared says: an empty name is that of the path, and a name with an extension is a file's."""
    found = []
    for key, value in sorted(shared.items()):
        path = key.rstrip("/")
        plain = "." not in os.path.basename(path).lstrip(".")
        found.append(Entry(path, value.rstrip("/") or path, plain or key.endswith("/")))
    return found


def links(directory: str, shared: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return where the links of a build lead, by their paths from its root.

    Args:
        directory: the app's directory in the build.
        shared: app_shared.
        home: the app's home.
    """
    return {os.path.normpath(f"{directory}/{each.path}"): f"{home}/shared/{each.name}" for each in entries(shared)}


def link_shared(partial: Path, source: Mapping[str, Any], shared: Mapping[str, str], home: Path) -> None:
    """Put links into a build that is not finished, and keep apart what the source has in their places.

    Args:
        partial: the build; nobody else may write to it.
        source: its `directory`, and its `requirements` from there.
        shared: app_shared.
        home: the app's home.

    Raises:
        ReleaseError: when a path holds code, or leads through a link.
    """
    remove(partial / SEEDS)
    for entry in entries(shared):
        path = partial / source["directory"] / entry.path
        flaw = unfit(partial, path, source)
        if flaw:
            raise ReleaseError(f"app_shared names {entry.path}, {flaw}.")
        if path.exists():
            seed = partial / SEEDS / entry.name
            seed.parent.mkdir(parents=True, exist_ok=True)
            path.rename(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(f"{home}/shared/{entry.name}")


def unfit(partial: Path, path: Path, source: Mapping[str, Any]) -> str:
    """Say what keeps a path of a build from being shared; empty if nothing does."""
    for place in (path, *path.parents):
        if place == partial:
            break
        if place.is_symlink():
            return f"and {os.path.relpath(place, partial)} is a link in the source: name what it leads to"
        if place != path and place.exists() and not place.is_dir():
            return f"and {os.path.relpath(place, partial)} is a file in the source"
    if path == partial / source["directory"] / source["requirements"]:
        return "which lists the app's requirements"
    found = code_in(path)
    return f"which holds code ({found}): each release has its own, so name only what the app writes" if found else ""


def code_in(path: Path) -> str:
    """Return a file of code that a path is, or that lies in it, from where it lies; empty if there is none."""
    files = [path] if path.suffix == ".py" else path.rglob("*.py") if path.is_dir() else []
    return next((os.path.relpath(each, path.parent) for each in files), "")
