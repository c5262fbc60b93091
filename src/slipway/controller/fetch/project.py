"""The files of a source that may name what the app depends on, and the best of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.locks import OTHER_LOCKS, package_at
from slipway.controller.fetch.pyproject import toml


class Project:
    """The folder of a source that holds the app.

    Args:
        root: the source.
        directory: the folder in it.
        exclude: names of files that no host will see.
    """

    def __init__(self, root: Path, directory: str, exclude: list[str]) -> None:
        self.root = root
        self.directory = directory
        self.folder = root / directory
        self.exclude = exclude

    def has(self, file: Path) -> bool:
        """Say whether a host will see `file` of the source."""
        parts = file.relative_to(self.root).parts
        return file.is_file() and not any(fnmatch(part, pattern) for part in parts for pattern in self.exclude)

    def named(self, name: str) -> tuple[Path, Path]:
        """Return the file `name`, and the folder of the project that it is meant for.

        Raises:
            FetchError: when there is none.
        """
        if name == "uv.lock":
            found = next(self._uv_locks(), None)
            if found:
                return found
        file = self.folder / name
        if not self.has(file):
            raise FetchError(
                f"The source has no {file.relative_to(self.root)}: app_requirements (now {name}) and "
                f"app_directory (now {self.directory}) name it. There: {self._there()}."
            )
        if name == "uv.lock":
            raise FetchError(f"uv.lock of the source has no project {self.directory} (app_directory): run `uv lock` again.")
        return file, self.folder

    def found(self) -> tuple[Path, Path]:
        """Return the best file that is there, and the folder of the project that it is meant for.

        Raises:
            FetchError: when there is none; names what to do.
        """
        plain = self.folder / "requirements.txt"
        if self.has(plain) and "--hash=" in plain.read_text(encoding="utf-8", errors="replace"):
            return plain, self.folder
        lock = next(self._uv_locks(), None)
        if lock:
            return lock
        for file in (self.folder / "pylock.toml", plain, self.folder / "pyproject.toml"):
            if self.has(file):
                return file, self.folder
        self.check_other_locks()
        if self.has(self.folder / "setup.py"):
            raise FetchError(
                f"The source has a setup.py in {self.directory} (app_directory) and no file that names its dependencies: add a "
                "requirements.txt with the line `.`, which has the package built and asked for them."
            )
        raise FetchError(
            f"The source has no requirements.txt, uv.lock, pylock.toml or pyproject.toml in {self.directory} (app_directory); "
            f"app_requirements names another file. There: {self._there()}."
        )

    def check_other_locks(self) -> None:
        """Refuse a project whose versions another tool has locked: what pyproject.toml leaves open would be chosen anew.

        Raises:
            FetchError: when there is such a lock; it names the command that makes one of use here.
        """
        for name, command in OTHER_LOCKS.items():
            if self.has(self.folder / name):
                raise FetchError(
                    f"The source has {name}, which is not read here: run {command}, and add the result to the source; "
                    "or set app_requirements: pyproject.toml to have the newest versions that fit."
                )

    def _there(self) -> str:
        found = sorted(path.name for path in self.folder.glob("*") if path.suffix in (".txt", ".in", ".toml", ".lock"))
        return ", ".join(found) or "no file of that kind"

    def _uv_locks(self) -> Iterator[tuple[Path, Path]]:
        """Yield each uv.lock from the folder upwards, with the folder of the project in it that the app is."""
        project = None
        for folder in (self.folder, *self.folder.parents):
            if not folder.is_relative_to(self.root):
                return
            lock = folder / "uv.lock"
            if project is None and self.has(folder / "pyproject.toml"):
                project = folder
            if project and self.has(lock) and package_at(toml(lock), os.path.relpath(project, folder)):
                yield lock, project
