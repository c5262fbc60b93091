"""Have an app's image on a host: built there, or built here and sent over."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from slipway.controller.build import BuildAction
from slipway.host.build import pins

BUILD_SECONDS = 1800

# How long an image that nobody asks for stays on the controller.
KEEP_SECONDS = 14 * 86400

# What the kernel calls a machine, and what images do.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}


def timed(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Return a file of the source as it is unpacked: now, for what changed would otherwise look like what it was before."""
    return tarfile.data_filter(member, path).replace(mtime=int(time.time()))


class ImageAction(BuildAction):
    """Takes the step that has an image; where it needs the source, or the image, sends that and takes it again."""

    name = "image"
    pieces = ("archive", "image")

    def along(self, source: dict[str, Any]) -> dict[str, str]:
        """Return what goes along with the question whether it is needed."""
        return super().along(source) if self._task.args.get("builder") == "host" else {}

    def local(self, piece: str, arguments: dict[str, Any], answer: dict[str, Any]) -> Path:
        """Return the file on the controller that is sent as `piece`.

        Raises:
            AnsibleActionFail: when the image cannot be built.
        """
        if piece == "image":
            return self.saved(arguments, answer["tag"], answer["machine"])
        return super().local(piece, arguments, answer)

    def saved(self, arguments: dict[str, Any], tag: str, machine: str) -> Path:
        """Build the image here, for a machine of that kind, and return the file that it is saved in."""
        engine, source = str(arguments["engine"]), arguments["source"]
        if not shutil.which(engine):
            raise AnsibleActionFail(
                f"There is no {engine} on this machine to build the image with: install it, or set app_image_builder: host."
            )
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "slipway")
        file = cache / f"{tag.replace('/', '-').replace(':', '-')}-{machine}.image.tar.gz"
        # Hosts ask at the same time; the first one builds for all of them.
        with (
            open(file.with_suffix(".lock"), "w", encoding="utf-8") as lock,
            tempfile.TemporaryDirectory(prefix="slipway-") as scratch,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            for old in cache.glob("*.image.tar.*"):
                if old.stat().st_mtime < time.time() - KEEP_SECONDS:
                    old.unlink(missing_ok=True)
            if file.exists():
                file.touch()
                return file
            root = Path(scratch, "source")
            with tarfile.open(source["archive"]) as tar:
                tar.extractall(root, filter=timed)
            context, recipe = root / str(source["directory"]), root / str(source["directory"]) / str(source["requirements"])
            told = dict(arguments.get("arguments") or {})
            with contextlib.ExitStack() as stack:
                if arguments.get("recipe"):
                    context, recipe = root, Path(scratch, "Dockerfile")
                    recipe.write_text(str(arguments["recipe"]), encoding="utf-8")
                    told = {**arguments["environment"], **told}
                    stack.enter_context(pins.beside(context, arguments.get("files") or {}))
                options = ["--layers=false", "--format=docker"] if engine == "podman" else []
                options += [f"--build-arg={name}" for name in sorted(told)]  # all can see a command line
                options += [f"--platform=linux/{MACHINES.get(machine, machine)}", "--network=host", "--force-rm"]
                command = [engine, "build", *options, "--tag", tag, "--file", recipe, context]
                self.run_engine(command, {**arguments["environment"], **told})
            plain, partial = Path(scratch, "image.tar"), file.with_suffix(".partial")
            self.run_engine([engine, "save", "--output", plain, tag], {})
            with open(plain, "rb") as image, gzip.open(partial, "wb", compresslevel=1) as packed:
                shutil.copyfileobj(image, packed, 2**20)
            partial.replace(file)
            self.run_engine([engine, "rmi", tag], {})
        return file

    def run_engine(self, command: list[Any], environment: dict[str, str]) -> None:
        """Run the engine here.

        Raises:
            AnsibleActionFail: when it fails or takes too long; with its last lines.
        """
        words = [str(word) for word in command]
        told = {**os.environ, **environment}
        try:
            done = subprocess.run(
                words, env=told, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AnsibleActionFail(f"`{' '.join(words[:2])}` took longer than {BUILD_SECONDS} s on this machine.") from error
        if done.returncode:
            said = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-30:])
            said = re.sub(r"//[^/\s]*@", "//***@", said)
            raise AnsibleActionFail(f"`{' '.join(words[:2])}` failed on this machine with exit code {done.returncode}:\n{said}")
