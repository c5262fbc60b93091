"""What a source's requirements files say beyond names and versions: honoured where that is safe, and refused where it is not.

The controller asks before anything is changed on a host, and a host for what is added there.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PYPI = "https://pypi.org/simple"

# The options that decide something here, by their short names; pip knows a long one by its beginning, too.
SHORT = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}
LONG = (
    *SHORT.values(),
    "--extra-index-url",
    "--pypi-url",
    "--trusted-host",
    "--no-binary",
    "--only-binary",
    "--pre",
    "--no-index",
    "--prefer-binary",
    "--require-hashes",
    "--use-feature",
)
FLAGS = ("--pre", "--no-index", "--prefer-binary", "--require-hashes")

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

ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip)$", re.IGNORECASE)
VERSION_CONTROL = re.compile(r"^(git|hg|svn|bzr)(\+|:)|^git@")


# Other ends of lines than the usual.
ODD_ENDS = re.compile(r"[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

# What says that a file is not in UTF-8: its first bytes, or a comment in one of its first two lines.
OTHER_ENCODING = re.compile(rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff|(?:.*\n)?#.*coding[:=]\s*(?!utf-?8\b)[-\w.]", re.IGNORECASE)

# What a folder may be called that a build is told of: its name is put into the recipe of an image, too.
FOLDER = re.compile(r"\.|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class Refused(Exception):
    """A file of the source says what cannot be done as it is; the text names the file, the line and the remedy."""


class Allowed(NamedTuple):
    """What the operator lets a source say.

    Attributes:
        default: the address of the package index; empty for PyPI.
        more: the addresses of further ones.
        source_builds: whether packages may be built from source.
        installer: `uv` or `pip`.
    """

    default: str
    more: tuple[str, ...]
    source_builds: bool
    installer: str

    @classmethod
    def of(cls, environment: Mapping[str, str], source_builds: bool, installer: str) -> Allowed:
        """Return what the installer's `environment` lets it use."""
        more = environment.get("UV_INDEX") or environment.get("PIP_EXTRA_INDEX_URL") or ""
        return cls(
            str(environment.get("UV_DEFAULT_INDEX") or environment.get("PIP_INDEX_URL") or ""),
            tuple(str(more).split()),
            source_builds,
            installer,
        )


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


