"""Which Python a source asks for, and whether one is such a Python. It runs on the controller, before anything is built."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# A line of .python-version: perhaps the name of the implementation, and a version of which two numbers count.
LINE = re.compile(r"^(?:c?python[@-]?)?v?(?P<major>[23])(?:\.(?P<minor>\d+))?(?![\d])", re.IGNORECASE)
OTHER = re.compile(
    r"^(pypy|graalpy|graalpython|pyston|jython|ironpython|micropython|miniconda|miniforge|anaconda|mambaforge)", re.I
)
REQUEST = re.compile(r"^[<>=!~]")

# What specifiers are made of: they are put into the recipe of an image.
PLAIN = re.compile(r"[A-Za-z0-9.,*+!<>=~_\s-]*")

# Patch releases that a version of two numbers may stand for.
PATCHES = range(100)

# Minor versions that are tried, the newest first.
MINORS = range(40, 5, -1)


class Unreadable(Exception):
    """What a file says of the Python it wants cannot be read; the text names the file."""


def demand(file: str, declared: str, *choices: str) -> dict[str, Any]:
    """Return what a file asks for.

    Args:
        file: its path in the source.
        declared: what it says.
        choices: specifiers of versions, one of which the Python must fit.

    Raises:
        Unreadable: when a specifier is none.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # only the controller has it

    cleaned = [re.sub(r"([<>]=?|~=)\s*([\d.]+?)\.\*", r"\1\2", choice) for choice in choices]
    try:
        for choice in cleaned:
            SpecifierSet(choice)
            if not PLAIN.fullmatch(choice):  # after === anything may stand
                raise InvalidSpecifier(choice)
    except InvalidSpecifier as error:
        raise Unreadable(f"{file} of the source asks for the Python {declared}, which is not a version: correct it.") from error
    return {"file": file, "declared": declared, "choices": [re.sub(r"\s", "", choice) for choice in cleaned]}


def pinned(file: Path, name: str) -> list[dict[str, Any]]:
    """Return what a file .python-version asks for: one of its lines, to two numbers; nothing where it names no version.

    Args:
        file: the file.
        name: its path in the source.
    """
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    choices = []
    for line in lines:
        found = LINE.match(line)
        if found:
            choices.append(f"=={found['major']}.{found['minor']}.*" if found["minor"] else f"=={found['major']}.*")
        elif REQUEST.match(line):
            choices.append(line)
    if not choices and any(OTHER.match(line) for line in lines):
        return [demand(name, lines[0], "<0")]
    return [demand(name, " or ".join(lines), *choices)] if choices else []


def nearest(folder: Path, root: Path, name: str) -> Path | None:
    """Return the file `name` in `folder` or above it, up to `root`."""
    for place in (folder, *folder.parents):
        if (place / name).is_file():
            return place / name
        if place == root or not place.is_relative_to(root):
            break
    return None


def unmet(demands: Iterable[dict[str, Any]], version: str) -> list[dict[str, Any]]:
    """Return those of `demands` that the Python `version` does not meet; one of two numbers may be any of its patch releases."""
    from packaging.specifiers import SpecifierSet  # only the controller has it

    versions = [f"{version}.{patch}" for patch in PATCHES] if version.count(".") == 1 else [version]
    return [
        each
        for each in demands
        if not any(SpecifierSet(choice).contains(one, prereleases=True) for choice in each["choices"] for one in versions)
    ]


def is_pin(demand: dict[str, Any]) -> bool:
    """Say whether a .python-version asks for it."""
    return Path(demand["file"]).name == ".python-version"


def settled(demands: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `demands` with one choice of each: the first with which a Python could meet all of them."""
    demands = list(demands)
    for choices in itertools.product(*(each["choices"] for each in demands)):
        chosen = [{**each, "choices": [choice]} for each, choice in zip(demands, choices, strict=True)]
        if any(not unmet(chosen, f"3.{minor}") for minor in MINORS):
            return chosen
    return [{**each, "choices": each["choices"][:1]} for each in demands]


def request(demands: Iterable[dict[str, Any]]) -> str:
    """Return what uv is asked for a Python that meets `demands`; empty where they ask for nothing, or cannot be put in one."""
    return ",".join(each["choices"][0] for each in demands if len(each["choices"]) == 1)


def of_image(image: str) -> str:
    """Return the version of Python that the name of an image tells; empty where it tells none."""
    found = re.search(r"(?:^|/)python:(\d+\.\d+(?:\.\d+)?)(?![\d.])", image)
    return found[1] if found else ""
