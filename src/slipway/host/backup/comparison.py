"""What a switch to a restored database would lose, and whether that is what was backed up."""

from __future__ import annotations

import os
from typing import Any

from slipway.host.backup.database import ask
from slipway.host.backup.listing import moment
from slipway.host.backup.report import size_text
from slipway.host.backup.settings import Settings
from slipway.host.errors import ReleaseError
from slipway.host.tables import text_table

COLUMNS = {"table": "TABLE", "live": "LIVE", "backup": "BACKUP", "lost": "FEWER THAN LIVE"}

# So much more space is required than the live database takes, or than a dump has: that one may have grown or shrunk since, and
# indexes are not in a dump.
LIVE_RATIO, DUMP_RATIO = 1.2, 2.0


def require_space(settings: Settings, live: int, dump: int) -> None:
    """Require that the disk of the database server has space for another database, before the live one runs out of it.

    Args:
        settings: those of the app's backups.
        live: bytes that the live database takes.
        dump: bytes of the dump that is to be restored.

    Raises:
        ReleaseError: when it has not.
    """
    place = ask(settings, "SHOW data_directory;")[0]
    system = os.statvfs(place)
    free, needed = system.f_bavail * system.f_frsize, max(live * LIVE_RATIO, dump * DUMP_RATIO)
    if free < needed:
        raise ReleaseError(f"{place} has {size_text(free)} free, and another database needs {size_text(needed)}.")


def require_rows(noted: dict[str, int], found: dict[str, int], run: str) -> None:
    """Require that a restored database has the rows that were counted when it was backed up.

    Raises:
        ReleaseError: when it has not.
    """
    different = sorted(each for each in {*noted, *found} if noted.get(each) != found.get(each))
    if different:
        each = different[0]
        raise ReleaseError(
            f"Backup {run} is not what was backed up: {each} has {found.get(each, 'no')} rows, and had {noted.get(each, 'no')}. "
            "Nothing live was changed."
        )


def compared(live: dict[str, int], other: dict[str, int]) -> list[dict[str, Any]]:
    """Return how many rows each table has in the live database and in another one; None where it has no such table."""
    return [
        {
            **{"table": each, "live": live.get(each), "backup": other.get(each)},
            "lost": max(0, live.get(each, 0) - other.get(each, 0)),
        }
        for each in sorted({*live, *other})
    ]


def comparison_table(comparison: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table for people."""
    return text_table([{name: "none" if value is None else value for name, value in row.items()} for row in comparison], COLUMNS)


def loss(comparison: list[dict[str, Any]], noted: dict[str, Any]) -> str:
    """Return how much a switch would lose, for people."""
    lost = sum(row["lost"] for row in comparison)
    tables = sum(bool(row["lost"]) for row in comparison)
    since = f"all that was written since {moment(noted['time'])} UTC" if noted else "all that was written since it was live"
    return f"A switch loses {since}, changes of rows included: at least {lost} rows, of {tables} tables."
