"""A virtual environment with exactly what a lock file names, and the server beside it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Any

from slipway.host.build.archive import unpack
from slipway.host.build.builder import Builder
from slipway.host.build.installer import Installer
from slipway.host.build.links import outward
from slipway.host.errors import ReleaseError
from slipway.host.files import on_disk, remove, write
from slipway.host.process import run


def python_version(interpreter: str, minimum: str) -> str:
    """Return the full version of `interpreter`, as `3.11.2`.

    Raises:
        ReleaseError: when it does not run, is older than `minimum`, or cannot make virtual environments.
    """
    question = "import platform, venv, ensurepip; print(platform.python_version())"
    remedy = f"Set app_python to {minimum} or newer, or install one on the host and set python_interpreter to it."
    try:
        answer = run([interpreter, "-c", question], timeout=30)
    except ReleaseError as error:
        raise ReleaseError(f"{interpreter} cannot make virtual environments. {remedy}\n{error}") from error
    version = answer.stdout.strip()
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, minimum.split("."))):
        raise ReleaseError(f"{interpreter} is Python {version}; the app needs {minimum} or newer. {remedy}")
    return version


def install(venv: Path, root: Path, arguments: dict[str, Any]) -> None:
    """Make the virtual environment `venv` with what the source in `root` needs, and what the server needs besides.

    Raises:
        ReleaseError: when the installer fails; with its last lines.
    """
    work = venv.with_name(f".{venv.name}.work")
    for directory in (venv, work):
        remove(directory)
        directory.mkdir()
    try:
        if arguments["source"].get("wheels"):
            if not arguments.get("wheels"):
                raise ReleaseError(
                    "The wheels of app_wheelhouse were not sent, because they were not needed a moment ago. Run again."
                )
            unpack(Path(arguments["wheels"]), work / "wheels")
        (work / "theirs").mkdir()
        builder = Builder(arguments["user"], arguments["cache"])
        with builder.having(venv, work / "theirs") as own:
            installer = Installer(venv, root, work, arguments, own)
            installer.make()
            installer.dependencies()
            installer.packages()
            installer.server()
            remove(venv / ".complete")  # which a package could bring, and which would soon be root's
            installer.prune()
        builder.limit()
        validate_venv(venv)
    except BaseException:
        remove(venv)
        raise
    finally:
        remove(work)


def validate_venv(venv: Path) -> None:
    """See that no link in an environment leads out of it, but to the interpreter.

    Raises:
        ReleaseError: when one does.
    """
    names = [entry.name for entry in os.scandir(venv / "bin") if is_interpreter(entry.path)]
    found = outward(venv, f"bin/({'|'.join(map(re.escape, names))})")
    if found:
        raise ReleaseError(
            f"{found} in the virtual environment is a link that points outside it: a package must have created it."
        )


def is_interpreter(path: str) -> bool:
    """Say whether a link in an environment is one of those to its Python."""
    real = os.path.realpath(path)
    return all(os.path.basename(name).startswith("python") for name in (path, real)) and not os.path.isdir(real)


def complete(venv: Path) -> None:
    """Mark an environment as complete, which it then is on the disk, too."""
    on_disk(venv)
    write(venv / ".complete", "")


def is_complete(venv: Path) -> bool:
    """Say whether an environment was marked as complete, and not by code that was installed into it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = (venv / ".complete").lstat()
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return False