def logical(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the lines of a requirements file: the numbers of the first and the last, from 1, and the text without comments."""
    begin, parts = 0, []
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        begin = begin or number
        goes_on = line.endswith("\\") and not line.lstrip().startswith("#")
        parts.append(line[:-1] if goes_on else line)
        if goes_on and number < len(lines):
            continue
        whole = re.sub(r"(^|\s)#.*$", "", " ".join(part.strip() for part in parts)).strip()
        if whole:
            yield begin, number, whole
        begin, parts = 0, []


def misread(text: str) -> int:
    """Return the number, from 1, of the first line of a requirements file that not all installers read alike; 0 for none.

    For some a comment goes on after a backslash, and a word as well; and not all take the same characters for the end of a line.
    """
    for number, line in enumerate(re.split(r"\r\n|\n", text), start=1):
        said, mark, _ = re.match(r"(.*?)((?:^|\s)#|$)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        goes_on = said.endswith("\\") and not mark
        said = said[:-1] if goes_on else said
        if (
            ODD_ENDS.search(line)
            or "\\" in said
            or (goes_on and said and said[-1] not in " \t")
            or (mark and said.strip() and line.endswith("\\"))
        ):
            return number
    return 0


def hashed(file: Path, root: Path) -> bool:
    """Say whether a requirements file, or one that it includes, has hashes, which are enforced then for all that it names.

    Args:
        file: the requirements file.
        root: the source. A file elsewhere, a link to one included, is not read.
    """
    place, pending, seen = os.path.realpath(root), [file], set[Path]()
    while pending:
        path = Path(os.path.realpath(pending.pop()))
        if path in seen or not f"{path}".startswith(f"{place}/") or not path.is_file():
            continue
        seen.add(path)
        for _, _, line in logical(path.read_text(encoding="utf-8-sig", errors="surrogateescape")):
            if "--hash=" in line or line == "--require-hashes":
                return True
            found = re.match(r"(?:-r|-c|--requirement|--constraint)[ =]*(\S.*)", line)
            if found:
                pending.append(path.parent / found[1].strip("\"' "))
    return False


def check_folder(relative: str, where: str) -> None:
    """Refuse a folder of the source, to be built as a package, whose name a build cannot be told.

    Args:
        relative: its path from the root.
        where: what names it.

    Raises:
        Refused: when it has a space, a quote or the like in its name.
    """
    if not FOLDER.fullmatch(relative):
        raise Refused(f"{where}: {relative!r}, a package of the source, has a name that no build can be told: rename the folder.")


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
                        self._option(option, text, f"{where}, setting {name},")

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
            words = shlex.split(line)
        except ValueError as error:
            raise Refused(f"{where} cannot be read: {error}.") from error
        while words:
            option, value, words = self._taken(words)
            if option == "--editable":
                return self._requirement(" ".join([value, *words]), file, where)
            if option in ("--requirement", "--constraint"):
                self._include(value, file, where)
            elif option == "--find-links" and self._within(file.parent, value) is not None:
                continue  # wheels of the source's own
            else:
                self._option(option, value, where)
        return None

    @staticmethod
    def _taken(words: list[str]) -> tuple[str, str, list[str]]:
        """Return the first option of a line by its long name, its value, and the rest."""
        word, *rest = words
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = next((long for long in LONG if long.startswith(name) and len(name) > 3), name)
        else:
            name, value = word[:2], word[2:].lstrip("=")
            option, equals = SHORT.get(name, name), value
        if not equals and option not in FLAGS and rest:
            return option, rest[0], rest[1:]
        return option, value, rest

    def _option(self, option: str, value: str, where: str) -> None:
        """Refuse an option that is the operator's to set, unless the operator said the same."""
        if option in ("--index-url", "--pypi-url") and _plain(value) != _plain(self.allowed.default or PYPI):
            raise Refused(
                f"{where} takes packages from {_shown(value)}: set python_index_url to that, if you trust it; the file alone "
                "does not decide it."
            )
        if option == "--extra-index-url":
            known = {_plain(address) for address in (self.allowed.default or PYPI, *self.allowed.more)}
            if _plain(value) not in known:
                raise Refused(
                    f"{where} takes packages from {_shown(value)}, too: add that to python_extra_index_urls, if you trust it; "
                    "the file alone does not decide it."
                )
        if option == "--find-links":
            raise Refused(
                f"{where} takes packages from {_shown(value)}: bring the wheels along in app_wheelhouse, or in a folder "
                "of the source."
            )
        if option == "--trusted-host":
            raise Refused(
                f"{where} trusts {value} without a certificate: take that out, and have the hosts trust the certificate of the "
                "index that python_index_url or python_extra_index_urls names."
            )
        builds = (option == "--no-binary" and value not in (":none:", "")) or (option == "--only-binary" and value == ":none:")
        if builds and not self.allowed.source_builds:
            raise Refused(
                f"{where} has packages built from source ({option} {value}), which runs their code: set app_source_builds: true "
                "to allow it, or take that out."
            )
        if option == "--pre" and self.allowed.installer == "uv":
            raise Refused(f"{where} asks for pre-releases of everything (--pre): name those you mean, as in fastapi==1.0rc1.")

    def _include(self, name: str, file: Path, where: str) -> None:
        if "://" in name:
            raise Refused(f"{where} includes {_shown(name)}: put that file into the source, and include it by its path.")
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
        what = f"{where} takes {name or 'a package'} from {_shown(place)}"
        path = urlsplit(place).path if "://" in place else place
        if place.startswith(("file:", "/", "~")):
            raise Refused(
                f"{what}, a place on one machine: put it into the source and name it as ./{os.path.basename(path.rstrip('/'))}, "
                "or bring a wheel along in app_wheelhouse."
            )
        if VERSION_CONTROL.match(place) or ARCHIVE.search(path):
            if not self.allowed.source_builds:
                raise Refused(
                    f"{what}, where it would have to be built, which runs its code: name a released version, bring its wheel "
                    "along in app_wheelhouse, or set app_source_builds: true to have it built."
                )
            return
        if place.startswith("http://") and "sha256=" not in place:
            raise Refused(f"{what}, which anybody on the way may change: use an https address, or add #sha256=<digest>.")
        if "://" not in place:
            inside = self._within(self.folder, place)
            if inside is None:
                raise Refused(f"{what}, which is outside the source: make app_source the folder of both.")
            if not inside.exists():
                raise Refused(f"{what}, and the source has no such file or folder.")

    def _package(self, folder: Path, extras: list[str], where: str) -> list[str]:
        """Have a folder of the source built as a package, and return what it depends on as far as that is written down."""
        relative = os.path.relpath(folder, self.root)
        check_folder(relative, where)
        if self.allowed.installer == "pip":
            raise Refused(f"{where} installs {relative} of the source itself, which needs python_installer: uv.")
        project = folder / "pyproject.toml"
        if not project.is_file() and not (folder / "setup.py").is_file():
            raise Refused(f"{where} installs {relative} of the source, which has neither a pyproject.toml nor a setup.py.")
        table = self.toml(project).get("project", {}) if project.is_file() else {}
        self.found.packages[str(table.get("name") or relative)] = relative
        dynamic = table.get("dynamic", [])
        if "dependencies" in dynamic or not table:
            self.resolve = True
        optional = {_name(extra): needs for extra, needs in table.get("optional-dependencies", {}).items()}
        for extra in extras:
            if _name(extra) not in optional:
                raise Refused(
                    f"{where} wants the extra {extra} of {relative}, which no [project.optional-dependencies] in its "
                    "pyproject.toml names: put the packages that it stands for into the file."
                )
        own = _name(str(table.get("name", "")))
        needs, pending, done = list(table.get("dependencies", [])), [_name(extra) for extra in extras], set()
        while pending:
            extra = pending.pop()
            if extra in done:
                continue
            done.add(extra)
            for need in optional.get(extra, []):
                itself = re.match(r"^([A-Za-z0-9._-]+)\s*\[([^\]]*)\]", need)
                if itself and _name(itself[1]) == own:
                    pending += [_name(more) for more in itself[2].split(",")]
                else:
                    needs.append(need)
        needs, place = [" ".join(need.split()) for need in needs], f"{os.path.relpath(project, self.root)} (dependencies)"
        for need in needs:
            if not re.match(r"[A-Za-z0-9]", need) or re.search(r"\s-|\\", need):  # in a requirements file it would say more
                raise Refused(f"{place} has {_shown(need)!r}, which is no requirement: correct that.")
            self.check(need, place)
        return needs

    def _within(self, base: Path, name: str) -> Path | None:
        """Return the file or folder `name` of the source; None where that is somewhere else."""
        if "://" in name or os.path.isabs(name):
            return None
        path = Path(os.path.realpath(base / name))
        return path if path == self.root or self.root in path.parents else None


def _name(text: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", text.strip()).lower()


def _plain(address: str) -> str:
    """Return an address as it is compared: without credentials, and without a slash at its end."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def _shown(address: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/@\s]+@", "//", address)
