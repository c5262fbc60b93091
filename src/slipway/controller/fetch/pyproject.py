"""What the pyproject.toml of a source says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from slipway.controller.fetch.error import FetchError


def toml(file: Path) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        FetchError: when it cannot be read.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FetchError(f"{file.name} of the source cannot be read: {error}") from error


# A module and what it calls the app, or what makes it.
ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")


def entrypoint(folder: Path) -> str:
    """Return the app that FastAPI's own command would serve from a folder, by `[tool.fastapi]`; empty if none is named.

    Raises:
        FetchError: when it cannot be one, or the file cannot be read.
    """
    file = folder / "pyproject.toml"
    settings = toml(file).get("tool", {}).get("fastapi", {}) if file.is_file() else {}
    name = settings.get("entrypoint", "") if isinstance(settings, dict) else ""
    if name and not (isinstance(name, str) and ENTRYPOINT.fullmatch(name)):
        raise FetchError(
            f"The entrypoint of [tool.fastapi] in pyproject.toml is {name!r}; it must be a module and an attribute, such as "
            "app.main:app. Change it there, or set app_module."
        )
    return name


def is_package(project: dict[str, Any]) -> bool:
    """Say whether a pyproject.toml is that of something to install, and not only a list of dependencies."""
    answer = project.get("tool", {}).get("uv", {}).get("package")
    return "build-system" in project if answer is None else bool(answer)


def check_supported(project: dict[str, Any], poetry: bool) -> None:
    """Refuse a pyproject.toml that does not name its dependencies by itself.

    Args:
        project: what it says.
        poetry: whether there is a lock file of Poetry's beside it.

    Raises:
        FetchError: when it does not; names what to do.
    """
    table = project.get("project")
    if table is None:
        remedy = (
            "run `poetry export --with-hashes --output requirements.txt` (with poetry-plugin-export), and add what it makes"
            if poetry or "poetry" in project.get("tool", {})
            else "add a lock file, such as one made by `uv lock`, or a requirements.txt"
        )
        raise FetchError(f"pyproject.toml of the source has no [project] table that names dependencies: {remedy}.")
    if "dependencies" in table.get("dynamic", []):
        raise FetchError(
            "pyproject.toml of the source has dynamic dependencies, which only its own code knows: add a lock file, such as one "
            "made by `uv lock`, or a requirements.txt with the line `.`, which has the package built and asked for them."
        )
