"""Lock files: those that are read here, those of other tools, and what they pin."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.controller.fetch.error import FetchError

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


def local_packages(lock: dict[str, Any], wanted: str) -> Iterator[tuple[str, str]]:
    """Yield those packages of the source that a project in a uv.lock needs, itself included.

    Args:
        lock: what the file says.
        wanted: the project's name.

    Yields:
        The name of each, and its folder from that of the file.
    """
    pending: list[tuple[str, frozenset[str]]] = [(wanted, frozenset())]
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


def pins(lock: dict[str, Any]) -> list[str]:
    """Return the requirements, with hashes, that a pylock.toml stands for, whose own addresses lead to one index only.

    Raises:
        FetchError: when it has a package that comes from no index.
    """
    lines = []
    for package in lock.get("packages", []):
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        if not files or "version" not in package:
            raise FetchError(f"{package['name']} in pylock.toml comes from no package index: only its own address has it.")
        marker = f" ; {package['marker']}" if "marker" in package else ""
        hashes = sorted({f" --hash={kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()})
        lines.append(f"{package['name']}=={package['version']}{marker}{''.join(hashes)}")
    return lines
