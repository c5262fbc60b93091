"""Build an app beside what runs, its code and its environment, or say what is needed for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host import pythons
from slipway.host.build import interpreter as interpreters
from slipway.host.build.archive import packed
from slipway.host.build.interpreter import Interpreter
from slipway.host.build.make import build
from slipway.host.build.names import names
from slipway.host.build.parameters import SHARED
from slipway.host.build.prebuilt import build_fingerprint, install_prebuilt
from slipway.host.build.venv import is_complete, python_version
from slipway.host.errors import ReleaseError
from slipway.host.files import require_free_space
from slipway.host.lock import LEASE_SECONDS, Locked, lock
from slipway.host.paths import Layout

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    **SHARED,
    # The packed wheelhouse on this host, where the environment is made and there is one.
    "wheels": "",
    # Digests of the `build` and `venv` of another host, which are had instead.
    "prebuilt": {},
    # The build that another host packed, on this host.
    "build": "",
    # The virtual environment that another host packed, on this host, where it lacks one.
    "venv": "",
    # The host's own Python. The virtual environment is made from it, unless the source's `interpreter` asks uv for another one.
    "interpreter": str,
    # Where uv gets that: a mirror, a list that ends with .json, or a directory of this host; empty for uv's own.
    "downloads": "",
    # The oldest Python that is accepted, as `3.11`.
    "minimum": str,
    # What makes the virtual environment.
    "installer": str,
    # The uv program.
    "uv": str,
    # Requirements of the server, added where the lock lacks them.
    "server": list,
    # The same with hashes, and all that they need, for locks that have hashes.
    "server_lock": "",
    # Modules by which one sees whether it runs here.
    "server_modules": list,
    # Requirements beside those of the source.
    "extra": [],
    # Whether packages may be built from source.
    "source_builds": False,
}

# What is sent to this host where it is needed.
PAYLOADS = ("archive", "wheels", "build", "venv")


def ensure_build(layout: Layout, arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the build, or say what is needed for it.

    Args:
        layout: the app's paths.
        arguments: those of the step.
        check: whether nothing may change.

    Raises:
        ReleaseError: when it cannot be had.
        Locked: when another run has locked the app.
    """
    if check and not (layout.builds.is_dir() and (Path(arguments["uv"]).exists() or not arguments["source"].get("interpreter"))):
        return {"changed": True, "build": "not yet built", **{f"needs_{payload}": False for payload in PAYLOADS}}
    found = interpreters.choose(arguments)
    if found is None:
        version = python_version(arguments["interpreter"], arguments["minimum"])
        return make(layout, arguments, version, check)
    arguments = {**arguments, "interpreter": str(found.program)}
    if check:
        return make(layout, arguments, found.version, check)
    with pythons.in_use(layout.home):
        return make(layout, arguments, found.version, check, found)


def make(
    layout: Layout, arguments: dict[str, Any], version: str, check: bool, interpreter: Interpreter | None = None
) -> dict[str, Any]:
    """Do that with a Python of the version `version`, which is installed if it is an `interpreter` of uv's that is not there."""
    source, prebuilt = arguments["source"], bool(arguments["prebuilt"])
    needs: dict[str, Any] = {f"needs_{payload}": False for payload in PAYLOADS}
    venv_name, name = names(arguments, version)
    exists = (layout.builds / name / ".build.json").exists()
    if not exists and not check:
        require_free_space(layout, arguments["room"])
    needs.update(build_fingerprint=build_fingerprint(layout, name), lacks_venv=not is_complete(layout.venvs / venv_name))
    if exists and interpreter:  # which somebody may have removed
        return {"changed": interpreters.ensure(interpreter, arguments), "build": name, **needs}
    if exists or check or not arguments["build" if prebuilt else "archive"]:
        needs.update(needs_archive=not exists and not prebuilt, needs_build=not exists and prebuilt)
        if not exists and not check:
            with lock(layout, arguments["run"], lease=LEASE_SECONDS):
                pass  # nothing is sent to a host that another run has
        if not exists and needs["lacks_venv"]:
            needs.update(needs_wheels=bool(source.get("wheels")) and not prebuilt, needs_venv=prebuilt)
        return {"changed": not exists, "build": name, **needs}
    with lock(layout, arguments["run"], lease=LEASE_SECONDS):
        if not (layout.builds / name / ".build.json").exists():
            if interpreter:
                interpreters.ensure(interpreter, arguments)
            (install_prebuilt if prebuilt else build)(layout, name, venv_name, arguments)
    return {"changed": True, "build": name, **needs}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Build what is not built yet, or say what is needed for it.

    Raises:
        ReleaseError: when the build fails; what was live still is.
        Locked: when another run has locked the app.
    """
    with packed(given):
        try:
            return ensure_build(Layout(**given["layout"]), given, check)
        except Locked:
            raise
        except ReleaseError as error:
            raise ReleaseError(f"The build failed. The live release is unchanged.\n{error}") from error
