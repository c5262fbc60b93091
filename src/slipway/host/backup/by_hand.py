"""Back an app up now, or try its newest backup, for a timer or an operator, and list the backups."""

from __future__ import annotations

import os
from dataclasses import asdict

from slipway.host import configuration
from slipway.host.backup import drill
from slipway.host.backup.report import drill_row, row
from slipway.host.backup.restore import list_all
from slipway.host.backup.run import back_up, described
from slipway.host.backup.settings import load
from slipway.host.operator import DONE, show


def back_up_now(app: str, as_json: bool) -> int:
    """Back an app up, and show what is in the backup.

    Raises:
        ReleaseError: when it fails.
    """
    configuration.load(app)
    state = back_up(app, "timer" if "INVOCATION_ID" in os.environ else "by hand")
    show({**asdict(state), **row(app)}, [described(state)], as_json)
    return DONE


def drill_now(app: str, as_json: bool) -> int:
    """Try the newest backup of an app, and show what was found.

    Raises:
        ReleaseError: when it cannot be restored.
    """
    configuration.load(app)
    state = drill.drill(app)
    show(drill_row(app), drill.described(state), as_json)
    return DONE


def show_backups(app: str, as_json: bool) -> int:
    """Show the backups of an app, and what is kept of before earlier restores.

    Raises:
        ReleaseError: when the repository cannot be read.
    """
    configuration.load(app)
    found = list_all(load(app))
    show({name: found[name] for name in ("backups", "formers")}, found["lines"], as_json)
    return DONE
