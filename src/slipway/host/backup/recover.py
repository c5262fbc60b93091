"""Restore a backup on a host that has nothing of the app yet: the first release there finds its data."""

from __future__ import annotations

import contextlib
import json
import pwd
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.host.backup import copies, folder
from slipway.host.backup.comparison import require_rows, require_space
from slipway.host.backup.database import counts
from slipway.host.backup.in_place import RECOVERED, drop_replaced, is_empty, replace_empty, take_modes
from slipway.host.backup.listing import ID, Backup, backups, chosen, contents, moment
from slipway.host.backup.report import age, size_text
from slipway.host.backup.restic import Repository
from slipway.host.backup.run import known_repository
from slipway.host.backup.settings import STATES, Settings, alone, load_state
from slipway.host.errors import ReleaseError
from slipway.host.files import remove, write
from slipway.host.lock import lock
from slipway.host.process import run as run_command
from slipway.host.store import Store

# Seconds for a copy of the shared folder to another disk.
COPY_SECONDS = 6 * 3600.0


@dataclass
class Recovery:
    """A backup that is restored before the first release of an app on a host.

    Attributes:
        settings: those of the app's backups.
        layout: the app's paths, of which the home is there.
        repository: where the backup is.
        backup: which one it is.
        noted: what is in it.
        folder_noted: what was noted of the shared folder before it was put into its place: the `run`, and its `inode`, or with
            `copied` whether all of it is there.
        changed: whether anything was.
        found: what was in it, for people.
    """

    settings: Settings
    layout: Store
    repository: Repository
    backup: Backup
    noted: dict[str, Any]
    folder_noted: dict[str, Any]
    changed: bool = False
    found: list[str] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """The live folder."""
        return self.layout.home / "shared"

    @property
    def saved(self) -> dict[str, Any]:
        """What was noted of the files in the backup."""
        saved = dict(self.noted.get("files") or {})
        return {"paths": [], **saved, "shared": str(saved.get("shared", self.shared))}

    @property
    def comment(self) -> str:
        """What says of the live database that it was restored from this backup."""
        return copies.note(RECOVERED, self.settings, self.backup.run)

    def has_database(self) -> bool:
        """Say whether the live database is that of the backup already. Its comment came with its name."""
        return bool(self.settings.database) and self.live_database().get("comment") == self.comment

    def live_database(self) -> dict[str, Any]:
        """Return what the server says of the live database; nothing if there is none."""
        return copies.all_databases(self.settings).get(self.settings.database, {})

    def has_folder(self) -> bool:
        """Say whether the live folder is that of the backup already."""
        if self.saved["shared"] not in self.saved["paths"]:
            return True
        mine = self.folder_noted.get("run") == self.backup.run
        if "inode" in self.folder_noted:
            return bool(mine and self.shared.stat().st_ino == self.folder_noted["inode"])
        return bool(mine and self.folder_noted.get("copied") and folder.files(self.shared))

    def require_nothing(self) -> None:
        """Require that there is nothing of the app's but what was restored from this backup.

        Raises:
            ReleaseError: when there is.
        """
        name, run = self.settings.name, self.backup.run
        advice = f"To restore a backup beside that, deploy without restore=, then: playbooks/restore.yml -e at={run}"
        live = self.layout.live()
        if live is not None:
            raise ReleaseError(f"Release {live} of {name} is live on this host, and nothing was restored. {advice}")
        if self.settings.database and "database" not in self.noted:
            raise ReleaseError(f"Backup {run} has no database. Leave app_database empty to restore its files alone.")
        database = self.settings.database
        if database and self.live_database() and not self.has_database() and not is_empty(self.settings, database):
            raise ReleaseError(f"The database {database} on this host is not empty, and nothing was restored. {advice}")
        copying = self.folder_noted.get("run") == run and self.folder_noted.get("copied") is False
        if not self.has_folder() and not copying and folder.files(self.shared):
            raise ReleaseError(f"{self.shared} on this host has files already, and nothing was restored. {advice}")

    def restore_database(self) -> None:
        """Restore the database in the place of the empty one.

        Raises:
            ReleaseError: when it cannot be restored, or is not what was backed up.
        """
        settings, rows = self.settings, self.noted["rows"]
        if not self.has_database():
            live = copies.live_database(settings, copies.all_databases(settings))
            require_space(settings, live["size"], int(self.noted["database"]["bytes"]))
            other = copies.restored_name(settings)
            copies.create(settings, other, copies.note(copies.RESTORING, settings, self.backup.run))
            with self.repository.reading(self.noted["database"]["snapshot"], "/database.dump", lock=True) as stream:
                copies.load(settings, other, stream)
            require_rows(rows, counts(settings, other), self.backup.run)
            copies.take_extensions(settings, other)
            replace_empty(settings, other, self.comment)
            self.changed = True
        drop_replaced(settings)
        self.found.append(f"{sum(rows.values())} rows in {len(rows)} tables")

    def restore_folder(self) -> None:
        """Restore the shared folder in the place of the empty one; into it where that is a link or a mount.

        Raises:
            ReleaseError: when it cannot be restored.
            OSError: when it cannot be renamed.
        """
        layout, run, user = self.layout, self.backup.run, pwd.getpwnam(self.settings.user)
        if not self.has_folder():
            size = int(self.saved["bytes"])
            folder.require_space(layout, size)
            other = folder.restore(layout, self.repository, self.saved, run, {"user": user.pw_uid, "group": user.pw_gid})
            take_modes(other, self.shared, user.pw_gid)
            if folder.fixed(layout):
                self.note_folder(copied=False)
                run_command(["cp", "--archive", f"{other}/.", f"{self.shared}/"], COPY_SECONDS)
                self.note_folder(copied=True)
            else:
                self.note_folder(inode=other.stat().st_ino)
                folder.exchange(self.shared, other)
            self.changed = True
        for rest in (*layout.home.glob("shared.restored-*"), *layout.home.glob(".shared.restored-*.removed")):
            if folder.fixed(layout) or not folder.files(rest):  # what was empty
                remove(rest)
        if self.saved["shared"] in self.saved["paths"]:
            self.found.append(f"{len(folder.files(self.shared))} files, {size_text(int(self.saved['bytes']))}")

    def note_folder(self, **facts: Any) -> None:
        """Note what is about to become of the shared folder."""
        self.folder_noted = {"run": self.backup.run, **facts}
        write(noted_file(self.settings.name), json.dumps(self.folder_noted), mode=0o600)

    def restore_history(self) -> None:
        """Put the history of releases before what there is: a number that it has is not given again.

        Raises:
            ReleaseError: when it cannot be restored.
            OSError: when it cannot be written.
        """
        path = next((str(each) for each in self.saved["paths"] if str(each) != self.saved["shared"]), "")
        if not path:
            return
        scratch = self.layout.home / ".history.restoring"
        remove(scratch)
        scratch.mkdir(mode=0o700)
        self.repository.read("restore", self.saved["snapshot"], f"--target={scratch}", f"--include={path}")
        saved = scratch / Path(path).relative_to("/")
        before = saved.read_bytes() if saved.is_file() else b""
        now = self.layout.history.read_bytes() if self.layout.history.exists() else b""
        if not now.startswith(before):
            write(self.layout.history, before + (b"" if before.endswith(b"\n") else b"\n") + now)
            self.changed = True
        remove(scratch)
        self.found.append("the history of its releases")


