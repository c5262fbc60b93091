"""The program for hosts, as one file."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import slipway

# What of the package goes to hosts.
PARTS = ("host", "runtime")

# The same bytes whenever and wherever it is made: neither the clock nor a version of zlib has a say in them.
TIME = (2020, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/python3\n"
MAIN = b"import sys\n\nfrom slipway.host.cli import main\n\nsys.exit(main())\n"

DIGEST_LENGTH = 16


@cache
def program() -> tuple[bytes, str]:
    """Return the file `slipway.pyz` and its digest, which names its version."""
    package = Path(slipway.__file__).parent
    files = {"__main__.py": MAIN, "slipway/__init__.py": (package / "__init__.py").read_bytes()}
    for part in PARTS:
        for path in (package / part).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"slipway/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in sorted(files):
            file.writestr(zipfile.ZipInfo(name, TIME), files[name])
    content = SHEBANG + archive.getvalue()
    return content, hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
