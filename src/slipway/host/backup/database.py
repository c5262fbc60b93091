"""The database of an app, asked and dumped as PostgreSQL's administrator: rows are counted in the moment that is dumped."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from slipway.host.backup.settings import Settings
from slipway.host.errors import ReleaseError
from slipway.host.process import tail

# Seconds that a question may take.
SHORT = 60.0

# How long a dump waits to lock a table, as pg_dump says that it tried. What waits to change one that a session holds is before it
# in the queue: both would wait for ever.
LOCK, LOCK_WAIT = "LOCK TABLE", "5s"

# Settings of each connection, which those of the database do not change. The app owns its database: there it may set a
# search_path that finds functions and operators of its own before those of PostgreSQL, for the administrator to run. Limits of
# time are for requests.
OPTIONS = "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"

# The same for settings that not all versions have, before all statements. No view is read, which might take a table's place.
ADJUSTED = """
SELECT set_config(name, CASE name WHEN 'restrict_nonsystem_relation_kind' THEN 'view, foreign-table' ELSE '0' END, false)
FROM pg_settings WHERE name IN ('restrict_nonsystem_relation_kind', 'idle_session_timeout', 'transaction_timeout') \\g /dev/null
"""

# Tables with rows of the app's own, as statements: each counts the rows of one, or keeps others from emptying it.
TABLES = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1 \\gexec
"""
COUNTS = f"""
SELECT format('SELECT json_build_array(%L, count(*)) FROM ONLY %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
{TABLES}
"""
LOCKS = f"""
SELECT format('{LOCK} ONLY %I.%I IN ACCESS SHARE MODE', n.nspname, c.relname)
{TABLES}
"""
# The table is looked for as the app does, by the search_path of the database's owner. It must be a plain one of texts: they are
# read as they are, by no function of a type of the app's own.
SCHEMA = """
WITH own AS (SELECT oid, datdba, pg_get_userbyid(datdba)::text AS role FROM pg_database WHERE datname = current_database()),
path AS (SELECT array(SELECT unnest(string_to_array(translate(replace(substr(s, 13), '$user', role), '" ', ''), ','))
  FROM own, pg_db_role_setting, unnest(setconfig) s
  WHERE s LIKE 'search_path=%' AND setrole IN (datdba, 0) AND setdatabase IN (own.oid, 0)
  ORDER BY setrole = 0, setdatabase = 0) || role || 'public'::text AS names FROM own)
SELECT format('SELECT version_num FROM ONLY %I.%I', n.nspname, c.relname)
FROM path, pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r' AND c.relname = 'alembic_version'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'version_num' AND a.atttypid IN ('varchar'::regtype, 'text'::regtype)
WHERE n.nspname::text = ANY (names) ORDER BY array_position(names, n.nspname::text) LIMIT 1 \\gexec
"""


def command(settings: Settings, program: str, *arguments: str, user: str = "postgres") -> list[str]:
    """Return a command of PostgreSQL's administrator, or of another user: one process, which ends as a whole if it is stopped."""
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    return [*as_user, "env", f"PGOPTIONS={OPTIONS}", program, f"--host={settings.database_directory}", *arguments]


def psql(settings: Settings, database: str) -> list[str]:
    """Return the command that answers statements on its standard input, and ends at the first that fails."""
    options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", f"--dbname={database}"]
    return command(settings, "psql", *options)


def ask(settings: Settings, statements: str, database: str = "postgres", seconds: float = SHORT) -> list[str]:
    """Return the lines that the server answers to statements.

    Raises:
        ReleaseError: when it refuses, is away, or takes too long.
    """
    options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": seconds, "check": False}
    try:
        done = subprocess.run(psql(settings, database), input=ADJUSTED + statements, **options)
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"The database server took longer than {seconds:g} s to answer.") from error
    if done.returncode:
        raise ReleaseError(f"The database server refuses: {tail(done.stderr, 5)}")
    return [line for line in done.stdout.splitlines() if line]


class Session:
    """A transaction that sees one moment of a database: what is counted in it is what is dumped with its snapshot.

    Args:
        settings: those of the app's backups.
        database: the database.
    """

    def __init__(self, settings: Settings, database: str) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it
        self.end = f"end-{secrets.token_hex(8)}"  # of an answer, in which the app may have written anything
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        self.process = subprocess.Popen(psql(settings, database), **pipes)

    def begin(self) -> str:
        """Begin the transaction, and return the name of its snapshot.

        Raises:
            ReleaseError: when the server refuses, or is away.
        """
        self.ask(f"{ADJUSTED}BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        return self.ask("SELECT pg_export_snapshot();")[0]

    def ask(self, statement: str) -> list[str]:
        """Return the lines of an answer.

        Raises:
            ReleaseError: when the server refuses, or is away.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{statement}\n\\echo {self.end}\n")
            self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.rstrip("\n") == self.end:
                return lines
            lines.append(line.rstrip("\n"))
        self.errors.seek(0)
        raise ReleaseError(f"The database cannot be read: {tail(self.errors.read().decode('utf-8', 'replace'), 3)}")

    def lock_tables(self) -> None:
        """Keep others from emptying or changing tables until the end: TRUNCATE empties one also for who sees an earlier moment.

        Raises:
            ReleaseError: when a table was removed meanwhile.
        """
        self.ask(LOCKS)

    def counts(self) -> dict[str, int]:
        """Return how many rows each table has."""
        return dict(json.loads(line) for line in self.ask(COUNTS))

    def schema(self) -> str:
        """Return Alembic's revision of the schema; empty where it has none."""
        return "+".join(sorted(re.sub(r"[^\w.-]", "_", line) for line in self.ask(SCHEMA)))

    def close(self) -> None:
        """End the transaction."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.errors.close()


@contextlib.contextmanager
def session(settings: Settings, database: str) -> Iterator[tuple[Session, str]]:
    """Give a transaction that sees one moment of a database, and the name of its snapshot.

    Raises:
        ReleaseError: when the server refuses, or is away.
    """
    opened = Session(settings, database)
    try:
        yield opened, opened.begin()
    finally:
        opened.close()


def dump_command(settings: Settings, snapshot: str) -> list[str]:
    """Return the command that dumps the app's database as of a snapshot. restic compresses, and finds what is equal in it."""
    options = ["--format=custom", "--compress=0", f"--lock-wait-timeout={LOCK_WAIT}", f"--snapshot={snapshot}"]
    return command(settings, "pg_dump", *options, f"--dbname={settings.database}")


def counts(settings: Settings, database: str) -> dict[str, int]:
    """Return how many rows each table of a database has.

    Raises:
        ReleaseError: when it cannot be read.
    """
    with session(settings, database) as (opened, _):
        return opened.counts()
