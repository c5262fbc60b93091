"""One backup of an app: its database as of one moment, its shared directory and history, and what is in it."""

from __future__ import annotations

import contextlib
import json
import pwd
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from slipway.host.backup.database import LOCK, dump_command, session
from slipway.host.backup.report import size_text
from slipway.host.backup.restic import LONG, InUse, Repository
from slipway.host.backup.settings import FAILED, OK, STATES, Settings, State, alone, is_on, load, load_state, save_state
from slipway.host.errors import ReleaseError
from slipway.host.files import write
from slipway.host.paths import digest

# Parts of a backup. The last is written last: without it the others do not count.
DATABASE, FILES, CONTENTS = "database", "files", "contents"
DUMP, CONTENTS_FILE = "database.dump", "backup.json"

# Seconds between two checks of the repository.
CHECK_SECONDS = 7 * 86400.0

# Every backup is kept for so long, also several of a day, as before migrations.
KEEP_WITHIN = "2d"

# So long parts without the last one are left alone: the backup may be under way, on a host that is stored under the same name.
UNFINISHED_SECONDS = 86400.0

# How long one before a migration waits for one that is under way.
PATIENCE_SECONDS = 1800.0


class Stopped(ReleaseError):
    """systemd stopped the backup."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an error while the block runs: what it started ends, and the failure is written down."""

    def raise_stopped(signum: int, frame: FrameType | None) -> None:
        raise Stopped("It was stopped.")

    handled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]  # as by nohup
    before = {each: signal.signal(each, raise_stopped) for each in handled}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def run_id(when: float) -> str:
    """Return the id of a backup: when it began, in UTC."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(when))


def known_repository(settings: Settings, state: State) -> str:
    """Return restic's id of the repository that has the backups so far; empty where backup_repository is another one since."""
    return state.repository if state.location == digest(settings.repository) else ""


def prepare(settings: Settings, check: bool = False) -> bool:
    """Open the repository, or make it if there is none and never was, and say whether it was made.

    Raises:
        ReleaseError: when it cannot be opened, is gone, or is another one.
    """
    state = load_state(settings.name)
    found, made = Repository(settings).open(known_repository(settings, state), check)
    location = digest(settings.repository)
    if not check and (state.repository, state.location) != (found, location):
        since = state.since or time.time()
        save_state(settings.name, replace(state, repository=found, location=location, since=since))
    return made


def back_up(app: str, reason: str, patience: float = 1.0, keep_all: bool = False) -> State:
    """Back up an app, write down what became of it, and return that.

    Args:
        app: its name.
        reason: why, for whoever chooses one to restore: a word.
        patience: seconds to wait for a backup that is under way.
        keep_all: whether older ones are left for the next one to remove.

    Raises:
        ReleaseError: when it failed; no snapshot of it counts.
        OSError: when a file of the app cannot be read.
    """
    settings = load(app)
    with alone(app, patience), stoppable():
        before = load_state(app)
        while run_id(when := time.time()) == before.run:
            time.sleep(0.1)
        state = replace(before, run=run_id(when), start=when, end=0.0, result="", error="", since=before.since or when)
        save_state(app, state)
        try:
            if before.result != OK:  # it may have been killed
                Repository(settings).unlock()
            make(settings, state, reason)
            if not keep_all:
                retain(settings, state)
        except (ReleaseError, OSError, KeyError) as error:
            save_state(app, replace(state, result=FAILED, end=time.time(), error=settings.shown(str(error))))
            raise ReleaseError(settings.shown(str(error))) from error
        state.result, state.end = OK, time.time()
        save_state(app, state)
    return state


def make(settings: Settings, state: State, reason: str) -> None:
    """Make the snapshots of one backup, and note in `state` what is in it.

    Raises:
        ReleaseError: when one fails.
    """
    layout, repository = settings.layout, Repository(settings)
    state.repository, _ = repository.open(known_repository(settings, state))
    state.location = digest(settings.repository)
    live = layout.live()
    contents: dict[str, Any] = {
        "run": state.run,
        "time": time.time(),
        "app": settings.name,
        "host": settings.host,
        "reason": reason,
        "release": live,
    }
    size = added = 0
    if settings.database:
        saved, contents["schema"], contents["rows"] = repository.patiently(lambda: save_database(settings, repository, state))
        contents["database"] = {"name": settings.database, "snapshot": saved["snapshot_id"], "bytes": size_of(saved)}
        size, added = size + size_of(saved), added + added_by(saved)
    shared = layout.home / "shared"
    if shared.is_symlink():  # restic would save the link
        shared = shared.resolve(strict=True)
    paths = [str(path) for path in (shared, layout.history) if path.exists()]
    if paths:
        saved = repository.save(paths, state.start, run=state.run, part=FILES)
        owner = pwd.getpwnam(settings.user)
        ids = {"user": owner.pw_uid, "group": owner.pw_gid}
        contents["files"] = {"paths": paths, "shared": str(shared), "snapshot": saved["snapshot_id"], "bytes": size_of(saved)}
        contents["files"]["owner"] = ids
        size, added = size + size_of(saved), added + added_by(saved)
    file = STATES / f"{settings.name}.{CONTENTS_FILE}"
    write(file, json.dumps(contents, sort_keys=True), mode=0o600)
    parts = "+".join(part for part in (DATABASE, FILES) if part in contents)
    tags = {
        "parts": parts,
        "reason": reason,
        "release": str(live or ""),
        "schema": contents.get("schema", ""),
        "bytes": str(size),
    }
    tags.update(run=state.run, part=CONTENTS)
    repository.patiently(lambda: repository.save_output(["cat", str(file)], CONTENTS_FILE, state.start, **tags))
    state.size, state.added, state.success, state.release = size, added, time.time(), live or 0


