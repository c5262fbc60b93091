"""A build that another host made and packed."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from slipway.host.build.archive import sha256, unpack
from slipway.host.build.builder import Builder
from slipway.host.build.make import finish
from slipway.host.build.shared import links
from slipway.host.build.venv import complete, is_complete, validate_venv
from slipway.host.errors import ReleaseError
from slipway.host.files import remove
from slipway.host.paths import Layout, digest
from slipway.host.process import run


def install_prebuilt(layout: Layout, name: str, venv_name: str, arguments: dict[str, Any]) -> None:
    """Have the build `name`, with the virtual environment `venv_name`, as another host made them.

    Raises:
        ReleaseError: when they were damaged on their way or do not run here; what another build or release uses has not changed.
    """
    venv, partial = layout.venvs / venv_name, layout.builds / f".{name}.partial"
    builder = Builder(arguments["user"], arguments["cache"])
    if not is_complete(venv):
        remove(venv)
        unpack_payload("venv", venv, arguments)
        validate_venv(venv)
        command: list[str | Path] = [venv / "bin" / "python", "-I", "-c", f"import {', '.join(arguments['server_modules'])}"]
        try:
            with builder.environment() as own:
                run(command, 60, own, venv, user=builder.user, confined=True)
        except ReleaseError as error:
            raise ReleaseError(
                f"The other host's environment does not run here: set app_build_strategy: per_host for this host.\n{error}"
            ) from error
        complete(venv)
    remove(partial)
    unpack_payload("build", partial, arguments)
    shared = links(arguments["source"]["directory"], arguments["shared"], layout.home)
    finish(layout, partial, name, os.path.relpath(venv, layout.builds / name), shared)


def unpack_payload(payload: str, directory: Path, arguments: dict[str, Any]) -> None:
    """Unpack what another host packed into the new `directory`.

    Raises:
        ReleaseError: when it is not here, or not what was packed.
    """
    if not arguments[payload]:
        raise ReleaseError(f"The other host's {payload} was not sent, because it was not needed a moment ago. Run again.")
    if sha256(Path(arguments[payload])) != arguments["prebuilt"][payload]:
        raise ReleaseError(f"The other host's {payload} was damaged in transit. Run again.")
    unpack(Path(arguments[payload]), directory, links_out=True)


def build_fingerprint(layout: Layout, name: str) -> str:
    """Return a digest of all in which two hosts agree where one can use the build `name` of the other."""
    return digest(name, str(layout.home), os.uname().machine, platform.libc_ver())
