"""Install the program on a host."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from slipway.host.errors import ReleaseError
from slipway.host.files import atomic_symlink, write

# How many versions stay: what runs may still read from an older one.
KEPT = 3


def install(file: Path, command: Path) -> None:
    """Install the file that runs, and remove old versions.

    Args:
        file: where it belongs, in a folder that has the name of its version.
        command: the link to it.

    Raises:
        OSError: when a file cannot be written.
        ReleaseError: when it is another version, or something else is in the way of the link.
    """
    content, version = Path(sys.argv[0]).read_bytes(), file.parent.name
    if hashlib.sha256(content).hexdigest()[: len(version)] != version:
        raise ReleaseError(f"{sys.argv[0]} is not the version {version} of the program: it was damaged in transit.")
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, content, 0o755)
    command.parent.mkdir(parents=True, exist_ok=True)
    atomic_symlink(command, file, over_file=True)
    versions = [folder for folder in file.parents[1].iterdir() if (folder / file.name).exists()]
    for old in sorted(versions, key=os.path.getmtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
