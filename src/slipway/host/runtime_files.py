"""Which files of the runtime a release has, and where: what is run lies in its directory, what that imports in a package."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

PROGRAMS = ("launch.py", "preflight.py", "process.py")
MODULES = (
    "__init__.py",
    "agreement.py",
    "application.py",
    "asgi.py",
    "counts.py",
    "frontends.py",
    "guard.py",
    "journal.py",
    "log.py",
    "release.py",
    "served.py",
    "waiting.py",
)
SERVERS = {"gunicorn": "gunicorn_conf.py", "hypercorn": "hypercorn_server.py", "uvicorn": "uvicorn_server.py"}


def text(name: str) -> str:
    """Return a file of the runtime, as this program brought it along."""
    content = pkgutil.get_data("slipway.runtime", name)
    assert content is not None
    return content.decode("utf-8")


def files_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a release by their paths in its directory.

    Args:
        settings: what the release goes by: its `server`, and its `container` if it has one.
    """
    programs = [*PROGRAMS, SERVERS[settings["server"]], *(["container.py"] if settings["container"] else [])]
    files = {"slipway/__init__.py": "", **{f"slipway/runtime/{name}": text(name) for name in MODULES}}
    return {**files, **{name: text(name) for name in programs}}
