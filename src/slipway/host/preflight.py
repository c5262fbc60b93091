"""Check a host before anything on it is changed, and gather what packages it has."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from slipway.host import account, packages
from slipway.host.errors import ReleaseError
from slipway.host.store import Store

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's name, empty for a host without an app.
    "app": "",
    # The user that runs it.
    "user": "",
    # The app's directory, if a backup is to be restored there before its first release.
    "recover": "",
}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Fail if the app would take something over, and return what later tasks need to know of the host.

    Returns:
        `ansible_facts`: the names of the installed packages as `slipway_packages`, the memory in MiB as `slipway_memory_mb`, and
        the version of this program as `slipway_program`.

    Raises:
        ReleaseError: when an account or a directory of the app's name is another's, or a release is live where a backup is to be
            restored before the first one.
    """
    if given["app"]:
        account.check(given["app"], given["user"])
    live = Store(given["recover"], "/run", "/var/log").live() if given["recover"] else None
    if live is not None:
        raise ReleaseError(
            f"Release {live} of {given['app']} is live on this host, so nothing was changed. Leave restore= out. To restore a "
            "backup beside what is live: playbooks/restore.yml"
        )
    facts = {
        "slipway_packages": packages.installed(),
        "slipway_memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "slipway_program": Path(sys.argv[0]).parent.name,
    }
    return {"changed": False, "ansible_facts": facts}
