"""Make a build on this host: its code beside what runs, and the environment that it needs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.host.build.archive import unpack
from slipway.host.build.builder import Builder
from slipway.host.build.hooks import hook
from slipway.host.build.links import validate_links
from slipway.host.build.names import record_text
from slipway.host.build.shared import link_shared, links
from slipway.host.build.venv import complete, install, is_complete
from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink, fsync_directory, on_disk, remove, write
from slipway.host.paths import Layout
from slipway.host.process import run


def build(layout: Layout, name: str, venv_name: str, arguments: dict[str, Any]) -> None:
    """Make the build `name`, with the virtual environment `venv_name`, from the packed source.

    Raises:
        ReleaseError: when a step fails; nothing that another build or release uses has changed.
    """
    source = arguments["source"]
    partial = layout.builds / f".{name}.partial"
    remove(partial)
    unpack(Path(arguments["archive"]), partial)
    if not (partial / source["directory"] / source["requirements"]).is_file():
        raise ReleaseError(f"The source has no {source['directory']}/{source['requirements']} (app_directory, app_requirements).")
    hook("before_build", partial, arguments)
    venv = layout.venvs / venv_name
    if not is_complete(venv):
        install(venv, partial, arguments)
        complete(venv)
    link = os.path.relpath(venv, layout.builds / name)
    atomic_symlink(partial / ".venv", link)
    hook("after_build", partial, arguments, str(venv / "bin"))
    compile_code(partial, venv, arguments)
    link_shared(partial, source, arguments["shared"], layout.home)
    record = {
        **source,
        "shared": arguments["shared"],
        "build": name,
        "venv": venv_name,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    shared = links(source["directory"], arguments["shared"], layout.home)
    finish(layout, partial, name, link, shared, f"{record_text(record)}\n")


def compile_code(partial: Path, venv: Path, arguments: dict[str, Any]) -> None:
    """Compile the app's modules, which its user could not do later."""
    builder = Builder(arguments["user"], arguments["cache"])
    command: list[str | Path] = [venv / "bin" / "python", "-I", "-m", "compileall", "-q", "-j", "0", partial]
    with builder.having(partial) as own:
        run(command, 300, own, partial, check=False, user=builder.user, confined=True)


def finish(layout: Layout, partial: Path, name: str, link: str, shared: Mapping[str, str], record: str = "") -> None:
    """Have the build `name` where builds are looked for, and on the disk.

    Args:
        layout: the app's paths.
        partial: the build.
        name: its name.
        link: what its link to the environment leads to.
        shared: where its links to the app's shared directory lead, by their paths in it.
        record: what is remembered of it; empty where it is there.

    Raises:
        ReleaseError: when a link in it leads out of it.
    """
    atomic_symlink(partial / ".venv", link)  # nobody else writes here any more
    validate_links(partial, shared, partial / link)
    on_disk(partial)
    if record:
        write(partial / ".build.json", record)
    remove(layout.builds / name)  # what is left of one that was being removed
    partial.rename(layout.builds / name)
    fsync_directory(layout.builds)
