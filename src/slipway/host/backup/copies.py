"""Databases beside the live one of an app: one that a backup is restored into, and former ones. They are switched by rename."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from slipway.host.backup.database import ask, command
from slipway.host.backup.settings import STATES, Settings
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.process import tail

# PostgreSQL's names have at most 63 characters.
NAME_LENGTH = 63

# Seconds for new statistics, and between two rounds in which connections are ended.
ANALYZE_SECONDS, PAUSE_SECONDS = 3600.0, 0.05

# What Slipway notes as the comment of a database that it made or renamed, and what is in it.
RESTORING, RESTORED, FORMER, DRILL = "slipway: restoring", "slipway: restored", "slipway: former", "slipway: drill"

# What a dump of a database lacks: its settings, also those for one role in it, and its grants. Some of the settings are lists, of
# which each name is written as a text: they are the app's to set, and may be anything (SET search_path FROM CURRENT).
PROPERTIES = r"""
SELECT CASE WHEN t.setrole = 0 THEN format('ALTER DATABASE %I', {new})
    ELSE format('ALTER ROLE %I IN DATABASE %I', r.rolname, {new}) END
  || format(' SET %I TO %s', split_part(s, '=', 1), coalesce(names, quote_literal(value)))
FROM pg_database d JOIN pg_db_role_setting t ON t.setdatabase = d.oid LEFT JOIN pg_roles r ON r.oid = t.setrole,
  unnest(t.setconfig) s, substr(s, strpos(s, '=') + 1) value, LATERAL (
    SELECT string_agg(quote_literal(coalesce(replace(found[1], '""', '"'), lower(found[2]))), ', ' ORDER BY place)
    FROM regexp_matches(value, '"((?:[^"]|"")*)"|([^",\s]+)', 'g') WITH ORDINALITY parts (found, place)
    WHERE split_part(s, '=', 1) IN ('search_path', 'local_preload_libraries', 'session_preload_libraries', 'temp_tablespaces')
  ) list (names)
