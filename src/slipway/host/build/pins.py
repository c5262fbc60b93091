"""The server beside an app's own packages: what it needs goes by the versions that the app has pinned.

In an image this file is a program by itself: app_pins.py VENV REQUIREMENT... writes what is needed into the working directory,
and prints the options for `uv pip install`. With --lock FILE the app's own lock has hashes, and that file has the server's.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# What says what of a folder goes into an image.
IGNORES = (".containerignore", ".dockerignore")


def plain(name: str) -> str:
    """Return the name of a package as all write it alike, without extras and versions."""
    found = re.match(r"[A-Za-z0-9._-]+", name.strip())
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def installed(venv: Path) -> dict[str, str]:
    """Return the packages of an environment, names to versions, without running anything in it."""
    names = [path.name.removesuffix(".dist-info") for path in venv.glob("lib/python*/site-packages/*.dist-info")]
    return {plain(name): version for name, _, version in (each.rpartition("-") for each in sorted(names))}


def lacking(lock: str, present: Iterable[str]) -> str:
    """Return the requirements of `lock`, one with its hashes after another, whose packages are not `present`."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n?", "", lock).strip())
    return "".join(f"{entry}\n" for entry in entries if plain(entry) not in present)


def options(work: Path, venv: Path, server: list[str], lock: str | None) -> list[str]:
    """Return what an installer is asked for that adds the server to an environment.

    Args:
        work: where files for it are written.
        venv: the environment, which has the app's own packages.
        server: requirements of the server.
        lock: the same with hashes, and all that they need; None where the app's own packages have no hashes.

    Raises:
        ValueError: when hashes are needed that nobody knows.
    """
    present = installed(venv)
    constraints = work / "pins.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in present.items()), encoding="utf-8")
    if {plain(requirement) for requirement in server} <= set(present):
        # Nothing is added where the app brings it; it is only seen whether that is new enough.
        return ["--no-index", "--no-deps", "--constraint", str(constraints), *(re.sub(r"\[[^]]*\]", "", each) for each in server)]
    if lock is None:
        return ["--constraint", str(constraints), *server]
    if not lock:
        raise ValueError(
            "The app's own lock has a hash for each package, and those of app_server_requirements are not known: add "
            f"{', '.join(server)} to what that lock is made from, and lock anew."
        )
    file = work / "server.txt"
    file.write_text(lacking(lock, present), encoding="utf-8")
    return ["--no-deps", "--require-hashes", "-r", str(file)]


def conflict(output: str, venv: Path, server: list[str], lock: str | None) -> str:
    """Say what an installer's refusal means for the app's pins, and what to do; empty where they are not to blame.

    Args:
        output: what it printed, or what its check of the environment did.
        venv: the environment.
        server: requirements of the server.
        lock: the same with hashes, and all that they need; None where the app's own packages have no hashes.
    """
    needs = re.findall(r"The package `([^`]+)` requires `([^`]+)`, but (?:`([^`]+)` is|it's not) installed", output)
    needs += re.findall(r"(?m)^(\S+) \S+ (?:has requirement|requires) (.+), (?:but you have \S+ (\S+)\.$|which is not)", output)
    ours = {plain(entry) for entry in [*server, *(lock or "").splitlines()]}
    reasons = [
        f"{name} needs {need}, and the app has {version or 'none'}" for name, need, version in needs if plain(name) in ours
    ]
    if not needs:
        pinned = [f"{name} at {version}" for name, version in installed(venv).items() if f"{name}=={version}" in output]
        reasons = [f"it needs {', '.join(server)}, and the app's requirements hold {', '.join(pinned)}"] if pinned else []
    if not reasons:
        return ""
    remedy = "Change that pin, or choose another app_server or app_server_requirements."
    if lock is not None:
        remedy = f"Have the app's own lock bring the server, which must have hashes, too: add {', '.join(server)} and lock anew."
    return f"The server does not go with the app's own pins: {'; '.join(reasons)}. {remedy}"


@contextlib.contextmanager
def build_files(context: Path, files: Mapping[str, str]) -> Iterator[None]:
    """Have `files` in the folder .slipway of what an image is built from, whatever the source says is to be left out of that."""
    folder = context / ".slipway"
    ignored = {file: file.read_text(encoding="utf-8") for file in map(context.joinpath, IGNORES) if file.is_file()}
    folder.mkdir()
    try:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for file, text in ignored.items():
            file.write_text(f"{text}\n!.slipway\n!.slipway/**\n", encoding="utf-8")
        yield
    finally:
        shutil.rmtree(folder)
        for file, text in ignored.items():
            file.write_text(text, encoding="utf-8")


def main() -> None:
    """Print the options, or, of what a check of the environment says, what stands against the server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("venv", type=Path)
    parser.add_argument("server", nargs="+")
    parser.add_argument("--lock", type=Path)
    parser.add_argument("--check", action="store_true", help="read what `uv pip check` printed")
    parsed = parser.parse_args()
    lock = parsed.lock.read_text(encoding="utf-8") if parsed.lock else None
    if parsed.check:
        sys.exit(conflict(sys.stdin.read(), parsed.venv, parsed.server, lock) or None)
    try:
        print(shlex.join(options(Path(), parsed.venv, parsed.server, lock)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
