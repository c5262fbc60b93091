"""Prepare a release: write it, import the app in it, and run its migration."""

from __future__ import annotations

import contextlib
import json
import re
import secrets

from slipway.host.backup.run import back_up_before_migration, schema_there
from slipway.host.errors import ReleaseError
from slipway.host.files import require_free_space, write
from slipway.host.process import run, shell, tail
from slipway.host.release.advice import UNKNOWN_SCHEMA, advised, migrated_further
from slipway.host.release.assets import place, publish, read_frontends
from slipway.host.release.context import Context
from slipway.host.release.failure import recording_failure
from slipway.host.release.jobs import check_jobs, warn_of_missing_commands, write_jobs
from slipway.host.release.record import files, fingerprint, next_number, remember, runtime_settings
from slipway.host.release.shared import provide
from slipway.runtime.frontends import LINE

# The line of preflight.py that says in a few words what is wrong.
HEADLINE = re.compile(r"^slipway-headline: (.*)$\n?", re.MULTILINE)

# The line with the folders of front ends.
FRONTENDS = re.compile(rf"^{LINE} (.*)$", re.MULTILINE)

# How preflight.py ends where the app can be imported, and would all the same not be served as it says.
UNFIT = 3
# The same, where it would serve what is closed.
OPEN = 4


