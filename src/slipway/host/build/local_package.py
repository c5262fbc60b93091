"""A folder of the source that its requirements name, and that is built and installed as a package, too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway.host.build.permissions import Refused, shown

# What a folder may be called that a build is told of: its name is put into the recipe of an image, too.
FOLDER = re.compile(r"\.|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def check_folder(relative: str, where: str) -> None:
    """Refuse a folder of the source, to be built as a package, whose name a build cannot be told.

    Args:
        relative: its path from the root.
        where: what names it.

    Raises:
        Refused: when it has a space, a quote or the like in its name.
    """
    if not FOLDER.fullmatch(relative):
        raise Refused(
            f"{where}: {relative!r}, a package of the source, has a name that cannot be passed to a build: rename the folder."
        )


class LocalPackage:
    """What the pyproject.toml of such a folder says.

    Args:
        folder: the folder.
        root: the source.
        where: what names the folder.
        toml: reads a file of that kind.

    Raises:
        Refused: when it is no package.
    """

    def __init__(self, folder: Path, root: Path, where: str, toml: Callable[[Path], dict[str, Any]]) -> None:
        self.relative = os.path.relpath(folder, root)
        self.where = where
        project = folder / "pyproject.toml"
        if not project.is_file() and not (folder / "setup.py").is_file():
            raise Refused(f"{where} installs {self.relative} of the source, which has neither a pyproject.toml nor a setup.py.")
        self.table: dict[str, Any] = toml(project).get("project", {}) if project.is_file() else {}
        self.name = str(self.table.get("name") or self.relative)
        self.place = f"{os.path.relpath(project, root)} (dependencies)"

    @property
    def resolve(self) -> bool:
        """Whether it says only when it is built what it depends on."""
        return not self.table or "dependencies" in self.table.get("dynamic", [])

    def needs(self, extras: list[str]) -> list[str]:
        """Return what it depends on with some `extras`, as far as that is written down.

        Raises:
            Refused: when it has no such extra, or names what is no requirement.
        """
        optional = {plain_name(extra): needs for extra, needs in self.table.get("optional-dependencies", {}).items()}
        for extra in extras:
            if plain_name(extra) not in optional:
                raise Refused(
                    f"{self.where} requires the extra {extra} of {self.relative}, which no [project.optional-dependencies] in "
                    "its pyproject.toml defines: put its packages into the file."
                )
        own = plain_name(str(self.table.get("name", "")))
        needs, pending, done = list(self.table.get("dependencies", [])), [plain_name(extra) for extra in extras], set()
        while pending:
            extra = pending.pop()
            if extra in done:
                continue
            done.add(extra)
            for need in optional.get(extra, []):
                itself = re.match(r"^([A-Za-z0-9._-]+)\s*\[([^\]]*)\]", need)
                if itself and plain_name(itself[1]) == own:
                    pending += [plain_name(more) for more in itself[2].split(",")]
                else:
                    needs.append(need)
        needs = [" ".join(need.split()) for need in needs]
        for need in needs:
            if not re.match(r"[A-Za-z0-9]", need) or re.search(r"\s-|\\", need):  # in a requirements file it would say more
                raise Refused(f"{self.place} has {shown(need)!r}, which is not a valid requirement: correct it.")
        return needs


def plain_name(text: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", text.strip()).lower()
