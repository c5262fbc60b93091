"""What app_shared may name: paths of an app that only the app writes to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

PATH = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9._-]*(/\.?[A-Za-z0-9_][A-Za-z0-9._-]*)*/?")
# What a build has of its own.
RESERVED = re.compile(r"\.(?:venv|build\.json|slipway.*|git)")


def errors(shared: Any, served: Iterable[Any]) -> str:
    """Say what is wrong with each value of app_shared; empty if nothing is.

    Args:
        shared: app_shared.
        served: folders of the source that Nginx serves; an empty one is none.
    """
    if not isinstance(shared, Mapping):
        return ""
    found = [f"{path!r}: {name!r} is not a path with a name" for path, name in shared.items() if not named(path, name)]
    if found:
        return "; ".join(found)
    paths = {path.rstrip("/"): name.rstrip("/") or path.rstrip("/") for path, name in shared.items()}
    found += [f"{one} and {other} overlap" for one, other in itertools.combinations(sorted(paths), 2) if overlap(one, other)]
    names = itertools.combinations(sorted(paths.items()), 2)
    found += [f"{one[0]} and {other[0]} have overlapping names" for one, other in names if overlap(one[1], other[1])]
    folders = [folder for folder in served if folder and isinstance(folder, str)]
    for path in paths:
        found += [f"{path} overlaps with {folder}, which Nginx serves" for folder in folders if overlap(path, folder)]
        if path.endswith(".py"):
            found.append(f"{path} is code, and each release has its own")
        if RESERVED.fullmatch(path.partition("/")[0]):
            found.append(f"{path} is not the app's")
    return "; ".join(found)


def named(path: Any, name: Any) -> bool:
    """Say whether a path and its name are what such may be."""
    texts = isinstance(path, str) and isinstance(name, str)
    return texts and bool(PATH.fullmatch(path)) and (not name or bool(PATH.fullmatch(name)))


def overlap(one: str, other: str) -> bool:
    """Say whether two paths are the same, or one lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
