"""Restore a backup beside what is live, compare both, and switch if that is asked for. What is live is unchanged until then."""

from __future__ import annotations

import contextlib
import pwd
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.host import configuration
from slipway.host.backup import copies, folder
from slipway.host.backup.comparison import compared, comparison_table, loss, require_rows, require_space
from slipway.host.backup.database import counts
from slipway.host.backup.listing import Backup, backups, chosen, contents, moment, table
from slipway.host.backup.report import age, size_text
from slipway.host.backup.restic import Repository
from slipway.host.backup.run import run_id
from slipway.host.backup.settings import Settings, alone
from slipway.host.errors import ReleaseError
from slipway.host.lock import lock

DATABASE, SHARED = "database", "shared"


@dataclass
class Order:
    """What an operator asks for, and what comes of it.

    Attributes:
        settings: those of the app's backups.
        at: which backup, or the name of something former.
        switch: whether to switch to it.
        run: the run of Ansible, for the lock.
        check: whether nothing may change.
        lines: what is reported.
        changed: whether anything was.
    """

    settings: Settings
    at: str
    switch: bool
    run: dict[str, Any]
    check: bool
    lines: list[str] = field(default_factory=list)
    changed: bool = False

    def chosen(self, repository: Repository) -> Backup:
        """Return the backup that is meant, and report when it was made.

        Raises:
            ReleaseError: when there is none.
        """
        found = chosen(backups(repository), self.at)
        release = f" of release {found.labels['release']}" if found.labels.get("release") else ""
        self.lines.append(f"Backup {found.run}{release}, made {age(time.time() - found.when)} ago, at {moment(found.when)} UTC.")
        return found

    @contextlib.contextmanager
    def switching(self) -> Iterator[str]:
        """Lock the app while the block switches, and give what the former one is marked with."""
        with lock(self.settings.layout, self.run):
            yield run_id(time.time())
        self.changed = True


def list_all(settings: Settings) -> dict[str, Any]:
    """Return all backups, with the lines of a table, and what former databases and folders there are.

    Raises:
        ReleaseError: when the repository or the database server cannot be read.
    """
    found = backups(Repository(settings))
    lines = table(found) if found else [f"There is no backup of {settings.name} yet. To make one: slipway backup {settings.name}"]
    former = copies.formers(settings) if settings.database else []
    folders = folder.formers(settings.layout)
    if former or folders:
        lines += ["", "Kept from before earlier restores:"]
        lines += [
            f"  {one['name']} ({size_text(one['size'])}): sudo -u postgres dropdb {one['name']} removes it" for one in former
        ]
        lines += [f"  {settings.layout.home / each}: rm -r removes it" for each in folders]
    return {
        "changed": False,
        "backups": [one.row() for one in found],
        "formers": [*(one["name"] for one in former), *folders],
        "lines": lines,
    }


def restore(order: Order, only: str) -> dict[str, Any]:
    """Restore a part of a backup as ordered.

    Args:
        order: what is asked for.
        only: `database`, `shared`, or empty for the database if the app has one.

    Raises:
        ReleaseError: when it fails; what was live still is.
        OSError: when a file cannot be written or renamed.
    """
    settings = order.settings
    part = only or (DATABASE if settings.database else SHARED)
    if part == DATABASE and not settings.database:
        raise ReleaseError(f"{settings.name} has no database of Slipway's (app_database); -e only=shared restores its folder.")
    with alone(settings.name):
        if not order.check:
            folder.finish_switch(settings.layout, settings.name)
        found = restore_database(order) if part == DATABASE else restore_folder(order)
    return {"changed": order.changed, "lines": order.lines, "part": part, **found}


def restore_database(order: Order) -> dict[str, Any]:
    """Restore the database beside the live one, compare both, and switch if that is ordered."""
    settings = order.settings
    databases = copies.all_databases(settings)
    live = copies.live_database(settings, databases)
    noted: dict[str, Any] = {}
    if order.at in {one["name"] for one in copies.formers(settings)}:
        other = order.at
        order.lines.append(f"{other} is the database from before an earlier restore.")
    else:
        repository = Repository(settings)
        backup = order.chosen(repository)
        noted = contents(repository, backup)
        other = copies.restored_name(settings)
        if "database" not in noted:
            raise ReleaseError(f"Backup {backup.run} has no database. -e only=shared restores its folder.")
        done = copies.note(copies.RESTORED, settings, backup.run)
        if databases.get(other, {}).get("comment") != done:
            order.changed = True
            if order.check:
                order.lines.append(f"It would be restored into {other}, and compared with {settings.database}.")
                return {"comparison": []}
            require_space(settings, live["size"], int(noted["database"]["bytes"]))
            copies.create(settings, other, copies.note(copies.RESTORING, settings, backup.run))
            with repository.reading(noted["database"]["snapshot"], "/database.dump", lock=True) as stream:
                copies.load(settings, other, stream)
            require_rows(noted["rows"], counts(settings, other), backup.run)
            copies.set_comment(settings, other, done)
    comparison = compared(counts(settings, settings.database), counts(settings, other))
    order.lines += ["", *comparison_table(comparison), "", loss(comparison, noted)]
    if not order.switch:
        order.lines += [
            f"The live database is unchanged. The other one is {other}: sudo -u postgres psql {other}",
            f"To switch to it: playbooks/restore.yml -e at={noted.get('run', order.at)} -e switch=true",
        ]
        return {"comparison": comparison}
    if order.check:
        order.changed = True
        order.lines.append(f"{other} would become {settings.database}.")
        return {"comparison": comparison}
    with order.switching() as stamp:
        former = copies.former_name(settings, stamp)
        copies.switch(settings, other, former)
    order.lines += [
        f"Switched: {settings.database} is what was restored, and the former database is {former}.",
        f"To return to that: playbooks/restore.yml -e at={former} -e switch=true",
        f"To remove it, once nobody needs it: sudo -u postgres dropdb {former}",
        *schema_advice(settings, noted),
    ]
    return {"comparison": comparison, "former": former}


