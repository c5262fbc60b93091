"""A source that is an image, or the recipe of one: nothing of it is looked into here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.controller.fetch.error import FetchError

# What a host must know of dependencies that an image brings along.
NONE: dict[str, Any] = {"requirements": "", "lock": "", "packages": {}, "pins": [], "resolve": False}


def pulled_image(image: str, version: str) -> dict[str, Any]:
    """Return what stands for the source of an image that is pulled, whose tag `version` takes the place of."""
    if version and "@" not in image:
        folders, slash, name = image.rpartition("/")
        image = f"{folders}{slash}{name.partition(':')[0]}:{version}"
    named = re.search(r"[@:]([^/]+)$", image)
    return {
        **{**NONE, "kind": "image", "archive": "", "digest": "", "directory": ".", "python": [], "wheels": {}},
        **{"interpreter": "", "base": "", "asks": ""},
        **{"image": image, "origin": image, "revision": named[1][:19] if named else "latest"},
    }


def recipe(root: Path, directory: str, names: Sequence[str]) -> dict[str, Any]:
    """Return what stands for the dependencies of a source with a recipe; nothing if it has none or none is wanted.

    Args:
        root: the source.
        directory: the folder in it that holds the app.
        names: names of recipes, of which the first that is there is taken.

    Raises:
        FetchError: when the only one that is wanted is not there.
    """
    for name in names:
        if (root / directory / name).is_file():
            return {**NONE, "kind": "dockerfile", "requirements": name}
    if len(names) == 1:
        raise FetchError(f"The source has no {names[0]} (app_dockerfile) in {directory} (app_directory).")
    return {}
