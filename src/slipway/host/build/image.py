"""Build an app's image on this host, load one that was built elsewhere, or pull one from a registry."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.host.build.archive import packed, unpack
from slipway.host.build.builder import Builder, reclaim_ownership
from slipway.host.build.engine import BUILD_SECONDS, Engine
from slipway.host.build.hooks import hook, hooks_of
from slipway.host.build.links import validate_links
from slipway.host.build.parameters import SHARED
from slipway.host.build.recipe import environment, recipe
from slipway.host.build.shared_image import drop_links, link_in_image
from slipway.host.build.times import freshen
from slipway.host.errors import ReleaseError
from slipway.host.files import fsync_directory, on_disk, remove, require_free_space, write
from slipway.host.lock import LEASE_SECONDS, Locked, lock
from slipway.host.paths import Layout, digest
from slipway.runtime.agreement import repository

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    **SHARED,
    # The app's name.
    "name": str,
    # What builds and runs containers.
    "engine": str,
    # Where the image is built.
    "builder": str,
    # The Dockerfile, where the source has none of its own.
    "recipe": "",
    # Build arguments.
    "arguments": {},
    # The folders with static files, from the working directory of the image.
    "static": [],
    # Files by name, which `recipe` finds in the folder .slipway beside the source.
    "files": {},
    # `username` and `password` for the registry.
    "credentials": {},
    # The image on this host, as the controller's engine saved it.
    "image": "",
}


def name_of(arguments: dict[str, Any]) -> str:
    """Return the name of the build: a digest of all that decides what is in the image."""
    source, hooks = arguments["source"], hooks_of(arguments)
    parts = [arguments[key] for key in ("recipe", "arguments", "environment")]
    shared = {"shared": arguments["shared"]} if arguments["shared"] else {}
    more = [value for value in (hooks, arguments["files"], shared) if value]
    return digest("image", source["digest"], source["directory"], source["requirements"], *parts, *more)


def pulled_name(identity: str, shared: Mapping[str, str]) -> str:
    """Return the name of the build that has a pulled image, known by its identity, with links for app_shared."""
    return digest("image", identity, *([{"shared": shared}] if shared else []))


class Images:
    """The images of one app.

    Args:
        layout: the app's paths.
        arguments: those of the step.
    """

    def __init__(self, layout: Layout, arguments: dict[str, Any]) -> None:
        self.layout = layout
        self.arguments = arguments
        self.source = arguments["source"]
        self.engine = Engine(arguments["engine"])
        self.environment = environment(arguments)

    def tag(self, name: str) -> str:
        """Return what the image of the build `name` is called."""
        return f"{repository(self.arguments['name'])}:{name}"

    def exists(self, name: str) -> bool:
        """Say whether the build `name` is complete."""
        return (self.layout.builds / name / ".build.json").exists() and bool(self.engine.fact(self.tag(name), "{{.Id}}"))

    def build(self, name: str) -> None:
        """Make the build `name` from the packed source, its image included.

        Raises:
            ReleaseError: when a step fails; nothing that another build or release uses has changed.
        """
        partial = self._begin(name)
        unpack(Path(self.arguments["archive"]), partial)
        hook("before_build", partial, self.arguments)
        live = self.layout.current / "build"
        freshen(partial, live if live.is_dir() else None, time.time())  # for the files in the image, whose times stay
        if self.arguments["image"]:
            self.engine.call("load", "--input", self.arguments["image"], seconds=BUILD_SECONDS)
        else:
            self._build(partial, self.tag(name))
        self._share(partial, name)
        hook("after_build", partial, self.arguments)
        self._finish(partial, name)

    def _build(self, partial: Path, tag: str) -> None:
        with recipe(partial, self.arguments) as (context, dockerfile, build_arguments):
            cache = None
            if self.arguments["recipe"]:
                builder = Builder(self.arguments["user"], self.arguments["cache"])
                build_arguments["SLIPWAY_BUILDER"] = f"{builder.uid}:{builder.gid}"
                cache = builder.directory("image")
            self.engine.build(context, dockerfile, tag, build_arguments, self.environment, cache)

    def pull(self) -> str:
        """Pull the image, and return the name of its build.

        One that is here already serves where its registry has none or cannot be reached.

        Raises:
            ReleaseError: when it cannot be had.
        """
        reference, failure = self.source["image"], None
        try:
            self.engine.pull(reference, self.arguments["credentials"], self.environment)
        except ReleaseError as error:
            failure = error
        identity = self.engine.fact(reference, "{{.Id}}")
        if not identity:
            raise ReleaseError(f"The image {reference} (app_image) cannot be pulled.\n{failure}")
        name = pulled_name(identity, self.arguments["shared"])
        if not self.exists(name):
            partial = self._begin(name)
            partial.mkdir()
            self.engine.call("tag", reference, self.tag(name))
            self._share(partial, name)
            for folder in self.arguments["static"]:
                self._copy_static(partial, self.tag(name), folder)
            self._finish(partial, name)
        if failure is None:
            self.engine.call("rmi", reference)  # the name, and not the image, which has another by now
        return name

    def _share(self, partial: Path, name: str) -> None:
        link_in_image(self.engine, self.tag(name), partial, self.arguments["shared"], self.layout.home, self.environment)

    def _copy_static(self, partial: Path, image: str, folder: str) -> None:
        static = partial / folder
        static.mkdir(parents=True, exist_ok=True)
        inside = f"{self.engine.fact(image, '{{.Config.WorkingDir}}').rstrip('/')}/{folder}"
        if not self.engine.copy_out(image, inside, static):
            return
        drop_links(static)
        reclaim_ownership(partial)

    def _begin(self, name: str) -> Path:
        require_free_space(self.layout, self.arguments["room"])
        partial = self.layout.builds / f".{name}.partial"
        remove(partial)
        return partial

    def _finish(self, partial: Path, name: str) -> None:
        facts = {key: self.source[key] for key in ("revision", "origin", "directory", "kind")}
        record = {
            **facts,
            **({"shared": self.arguments["shared"]} if self.arguments["shared"] else {}),
            "build": name,
            "image": self.tag(name),
            "engine": self.engine.name,
            "python_version": python_version(self.engine.fact(self.tag(name), "{{json .Config.Env}}")),
            "bytes": int(self.engine.fact(self.tag(name), "{{.Size}}") or 0),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        validate_links(partial)
        on_disk(partial)
        write(partial / ".build.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
        remove(self.layout.builds / name)
        partial.rename(self.layout.builds / name)
        fsync_directory(self.layout.builds)


def python_version(variables: str) -> str:
    """Return the version of Python by the environment of an image, a list in JSON; empty unless it is made from `python`."""
    found = re.search(r'"PYTHON_VERSION=(\d+\.\d+\.\d+\w*)"', variables)
    return found[1] if found else ""


def ensure_image(layout: Layout, arguments: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Have the build, or say what is needed for it.

    Args:
        layout: the app's paths.
        arguments: those of the step.
        dry: whether nothing may change.

    Raises:
        ReleaseError: when it cannot be had.
        Locked: when another run has locked the app.
    """
    needs = {"needs_archive": False, "needs_image": False}
    if dry and not layout.builds.is_dir():
        return {"changed": True, "build": "not yet built", **needs}
    try:
        images = Images(layout, arguments)
    except ReleaseError:
        if dry:
            return {"changed": True, "build": "not yet built", **needs}
        raise
    pulled = arguments["source"]["kind"] == "image"
    if pulled and dry:
        name = pulled_name(images.engine.fact(arguments["source"]["image"], "{{.Id}}"), arguments["shared"])
        known = {json.loads(path.read_text(encoding="utf-8")).get("origin") for path in layout.builds.glob("*/.build.json")}
        return {"changed": arguments["source"]["origin"] not in known, "build": name, **needs}
    if pulled:
        with lock(layout, arguments["run"], lease=LEASE_SECONDS):
            before = {path.name for path in layout.builds.iterdir()}
            name = images.pull()
        return {"changed": name not in before, "build": name, **needs}
    name = name_of(arguments)
    exists = images.exists(name)
    if exists or dry:
        return {"changed": not exists, "build": name, **needs}
    require_free_space(layout, arguments["room"])
    with lock(layout, arguments["run"], lease=LEASE_SECONDS):
        if not arguments["archive"] or (arguments["builder"] == "controller" and not arguments["image"]):
            needs = {"needs_archive": True, "needs_image": arguments["builder"] == "controller"}
            return {"changed": True, "build": name, "tag": images.tag(name), "machine": os.uname().machine, **needs}
        images.build(name)
    return {"changed": True, "build": name, **needs}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the image, or say what is needed for it.

    Raises:
        ReleaseError: when it cannot be had; what was live still is.
        Locked: when another run has locked the app.
    """
    with packed(given):
        try:
            return ensure_image(Layout(**given["layout"]), given, check)
        except Locked:
            raise
        except ReleaseError as error:
            raise ReleaseError(f"The build failed. The live release is unchanged.\n{error}") from error
