"""The drill: is the newest backup one that can be restored? It is, beside what is live, and served, and then removed."""

from __future__ import annotations

import contextlib
import pwd
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from slipway.host.backup import copies, folder, trial
from slipway.host.backup.comparison import require_rows, require_space
from slipway.host.backup.database import counts, session
from slipway.host.backup.listing import Backup, backups, chosen, contents, moment
from slipway.host.backup.report import age, size_text
from slipway.host.backup.restic import Repository
from slipway.host.backup.run import known_repository, stoppable
from slipway.host.backup.settings import DRILL, FAILED, OK, DrillState, Settings, alone, load, load_drill, load_state, save_drill
from slipway.host.backup.trial import Trial
from slipway.host.errors import ReleaseError
from slipway.host.files import remove


def drill(app: str) -> DrillState:
    """Restore the newest backup of an app beside what is live, try it, remove it again, and return what was found.

    Backups, restores and releases may go on meanwhile.

    Raises:
        ReleaseError: when the backup cannot be restored, or is not what was backed up, or the app is not healthy with it.
        OSError: when a file cannot be read or written.
    """
    settings = load(app)
    with alone(app, task=DRILL), stoppable():
        state = DrillState(start=time.time(), success=load_drill(app).success)
        save_drill(app, state)
        try:
            backup = newest(settings)
            state.backup = backup.run
            save_drill(app, state)
            with scratch(settings) as home:
                found = attempt(settings, backup, home)
        except (ReleaseError, OSError, KeyError, ValueError) as error:
            save_drill(app, replace(state, result=FAILED, end=time.time(), error=settings.shown(str(error))))
            raise ReleaseError(f"The drill failed: {settings.shown(str(error))}") from error
        state.result, state.end, state.found = OK, time.time(), found
        state.success = state.end
        save_drill(app, state)
    return state


def newest(settings: Settings) -> Backup:
    """Return the newest backup.

    Raises:
        ReleaseError: when there is none, it is too old, or the repository cannot be opened, is gone, or is another one.
    """
    repository = Repository(settings)
    repository.open(known_repository(settings, load_state(settings.name)), check=True)
    found = backups(repository)
    if not found:
        raise ReleaseError(f"There is no backup of {settings.name} in the repository.")
    backup = chosen(found, "latest")
    seconds = time.time() - backup.when
    if seconds > settings.max_age_hours * 3600:
        raise ReleaseError(
            f"The newest backup is of {moment(backup.when)} UTC, {age(seconds)} ago, which is too old (backup_max_age_hours: "
            f"{settings.max_age_hours})."
        )
    return backup


@contextlib.contextmanager
def scratch(settings: Settings) -> Iterator[Path]:
    """Give a directory beside what is live; it and the database of the drill are gone after the block.

    Raises:
        ReleaseError: when the database cannot be dropped.
        OSError: when the directory cannot be made or removed.
    """
    home = settings.layout.home / ".drill"  # hidden: nobody finds half of it
    clear(settings, home)  # of a drill that was killed
    home.mkdir()
    home.chmod(0o711)  # the app reaches what is in it, whatever the umask
    try:
        yield home
    except BaseException:
        with contextlib.suppress(ReleaseError, OSError):  # the first error counts, and the next drill begins with that
            clear(settings, home)
        raise
    clear(settings, home)


def clear(settings: Settings, home: Path) -> None:
    """End what a drill started, and remove what it restored."""
    trial.end(settings)
    remove(home)
    if settings.database:
        copies.drop(settings, copies.drill_name(settings))


def attempt(settings: Settings, backup: Backup, home: Path) -> str:
    """Restore a backup into a scratch database and folder, compare it with what was noted, and start the app with it.

    Returns:
        What was found, for people.
    """
    repository = Repository(settings)
    noted, parts, database = contents(repository, backup), list[str](), ""
    if settings.database:
        if "database" not in noted:
            raise ReleaseError(f"Backup {backup.run} has no database.")
        database = restored_database(settings, repository, backup, noted)
        parts.append(f"{sum(noted['rows'].values())} rows in {len(noted['rows'])} tables")
    shared = home / "shared"
    saved = noted.get("files") or {}
    saved.setdefault("shared", str(settings.layout.home / "shared"))
    user = pwd.getpwnam(settings.user)
    if saved["shared"] in saved.get("paths", []):
        folder.require_space(settings.layout, int(saved["bytes"]))
        ids = {"user": user.pw_uid, "group": user.pw_gid}
        folder.fetch(repository, saved, backup.run, ids, home / ".restoring", "--verify").rename(shared)
        parts.append(f"{len(folder.files(shared))} files, {size_text(int(saved['bytes']))}")
    else:
        shared.mkdir()
        shutil.chown(shared, user.pw_uid, user.pw_gid)
    return ", ".join([*parts, Trial(settings, home, database).run()])


def restored_database(settings: Settings, repository: Repository, backup: Backup, noted: dict[str, Any]) -> str:
    """Restore the database of a backup into one of the drill, and return its name.

    Raises:
        ReleaseError: when it cannot be restored, or is not what was backed up.
    """
    databases = copies.all_databases(settings)
    require_space(settings, copies.live_database(settings, databases)["size"], int(noted["database"]["bytes"]))
    new = copies.create(settings, copies.drill_name(settings), copies.note(copies.DRILL, settings, backup.run), closed=True)
    copies.add_extensions(settings, new)
    # Nobody looks on: what the app has put into its database must not run as the administrator.
    with repository.reading(noted["database"]["snapshot"], "/database.dump", lock=True) as stream:
        copies.load(settings, new, stream, by_owner=True)
    require_rows(noted["rows"], counts(settings, new), backup.run)
    with session(settings, new) as (opened, _):
        schema = opened.schema()
    if schema != str(noted.get("schema") or ""):
        raise ReleaseError(f"Backup {backup.run} is not what was backed up: its schema is {schema}, and was {noted['schema']}.")
    return new


def described(state: DrillState) -> list[str]:
    """Return what a good drill found, for people."""
    return [
        f"Backup {state.backup} can be restored: {state.found}. It took {state.end - state.start:.1f} s.",
        "What was restored for that was removed. The live database and folder are unchanged.",
    ]
