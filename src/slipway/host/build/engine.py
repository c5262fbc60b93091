"""The engine that builds and runs containers on a host, podman or docker, as far as they are called the same way."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.process import run

# Seconds in which an engine answers what does not move an image.
ANSWER_SECONDS = 60
BUILD_SECONDS = 1800

# What podman and docker say of a path that an image does not have.
ABSENT = re.compile(r"no such file|not a directory|could not (be found|find)", re.IGNORECASE)

# Where a service's PATH may not lead.
PLACES = "/usr/local/bin:/usr/bin:/bin"


class Engine:
    """An engine.

    Args:
        name: podman or docker.

    Raises:
        ReleaseError: when it is not there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PLACES}")
        if not found:
            raise ReleaseError(f"There is no {name} here (app_container_engine): run site.yml, or install it.")
        self.program = found

    def call(self, *arguments: str | Path, seconds: float = ANSWER_SECONDS, environment: Mapping[str, str] | None = None) -> str:
        """Run a command of the engine's, and return what it prints.

        Raises:
            ReleaseError: when it fails or takes too long; with its last lines.
        """
        variables = {"HOME": os.environ.get("HOME", "/root"), **(environment or {})}
        return run([self.program, *arguments], seconds, variables).stdout.strip()

    def fact(self, image: str, template: str) -> str:
        """Return what the engine knows of an image, as a Go template; empty where it has no such image."""
        # Warnings go to the other stream, which run() would mix in.
        done = subprocess.run(
            [self.program, "image", "inspect", "--format", template, image],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def tags(self, name: str) -> list[str]:
        """Return the tags of the images called `name`."""
        listed = self.call("images", "--format", "{{.Repository}}:{{.Tag}}", name).splitlines()
        return sorted(line.rpartition(":")[2] for line in listed if line.startswith(f"{name}:"))

    def build(
        self,
        context: Path,
        recipe: Path,
        tag: str,
        arguments: Mapping[str, str],
        environment: Mapping[str, str],
        cache: Path | None,
        platform: str = "",
    ) -> None:
        """Build an image, with the machine's own network.

        Args:
            context: the directory that the recipe copies from.
            recipe: the Dockerfile.
            tag: what the image is called.
            arguments: build arguments. They travel in the environment: all can see a command line.
            environment: that of the build, such as a proxy.
            cache: where uv keeps what it downloads, for engines that can mount that; None for nowhere.
            platform: what the image is for, such as `linux/arm64`; empty for this machine.

        Raises:
            ReleaseError: when a step of the recipe fails; with the last lines.
        """
        # Without layers nothing is left over of a build but its image.
        options = ["--layers=false", "--format=docker", "--security-opt=label=disable"] if self.name == "podman" else []
        if cache and self.name == "podman":
            options.append(f"--volume={cache}:/cache")
        if platform:
            options.append(f"--platform={platform}")
        options += [f"--build-arg={name}" for name in sorted(arguments)]
        command = ["build", "--force-rm", "--network=host", *options, "--tag", tag, "--file", str(recipe), str(context)]
        self.call(*command, seconds=BUILD_SECONDS, environment={**environment, **arguments})

    def pull(self, reference: str, credentials: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """Fetch an image from its registry.

        Args:
            reference: what it is called there.
            credentials: `username` and `password`, or empty ones.
            environment: that of the download, such as a proxy.

        Raises:
            ReleaseError: when it cannot be had.
        """
        with login(reference, credentials) as directory:
            if self.name == "podman":
                command = ["pull", "--quiet", *([f"--authfile={directory}/config.json"] if directory else []), reference]
            else:
                command = [*([f"--config={directory}"] if directory else []), "pull", "--quiet", reference]
            self.call(*command, seconds=BUILD_SECONDS, environment=environment)

    def take_out(self, image: str, source: str, target: Path) -> bool:
        """Copy a file or folder out of an image to the new `target`, and say whether it has one; a link is none.

        Raises:
            ReleaseError: when the engine makes no container of the image, or the copy fails.
        """
        done = self._copied(image, source, target)
        if target.is_symlink():  # docker copies it as one, and here it would lead to something else
            target.unlink()
            return False
        return done

    def copy_out(self, image: str, source: str, target: Path) -> bool:
        """Copy a folder out of an image, and say whether it has one.

        Raises:
            ReleaseError: when the engine makes no container of the image, or the copy fails.
        """
        return self._copied(image, f"{source}/.", target)

    def _copied(self, image: str, source: str, target: Path) -> bool:
        container = self.call("create", "--entrypoint=/", image).splitlines()[-1]
        try:
            self.call("cp", f"{container}:{source}", target, seconds=BUILD_SECONDS)
            return True
        except ReleaseError as error:
            if not ABSENT.search(str(error)):  # half of a folder is not what the image has
                raise
            return False
        finally:
            self.call("rm", "--force", container)


@contextmanager
def login(reference: str, credentials: Mapping[str, str]) -> Iterator[str]:
    """Give a directory with a login that both engines read, for as long as it is needed; empty where there is none."""
    if not credentials.get("username"):
        yield ""
        return
    registry = reference.partition("/")[0] if "." in reference.partition("/")[0] or ":" in reference.partition("/")[0] else ""
    registry = registry or "docker.io"
    places = [registry, "https://index.docker.io/v1/"] if registry == "docker.io" else [registry]
    plain: Any = f"{credentials['username']}:{credentials['password']}".encode()
    entry = {"auth": base64.b64encode(plain).decode("ascii")}
    with tempfile.TemporaryDirectory(prefix="slipway-") as directory:
        file = Path(directory, "config.json")
        file.touch(mode=0o600)
        file.write_text(json.dumps({"auths": dict.fromkeys(places, entry)}), encoding="utf-8")
        yield directory
