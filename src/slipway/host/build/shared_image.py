"""Paths within an app that lie in its shared directory, in an image: it gets a layer with links."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from slipway.host.build.builder import reclaim_ownership
from slipway.host.build.engine import Engine
from slipway.host.build.shared import SEEDS, code_in, entries
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write

# Run in the image, where python3 is, in the app's directory. The shared directory has the same path in the container as outside.
LINK = """#!/usr/bin/python3
import json, os, shutil, sys
for path, target in json.loads(sys.argv[1]).items():
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    os.symlink(target, path)
"""


def link_in_image(
    engine: Engine, image: str, partial: Path, shared: Mapping[str, str], home: Path, environment: Mapping[str, str]
) -> None:
    """Give an image links in the places of app_shared, and take out what it has there.

    A mount would do for folders, but SQLite keeps a journal beside its file, which would be in the image.

    Args:
        engine: what builds images.
        image: the name of the image, which is that of the new one from then on.
        partial: the build, which is not finished.
        shared: app_shared.
        home: the app's home.
        environment: that of the build.

    Raises:
        ReleaseError: when a path holds code, the image has no Python, or the engine fails.
    """
    if not shared:
        return
    folder = engine.fact(image, "{{.Config.WorkingDir}}").rstrip("/")
    remove(partial / SEEDS)
    for entry in entries(shared):
        seed = partial / SEEDS / entry.name
        seed.parent.mkdir(parents=True, exist_ok=True)
        engine.take_out(image, f"{folder}/{entry.path}", seed)
        if code_in(seed):
            raise ReleaseError(f"app_shared names {entry.path}, which holds code in the image ({code_in(seed)}): name only data.")
    drop_links(partial / SEEDS)
    reclaim_ownership(partial / SEEDS)
    targets = json.dumps({each.path: f"{home}/shared/{each.name}" for each in entries(shared)})
    before = engine.fact(image, "{{.Id}}")
    recipe = f"FROM {image}\nUSER 0\nRUN {json.dumps(['python3', '-c', LINK, targets])}\n"
    with tempfile.TemporaryDirectory(prefix="slipway-") as context:
        write(Path(context, "Dockerfile"), recipe)
        engine.build(Path(context), Path(context, "Dockerfile"), image, {}, environment, None)
    # It is in the new one, whose name it had. One that was pulled has a name of its own.
    if before and engine.fact(before, "{{len .RepoTags}}") == "0":
        with contextlib.suppress(ReleaseError):  # it goes with the new one then
            engine.call("rmi", before)


def drop_links(folder: Path) -> None:
    """Remove all links below a folder: whoever follows them would see other files of the host than in the image."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, entry) for entry in folders + files):
            if path.is_symlink():
                path.unlink()