def write_release(context: Context, number: int) -> None:
    """Write the directory of release `number`.

    Raises:
        ReleaseError: when the build does not exist.
    """
    if not (context.layout.builds / context.arguments["build"]).is_dir():
        raise ReleaseError(f"There is no build {context.arguments['build']} in {context.layout.builds}.")
    directory = context.layout.release(number)
    directory.mkdir(mode=0o755)
    (directory / "build").symlink_to(f"../../builds/{context.arguments['build']}")
    for name, text in files(context).items():
        (directory / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(directory / name, text)
    write(directory / "program.conf", context.arguments["program"].replace("@RELEASE@", str(number)))
    (directory / "processes").mkdir(mode=0o755)
    for name, section in context.arguments["process_programs"].items():
        write(directory / "processes" / f"{name}.conf", section.replace("@RELEASE@", str(number)))
    runtime = json.dumps(runtime_settings(context, number), indent=2, sort_keys=True) + "\n"
    write(directory / "runtime.json", runtime, mode=0o640, group=context.group)
    write(directory / "settings.json", context.arguments["settings"], mode=0o640, group=context.group)
    write_jobs(context, number)
    write(directory / "door.token", secrets.token_hex(16), mode=0o640, group=context.group)
    facts = ("revision", "version", "instances", "directory")
    known = {"source": context.arguments.get("origin", ""), **{name: context.arguments.get(name, "") for name in facts}}
    remember(context, number, outcome="started", digest=fingerprint(context), health=context.health, **known)


def prepared(context: Context, *outcomes: str) -> int | None:
    """Return the release that an earlier step of this run, or of one that was interrupted, prepared; None if none is.

    Only the newest is one: with another after it, what is live would not have the highest number of those that were.

    Args:
        context: the step, and its host.
        outcomes: what else may have become of it.
    """
    for number in context.layout.numbers()[-1:]:
        record = context.layout.record(number)
        whole = (context.layout.release(number) / "build").exists()
        if record.get("outcome") in ("prepared", *outcomes) and record.get("digest") == fingerprint(context) and whole:
            return number
    return None


def prepare(context: Context, agreed: int | None = None) -> int:
    """Prepare the next release and import the app in it, or find it prepared.

    Args:
        context: the step, and its host.
        agreed: the number that it has on all hosts of the app; None where the host is alone.

    Raises:
        ReleaseError: when the app cannot be imported, or the number is taken; what was live still is.
    """
    number = prepared(context, *(["rolled back"] if agreed else []))
    if number is not None and agreed in (None, number):
        return number
    require_free_space(context.layout, context.arguments["room"])
    number = next_number(context)
    if agreed is not None and agreed < number:
        raise ReleaseError(
            f"Release number {agreed}, agreed on by the hosts of {context.arguments['name']}, has been taken on this host "
            "meanwhile. Nothing was changed; run it again."
        )
    number = agreed or number
    with recording_failure(context, number, context.layout.live()):
        check_jobs(context)
        write_release(context, number)
        provide(context, number)
        places = place(context, number, preflight(context, number))
        warn_of_missing_commands(context, number)
        remember(context, number, outcome="prepared", migration=schema_of(context, number), frontend=places or None)
        publish(context, number)  # before any host is live with it: its pages may ask another one for a file
    return number


def preflight(context: Context, number: int) -> dict[str, str]:
    """Import the app as its user, with the settings of release `number`.

    Returns:
        The folders of its front ends, by the paths that they are served below.

    Raises:
        ReleaseError: when it cannot be imported; with the end of its traceback, or the settings that it refuses.
    """
    with context.launching(number) as launch:
        command = [*launch["through"][:-1], "--check"]
        answer = run(command, context.health["timeout"], directory=launch["directory"], check=False, user=launch["user"])
    headlines = HEADLINE.findall(answer.stdout)
    if headlines and answer.returncode in (UNFIT, OPEN):  # an app may end with such a code by itself, too
        remedy = ": add that path to nginx_blocked_paths, or remove root_path from the app"
        raise ReleaseError(headlines[-1] + (remedy if answer.returncode == OPEN else ""))
    if answer.returncode:
        output = tail(HEADLINE.sub("", answer.stdout), 30)
        ended = f"It ended with exit code {answer.returncode}" + ("." if output else " without any output.")
        cause = headlines[-1] if headlines else output if output and "\n" not in output else ended
        output = "\n".join(line for line in output.splitlines() if line != cause)  # once is enough
        raise ReleaseError(f"the app cannot be imported: {cause}\n{advised(context, output, number, cause)}".rstrip())
    found = FRONTENDS.findall(answer.stdout)
    return read_frontends(found[-1]) if found else {}


def schema_of(context: Context, number: int) -> str:
    """Return the revision of the database's schema that the code of release `number` expects, if it uses Alembic."""
    launch = context.launch(number)
    configured = "test -f alembic.ini || grep -qs '^\\[tool.alembic' pyproject.toml"
    # Only a container has to be started to see that.
    if launch["user"] and run(["/bin/sh", "-c", configured], 60, directory=launch["directory"], check=False).returncode:
        return ""
    command = [*launch["through"], f"{configured} || exit 0; exec python3 -m alembic heads"]
    with contextlib.suppress(ReleaseError), context.launching(number):
        answer = run(command, 60, directory=launch["directory"], check=False, user=launch["user"])
        if answer.returncode == 0:
            return ", ".join(sorted(re.findall(r"^(\S+)(?: \([^)]*\))* \(head\)", answer.stdout, re.MULTILINE)))
    context.warnings.append(
        "The app has an Alembic configuration, but `alembic heads` failed: a rollback cannot check its schema."
    )
    return ""


def migrate(context: Context, number: int) -> str:
    """Run the migration with the code and the settings of release `number`.

    Returns:
        What it printed.

    Raises:
        ReleaseError: when it fails or takes too long; what was live still is.
    """
    command, timeout = (context.arguments["migrate"][key] for key in ("command", "timeout"))
    with recording_failure(context, number, context.layout.live()):
        saved = back_up_before_migration(context.arguments["name"]) if changes_schema(context, number) else ""
        try:
            with context.launching(number) as launch:
                output = shell("the migration (app_migrate_command)", command, timeout, "app_migrate_timeout", **launch)
        except ReleaseError as error:
            unknown = UNKNOWN_SCHEMA.search(str(error))
            raise ReleaseError(f"{migrated_further(context, number, unknown[1])}\n{error}" if unknown else str(error)) from error
        remember(context, number, migrated=True)
    return "\n".join(text for text in (saved, output) if text)


def changes_schema(context: Context, number: int) -> bool:
    """Say whether the migration of release `number` may change something that is to be backed up before.

    It does not where Alembic expects what the live release was made for, and the database has that: somebody may have migrated
    it by hand, or a release may have failed after its migration.
    """
    if not context.arguments["migrate"].get("backup", True):
        return False
    live = context.layout.live()
    before = str(context.layout.record(live).get("migration") or "") if live is not None else ""
    same = before and before == context.layout.record(number).get("migration")
    return not same or schema_there(context.arguments["name"]) != before.replace(", ", "+")
