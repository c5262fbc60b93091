"""The step of a playbook that prepares the repository of an app's backups, lists them, restores one, or tries the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.host.backup.drill import described, drill
from slipway.host.backup.recover import recover
from slipway.host.backup.restore import DATABASE, SHARED, Order, list_all, restore
from slipway.host.backup.run import prepare
from slipway.host.backup.settings import is_on, load
from slipway.host.errors import ReleaseError

# The arguments of the step: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's name.
    "app": str,
    # `prepare` opens the repository, or makes it; `restore` restores a backup beside what is live, or lists all without `at`;
    # `drill` restores the newest, tries it, and removes it again; `recover` restores one before the first release on this host.
    "command": str,
    # The app's directory, for `recover`.
    "home": "",
    # `latest`, the id of a backup, a time in UTC, or the name of a former database or folder; empty to list them.
    "at": "",
    # `database` or `shared`; empty for the database if the app has one.
    "only": "",
    # Whether to switch to what was restored.
    "switch": False,
    # The run of Ansible that this is a step of.
    "run": dict,
}


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Take the step, and return what came of it; `lines` are for people.

    Raises:
        ReleaseError: when it fails; what was live still is.
    """
    if given["command"] in ("prepare", "recover") and check and not is_on(given["app"]):
        return {"changed": True}  # the settings would be written before
    settings = load(given["app"])
    if given["command"] == "prepare":
        return {"changed": prepare(settings, check)}
    if given["command"] == "recover":
        return recover(settings, Path(given["home"]), given["at"], given["run"], check)
    if given["command"] == "drill":
        lines = ["The newest backup would be restored beside what is live, tried, and removed."]
        return {"changed": False, "lines": lines if check else described(drill(settings.name))}
    if given["only"] not in ("", DATABASE, SHARED):
        raise ReleaseError(f"only={given['only']} must be database or shared.")
    try:
        if not given["at"]:
            if given["switch"]:
                raise ReleaseError("switch=true needs at=..., the backup to switch to. To list them, leave both out.")
            return list_all(settings)
        return restore(Order(settings, given["at"], given["switch"], given["run"], check), given["only"])
    except ReleaseError as error:
        if type(error) is not ReleaseError:  # of a lock, with what the run needs to know
            raise
        raise ReleaseError(settings.shown(str(error))) from error
