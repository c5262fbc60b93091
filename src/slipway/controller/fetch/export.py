"""A uv.lock as a pylock.toml, which uv makes of it here: hosts install from that as from a source's own."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from slipway.controller.fetch.cache import cache_directory
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.pack import files_below
from slipway.controller.fetch.project import Project
from slipway.controller.uv import program
from slipway.host.errors import ReleaseError
from slipway.host.process import run

EXPORT_SECONDS = 60

# What the text is packed as, beside the app.
EXPORTED = "pylock.slipway.toml"

# Nothing is asked of an index or an interpreter, and no settings and no code of the source count.
OPTIONS = ("--quiet", "--frozen", "--offline", "--no-cache", "--no-config", "--no-header", "--format=pylock.toml")


def export(source: Project, file: Path, start: Path, packages: Iterable[str], environment: Mapping[str, str]) -> str:
    """Return the text of a pylock.toml with what a project needs by its uv.lock, on any system and Python.

    Args:
        source: the folder of the app.
        file: the uv.lock.
        start: the folder of the project in it.
        packages: names of those that are built from the source, which are left out.
        environment: the operator's settings of uv; those of this machine do not count.

    Raises:
        FetchError: when there is no uv, or it refuses the lock.
    """
    uv = program()
    if not uv:
        raise FetchError(f"{file.name} needs uv, which is neither next to {sys.executable} nor in PATH: run script/bootstrap.")
    unset = [argument for name in os.environ if name.startswith("UV_") and name not in environment for argument in ("-u", name)]
    options = [*OPTIONS, "--no-dev", *(f"--no-emit-package={name}" for name in packages)]
    # A copy of what a host sees, where it is part of no workspace above the source, nor of one that another user makes.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=cache_directory()) as scratch:
        top = Path(os.path.realpath(scratch), "source")
        for path in files_below(source.root.absolute(), source.exclude):
            place = top / path.relative_to(source.root.absolute())
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.readlink(path) if path.is_symlink() else path)
        folder = Path(os.path.realpath(top / source.directory))
        made = folder / EXPORTED
        made.unlink(missing_ok=True)  # or what it is a link to would be written to
        command: list[str | Path] = ["env", *unset, uv, "export", *options, "--output-file", made]
        try:
            run(command, EXPORT_SECONDS, environment, top / start.relative_to(source.root))
        except ReleaseError as error:
            raise FetchError(
                f"{file.relative_to(source.root)} of the source cannot be exported: recreate it with `uv lock`, using a uv "
                f"that is no newer than {uv}.\n{error}"
            ) from error
        text = made.read_text(encoding="utf-8")

    # Wheels in a folder of the source have addresses in the copy.
    def relative(found: re.Match[str]) -> str:
        return f"path = {json.dumps(os.path.relpath(top / unquote(found[1]), folder), ensure_ascii=False)}"

    here = re.escape(top.as_uri())
    text = re.sub(rf'(?m)^index = "{here}.*\n', "", text)
    return re.sub(rf'url = "{here}/([^"]*)"', relative, text)
