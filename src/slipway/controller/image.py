"""Have an app's image on a host: built there, or built here and sent over."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from slipway.controller.build import BuildAction
from slipway.controller.fetch.cache import KEEP_SECONDS, cache_directory, locked
from slipway.host.build.archive import unpack
from slipway.host.build.engine import BUILD_SECONDS, Engine
from slipway.host.build.recipe import environment, recipe
from slipway.host.errors import ReleaseError

# What the kernel calls a machine, and what images do.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}


class ImageAction(BuildAction):
    """Takes the step that has an image; where it needs the source, or the image, sends that and takes it again."""

    name = "image"
    payloads = ("archive", "image")

    def inline_payload(self, source: dict[str, Any]) -> dict[str, str]:
        """Return what goes along with the question whether it is needed."""
        return super().inline_payload(source) if self._task.args.get("builder") == "host" else {}

    def local(self, payload: str, arguments: dict[str, Any], answer: dict[str, Any]) -> Path:
        """Return the file on the controller that is sent as `payload`.

        Raises:
            AnsibleActionFail: when the image cannot be built.
        """
        if payload == "image":
            return self.saved(arguments, answer["tag"], answer["machine"])
        return super().local(payload, arguments, answer)

    def saved(self, arguments: dict[str, Any], tag: str, machine: str) -> Path:
        """Build the image here, for a machine of that kind, and return the file that it is saved in.

        Raises:
            AnsibleActionFail: when that fails or takes too long; with its last lines.
        """
        if not shutil.which(str(arguments["engine"])):
            raise AnsibleActionFail(
                f"There is no {arguments['engine']} on this machine to build the image with: install it, or set "
                "app_image_builder: host."
            )
        cache = cache_directory()
        file = cache / f"{tag.replace('/', '-').replace(':', '-')}-{machine}.image.tar.gz"
        # Hosts ask at the same time; the first one builds for all of them.
        with locked(file):
            for old in cache.glob("*.image.tar.*"):
                if old.stat().st_mtime < time.time() - KEEP_SECONDS:
                    old.unlink(missing_ok=True)
            if file.exists():
                file.touch()
                return file
            try:
                self._save(arguments, tag, machine, file)
            except ReleaseError as error:
                raise AnsibleActionFail(f"The image cannot be built on this machine.\n{error}") from error
        return file

    def _save(self, arguments: dict[str, Any], tag: str, machine: str, file: Path) -> None:
        engine, platform = Engine(str(arguments["engine"])), f"linux/{MACHINES.get(machine, machine)}"
        with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
            root, plain, partial = Path(scratch, "source"), Path(scratch, "image.tar"), file.with_suffix(".partial")
            unpack(Path(arguments["source"]["archive"]), root)
            with recipe(root, arguments) as (context, dockerfile, build_arguments):
                engine.build(context, dockerfile, tag, build_arguments, environment(arguments), None, platform)
            engine.call("save", "--output", plain, tag, seconds=BUILD_SECONDS)
            with open(plain, "rb") as image, gzip.open(partial, "wb", compresslevel=1) as packed:
                shutil.copyfileobj(image, packed, 2**20)
            partial.replace(file)
            engine.call("rmi", tag)
