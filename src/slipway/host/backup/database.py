"""The database of an app, asked and dumped as PostgreSQL's administrator: rows are counted in the moment that is dumped."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from slipway.host.backup.settings import Settings
from slipway.host.errors import ReleaseError
from slipway.host.process import tail

# Seconds that a question may take.
SHORT = 60.0

# What prints the end of an answer.
END = "slipway-end"

# Tables with rows of the app's own, as statements that count them.
COUNTS = """
SELECT format('SELECT json_build_array(%L, count(*)) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1 \\gexec
"""
SCHEMA = """
SELECT 'SELECT json_build_array(version_num) FROM ' || to_regclass('alembic_version')
WHERE to_regclass('alembic_version') IS NOT NULL \\gexec
"""


def command(settings: Settings, program: str, *arguments: str) -> list[str]:
    """Return a command of PostgreSQL's administrator."""
    return ["runuser", "-u", "postgres", "--", program, f"--host={settings.database_directory}", *arguments]


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
        done = subprocess.run(psql(settings, database), input=statements, **options)
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
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        self.process = subprocess.Popen(psql(settings, database), **pipes)

    def begin(self) -> str:
        """Begin the transaction, and return the name of its snapshot.

        Raises:
            ReleaseError: when the server refuses, or is away.
        """
        self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;")
        return self.ask("SELECT pg_export_snapshot();")[0]

    def ask(self, statement: str) -> list[str]:
        """Return the lines of an answer.

        Raises:
            ReleaseError: when the server refuses, or is away.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{statement}\n\\echo {END}\n")
            self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.rstrip("\n") == END:
                return lines
            lines.append(line.rstrip("\n"))
        self.errors.seek(0)
        raise ReleaseError(f"The database cannot be read: {tail(self.errors.read().decode('utf-8', 'replace'), 3)}")

    def counts(self) -> dict[str, int]:
        """Return how many rows each table has."""
        return dict(json.loads(line) for line in self.ask(COUNTS))

    def schema(self) -> str:
        """Return Alembic's revision of the schema; empty where it has none."""
        return "+".join(sorted(json.loads(line)[0] for line in self.ask(SCHEMA)))

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
    return command(
        settings, "pg_dump", "--format=custom", "--compress=0", f"--snapshot={snapshot}", f"--dbname={settings.database}"
    )


def counts(settings: Settings, database: str) -> dict[str, int]:
    """Return how many rows each table of a database has.

    Raises:
        ReleaseError: when it cannot be read.
    """
    with session(settings, database) as (opened, _):
        return opened.counts()
