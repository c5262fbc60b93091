"""The submodules of a git repository: which there are, and where they come from."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.git import find_object, git

# An address of another machine: an URL, or as ssh has it.
REMOTE = re.compile(r"^((https?|ssh|git)://|[^/:]+:(?!//))")


def submodules(repository: Path, tree: str, exclude: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return the submodules of a commit, or of a folder of one: path, commit, and address as .gitmodules has it.

    Args:
        repository: a clone.
        tree: the commit, or `commit:folder`.
        exclude: names that are left out.

    Raises:
        FetchError: when .gitmodules has no address for one.
    """
    entries = git(["ls-tree", "-r", "-z", tree], 60, repository).split("\0")
    found = [entry.partition("\t") for entry in entries if entry.startswith("160000 ")]
    selected = [
        (facts.split()[2], path)
        for facts, _, path in found
        if not any(fnmatch(part, pattern) for part in path.split("/") for pattern in exclude)
    ]
    if not selected:
        return []
    commit, _, folder = tree.partition(":")
    listed = ""
    if find_object(repository, f"{commit}:.gitmodules", "blob"):
        listed = git(["config", "--blob", f"{commit}:.gitmodules", "--null", "--list"], 60, repository)
    facts = dict(entry.partition("\n")[::2] for entry in listed.split("\0") if entry)
    places = {
        value: facts.get(f"{name.removesuffix('.path')}.url", "")
        for name, value in facts.items()
        if name.startswith("submodule.") and name.endswith(".path")
    }
    result = []
    for commit, path in selected:
        place = places.get(f"{folder}/{path}" if folder else path, "")
        if not place:
            raise FetchError(
                f"{path} of the source is a git submodule without an address in .gitmodules: add that, or add "
                f"{os.path.basename(path)} to app_exclude."
            )
        result.append((path, commit, place))
    return result


def relative_to(parent: str, place: str) -> str:
    """Return the address that a submodule's relative one stands for."""
    base = parent.rstrip("/")
    while place.startswith(("./", "../")):
        step, _, place = place.partition("/")
        if step == "..":
            cut = max(base.rfind("/"), base.rfind(":") if "://" not in base else -1)
            separator, base = base[cut], base[:cut]
            if separator == ":":
                return f"{base}:{place}"
    return f"{base}/{place}"


def origin(top: Path) -> str:
    """Return the address that a work tree was cloned from; its own path if it was made here."""
    try:
        return git(["remote", "get-url", "origin"], 60, top)
    except FetchError:
        return str(top)


def check_submodules(root: Path, exclude: Iterable[str]) -> None:
    """Refuse a work tree with a submodule that is not checked out: the app would lack its files.

    Raises:
        FetchError: when there is one.
    """
    names = root / ".gitmodules"
    if not names.is_file() or shutil.which("git") is None:
        return
    listed = git(["config", "--file", str(names), "--null", "--list"], 60, root)
    for entry in listed.split("\0"):
        name, _, path = entry.partition("\n")
        if not name.endswith(".path") or any(fnmatch(part, pattern) for part in path.split("/") for pattern in exclude):
            continue
        if not (root / path).is_dir() or not any((root / path).iterdir()):
            raise FetchError(
                f"The git submodule {path} of app_source is not checked out: run `git submodule update --init --recursive` "
                f"there, or add {os.path.basename(path)} to app_exclude where the app does not need it."
            )
