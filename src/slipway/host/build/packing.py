"""Pack a build, and its virtual environment, for other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host.build.archive import pack
from slipway.host.errors import ReleaseError
from slipway.host.lock import LEASE_SECONDS, lock
from slipway.host.paths import Layout

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The name of the build.
    "build": str,
    # Whether its virtual environment is packed, too.
    "venv": bool,
    # Where the packed files go.
    "folder": str,
    # The run of Ansible that this is a step of.
    "run": dict,
}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Pack the build, and return the `digests` of what was packed.

    Raises:
        ReleaseError: when it cannot be packed.
        Locked: when another run has locked the app.
    """
    layout, folder = Layout(**given["layout"]), Path(given["folder"])
    build = layout.builds / given["build"]
    digests = {}
    try:
        with lock(layout, given["run"], lease=LEASE_SECONDS):
            digests["build"] = pack(build, folder / "build.tar.gz")
            if given["venv"]:
                digests["venv"] = pack((build / ".venv").resolve(), folder / "venv.tar.gz")
    except OSError as error:
        raise ReleaseError(f"The build {build} cannot be packed for the other hosts: {error}") from error
    return {"changed": False, "digests": digests}
