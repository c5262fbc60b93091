"""What a source's requirements files say beyond names and versions: honoured where that is safe, and refused where it is not.

The controller asks before anything is changed on a host, and a host for what is added there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slipway.host.build.local_package import LocalPackage, check_folder
from slipway.host.build.permissions import Allowed, Refused, shown
from slipway.host.build.requirement_text import OTHER_ENCODING, first_option, logical, misread

# How [tool.uv] and uv.toml say the same.
SETTINGS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "index": "--extra-index-url",
    "find-links": "--find-links",
    "allow-insecure-host": "--trusted-host",
    "no-binary": "--no-binary",
    "no-binary-package": "--no-binary",
}


class Found(NamedTuple):
    """What is to be done for requirements files besides installing from them.

    Attributes:
        packages: folders of the source, from its root, that are packages and are built and installed, too.
        resolve: whether one of them says only when it is built what it depends on.
        replaced: files, from the root, with the text that stands for theirs: the lines that name these packages are replaced by
            what those depend on.
    """

    packages: dict[str, str]
    resolve: bool
    replaced: dict[str, str]


class Requirements:
    """The requirements files of a source.

    Args:
        root: the source.
        folder: the folder in it in which the installer runs.
        allowed: what they may say.
        toml: reads a file of that kind.
    """

    def __init__(self, root: Path, folder: Path, allowed: Allowed, toml: Callable[[Path], dict[str, Any]]) -> None:
        self.toml = toml
        self.root = Path(os.path.realpath(root))
        self.folder = Path(os.path.realpath(folder))
        self.allowed = allowed
        self.found = Found({}, False, {})
        self.resolve = False
        self.seen: set[Path] = set()

    def read(self, file: Path) -> Found:
        """Return what is to be done for `file` and those that it includes.

        Raises:
            Refused: when one of them says what cannot be done.
        """
        self._file(Path(os.path.realpath(file)))
        return self.found._replace(resolve=self.resolve)

    def check(self, requirement: str, where: str) -> None:
        """Refuse a requirement of a pyproject.toml that names a place which no host can, or may, install from.

        Raises:
            Refused: when it does.
        """
        name, at, place = requirement.partition(" @ ") if " @ " in requirement else requirement.partition("@")
        if at:
            self._place(place.partition(" ;")[0].strip(), where, name.strip())

    def settings(self, tables: Mapping[str, Any], where: str) -> None:
        """Refuse what the settings of uv in a pyproject.toml or uv.toml say, as the same in a requirements file.

        Raises:
            Refused: when one of them is not the operator's.
        """
        for table in (tables, tables.get("pip", {})):
            for name, option in SETTINGS.items():
                values = table.get(name, [])
                for value in values if isinstance(values, list) else [values]:
                    text = str(value.get("url", "") if isinstance(value, dict) else value)
                    explicit = isinstance(value, dict) and value.get("explicit")
                    own = name == "find-links" and self._within(self.folder, text) is not None
                    if value is not False and not explicit and not own:
                        self.allowed.check_option(option, text, f"{where}, setting {name},")

    def _file(self, file: Path) -> None:
        if file in self.seen or not file.is_file():
            return  # one that is not there is missed by the installer, if no hook makes it
        self.seen.add(file)
        name, content = file.relative_to(self.root), file.read_bytes()
        if OTHER_ENCODING.match(content):
            raise Refused(f"{name} is not in UTF-8, or says so: save it as that.")
        text = content.decode("utf-8-sig", "surrogateescape")
        if misread(text):
            raise Refused(
                f"{name}:{misread(text)} is not read alike by all installers: write a backslash at the end of a line only, after "
                "a space and not in a comment, and end lines as usual."
            )
        lines: list[str | None] = list(text.splitlines())
        changed = False
        for first, last, line in logical(text):
            instead = self._line(line, file, f"{name}:{first}")
            if instead is not None:
                changed = True
                lines[first - 1] = "\n".join([f"# {line} (built by itself)", *instead])
                lines[first:last] = [None] * (last - first)
        if changed:
            kept = "\n".join(line for line in lines if line is not None)
            self.found.replaced[str(name)] = kept + "\n"

    def _line(self, line: str, file: Path, where: str) -> list[str] | None:
        """Judge a line, and return the lines that take its place; None where it stays."""
        if not line.startswith("-"):
            return self._requirement(line, file, where)
        try:
            arguments = shlex.split(line)
        except ValueError as error:
            raise Refused(f"{where} cannot be read: {error}.") from error
        while arguments:
            option, value, arguments = first_option(arguments)
            if option == "--editable":
                return self._requirement(" ".join([value, *arguments]), file, where)
            if option in ("--requirement", "--constraint"):
                self._include(value, file, where)
            elif option == "--find-links" and self._within(file.parent, value) is not None:
                continue  # wheels of the source's own
            else:
                self.allowed.check_option(option, value, where)
        return None

    def _include(self, name: str, file: Path, where: str) -> None:
        if "://" in name:
            raise Refused(f"{where} includes {shown(name)}: put that file into the source, and include it by its path.")
        path = self._within(file.parent, name)
        if path is None:
            raise Refused(f"{where} includes {name}, which is outside the source: make app_source the folder of both.")
        self._file(path)

    def _requirement(self, line: str, file: Path, where: str) -> list[str] | None:
        """Judge a requirement; where it is a folder of the source, have that built, and return what it depends on."""
        line = re.split(r"\s--[a-z]", line, maxsplit=1)[0].strip()
        direct = re.match(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*@\s*(.+)$", line)
        local = re.match(r"^(\.|/|~|[A-Za-z+]+://|file:|git@)", line) or re.match(r"^[^\s;=<>!~\[]*/", line)
        if not direct and not local and not re.fullmatch(r"\S+\.whl", line):
            return None
        name, extras, place = (direct[1], direct[2] or "", direct[3]) if direct else ("", "", line)
        place = re.split(r"\s;|;\s", place, maxsplit=1)[0].strip()
        if re.match(r"^[A-Za-z+]+://|^file:/|^git@|^/|^~", place):
            self._place(place, where, name)
            return None
        place = place.removeprefix("file:")
        if place.endswith("]"):
            place, _, extras = place.removesuffix("]").partition("[")
        folders = (self._within(base, place) for base in (self.folder, file.parent))
        folder = next((path for path in folders if path is not None and path.is_dir()), None)
        if folder is None:
            self._place(place, where, name)
            return None
        return self._package(folder, [extra.strip() for extra in extras.strip("[]").split(",") if extra.strip()], where)

    def _place(self, place: str, where: str, name: str) -> None:
        """Refuse a place that no host can, or may, install from."""
        self.allowed.check_place(place, self._within(self.folder, place), where, name)

    def _package(self, folder: Path, extras: list[str], where: str) -> list[str]:
        """Have a folder of the source built as a package, and return what it depends on as far as that is written down."""
        relative = os.path.relpath(folder, self.root)
        check_folder(relative, where)
        if self.allowed.installer == "pip":
            raise Refused(f"{where} installs {relative} of the source itself, which needs python_installer: uv.")
        package = LocalPackage(folder, self.root, where, self.toml)
        self.found.packages[package.name] = relative
        self.resolve = self.resolve or package.resolve
        needs = package.needs(extras)
        for need in needs:
            self.check(need, package.place)
        return needs

    def _within(self, base: Path, name: str) -> Path | None:
        """Return the file or folder `name` of the source; None where that is somewhere else."""
        if "://" in name or os.path.isabs(name):
            return None
        path = Path(os.path.realpath(base / name))
        return path if path == self.root or self.root in path.parents else None
