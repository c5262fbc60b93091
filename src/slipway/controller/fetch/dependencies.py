"""What an app depends on: the file of its source that names it, and what a host must know of that."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slipway.controller import interpreter as interpreters
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.export import EXPORTED, export
from slipway.controller.fetch.locks import PINNED, check_fits, local_packages, lock_digest, package_at, pins
from slipway.controller.fetch.project import Project
from slipway.controller.fetch.pyproject import check_supported, is_package, toml
from slipway.host.build.local_package import check_folder
from slipway.host.build.permissions import Allowed
from slipway.host.build.requirement_text import hashed
from slipway.host.build.requirements import Requirements


class Dependencies:
    """The file of a source that names what the app depends on.

    Args:
        root: the source.
        directory: the folder in it that holds the app.
        exclude: names of files that no host will see.
        allowed: what its files may say of where packages come from.
    """

    def __init__(self, root: Path, directory: str, exclude: list[str], allowed: Allowed) -> None:
        self.root = root
        self.allowed = allowed
        self.project = Project(root, directory, exclude)
        self.folder = self.project.folder
        self.files = Requirements(root, self.folder, allowed, toml)

    def facts(self, named: str, elsewhere: bool, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return what a host must know to install them.

        Args:
            named: the file, from the folder; empty for the best that is there.
            elsewhere: whether the packages come from another place than a lock file says.
            environment: that of the installer.

        Returns:
            `kind`, `requirements` (the file to install from, as a path from the folder), `lock` (a digest of all that decides
            what is installed), `packages` (what else is built from the source: names to folders), `resolve` (whether what these
            depend on is not known before they are built), `hashed` (whether the file has hashes), `python` (what is asked of
            the interpreter) and `replaced` (files that are packed with another text, or that the source does not have).

        Raises:
            FetchError: when there is no such file, or it cannot be used.
            Refused: when it says what only the operator may.
            Unreadable: when what it asks of the interpreter is no version.
        """
        file, start = self.project.named(named) if named else self.project.found()
        kind = kind_of_file(file.name)
        facts: dict[str, Any] = {
            "kind": kind,
            "requirements": os.path.relpath(file, self.folder),
            "packages": {},
            "resolve": False,
            "replaced": {},
            "hashed": hashed(file, self.root) if kind == "requirements" else kind in ("uv.lock", "pylock"),
            "python": self._demands(file, start),
        }
        if kind == "requirements":
            return {**facts, **self._requirements(file)}
        if self.allowed.installer == "pip":
            raise FetchError(
                f"pip does not install from {facts['requirements']}: set python_installer: uv, or have app_requirements name a "
                "requirements file."
            )
        if kind == "pyproject" and not named:
            self.project.check_other_locks()
        packages = self._local(file, start) if kind == "uv.lock" else self._own_package(kind)
        text = ""
        if kind == "uv.lock":
            if elsewhere:  # otherwise the addresses in it count, with a hash for each
                self._check_settings(packages.values())
            text = export(self.project, file, start, packages, environment)
            facts.update(kind="pylock", requirements=EXPORTED)
        if elsewhere and kind != "pyproject":
            text = pins(tomllib.loads(text) if text else toml(file))
            facts.update(kind="requirements", requirements=PINNED)
        if text:
            facts["replaced"] = {str(self.files.folder.relative_to(self.files.root) / facts["requirements"]): text}
        return {**facts, "lock": self._digest(text.encode() or file.read_bytes(), file.parent, start), "packages": packages}

    def _requirements(self, file: Path) -> dict[str, Any]:
        """Return what is told of a requirements file, and of those that it includes."""
        found = self.files.read(file)
        if self.allowed.installer == "uv":
            self._check_settings(found.packages.values())
        return {"lock": lock_digest(file), **found._asdict()}

    def _own_package(self, kind: str) -> dict[str, str]:
        """Return the package that the folder itself is; its pyproject.toml has to be of use if that is the file (of `kind`)."""
        own = self.folder / "pyproject.toml"
        declared = toml(own) if self.project.has(own) else {}
        if kind == "pyproject":
            check_supported(declared, self.project.has(self.folder / "poetry.lock"))
            for need in declared["project"].get("dependencies", []):
                self.files.check(need, "pyproject.toml (dependencies)")
        packages = {str(declared.get("project", {}).get("name", "")): self.project.directory} if is_package(declared) else {}
        self._check_settings(packages.values())
        return packages

    def _local(self, file: Path, start: Path) -> dict[str, str]:
        """Return those packages of the source that a project in a uv.lock needs: their names, and their folders from the root."""
        lock = toml(file)
        own = package_at(lock, os.path.relpath(start, file.parent))
        check_fits(lock, own, toml(start / "pyproject.toml"))
        return {name: self._inside(name, file.parent / place) for name, place in local_packages(lock, own)}

    def _inside(self, name: str, folder: Path) -> str:
        path = os.path.relpath(os.path.normpath(folder), self.root)
        if path == ".." or path.startswith("../"):
            raise FetchError(f"uv.lock takes {name} from {folder}, outside the source: make app_source the folder of both.")
        check_folder(path, "uv.lock")
        return path

    def _demands(self, file: Path, start: Path) -> list[dict[str, Any]]:
        """Return what the source asks of the interpreter: its project, its lock file, and .python-version."""
        places = [place for place in {start / "pyproject.toml": 0, self.folder / "pyproject.toml": 0} if self.project.has(place)]
        declared = [(place, toml(place).get("project", {}).get("requires-python")) for place in places]
        if file.suffix in (".lock", ".toml") and file.name != "pyproject.toml":
            declared.append((file, toml(file).get("requires-python")))
        found = [
            interpreters.demand(f"{os.path.relpath(place, self.root)} (requires-python)", str(version), str(version))
            for place, version in declared
            if version
        ]
        pinned = interpreters.nearest(self.folder, self.root, ".python-version")
        if pinned is not None and self.project.has(pinned):
            found += interpreters.pinned(pinned, os.path.relpath(pinned, self.root))
        return found

    def _check_settings(self, packages: Iterable[str]) -> None:
        """Refuse settings of uv that are the operator's to make: uv reads those of a folder and of all above it.

        Args:
            packages: folders of what else is built from the source.
        """
        folders = {self.folder, *(self.root / folder for folder in packages)}
        places = {place for folder in folders for place in (folder, *folder.parents) if place.is_relative_to(self.root)}
        for place in (folder / name for folder in sorted(places) for name in ("pyproject.toml", "uv.toml")):
            if self.project.has(place):
                tables = toml(place)
                tables = tables.get("tool", {}).get("uv", {}) if place.name == "pyproject.toml" else tables
                self.files.settings(tables, str(place.relative_to(self.root)))

    def _digest(self, text: bytes, *folders: Path) -> str:
        """Return the digest of what is installed from, and of what says in some folders how that is meant (40 hex digits)."""
        digest = hashlib.sha256(text)
        for folder in sorted(set(folders)):
            for each in (folder / "pyproject.toml", folder / "uv.toml"):
                digest.update(b"\0" + (each.read_bytes() if self.project.has(each) else b""))
        return digest.hexdigest()[:40]


def kind_of_file(name: str) -> str:
    """Say of which kind a file is, by its name: uv.lock, pyproject, pylock or requirements."""
    if name in ("uv.lock", "pyproject.toml"):
        return name.removesuffix(".toml")
    return "pylock" if re.fullmatch(r"pylock(\.[^.]+)?\.toml", name) else "requirements"
