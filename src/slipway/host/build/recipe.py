"""The recipe that an image is built by: the source's own Dockerfile, or ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway.host.build.pins import build_files
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write


@contextmanager
def recipe(root: Path, given: Mapping[str, Any]) -> Iterator[tuple[Path, Path, dict[str, str]]]:
    """Give the directory that an image is built from, its Dockerfile and its build arguments, for as long as they are needed.

    Args:
        root: the unpacked source. Ours is written beside it.
        given: what the step is told.

    Raises:
        ReleaseError: when something is in the way of what ours finds beside the source.
    """
    source, arguments = given["source"], dict(given.get("arguments") or {})
    if not given.get("recipe"):
        context = root / source["directory"]
        yield context, context / source["requirements"], arguments
        return
    if (root / ".slipway").exists():
        raise ReleaseError(
            "The build holds .slipway, which is what the recipe of the image finds beside the source: have the hook "
            "before_build (app_hooks) make no such folder."
        )
    ours = root.with_name(f"{root.name}.Dockerfile")
    write(ours, given["recipe"])
    try:
        with build_files(root, given.get("files") or {}):
            yield root, ours, {**environment(given), **arguments}
    finally:
        remove(ours)


def environment(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a build, in which a number stands for its digits."""
    return {name: str(value) for name, value in given["environment"].items()}
