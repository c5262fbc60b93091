"""What is restored takes the place of what is empty: a database by rename, a folder with the owner and the mode of the other."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from slipway.host.backup import copies
from slipway.host.backup.database import ask
from slipway.host.backup.settings import Settings

# The comments of a database that was restored so, and of the empty one that it replaced.
RECOVERED, REPLACED = "slipway: recovered", "slipway: replaced"

# How many things a database has that are not the system's or an extension's.
OWN = """
  (SELECT count(*) FROM {table} c JOIN pg_namespace n ON n.oid = {schema}
   WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{table}'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
"""
THINGS = f"""
SELECT {OWN.format(table="pg_class", schema="relnamespace")} + {OWN.format(table="pg_proc", schema="pronamespace")}
  + (SELECT count(*) FROM pg_largeobject_metadata);
"""


def is_empty(settings: Settings, database: str) -> bool:
    """Say whether a database has nothing but what the system and extensions have put there.

    Raises:
        ReleaseError: when the server is away.
    """
    return not int(ask(settings, THINGS, database)[0])


def take_modes(other: Path, live: Path, group: int) -> None:
    """Give a restored folder the owner and the mode of the one that it replaces: Nginx may have another group on this host.

    Args:
        other: the restored folder.
        live: the one that it replaces.
        group: the app's own group. What another one may read is for the next release to decide.
    """
    known = live.stat()
    os.chown(other, known.st_uid, known.st_gid, follow_symlinks=False)
    os.chmod(other, stat.S_IMODE(known.st_mode))
    for path in other.rglob("*"):
        inner = path.lstat()
        if stat.S_ISDIR(inner.st_mode) and inner.st_mode & stat.S_ISGID and inner.st_gid not in (0, group):
            os.chown(path, -1, group, follow_symlinks=False)
            os.chmod(path, stat.S_IMODE(inner.st_mode) & ~stat.S_ISGID)


def replace_empty(settings: Settings, other: str, comment: str) -> None:
    """Have a restored database take the name of the live one, which is empty: both in one transaction, or neither.

    Args:
        settings: those of the app's backups.
        other: the restored database.
        comment: what says of the live one that this was done.

    Raises:
        ReleaseError: when the server refuses; nothing was renamed.
    """
    live, replaced = settings.database, replaced_name(settings)
    ask(
        settings,
        f"""
{copies.END_CONNECTIONS.format(names=copies.literal(live))}
BEGIN;
ALTER DATABASE {copies.name(live)} RENAME TO {copies.name(replaced)};
ALTER DATABASE {copies.name(other)} RENAME TO {copies.name(live)};
COMMENT ON DATABASE {copies.name(replaced)} IS {copies.literal(copies.note(REPLACED, settings))};
COMMENT ON DATABASE {copies.name(live)} IS {copies.literal(comment)};
COMMIT;
""",
    )


def replaced_name(settings: Settings) -> str:
    """Return the name that an empty database has after a restored one took its place."""
    return copies.beside(settings.database, "_replaced")


def drop_replaced(settings: Settings) -> None:
    """Drop the empty database that a restored one took the place of. One that is not empty any more stays.

    Raises:
        ReleaseError: when it cannot be dropped.
    """
    replaced = replaced_name(settings)
    made = copies.all_databases(settings).get(replaced, {}).get("comment") == copies.note(REPLACED, settings)
    if made and is_empty(settings, replaced):
        ask(settings, f"DROP DATABASE {copies.name(replaced)};", seconds=600)
