"""Lock files: those that are read here, those of other tools, and what they pin."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.controller.fetch.error import FetchError
from slipway.host.build.pins import plain

# What requirements made of a lock file are packed as, beside the app.
PINNED = "requirements.slipway.txt"

# Lock files of other tools, and what makes one of use here from them.
OTHER_LOCKS = {
    "poetry.lock": "`uv lock`, or `poetry export --with-hashes --output requirements.txt` (with poetry-plugin-export)",
    "pdm.lock": "`uv lock`, or `pdm export --format requirements --output requirements.txt`",
    "Pipfile.lock": "`pipenv requirements --hash > requirements.txt`",
}


def lock_digest(file: Path) -> str:
    """Return the digest of a requirements file and of those that it includes (40 hex digits)."""
    digest = hashlib.sha256()
    pending, seen = [file], set()
    while pending:
        path = pending.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        text = path.read_bytes()
        digest.update(text + b"\0")
        for name in re.findall(rb"^\s*(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)([^\s=]\S*)", text, re.MULTILINE):
            pending.append(path.parent / name.decode())
    return digest.hexdigest()[:40]


def package_at(lock: dict[str, Any], place: str) -> str:
    """Return the name of the package that lies at `place` for a uv.lock; empty if none does."""
    for package in lock.get("package", []):
        source = package.get("source", {})
        if os.path.normpath(source.get("editable") or source.get("virtual") or "/") == place:
            return str(package["name"])
    return ""


def local_packages(lock: dict[str, Any], root: str) -> Iterator[tuple[str, str]]:
    """Yield those packages of the source that a project in a uv.lock needs, itself included.

    Args:
        lock: what the file says.
        root: the project's name.

    Yields:
        The name of each, and its folder from that of the file.
    """
    pending: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen = set()
    while pending:
        name, extras = pending.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for package in (package for package in lock["package"] if package["name"] == name):
            source = package.get("source", {})
            place = source.get("editable") or source.get("directory")
            if place:
                yield name, place
            optional = package.get("optional-dependencies", {})
            needs = [*package.get("dependencies", []), *(need for extra in extras for need in optional.get(extra, []))]
            pending += [(need["name"], frozenset(need.get("extra", []))) for need in needs]


def check_fits(lock: dict[str, Any], name: str, project: dict[str, Any]) -> None:
    """Refuse a uv.lock that knows nothing of what its project depends on by now.

    Args:
        lock: what the file says.
        name: the project's name.
        project: what its pyproject.toml says.

    Raises:
        FetchError: when it lacks such a package; names it.
    """
    own = next(package for package in lock["package"] if package["name"] == name)
    known = {each["name"] for each in [*lock["package"], *own.get("metadata", {}).get("requires-dist", [])]}
    for need in project.get("project", {}).get("dependencies", []):
        if plain(need) not in known:
            raise FetchError(f"uv.lock of the source lacks {plain(need)}, which pyproject.toml names: run `uv lock` again.")


def pins(lock: dict[str, Any]) -> str:
    """Return the text of requirements, with hashes, that a pylock.toml stands for, whose own addresses lead to one index only.

    Raises:
        FetchError: when it has a package that comes from no index.
    """
    lines = ["--require-hashes"]
    for package in lock.get("packages", []):
        name, one = package["name"], package.get("archive", {})
        place = one.get("url") or (f"./{one['path']}" if "path" in one else "")
        files = [one] if place else [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if not place and (not files or "version" not in package):
            raise FetchError(f"{name} in the lock file comes from no package index: only its own address has it.")
        marker = f" ; {package['marker']}" if "marker" in package else ""
        hashes = sorted({f" --hash={kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()})
        lines.append(f"{name}{f' @ {place}' if place else '==' + package['version']}{marker}{''.join(hashes)}")
    return "\n".join(lines) + "\n"