def save_database(settings: Settings, repository: Repository, state: State) -> tuple[dict[str, Any], str, dict[str, int]]:
    """Save the database, and return restic's summary, the revision of the schema, and how many rows each table has.

    Raises:
        InUse: when somebody else has locked the repository, or is about to change a table. The app must not wait for them, too.
        ReleaseError: when it cannot be dumped or saved.
    """
    with session(settings, settings.database) as (opened, snapshot):
        opened.lock_tables()
        schema = opened.schema()
        try:
            saved = repository.save_output(dump_command(settings, snapshot), DUMP, state.start, run=state.run, part=DATABASE)
        except ReleaseError as error:
            if LOCK in str(error):
                raise InUse("Somebody was about to change a table of the database each time that it was to be dumped.") from error
            raise
        return saved, schema, opened.counts()


def size_of(saved: dict[str, Any]) -> int:
    """Return how many bytes a snapshot has."""
    return int(saved.get("total_bytes_processed") or 0)


def added_by(saved: dict[str, Any]) -> int:
    """Return how many bytes a snapshot added to the repository; compressed, if restic says so."""
    return int(saved.get("data_added_packed") or saved.get("data_added") or 0)


def retain(settings: Settings, state: State) -> None:
    """Remove backups that are no longer kept, and what is left of ones that failed, and check the repository once a week.

    Raises:
        ReleaseError: when restic fails, or finds the repository damaged.
    """
    repository, keep = Repository(settings), settings.keep
    repository.unlock()  # a restore may have been killed
    rules = [f"--keep-{name}={keep[name]}" for name in ("daily", "weekly", "monthly") if int(keep[name])]
    chosen = [
        f"--host={settings.host}",
        f"--tag={repository.tags(part=CONTENTS)}",
        "--group-by=host",
        f"--keep-within={KEEP_WITHIN}",
    ]
    before = {one["labels"].get("run", "") for one in repository.snapshots(part=CONTENTS)}
    repository.ask("forget", *chosen, *rules)
    found = {str(one["id"]): one["labels"] for one in repository.snapshots()}
    complete = {labels.get("run", "") for labels in found.values() if labels.get("part") == CONTENTS}
    removed, oldest = before - complete, run_id(time.time() - UNFINISHED_SECONDS)
    incomplete = {each: labels.get("run", "") for each, labels in found.items() if labels.get("run", "") not in complete}
    rest = [each for each, run in incomplete.items() if run in removed or run < oldest]
    if rest:
        repository.ask("forget", "--prune", *rest, seconds=LONG)
    if time.time() - state.checked > CHECK_SECONDS:
        repository.ask("check", seconds=LONG)
        state.checked = time.time()


def schema_there(app: str) -> str:
    """Return the revision of the schema that an app's database has; empty if that cannot be said, or none is backed up."""
    with contextlib.suppress(ReleaseError):
        settings = load(app)
        if settings.database:
            with session(settings, settings.database) as (opened, _):
                return opened.schema()
    return ""


def back_up_before_migration(app: str) -> str:
    """Back an app with a database up before its schema is migrated, if it is backed up, and return what there is to report.

    Raises:
        ReleaseError: when it fails; the schema is to stay as it is.
    """
    if not is_on(app) or not load(app).database:
        return ""
    try:
        return described(back_up(app, "migration", PATIENCE_SECONDS, keep_all=True))
    except (ReleaseError, OSError) as error:
        raise ReleaseError(
            f"the backup before the migration failed, so nothing was migrated: {error}\n"
            "To release without one, this time: -e app_migrate_backup=false"
        ) from error


def described(state: State) -> str:
    """Return what became of a good backup, for people."""
    release = f" of release {state.release}" if state.release else ""
    return (
        f"Backup {state.run}{release}: {size_text(state.size)}, {size_text(state.added)} of it new, "
        f"in {state.end - state.start:.1f} s."
    )
