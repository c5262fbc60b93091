"""What an operator is told of a failure: what was logged, and what helps where that is known."""

from __future__ import annotations

import os
import re
import shlex
import sys

from slipway.host.logs import ends
from slipway.host.release.context import Context
from slipway.host.store import version_of

# What says that code wanted to write where it lies, and that a database has been migrated further than code knows.
READ_ONLY = (
    r"unable to open database file|attempt to write a readonly database|Read-only file system"
    r"|Permission denied: '(?!/)|Permission denied: '{home}/(?!shared)"
)
UNKNOWN_SCHEMA = re.compile(r"Can't locate revision identified by '([^']+)'")


def log_tail(context: Context, number: int) -> str:
    """Return the last lines that release `number` logged, for the operator; of several instances, what each one did."""
    found = ends(context.layout, context.arguments["name"], number, 30)
    output = "\n".join(f"The end of {place}:\n{text}" for place, text in found)
    return advised(context, output, number) if output else f"It wrote nothing to {context.layout.log(number)}."


def advised(context: Context, output: str, number: int, cause: str = "") -> str:
    """Return what release `number`, or a command with its code, said of a failure, below what helps where that is known.

    Args:
        context: the step, and its host.
        output: what was said.
        number: the release.
        cause: what is told of it already.
    """
    shared = context.layout.home / "shared"
    if re.search(READ_ONLY.format(home=re.escape(str(context.layout.home))), f"{cause}\n{output}"):
        return (
            f"The directory of the code is read-only: what the app writes belongs into {shared}, which its releases share. "
            f"For SQLite that may be, in app_env, DATABASE_URL: sqlite:///{shared}/app.db\n{output}"
        )
    unknown = UNKNOWN_SCHEMA.search(f"{cause}\n{output}")
    if unknown:
        return f"{migrated_further(context, number, unknown[1])}\n{output}"
    return output


def migrated_further(context: Context, number: int, schema: str) -> str:
    """Say why the code of release `number` does not know the schema that the database has, and what can be done.

    Args:
        context: the step, and its host.
        number: the release.
        schema: the revision that it does not know.
    """
    by = migrated_by(context, schema, number)
    if by is None:
        return f"The database has been migrated to {schema}, which this version does not know: release one that does."
    what = version_of(context.layout.record(by))
    name = f"release {by}{f' ({what})' if what else ''}"
    revision = str(context.layout.record(number).get("migration") or "").split(", ")[0]
    return (
        f"This version is older than the database, which was migrated to {schema} by {name}. Nothing is migrated back by "
        "itself: release a version that knows this schema (app_version), or migrate back first.\n"
        f"{migrating_back(context, by, revision)}\nThen run this again."
    )


def migrated_by(context: Context, schema: str, but: int | None = None) -> int | None:
    """Return the newest release, other than `but`, whose migrations end at a revision of the schema; else what is live."""
    for number in reversed(context.layout.numbers()):
        known = str(context.layout.record(number).get("migration") or "").split(", ")
        if number != but and {schema, schema.split(", ")[0]} & {*known} and (context.layout.release(number) / "build").exists():
            return number
    return context.layout.live()


def migrating_back(context: Context, number: int, schema: str) -> str:
    """Say how the database is migrated back to `schema`, or to none, with the code of release `number`."""
    command = by_hand(context, number, f"python3 -m alembic downgrade {schema or 'base'}")
    return f"To migrate back, with the code of release {number}, on the host as root:\n{command}"


def by_hand(context: Context, number: int, command: str) -> str:
    """Return what root types on the host to run `command` with the code and the settings of release `number`."""
    release = context.layout.release(number)
    if (release / "container.py").exists():
        return shlex.join([sys.executable, str(release / "container.py"), "--shell", command])
    python = str(release / "build" / ".venv" / "bin" / "python")
    arguments = ["runuser", "-u", context.arguments["user"], "--", python, str(release / "launch.py"), "--shell", command]
    return f"cd {shlex.quote(os.path.normpath(release / 'build' / context.arguments['directory']))} && {shlex.join(arguments)}"
