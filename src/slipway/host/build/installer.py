"""What fills a virtual environment: uv or pip."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

from slipway.host.build.advice import advice
from slipway.host.build.permissions import Allowed, Refused
from slipway.host.build.pins import conflict, options
from slipway.host.build.requirement_text import hashed
from slipway.host.build.requirements import Requirements
from slipway.host.errors import ReleaseError
from slipway.host.process import run

INSTALL_SECONDS = 900


class Installer:
    """What fills a virtual environment: uv or pip. All that it starts runs as the build's user.

    Args:
        venv: the environment.
        root: the source.
        work: a directory for what is needed meanwhile. Only `scratch` in it belongs to the build's user: root would
            write through links that it finds.
        arguments: what the step is told.
        own: what the processes of the build's user find in their environment.
    """

    def __init__(self, venv: Path, root: Path, work: Path, arguments: dict[str, Any], own: dict[str, str]) -> None:
        self.venv = venv
        self.root = root
        self.work = work
        self.arguments = arguments
        self.source = arguments["source"]
        self.uv = arguments["uv"] if arguments["installer"] == "uv" else None
        self.python = venv / "bin" / "python"
        self.folder = root / self.source["directory"]
        self.environment = {**{key: str(value) for key, value in arguments["environment"].items()}, **own}
        self.scratch = work / "theirs"
        self.environment["TMPDIR"] = str(self.scratch)
        self.place = ["--no-index", "--find-links", str(work / "wheels")] if self.source.get("wheels") else []
        if self.uv:
            # What is linked to the cache could be changed there.
            self.environment.update(UV_PYTHON_DOWNLOADS="never", UV_LINK_MODE="copy")
        # Not as the controller saw it, for a hook may have written the file.
        file = self.folder / self.source["requirements"]
        self.hashed = hashed(file, root) if self.kind == "requirements" else self.kind == "pylock"

    @property
    def kind(self) -> str:
        """What kind of file names what the app depends on."""
        return str(self.source.get("kind", "requirements"))

    def make(self) -> None:
        """Make the environment, empty."""
        interpreter = self.arguments["interpreter"]
        if self.uv:
            self._run([self.uv, "venv", "--quiet", "--allow-existing", "--python", interpreter, self.venv], 60)
        else:
            self._run([interpreter, "-m", "venv", self.venv], 120)

    def dependencies(self) -> None:
        """Install what the app's own file names, and app_extra_requirements.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        files, extra = ["-r", self.folder / self.source["requirements"]], self._extra()
        if self.kind == "pylock":  # whose hashes count in any case, and beside which uv takes no other file
            self.install(files)
            if not extra:
                return
            files = ["--no-deps"]
        self.install([*(["--require-hashes"] if self.hashed else []), *files, *extra])

    def _extra(self) -> list[Any]:
        """Return the options for app_extra_requirements.

        Raises:
            ReleaseError: when they would be built from source, or have no hashes beside others that do.
        """
        extra = self.arguments["extra"]
        if not extra:
            return []
        bare = [line for line in extra if "--hash=" not in line] if self.hashed else []
        if bare:
            raise ReleaseError(
                f"{bare[0]} in app_extra_requirements has no hash, and {self.source['requirements']} has one for each package: "
                "write name==version --hash=sha256:..., with all that it needs besides, or have the app's own lock bring it."
            )
        file = self.work / "app_extra_requirements"
        file.write_text("".join(f"{line}\n" for line in extra), encoding="utf-8")
        allowed = Allowed.of(self.environment, self.arguments["source_builds"], self.arguments["installer"])
        try:
            Requirements(self.work, self.work, allowed, lambda path: {}).read(file)
        except Refused as error:
            raise ReleaseError(str(error)) from error
        return ["-r", file]

    def install(self, what: list[Any]) -> None:
        """Install requirements.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        if self.uv:
            pip = [self.uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", self.python]
            pip += ["--no-editable"] if self.arguments["source_builds"] else []
        else:
            pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        wheels = [] if self.arguments["source_builds"] else ["--only-binary", ":all:"]
        place = [] if "--no-index" in what else self.place  # which uv takes only once
        self._install([*pip, *place, *wheels, *what])

    def packages(self) -> None:
        """Install those packages that are in the source.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        packages = self.source.get("packages") or {}
        if not packages:
            return
        copy, made = self.scratch / "source", self.scratch / "dist"
        self._run(["cp", "-R", "--no-dereference", self.root, copy], 300)  # which its build may write to
        options = ["--wheel", "--no-progress", "--out-dir", made, "--python", self.python, *self.place]
        for name, folder in sorted(packages.items()):
            try:
                self._run([self.uv, "build", *options, copy / folder], directory=copy / folder)
            except ReleaseError as error:
                raise ReleaseError(
                    f"{name or 'The app'} cannot be built as a package, which its pyproject.toml says it is; "
                    f"`package = false` in its [tool.uv] leaves that out.\n{error}"
                ) from error
        alone = [] if self.source.get("resolve") else ["--no-deps"]
        self.install([*alone, *sorted(made.glob("*.whl"))])

    def server(self) -> None:
        """Install the server where the app does not bring it, in versions that go with the app's own.

        Raises:
            ReleaseError: when that fails; its first line says what to do.
        """
        server, lock = self.arguments["server"], self.arguments["server_lock"] if self.hashed else None
        try:
            install_options = options(self.work, self.venv, server, lock)
        except ValueError as error:
            raise ReleaseError(str(error)) from error
        check = [self.uv, "pip", "check", "--python", self.python] if self.uv else [self.python, "-m", "pip", "check"]
        try:
            self.install(install_options)
            found = self._run(check, check=False).stdout if "--require-hashes" in install_options else ""
        except ReleaseError as error:
            reason = conflict(str(error), self.venv, server, lock)
            raise ReleaseError(f"{reason}\n{error}" if reason else str(error)) from error
        reason = conflict(found, self.venv, server, lock) if found else ""
        if reason:
            raise ReleaseError(f"{reason}\n{found}")

    def prune(self) -> None:
        """Have uv drop from its cache what is of no further use."""
        if self.uv:
            with contextlib.suppress(ReleaseError):  # no reason to do without the build
                self._run([self.uv, "cache", "prune", "--quiet"], check=False)

    def _run(
        self, command: list[Any], seconds: float = INSTALL_SECONDS, directory: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        user, where = self.arguments["user"], directory or self.folder
        return run(command, seconds, self.environment, where, check=check, user=user, confined=True)

    def _install(self, command: list[Any]) -> None:
        try:
            self._run(command)
        except ReleaseError as error:
            reason = str(error).partition("\n")[2]
            raise ReleaseError(f"{advice(reason)}\n{error}".lstrip()) from error
