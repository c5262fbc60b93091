"""The Pythons that uv installed on this host: owned by root, shared by all apps, and removed when no build uses them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from slipway.host.files import remove, write
from slipway.host.paths import digest

# Beside the program's versions.
PLACE = Path("/opt/slipway/python")

# In it: a file with the home of each app whose builds use one, and a lock that keeps what a build may come to use.
HOMES, LOCK = ".homes", ".builds.lock"


@contextlib.contextmanager
def in_use(home: Path) -> Iterator[None]:
    """Keep all interpreters as long as the context lasts, and remember that builds of the app in `home` use some."""
    PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    homes = PLACE / HOMES
    homes.mkdir(mode=0o755, exist_ok=True)
    with locked(LOCK, fcntl.LOCK_SH):
        write(homes / digest(str(home)), f"{home}\n")
        yield


@contextlib.contextmanager
def locked(name: str, kind: int) -> Iterator[None]:
    """Hold the lock `name` in PLACE as long as the context lasts. Its file is root's alone: whoever may open it may lock it."""
    descriptor = os.open(PLACE / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def users() -> dict[str, set[str]]:
    """Return the names of the interpreters that builds use, each with the homes of their apps."""
    found: dict[str, set[str]] = {}
    with contextlib.suppress(FileNotFoundError):
        for record in (PLACE / HOMES).iterdir():
            home = Path(record.read_text(encoding="utf-8").strip())
            for venv in (home / "venvs").glob("*"):
                name = name_of(venv)
                if name:
                    found.setdefault(name, set()).add(str(home))
    return found


def name_of(venv: Path) -> str:
    """Return the name of the interpreter in PLACE that an environment was made from; empty if it is another one."""
    with contextlib.suppress(OSError, ValueError):
        return Path(os.readlink(venv / "bin" / "python")).relative_to(PLACE).parts[0]
    return ""


def prune() -> None:
    """Remove the interpreters that no build uses; none as long as something is built that may come to use one."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), locked(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
        used = users()
        for entry in PLACE.iterdir():
            if entry.is_symlink() or (entry.is_dir() and entry.name not in (*used, HOMES)):
                remove(entry)
        for record in (PLACE / HOMES).iterdir():
            if record.read_text(encoding="utf-8").strip() not in set().union(*used.values()):
                remove(record)


def version_of_build(build: Path) -> str:
    """Return the version of the Python that a build runs on, as `3.14.2`, or `3.14.2t` if free-threaded; empty if unknown."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (build / ".venv" / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
        facts = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
        version = facts.get("version_info") or facts.get("version") or ""
        return f"{version}t" if version and "+freethreaded" in facts.get("home", "") else version
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((build / ".build.json").read_text(encoding="utf-8")).get("python_version") or "")
    return ""