def restore_folder(order: Order) -> dict[str, Any]:
    """Restore the shared directory beside the live one, compare both, and switch if that is ordered."""
    settings, layout = order.settings, order.settings.layout
    live, name, fixed = layout.home / "shared", order.at, folder.fixed(layout)
    if fixed and order.switch:
        raise ReleaseError(
            f"{fixed}, and cannot be exchanged with another folder. Run it without switch=true: that restores beside it, and "
            "says how to copy it over."
        )
    if order.at in folder.formers(layout):
        other = layout.home / order.at
        order.lines.append(f"{other} is the folder from before an earlier restore.")
    else:
        repository = Repository(settings)
        backup = order.chosen(repository)
        noted, name = contents(repository, backup), backup.run
        saved = noted.get("files") or {}
        saved.setdefault("shared", str(live))
        if saved["shared"] not in saved.get("paths", []):
            raise ReleaseError(f"Backup {backup.run} has no {live}.")
        other = folder.restored_path(layout, backup.run)
        if not other.is_dir():
            order.changed = True
            if order.check:
                order.lines.append(f"It would be restored into {other}, and compared with {live}.")
                return {"comparison": {}}
            folder.require_space(layout, int(saved["bytes"]))
            user = pwd.getpwnam(settings.user)
            ids = {"user": user.pw_uid, "group": user.pw_gid}
            folder.restore(layout, repository, saved, backup.run, ids)
    found = folder.compared(live, other)
    lost = f"{found['lost']} that are not in it would be missing{': ' if found['names'] else '.'}{', '.join(found['names'])}"
    order.lines.append(
        f"{live} has {found['live']} files, the backup {found['backup']}: {found['back']} would come back, "
        f"{found['changed']} differ, and {lost}"
    )
    if not order.switch:
        order.lines += [
            f"The live folder is unchanged. The other one is {other}",
            f"To copy it over what is there: cp -a {other}/. {live}/"
            if fixed
            else f"To switch to it: playbooks/restore.yml -e only=shared -e at={name} -e switch=true",
        ]
        return {"comparison": found}
    if order.check:
        order.changed = True
        order.lines.append(f"{other} would become {live}.")
        return {"comparison": found}
    with order.switching() as stamp:
        former = folder.switch(layout, settings.name, other, f"shared.before-{stamp}")
    order.lines += [
        f"Switched: {live} is what was restored, and the former folder is {former}.",
        f"To return to that: playbooks/restore.yml -e only=shared -e at={former.name} -e switch=true",
        f"To remove it, once nobody needs it: rm -r {former}",
        *container_advice(settings),
    ]
    return {"comparison": found, "former": former.name}


def schema_advice(settings: Settings, noted: dict[str, Any]) -> list[str]:
    """Return what to do if the live release expects another schema than the backup has."""
    layout = settings.layout
    live = layout.live()
    expected = str(layout.record(live).get("migration") or "").replace(", ", "+") if live is not None else ""
    there = str(noted.get("schema") or "")
    if not expected or not there or expected == there:
        return []
    migration = configuration.load(settings.name)["migrate"]["command"]
    return [
        f"The live release {live} expects the schema {expected}, and the backup has {there}. To migrate it: "
        f"slipway run {settings.name} -- {migration}. Or roll back to a release of that schema."
    ]


def container_advice(settings: Settings) -> list[str]:
    """Return what to do if the live release runs in a container, which keeps the folder that it began with."""
    layout = settings.layout
    live = layout.live()
    if live is None or not Path(layout.release(live), "container.py").exists():
        return []
    return [
        f"Containers of release {live} still have the former folder, and write to it. At once, with a few seconds of errors: "
        f"supervisorctl restart {settings.name}-{live}:*"
    ]
