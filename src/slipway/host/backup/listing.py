"""Which backups of an app there are, and which of them an operator means."""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slipway.host.backup.report import age, size_text
from slipway.host.backup.restic import Repository
from slipway.host.backup.run import CONTENTS, CONTENTS_FILE
from slipway.host.errors import ReleaseError
from slipway.host.tables import text_table

COLUMNS = {
    **{"id": "ID", "time": "TIME (UTC)", "age": "AGE", "release": "RELEASE", "schema": "SCHEMA", "size": "SIZE"},
    **{"parts": "WHAT", "reason": "MADE"},
}
ID = re.compile(r"\d{8}-\d{6}")
FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d")


@dataclass(frozen=True)
class Backup:
    """One backup that counts.

    Attributes:
        run: its id.
        when: when it began, in seconds since 1970.
        snapshot: restic's id of the snapshot that says what is in it.
        labels: its tags.
    """

    run: str
    when: float
    snapshot: str
    labels: dict[str, str]

    def row(self) -> dict[str, Any]:
        """Return what is known of it without reading it, for programs and for a table."""
        size = int(self.labels.get("bytes") or 0)
        return {
            **{"id": self.run, "time": moment(self.when), "age": age(time.time() - self.when)},
            **{name: self.labels.get(name, "") for name in ("release", "schema", "reason")},
            **{"parts": self.labels.get("parts", "").replace("+", ", "), "size": size_text(size), "bytes": size},
        }


def moment(seconds: float) -> str:
    """Return a time in UTC, as people read it and write it after -e at=, where a space would end it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def seconds_of(run: str) -> float:
    """Return when a backup began, by its id."""
    return float(calendar.timegm(time.strptime(run, "%Y%m%d-%H%M%S")))


def backups(repository: Repository) -> list[Backup]:
    """Return the backups of an app, oldest first.

    Raises:
        ReleaseError: when the repository cannot be read.
    """
    found = (one for one in repository.snapshots(part=CONTENTS) if ID.fullmatch(one["labels"].get("run", "")))
    return [Backup(one["labels"]["run"], seconds_of(one["labels"]["run"]), one["id"], one["labels"]) for one in found]


def table(found: Sequence[Backup]) -> list[str]:
    """Return the lines of a table for people."""
    return text_table([one.row() for one in found], COLUMNS)


def chosen(found: Sequence[Backup], at: str) -> Backup:
    """Return the backup that an operator means.

    Args:
        found: all of them, oldest first.
        at: `latest`, an id, or a time in UTC: the newest one that is not later.

    Raises:
        ReleaseError: when there is none, or `at` is nothing of that.
    """
    if ID.fullmatch(at):
        fitting = [one for one in found if one.run == at]
    else:
        limit = time.time() if at == "latest" else parsed(at)
        fitting = [one for one in found if one.when <= limit]
    if not fitting:
        known = f"the oldest is {found[0].run}, the newest {found[-1].run}" if found else "there is none at all"
        raise ReleaseError(f"There is no backup for at={at}: {known}. To list them: playbooks/restore.yml")
    return fitting[-1]


def parsed(text: str) -> float:
    """Return a time that an operator wrote, in seconds since 1970.

    Raises:
        ReleaseError: when it is none.
    """
    plain = re.sub(r"\s*(UTC|Z)$", "", text.strip()).replace("T", " ")
    for form in FORMS:
        try:
            found = time.strptime(plain, form)
        except ValueError:
            continue
        return float(calendar.timegm(found)) + (86399 if form == FORMS[-1] else 0)
    raise ReleaseError(
        f"at={text} is none of: latest; the id of a backup, such as 20261130-021500; a time in UTC, such as 2026-11-30T14:02; "
        "the name of a former database or folder."
    )


def contents(repository: Repository, backup: Backup) -> dict[str, Any]:
    """Return what is in a backup, as it was noted when it was made.

    Raises:
        ReleaseError: when that cannot be read.
    """
    with repository.reading(backup.snapshot, f"/{CONTENTS_FILE}") as stream:
        text = stream.read()
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ReleaseError(f"What backup {backup.run} contains cannot be read.") from error
    return found
