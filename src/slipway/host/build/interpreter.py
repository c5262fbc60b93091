"""The Python of a build whose host lacks it: uv installs it for all apps of the host."""

from __future__ import annotations

import fcntl
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from slipway.host import pythons
from slipway.host.build.builder import reclaim_ownership
from slipway.host.build.venv import complete, is_complete, python_version
from slipway.host.errors import ReleaseError
from slipway.host.files import remove
from slipway.host.process import run, without_passwords

LIST_SECONDS, INSTALL_SECONDS = 60.0, 900.0

# Downloads are wanted here, whatever the host's settings are, and nothing of them in a cache.
OPTIONS = ("--no-cache", "--no-progress")
VARIABLES = {"UV_PYTHON_DOWNLOADS": "automatic"}

STABLE = re.compile(r"\d+\.\d+\.\d+")

ADVICE = (
    (r"hash mismatch", "Its archive does not match the digest that uv knows: find out why before you use it."),
    (
        r"error sending request|dns error|timed out|connect|status code|no such file|request failed",
        "Its archive cannot be downloaded: set python_downloads_url to a mirror, or to a directory of this host that has it, or "
        "set a proxy in python_proxy.",
    ),
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that uv can install on this host.

    Attributes:
        name: what uv calls it, and its directory.
        version: as `3.14.2`.
        url: where its archive is.
    """

    name: str
    version: str
    url: str

    @property
    def directory(self) -> Path:
        """Where it is installed."""
        return pythons.PLACE / self.name

    @property
    def program(self) -> Path:
        """The program."""
        return self.directory / "bin" / "python"

    @property
    def archive(self) -> tuple[str, str]:
        """The folder that its archive has in a mirror, and the archive's name."""
        folder, name = urlsplit(self.url).path.split("/")[-2:]
        return unquote(folder), unquote(name)


def listed(uv: str, request: str, environment: Mapping[str, str], *options: str) -> list[Interpreter]:
    """Return the stable CPythons that uv can install, the newest first.

    Args:
        uv: the program.
        request: what it is asked for, such as `==3.14.*,>=3.11` or, for free-threaded ones, `==3.14.*,>=3.11+freethreaded`.
        environment: its environment.
        options: further ones of `uv python list`.

    Raises:
        ReleaseError: when it fails.
    """
    command = [uv, "python", "list", "--only-downloads", "--all-versions", "--output-format", "json", *OPTIONS, *options, request]
    output = run(command, LIST_SECONDS, {**environment, **VARIABLES}, Path("/")).stdout
    variant = "freethreaded" if request.endswith("+freethreaded") else "default"
    # A warning may stand before it.
    text = next((line for line in output.splitlines() if line.startswith("[")), "[]")
    found = [
        Interpreter(entry["key"], entry["version"], entry["url"])
        for entry in json.loads(text)
        if entry["implementation"] == "cpython" and entry["variant"] == variant and STABLE.fullmatch(entry["version"])
    ]
    return sorted(found, key=lambda one: [int(number) for number in one.version.split(".")], reverse=True)


def folder_of(downloads: str) -> Path | None:
    """Return the directory of this host that `python_downloads_url` names; None if it names none."""
    path = unquote(urlsplit(downloads).path) if downloads.startswith("file://") else downloads
    return Path(path) if path.startswith("/") and not path.endswith(".json") else None


def files_in(folder: Path) -> dict[str, Path]:
    """Return the archives of interpreters in a directory and in the directories in it, by their names."""
    return {path.name: path for pattern in ("cpython-*.tar.*", "*/cpython-*.tar.*") for path in folder.glob(pattern)}


def choose(arguments: dict[str, Any]) -> Interpreter | None:
    """Return the newest Python that a build asks uv for; None if it is made with the host's own.

    Args:
        arguments: those of the step that builds.

    Raises:
        ReleaseError: when there is none.
    """
    request, downloads = str(arguments["source"].get("interpreter") or ""), arguments["downloads"]
    if not request:
        return None
    found = listed(arguments["uv"], request, environment(arguments))
    folder = folder_of(downloads)
    if folder is None:
        if found:
            return found[0]
        where = (
            f"the list {without_passwords(downloads)} (python_downloads_url) has"
            if downloads.endswith(".json")
            else "uv on this host knows"
        )
        raise ReleaseError(f"The app needs a Python that is {request}, and {where} none: set app_python to another version.")
    files = files_in(folder)
    there = [one for one in found if one.archive[1] in files or is_complete(one.directory)]
    if there:
        return there[0]
    example = f" Put one there, such as {found[0].archive[1]}." if found else ""
    raise ReleaseError(
        f"The app needs a Python that is {request}, and {folder} on this host (python_downloads_url) has no archive of one that "
        f"uv knows.{example}"
    )


def environment(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the environment of uv in a build's step."""
    downloads, variables = arguments["downloads"], {key: str(value) for key, value in arguments["environment"].items()}
    if downloads.endswith(".json"):
        variables["UV_PYTHON_DOWNLOADS_JSON_URL"] = downloads
    elif downloads and folder_of(downloads) is None:
        variables["UV_PYTHON_INSTALL_MIRROR"] = downloads.rstrip("/")
    return {**variables, **VARIABLES, "UV_PYTHON_INSTALL_DIR": str(pythons.PLACE), "UV_COMPILE_BYTECODE": "1"}


def ensure(interpreter: Interpreter, arguments: dict[str, Any]) -> bool:
    """Install a Python, unless it is there. What uses it holds `pythons.in_use` meanwhile.

    Returns:
        Whether it was installed.

    Raises:
        ReleaseError: when that fails; its first line says what to do.
    """
    with pythons.locked(".install.lock", fcntl.LOCK_EX):  # by two apps at the same time
        if is_complete(interpreter.directory):
            return False
        remove(interpreter.directory)
        (pythons.PLACE / ".lock").touch(0o600)  # uv's, which it would make everybody's
        try:
            download(interpreter, arguments)
            for link in pythons.PLACE.iterdir():  # to the newest of a series, which nothing here goes by
                if link.is_symlink():
                    link.unlink()
            reclaim_ownership(interpreter.directory)
            python_version(str(interpreter.program), arguments["minimum"])
        except BaseException:
            remove(interpreter.directory)
            raise
        complete(interpreter.directory)
    return True


def download(interpreter: Interpreter, arguments: dict[str, Any]) -> None:
    """Have uv download a Python, check its digest, and unpack it."""
    variables, folder = environment(arguments), folder_of(arguments["downloads"])
    with tempfile.TemporaryDirectory() as scratch:
        if folder is not None:  # in the order of a mirror, so that uv compares the digests that it knows
            place, name = interpreter.archive
            Path(scratch, place).mkdir()
            Path(scratch, place, name).symlink_to(files_in(folder)[name])
            variables["UV_PYTHON_INSTALL_MIRROR"] = Path(scratch).as_uri()
        command = [arguments["uv"], "python", "install", "--no-bin", *OPTIONS, interpreter.name]
        try:
            run(command, INSTALL_SECONDS, variables, Path("/"))
        except ReleaseError as error:
            advice = next((what for pattern, what in ADVICE if re.search(pattern, str(error), re.IGNORECASE)), "")
            raise ReleaseError(f"uv cannot install Python {interpreter.version}. {advice}".rstrip() + f"\n{error}") from error
