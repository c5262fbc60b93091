"""Put a set of configuration files in place as a whole, and have a service work with them.

If the test fails with the new files, all of them are put back, and what runs is not touched. Whether a reload took effect is
seen by the service's workers, since the reload itself reports success either way. If they are older than the files, because an
earlier run was interrupted or a reload failed, the service is reloaded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.host.configure import lock as locks
from slipway.host.configure.change import Change, edited
from slipway.host.configure.service import SECONDS, Service, systemctl
from slipway.host.errors import ReleaseError
from slipway.host.process import run
from slipway.host.values import arguments

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The files, each as FILE says.
    "files": list,
    # By path, the content of those of the files that hold a secret.
    "secrets": {},
    # Files that must not exist.
    "absent": [],
    # Directories that must exist.
    "directories": [],
    # Files of others that the service reads on a reload.
    "reads": [],
    # The command that fails if the files are wrong.
    "test": [],
    # The command to run if the files changed.
    "apply": [],
    # The service that must run, now and at boot.
    "service": "",
    # Further services that must run, now and at boot.
    "more_services": [],
    # A regular expression for the title of the service's processes that a reload replaces. If it is empty, nothing is reloaded.
    "workers": "",
    # Whether processes that only finish their last requests keep that title.
    "keeps_workers": False,
}
FILE: dict[str, Any] = {
    "path": str,
    "content": None,
    # For a file that is somebody else's: patterns for its lines, and what each such line becomes.
    "edit": {},
    # For a file that holds a secret: who may read it, besides root.
    "group": None,
}

# Where a change that is under way is noted, so that its command is not forgotten if the run is interrupted.
PENDING = Path("/var/lib/slipway")
UNIT_DIRECTORY = "/etc/systemd/system/"


def bring_in(change: Change, given: Mapping[str, Any], service: Service | None, running: bool, pending: Path) -> None:
    """Write the files, test them, and have the service work with them.

    Raises:
        ReleaseError: when that fails; the files that were there before are in place again.
    """
    reloads = running and service is not None and bool(service.title)
    tested = False
    if given["apply"]:
        pending.parent.mkdir(parents=True, exist_ok=True)
        pending.touch()
    try:
        change.apply()
        _succeed(given["test"])
        tested = True
        if any(path.startswith(UNIT_DIRECTORY) for path in change.after):
            systemctl("daemon-reload")
        _succeed(given["apply"])
        if service is not None:
            service.start()
            if reloads:
                service.reload()
    except (ReleaseError, OSError) as error:
        change.revert()
        pending.unlink(missing_ok=True)
        if any(path.startswith(UNIT_DIRECTORY) for path in change.after):
            systemctl("daemon-reload")
        if tested and reloads and service is not None:
            systemctl("reload", service.name)
        if not tested and given["test"] and run(given["test"], SECONDS, check=False).returncode:
            raise ReleaseError(
                f"{error}\nIt was already invalid before this change: fix the file that is named above."
            ) from error
        raise ReleaseError(f"{error}\nThe previous files were restored; the service keeps running.") from error
    pending.unlink(missing_ok=True)


def _succeed(command: Sequence[str]) -> None:
    """Run a command, if there is one, and raise a ReleaseError when it fails."""
    if command:
        run(command, SECONDS)


def converge(given: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Compare the files that are there with those that are wanted, and put those in place unless this is a dry run.

    Raises:
        ReleaseError: when that fails; the files that were there before are in place again.
        OSError: when a file cannot be read, or a directory cannot be created.
    """
    contents = {path: text or "" for path, text in given["secrets"].items()}  # what a template leaves empty arrives as none
    for file in given["files"]:
        text = edited(file["path"], file["edit"]) if file["content"] is None else file["content"]
        if text is not None and file["path"] not in given["secrets"]:
            contents[file["path"]] = text
    change = Change(contents, given["absent"], {file["path"]: file["group"] for file in given["files"] if file["group"]})
    missing = [path for path in given["directories"] if not os.path.isdir(path)]
    read = [path for path in [*contents, *given["reads"]] if not path.startswith(UNIT_DIRECTORY)]
    service = Service(given["service"], given["workers"], given["keeps_workers"]) if given["service"] else None
    running = service is not None and service.runs()
    to_do = service is not None and (not running or not service.starts_at_boot() or service.is_older_than(read))
    idle = [one for one in map(Service, given["more_services"]) if not (one.runs() and one.starts_at_boot())]
    pending = PENDING / f"pending-{hashlib.sha256(repr(sorted(contents)).encode()).hexdigest()[:16]}"
    changed = bool(change.after or missing or to_do or idle or pending.exists())
    if changed and not check:
        for path in missing:
            os.makedirs(path, mode=0o755)
        if change.after or to_do or pending.exists():
            bring_in(change, given, service, running, pending)
        for one in idle:
            one.start()
    return {"changed": changed, "diff": change.diff()}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Put the files in place, and have the service work with them.

    Returns:
        `changed`, and as `diff` the files, each before and after; what a secret one holds is not shown.

    Raises:
        ReleaseError: when that fails; the files that were there before are in place again.
        OSError: when a file cannot be read, or the lock cannot be had.
    """
    given["files"] = [arguments(FILE, file) for file in given["files"]]
    for path in given["secrets"].keys() - {file["path"] for file in given["files"] if file["group"]}:
        raise ReleaseError(f"{path} is among the secrets, and has no group among the files: everybody could read it")
    # A dry run makes nothing, and without the directory for the lock nobody has it.
    bare = check and not os.path.isdir(os.path.dirname(locks.LOCK))
    with contextlib.nullcontext() if bare else locks.lock():
        return converge(given, check)