WHERE d.datname = {old} \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {new}) \gexec
SELECT format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, {new}, coalesce(quote_ident(r.rolname), 'PUBLIC'))
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE d.datname = {old} AND a.grantee <> d.datdba \gexec
"""
# Those of other apps, whose names begin alike, have another comment.
DATABASES = """
SELECT to_jsonb(d) || jsonb_build_object('comment', coalesce(shobj_description(d.oid, 'pg_database'), ''),
  'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding), 'size', pg_database_size(d.oid))
FROM pg_database d WHERE NOT d.datistemplate;
"""
# What only the administrator may restore is left out of what the app's role restores. Extensions are there before.
OWNED = ["--no-owner", "--no-privileges", "--no-comments", "--no-publications", "--no-subscriptions", "--no-security-labels"]
EXTENSIONS = """
SELECT format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I', extname, nspname)
FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE nspname IN ('public', 'pg_catalog') ORDER BY e.oid;
"""
GRANTS = """
SELECT format('GRANT ALL ON %s TO %I', c::regclass, pg_get_userbyid(d.datdba))
FROM pg_extension, unnest(extconfig) c, pg_database d WHERE d.datname = current_database() \\gexec
"""
END_CONNECTIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ({names}) AND pid <> pg_backend_pid();
"""


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + text.replace('"', '""') + '"'


def beside(database: str, suffix: str) -> str:
    """Return the name of a database beside another one."""
    return database[: NAME_LENGTH - len(suffix)] + suffix


def restored_name(settings: Settings) -> str:
    """Return the name of the database that backups of the app are restored into."""
    return beside(settings.database, "_restored")


def drill_name(settings: Settings) -> str:
    """Return the name of the database that a drill restores the newest backup into."""
    return beside(settings.database, "_drill")


def former_name(settings: Settings, stamp: str) -> str:
    """Return the name that the live database has after a switch.

    Args:
        settings: those of the app's backups.
        stamp: the time of the switch, as the id of a backup.
    """
    return beside(settings.database, f"_before_{stamp.replace('-', '_')}")


def all_databases(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what the server has, by name: `comment`, `owner`, `size` in bytes, and what pg_database says.

    Raises:
        ReleaseError: when it is away.
    """
    found = (json.loads(line) for line in ask(settings, DATABASES))
    return {one["datname"]: one for one in found}


def live_database(settings: Settings, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the server says of the live database.

    Raises:
        ReleaseError: when there is none.
    """
    if settings.database not in found:
        raise ReleaseError(f"There is no database {settings.database} on this host: site.yml --tags postgresql creates it.")
    return found[settings.database]


def note(text: str, settings: Settings, what: str = "") -> str:
    """Return the comment of a database."""
    return f"{text} {settings.name} {what}".rstrip()


def drop(settings: Settings, database: str) -> None:
    """Drop a database that was made beside the live one, if it is there. One that Slipway did not make is not dropped.

    Raises:
        ReleaseError: when it is another one, or cannot be dropped.
    """
    found = all_databases(settings)
    if database not in found:
        return
    comment = found[database]["comment"]
    ours = comment.startswith(tuple(f"{note(text, settings)} " for text in (RESTORING, RESTORED, DRILL)))
    if not ours and not (being_created(database).exists() and not comment):
        raise ReleaseError(f"There is a database {database} that Slipway did not make. Rename it, then run again.")
    ask(settings, END_CONNECTIONS.format(names=literal(database)) + f"DROP DATABASE {name(database)};", seconds=600)


def being_created(database: str) -> Path:
    """Return the file that tells whose a database is between its creation and its comment."""
    return STATES / f"{database}.creating"


def create(settings: Settings, new: str, comment: str, closed: bool = False) -> str:
    """Create an empty database beside the live one, of its owner, with its order of texts, and return its name.

    One that was there before is dropped, unless Slipway did not make it.

    Args:
        settings: those of the app's backups.
        new: its name.
        comment: what says what it is.
        closed: whether nobody but the administrator may connect to it yet.

    Raises:
        ReleaseError: when it cannot be created.
    """
    live, begun = live_database(settings, all_databases(settings)), being_created(new)
    drop(settings, new)
    options = f"OWNER {name(live['owner'])} TEMPLATE template0 ENCODING {literal(live['encoding'])}"
    options += f" LC_COLLATE {literal(live['datcollate'])} LC_CTYPE {literal(live['datctype'])}"
    locale = live.get("datlocale") or live.get("daticulocale")
    provider = {"i": "icu ICU_LOCALE", "b": "builtin BUILTIN_LOCALE"}.get(live.get("datlocprovider", "c"))
    options += f" LOCALE_PROVIDER {provider} {literal(locale)}" if provider and locale else ""
    options += " CONNECTION LIMIT 0" if closed else ""
    statements = f"CREATE DATABASE {name(new)} {options};\nCOMMENT ON DATABASE {name(new)} IS {literal(comment)};\n"
    write(begun, new, mode=0o600)
    ask(settings, statements + PROPERTIES.format(new=literal(new), old=literal(settings.database)), seconds=600)
    remove(begun)
    return new


def load(settings: Settings, database: str, stream: IO[bytes], by_owner: bool = False) -> None:
    """Load a dump into a database, and have the server know how its rows are distributed.

    Args:
        settings: those of the app's backups.
        database: the database.
        stream: the dump.
        by_owner: whether the app's own role does that, and owns all of it. What the app has put into its database runs as whoever
            loads it, such as a function that a constraint calls.

    Raises:
        ReleaseError: when it is damaged, or the server refuses something in it.
    """
    options = ["--format=custom", "--exit-on-error", *(OWNED if by_owner else []), f"--dbname={database}"]
    with tempfile.TemporaryFile() as errors:
        arguments = command(settings, "pg_restore", *options, user=settings.user if by_owner else "postgres")
        # What is run as the app must have neither root's terminal nor its environment.
        apart: dict[str, Any] = {"start_new_session": True, "env": {"PATH": os.environ.get("PATH", os.defpath)}}
        streams: dict[str, Any] = {"stdin": stream, "stdout": subprocess.DEVNULL, "stderr": errors}
        code = subprocess.run(arguments, check=False, **streams, **(apart if by_owner else {})).returncode
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace")
    if code:
        more = "\nThe app's own role restores it in a drill. The administrator may, by playbooks/restore.yml." if by_owner else ""
        raise ReleaseError(f"The dump cannot be restored into {database}: {tail(text, 5)}{more}")
    if not by_owner:
        ask(settings, "ANALYZE;", database, ANALYZE_SECONDS)


def take_extensions(settings: Settings, database: str) -> None:
    """Create those extensions of the live database in another one that it lacks.

    Raises:
        ReleaseError: when the server refuses.
    """
    ask(settings, "\n".join(f"{line};" for line in ask(settings, EXTENSIONS, settings.database)), database)


def add_extensions(settings: Settings, database: str) -> None:
    """Create the extensions of the live database in one that is closed and empty, and open that for its owner.

    Raises:
        ReleaseError: when the server refuses.
    """
    take_extensions(settings, database)
    # A dump has rows of theirs, too, such as those that the app added to PostGIS's table of coordinate systems.
    ask(settings, GRANTS, database)
    ask(settings, f"ALTER DATABASE {name(database)} CONNECTION LIMIT -1;")


def set_comment(settings: Settings, database: str, comment: str) -> None:
    """Note what a database is.

    Raises:
        ReleaseError: when the server refuses.
    """
    ask(settings, f"COMMENT ON DATABASE {name(database)} IS {literal(comment)};")


def switch(settings: Settings, other: str, former: str) -> None:
    """Have another database take the name of the live one, which becomes `former`: both in one transaction, or neither.

    Connections of the app are ended. New ones wait for the end of the transaction, which is a matter of milliseconds.

    Raises:
        ReleaseError: when the server refuses, as while somebody's prepared transaction is open; nothing was renamed.
    """
    live = live_database(settings, all_databases(settings))
    names = ", ".join(map(literal, (settings.database, other)))
    comment = literal(live["comment"]) if live["comment"] else "NULL"
    # The server gives up before `ask` does: what was not waited for would be renamed all the same.
    statements = f"""
SET lock_timeout = '20s'; SET statement_timeout = '40s';
BEGIN;
ALTER DATABASE {name(settings.database)} RENAME TO {name(former)};
ALTER DATABASE {name(other)} RENAME TO {name(settings.database)};
COMMENT ON DATABASE {name(former)} IS {literal(note(FORMER, settings))};
COMMENT ON DATABASE {name(settings.database)} IS {comment};
COMMIT;
"""
    over = threading.Event()

    def end_connections() -> None:
        """End connections until the rename is done, which waits for them: pools connect again at once."""
        while not over.is_set():
            with contextlib.suppress(ReleaseError):
                ask(settings, END_CONNECTIONS.format(names=names))
            over.wait(PAUSE_SECONDS)

    ask(settings, END_CONNECTIONS.format(names=names))
    helper = threading.Thread(target=end_connections, daemon=True)
    helper.start()
    try:
        ask(settings, statements)
    finally:
        over.set()
        helper.join()


def formers(settings: Settings) -> list[dict[str, Any]]:
    """Return the former databases of the app, oldest first: `name` and `size` in bytes.

    Raises:
        ReleaseError: when the server is away.
    """
    pattern = re.compile(r".*_before_\d{8}_\d{6}")
    found = all_databases(settings).items()
    return [
        {"name": each, "size": one["size"]}
        for each, one in sorted(found)
        if pattern.fullmatch(each) and one["comment"] == note(FORMER, settings)
    ]
