"""The uv of the controller."""

from __future__ import annotations

import functools
import os
import shutil
import sys

from slipway.host.build.interpreter import listed
from slipway.host.errors import ReleaseError
from slipway.host.process import run

# All that any host could have, and no settings of this machine.
OPTIONS = ("--all-platforms", "--all-arches", "--no-config", "--offline")

SECONDS = 30


def program() -> str:
    """Return the path of uv, beside this Python or in PATH; empty if there is none."""
    return shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])) or ""


def unset() -> list[str]:
    """Return what starts a program without this machine's settings of uv."""
    return ["env", *(argument for name in os.environ if name.startswith("UV_") for argument in ("-u", name))]


@functools.cache
def known(request: str, version: str, downloads: str) -> bool:
    """Say whether uv can install a Python, as far as that can be seen from here: by the same version, and if it goes by its list.

    Args:
        request: what it would be asked for.
        version: that of the uv on hosts.
        downloads: where that gets a Python; empty for its own place.
    """
    uv = program()
    if not uv or downloads.endswith(".json"):
        return True
    try:
        if run([*unset(), uv, "--version"], SECONDS).stdout.split()[1] != version:
            return True
        return bool(listed(uv, request, {}, *OPTIONS))
    except (ReleaseError, IndexError):
        return True
