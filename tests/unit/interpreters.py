"""The Python that runs the tests, packed as uv expects one: in the layout of python-build-standalone, and listed."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import sysconfig
import tarfile
from pathlib import Path, PurePath

# What no app needs.
LEFT_OUT = {"__pycache__", "dist-packages", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo"}

SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = f"{SERIES}.{sys.version_info.micro}"
NAME = f"cpython-{VERSION}-linux-{platform.machine()}-gnu"
DATE = "20990101"
ARCHIVE = f"cpython-{VERSION}+{DATE}-{platform.machine()}-unknown-linux-gnu-install_only_stripped.tar.gz"


def archive(folder: Path, work: Path) -> Path:
    """Pack this Python.

    Args:
        folder: where the archive goes.
        work: a directory that is needed meanwhile.
    """
    prefix = Path(sys.base_prefix)
    files = {f"bin/python{SERIES}": (prefix / "bin" / f"python{SERIES}").resolve()}
    for library in (prefix / "lib").glob(f"libpython{SERIES}.so*"):
        files[f"lib/{library.name}"] = library.resolve()
    with tarfile.open(folder / ARCHIVE, "w:gz", compresslevel=1) as tar:
        tar.add(
            sysconfig.get_path("stdlib"),
            f"python/lib/python{SERIES}",
            filter=lambda member: None if LEFT_OUT & set(PurePath(member.name).parts) or member.name.endswith(".a") else member,
        )
        for name, file in files.items():
            # It finds its library where it is built, and would find it beside it from wherever it is.
            here, content = str(prefix / "lib").encode(), file.read_bytes()
            (work / "file").write_bytes(content.replace(here + b"\0", b"$ORIGIN/../lib".ljust(len(here), b"\0") + b"\0"))
            (work / "file").chmod(0o755)
            tar.add(work / "file", f"python/{name}")
    return folder / ARCHIVE


def listing(archive: Path, file: Path, url: str) -> None:
    """Write the list that uv reads with that one Python in it, as `--python-downloads-json-url` describes it."""
    major, minor, patch = map(int, VERSION.split("."))
    entry = {
        "name": "cpython",
        "arch": {"family": platform.machine(), "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": url,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": DATE,
    }
    file.write_text(json.dumps({NAME: entry}), encoding="utf-8")
