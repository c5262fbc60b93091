"""What an operator reads about a failure: the log, and what helps, if that is known."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

from slipway.host.logs import ends
from slipway.host.release.context import Context
from slipway.host.release.shared import advice, writes_beside_code
from slipway.host.store import version_of

# What a loader says of a library that is not there: Python's own, cffi's and python-magic's.
MISSING_LIBRARY = re.compile(
    r"(lib[\w+.-]*?\.so[\d.]*): cannot open shared object file|cannot load library '(lib[\w+.-]+)'|failed to find (lib\w+)"
)
# Debian's packages of libraries whose names do not follow from theirs.
DEBIAN_PACKAGES = {"libglib-2.0": "libglib2.0-0", "libgobject-2.0": "libglib2.0-0", "libxml2": "libxml2"}
# What says that app.frontend() has nothing to serve.
MISSING_FRONTEND = re.compile(r"Frontend directory '[^']+' does not exist")
# What pydantic says of an app that does not take `production`, in a log of lines or of records.
OTHER_ENVIRONMENT = re.compile(r"FASTAPI_ENV(\s|\\n)+Input should be")
# What says that a database has been migrated further than code knows.
UNKNOWN_SCHEMA = re.compile(r"Can't locate revision identified by '([^']+)'")

UNBUILT_FRONTEND = (
    "The source has no front end that is built: build it there before the release, or on the controller by the hook after_fetch "
    "(app_hooks), such as `npm ci && npm run build`."
)
UNUSUAL_ENVIRONMENT = (
    "The app does not take the value production of FASTAPI_ENV, which Slipway sets. Set another one, or none: "
    'app_env: {FASTAPI_ENV: ""}'
)


def log_tail(context: Context, number: int) -> str:
    """Return the last lines that release `number` logged, for the operator; of several instances, what each one did."""
    found = ends(context.layout, context.arguments["name"], number, 30)
    output = "\n".join(f"Last lines of {place}:\n{text}" for place, text in found)
    return advised(context, output, number) if output else f"It wrote nothing to {context.layout.log(number)}."


def advised(context: Context, output: str, number: int, cause: str = "") -> str:
    """Return what release `number`, or a command with its code, said of a failure, below what helps where that is known.

    Args:
        context: the step, and its host.
        output: what was said.
        number: the release.
        cause: what the message already says of it.
    """
    text = f"{cause}\n{output}"
    if writes_beside_code(context, text):
        return f"{advice(context, text, number)}\n{output}"
    missing = MISSING_LIBRARY.search(text)
    if missing:
        return f"{library_advice(next(filter(None, missing.groups())), bool(shutil.which('dpkg')))}\n{output}"
    if MISSING_FRONTEND.search(text):
        return f"{UNBUILT_FRONTEND}\n{output}"
    if OTHER_ENVIRONMENT.search(text):
        return f"{UNUSUAL_ENVIRONMENT}\n{output}"
    unknown = UNKNOWN_SCHEMA.search(text)
    if unknown:
        return f"{migrated_further(context, number, unknown[1])}\n{output}"
    return output


def library_advice(library: str, debian: bool) -> str:
    """Say which variable takes the package of a library that the host lacks, and the package as far as it can be known.

    Debian names a package after the library and the version of its interface; dnf finds it by what it provides.
    https://www.debian.org/doc/debian-policy/ch-sharedlibs.html

    Args:
        library: the library's name, such as `libmagic.so.1`.
        debian: whether the host has Debian's packages, and not RPM's.
    """
    name, _, version = library.partition(".so")
    number = version.strip(".").split(".")[0]
    package = f"{name}{'-' if number and name[-1].isdigit() else ''}{number}".lower().replace("_", "-")
    listed = next((found for library, found in DEBIAN_PACKAGES.items() if name.startswith(library)), "")
    if debian:
        hint = f"probably {listed or package}" if listed or number else f"its name begins with {package}"
    else:
        hint = f"dnf provides '{library}*' finds it"
    return f"The app needs the system library {library}, which this host lacks: add its package to app_packages ({hint})."


def migrated_further(context: Context, number: int, schema: str) -> str:
    """Say why the code of release `number` does not know the schema that the database has, and what can be done.

    Args:
        context: the step, and its host.
        number: the release.
        schema: the revision that it does not know.
    """
    by = migrated_by(context, schema, number)
    if by is None:
        return f"The database has been migrated to {schema}, which this version does not know: deploy a version that does."
    what = version_of(context.layout.record(by))
    name = f"release {by}{f' ({what})' if what else ''}"
    revision = str(context.layout.record(number).get("migration") or "").split(", ")[0]
    return (
        f"This version is older than the database, which was migrated to {schema} by {name}. Slipway never downgrades a "
        "database: deploy a version that knows this schema (app_version), or downgrade first.\n"
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
    return f"To downgrade with the code of release {number}, on the host as root:\n{command}"


def by_hand(context: Context, number: int, command: str) -> str:
    """Return what root types on the host to run `command` with the code and the settings of release `number`."""
    release = context.layout.release(number)
    if (release / "container.py").exists():
        return shlex.join([sys.executable, str(release / "container.py"), "--shell", command])
    python = str(release / "build" / ".venv" / "bin" / "python")
    arguments = ["runuser", "-u", context.arguments["user"], "--", python, str(release / "launch.py"), "--shell", command]
    return f"cd {shlex.quote(os.path.normpath(release / 'build' / context.arguments['directory']))} && {shlex.join(arguments)}"
