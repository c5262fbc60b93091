"""How the text of requirements files is read: lines, options and hashes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

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

# Other ends of lines than the usual.
ODD_ENDS = re.compile(r"[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

# What says that a file is not in UTF-8: its first bytes, or a comment in one of its first two lines.
OTHER_ENCODING = re.compile(rb"\xff\xfe|\xfe\xff|\0\0\xfe\xff|(?:.*\n)?#.*coding[:=]\s*(?!utf-?8\b)[-\w.]", re.IGNORECASE)


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
        content, mark, _ = re.match(r"(.*?)((?:^|\s)#|$)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
        goes_on = content.endswith("\\") and not mark
        content = content[:-1] if goes_on else content
        if (
            ODD_ENDS.search(line)
            or "\\" in content
            or (goes_on and content and content[-1] not in " \t")
            or (mark and content.strip() and line.endswith("\\"))
        ):
            return number
    return 0


def first_option(arguments: list[str]) -> tuple[str, str, list[str]]:
    """Return the first option of a line by its long name, its value, and the rest."""
    argument, *rest = arguments
    if argument.startswith("--"):
        name, equals, value = argument.partition("=")
        option = next((long for long in LONG if long.startswith(name) and len(name) > 3), name)
    else:
        name, value = argument[:2], argument[2:].lstrip("=")
        option, equals = SHORT.get(name, name), value
    if not equals and option not in FLAGS and rest:
        return option, rest[0], rest[1:]
    return option, value, rest


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
