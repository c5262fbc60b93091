"""What a build and its environment are called, and what is remembered of them."""

from __future__ import annotations

import json
from typing import Any

from slipway.host.build.hooks import hooks_of
from slipway.host.paths import digest


def names(arguments: dict[str, Any], version: str) -> tuple[str, str]:
    """Return the names of the virtual environment and of the build: digests of all that decides what is in them.

    Args:
        arguments: those of the step.
        version: that of the interpreter.
    """
    source, hooks, shared = arguments["source"], hooks_of(arguments), arguments["shared"]
    more = {}
    if source.get("kind", "requirements") != "requirements":
        more["kind"] = source["kind"]
    if source.get("wheels"):
        more["wheels"] = source["wheels"]["digest"]
    if "before_build" in hooks:  # it could write the lock file
        more["hook"] = hooks["before_build"]
    if arguments["server_lock"]:
        more["server_lock"] = digest(arguments["server_lock"])
    if arguments["extra"]:
        more["extra"] = arguments["extra"]
    if source.get("packages"):
        more["source"] = [source["digest"], source["directory"], source["packages"]]
    keys = ("interpreter", "installer", "server", "source_builds")
    venv = digest(source["lock"], version, *(arguments[key] for key in keys), *([more] if more else []))
    return venv, digest(
        source["digest"], source["directory"], venv, *([hooks] if hooks else []), *([{"shared": shared}] if shared else [])
    )


def record_text(record: dict[str, Any]) -> str:
    """Return what is remembered of a build as JSON; paths of the controller stay out of it."""
    kept = {key: value for key, value in record.items() if key != "archive" and (key != "shared" or value)}
    if record.get("wheels"):
        kept["wheels"] = record["wheels"]["digest"]
    return json.dumps(kept, indent=2, sort_keys=True)