def recover(settings: Settings, home: Path, at: str, run: dict[str, Any], check: bool) -> dict[str, Any]:
    """Restore a backup before the first release of an app on this host: its database, its shared folder and its history.

    Args:
        settings: those of the app's backups.
        home: the app's directory, which the role has made.
        at: `latest`, the id of a backup, or a time in UTC; but for an id, one that was made while a release was live.
        run: the run of Ansible, which locks the app meanwhile.
        check: whether nothing may change.

    Raises:
        ReleaseError: when something of the app is here already, there is no such backup, or it cannot be restored.
        OSError: when a file cannot be written or renamed.
    """
    layout = Store(home, Path("/run", settings.name), Path("/var/log", settings.name))
    with contextlib.ExitStack() as stack:
        if not check:
            stack.enter_context(alone(settings.name))
            stack.enter_context(lock(layout, run))
        repository = Repository(settings)
        _, absent = repository.open(known_repository(settings, load_state(settings.name)), check=True)
        # A first release that failed on this host made a backup of nothing before its migration.
        found = [one for one in ([] if absent else backups(repository)) if ID.fullmatch(at) or one.labels.get("release")]
        backup = chosen(found, at)
        recovery = Recovery(settings, layout, repository, backup, contents(repository, backup), noted_folder(settings.name))
        text = f"Backup {backup.run}, made {age(time.time() - backup.when)} ago, at {moment(backup.when)} UTC"
        if check:
            if home.exists():
                recovery.require_nothing()
            return {"changed": True, "lines": [f"{text}, would be restored before the first release."]}
        recovery.require_nothing()
        if settings.database:
            recovery.restore_database()
        recovery.restore_folder()
        recovery.restore_history()
    lines = [
        f"{text}, is restored: {', '.join(recovery.found)}.",
        f"All that was written since {moment(backup.when)} UTC is lost.",
    ]
    if "database" in recovery.noted and not settings.database:
        lines.append("The database in it was not restored, since app_database is empty.")
    return {"changed": recovery.changed, "lines": lines}


def noted_file(app: str) -> Path:
    """Return the file with what was noted of the shared folder."""
    return STATES / f"{app}.recovered.json"


def noted_folder(app: str) -> dict[str, Any]:
    """Return what was noted of the shared folder before it was put into its place; nothing before that."""
    try:
        found: dict[str, Any] = json.loads(noted_file(app).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}
