"""Backups of an app: what is in one, when it counts, how long it is kept, and how it is restored beside what is live."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from backups import KEY, PASSWORD, Place

from slipway.host.backup import by_hand, comparison, copies, folder, listing, report, restore, run, settings, step
from slipway.host.backup.answers import messages
from slipway.host.backup.restic import Repository
from slipway.host.doctor import backup as doctor
from slipway.host.errors import ReleaseError
from slipway.host.exporter import State
from slipway.host.gauges import GAUGES
from slipway.host.release import prepare


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An app that is backed up."""
    return Place(tmp_path, monkeypatch)


def test_a_backup_has_the_database_the_files_and_what_is_in_it(place: Place) -> None:
    state = run.back_up("shop", "timer")
    database, files, contents = place.snapshots()
    assert [one["labels"]["part"] for one in (database, files, contents)] == ["database", "files", "contents"]
    assert {one["labels"]["run"] for one in place.snapshots()} == {state.run}
    began = listing.moment(state.start).replace("T", " ")
    assert {(one["host"], one["time"]) for one in place.snapshots()} == {("api.example.com", began)}
    assert database["data"] == "the dump" * 20000
    assert files["paths"] == [str(place.layout.home / "shared")]
    noted = json.loads(contents["data"])
    assert noted["rows"] == {"public.orders": 3, "public.users": 1}
    assert (noted["release"], noted["schema"], noted["database"]["snapshot"]) == (7, "abc1", database["id"])
    assert (state.result, state.release, state.size, state.added) == ("ok", 7, len(database["data"]), 14)
    assert settings.load_state("shop") == state


def test_secrets_are_in_no_argument_and_in_no_file_for_others(place: Place) -> None:
    run.back_up("shop", "timer")
    assert PASSWORD not in str(place.calls())
    assert KEY not in str(place.calls())
    assert str(place.folder / "repository") not in str(place.calls())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (place.folder / "states").iterdir()}
    assert set(modes.values()) == {0o600}
    assert [path for path in (place.folder / "states").iterdir() if PASSWORD in path.read_text(encoding="utf-8")] == []


def test_an_app_without_a_database_has_its_files_backed_up(place: Place) -> None:
    place.configure(database="")
    run.back_up("shop", "timer")
    assert [one["labels"]["part"] for one in place.snapshots()] == ["files", "contents"]
    assert place.snapshots()[-1]["labels"]["parts"] == "files"


def test_a_dump_that_fails_is_no_snapshot_and_a_failure(place: Place) -> None:
    good = run.back_up("shop", "timer")
    place.answer("broken", "")
    with pytest.raises(ReleaseError, match=r"database\.dump cannot be saved: the disk is on fire"):
        run.back_up("shop", "timer")
    assert len(place.snapshots()) == 3
    found = report.row("shop")
    assert (found["result"], found["success"], found["overdue"]) == ("failed", good.success, False)
    assert report.has_failed(found)
    assert report.summary(found).startswith("failed; last good: ")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            {"backup": [1, f"Fatal: rest:https://u:p@h/ refuses {PASSWORD}"]},
            r"exit code 1: Fatal: rest:https://\*\*\*@h/ refuses \*\*\*\*\*\*\*\*",
        ),
        ({"incomplete": [3, "error: read photo: input/output error"]}, "exit code 3: error: read photo"),
        ({"cat": [12, "Fatal: wrong password or no key found"]}, "cannot be opened.*wrong password"),
    ],
)
def test_a_failure_of_restic_is_one_of_the_backup_without_secrets(place: Place, failure: dict[str, Any], message: str) -> None:
    run.prepare(settings.load("shop"))
    place.fail(**failure)
    with pytest.raises(ReleaseError, match=f"(?s){message}"):
        run.back_up("shop", "timer")
    assert listing.backups(Repository(settings.load("shop"))) == []
    state = settings.load_state("shop")
    assert (state.result, state.success) == ("failed", 0)
    assert PASSWORD not in state.error


def test_parts_of_a_backup_that_failed_are_removed_by_the_next_one(place: Place) -> None:
    run.prepare(settings.load("shop"))
    place.fail(incomplete=[3, "error: read photo"])
    with pytest.raises(ReleaseError):
        run.back_up("shop", "timer")
    assert [one["labels"]["part"] for one in place.snapshots()] == ["database"]
    place.fail()
    # Until then it may be one that is under way, on a former host under the same name.
    for later, parts in ((time.time() + 80000, 4), (time.time() + 90000, 6)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda later=later: later)
            run.back_up("shop", "timer")
        assert len(place.snapshots()) == parts
    assert [one["labels"]["part"] for one in place.snapshots()] == ["database", "files", "contents"] * 2
    assert ["unlock"] in place.calls()


def test_backups_are_kept_by_day_week_and_month_for_this_app_and_host_alone(place: Place) -> None:
    run.back_up("shop", "timer")
    place.fail(old=[place.snapshots()[-1]["id"]])
    later = time.time() + 60
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        run.back_up("shop", "timer")
    before, chosen, removed = [call for call in place.calls() if call[0] in ("unlock", "forget")][-3:]
    assert before == ["unlock"]  # a restore that was killed may have left a lock
    assert chosen[1:3] == ["--host=api.example.com", "--tag=slipway,app=shop,part=contents"]
    assert [each for each in chosen if each.startswith("--keep")] == ["--keep-within=2d", "--keep-daily=7", "--keep-monthly=6"]
    assert len(removed) == 4  # its other parts as well, and the data of all of them
    assert "--prune" in removed
    assert len(place.snapshots()) == 3


def test_the_repository_is_checked_once_a_week(place: Place) -> None:
    for days, checks in ((0, 1), (6, 1), (8, 2)):
        now = time.time() + days * 86400
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now)
            run.back_up("shop", "timer")
        assert sum(call[0] == "check" for call in place.calls()) == checks
    place.fail(check=[1, "Fatal: repository contains errors"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now + 8 * 86400)
        with pytest.raises(ReleaseError, match="repository contains errors"):
            run.back_up("shop", "timer")
        assert report.row("shop")["success"] == now + 8 * 86400  # it was made all the same


def test_the_repository_is_made_once_and_no_other_in_its_place(place: Place) -> None:
    known = settings.load("shop")
    assert run.prepare(known, check=True)
    assert not (place.folder / "repository").exists()
    assert [run.prepare(known), run.prepare(known)] == [True, False]
    (place.folder / "repository").rename(place.folder / "away")
    for attempt in (lambda: run.prepare(known), lambda: run.back_up("shop", "timer")):
        with pytest.raises(ReleaseError, match="It had the backups of this app"):
            attempt()
    assert not (place.folder / "repository").exists()
    (place.folder / "away").rename(place.folder / "repository")
    (place.folder / "repository" / "config").write_text('{"id": "another"}', encoding="ascii")
    with pytest.raises(ReleaseError, match="has another repository"):
        run.prepare(known)
    place.configure(repository=str(place.folder / "second"))  # which the operator asked for
    assert run.prepare(settings.load("shop"))


def test_a_dry_run_before_the_settings_are_there_would_open_the_repository(place: Place) -> None:
    order = {"app": "kiosk", "command": "prepare"}
    assert step.step(order, check=True) == {"changed": True}
    with pytest.raises(ReleaseError, match="kiosk is not backed up"):
        step.step(order, check=False)
    with pytest.raises(ReleaseError, match="kiosk is not backed up"):
        step.step({**order, "command": "restore", "only": "", "at": "", "switch": False}, check=True)


def test_one_backup_at_a_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with settings.alone("shop"), monkeypatch.context() as patch:
        patch.setattr(settings.Path, "mkdir", lambda *arguments, **options: 1 / 0)  # as for the exporter, which may only read
        assert settings.is_running("shop")
    with settings.alone("shop"), pytest.raises(ReleaseError, match="under way"):
        run.back_up("shop", "timer")
    assert not settings.is_running("shop")
    assert run.back_up("shop", "timer").result == "ok"


def test_a_backup_that_is_stopped_has_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "make", lambda *arguments: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(ReleaseError, match="It was stopped"):
        run.back_up("shop", "timer")
    assert report.row("shop")["result"] == "failed"


def state_of(hours: dict[str, Any]) -> settings.State:
    """Return a state with its times in hours from now."""
    times: dict[str, Any] = {
        name: time.time() + 3600 * value if isinstance(value, int) else value for name, value in hours.items()
    }
    return settings.State(**times)


@pytest.mark.parametrize(
    ("state", "result", "overdue", "summary"),
    [
        ({}, "", False, "none yet"),
        ({"since": -31}, "", True, "too old: none yet"),
        ({"run": "x", "start": -1}, "interrupted", False, "interrupted; last good: none yet"),
        ({"run": "x", "start": -29, "end": -29, "result": "ok", "success": -29}, "ok", False, "29 h ago"),
        ({"run": "x", "start": -31, "end": -31, "result": "ok", "success": -31}, "ok", True, "too old: 31 h ago"),
        ({"run": "x", "start": -1, "end": -1, "result": "failed", "success": -50}, "failed", True, "failed; last good: 2 d ago"),
    ],
)
def test_a_backup_is_overdue_after_the_hours_that_are_set(
    place: Place, state: dict[str, Any], result: str, overdue: bool, summary: str
) -> None:
    settings.save_state("shop", state_of(state))
    found = report.row("shop")
    assert (found["result"], found["overdue"], report.summary(found)) == (result, overdue, summary)


def test_an_app_that_is_not_backed_up_has_no_row(place: Place) -> None:
    assert report.row("kiosk") == {}
    assert report.summary({}) == ""


RUNS = ["20261128-021500", "20261129-021500", "20261129-140159"]


@pytest.mark.parametrize(
    ("at", "found"),
    [
        ("latest", RUNS[2]),
        (RUNS[0], RUNS[0]),
        ("2026-11-29 14:02", RUNS[2]),
        ("2026-11-29T14:02", RUNS[2]),
        (listing.moment(listing.seconds_of(RUNS[1])), RUNS[1]),
        ("2026-11-29T14:01:58Z", RUNS[1]),
        ("2026-11-28", RUNS[0]),
        ("2026-11-28 02:14", "no backup for at=.*the oldest is 20261128-021500"),
        ("20261128-021501", "There is no backup"),
        ("yesterday", "is none of: latest.* such as 2026-11-30T14:02;"),
    ],
)
def test_an_operator_names_a_backup_by_its_id_or_a_time(at: str, found: str) -> None:
    all_of_them = [listing.Backup(each, listing.seconds_of(each), "1", {}) for each in RUNS]
    if found in RUNS:
        assert listing.chosen(all_of_them, at).run == found
    else:
        with pytest.raises(ReleaseError, match=found):
            listing.chosen(all_of_them, at)


def test_the_list_is_read_without_reading_the_backups(place: Place) -> None:
    state = run.back_up("shop", "by hand")
    before = len(place.calls())
    (row,) = [one.row() for one in listing.backups(Repository(settings.load("shop")))]
    assert len(place.calls()) == before + 1
    assert (row["id"], row["release"], row["schema"], row["reason"]) == (state.run, "7", "abc1", "by hand")
    assert (row["parts"], row["size"]) == ("database, files", "160 KB")


def order(place: Place, at: str = "latest", **more: Any) -> restore.Order:
    """Return an order to restore something."""
    who = {"id": "1 t", "who": "ann", "where": "laptop", "dead": ""}
    return restore.Order(settings.load("shop"), at, **{"switch": False, "run": who, "check": False, **more})


def test_a_folder_is_restored_beside_and_switched_to_with_the_former_one_kept(place: Place) -> None:
    state = run.back_up("shop", "timer")
    shared = place.layout.home / "shared"
    dry = restore.restore(order(place, check=True), "shared")
    assert (dry["changed"], sorted(path.name for path in place.layout.home.iterdir())) == (True, ["live.sock", "shared"])
    found = restore.restore(order(place), "shared")
    assert found["changed"]
    assert (shared / "uploads" / "photo").exists()
    assert any("would be missing: uploads/photo" in line for line in found["lines"])
    assert not restore.restore(order(place), "shared")["changed"]  # it is there already
    done = restore.restore(order(place, at=state.run, switch=True), "shared")
    assert [path.name for path in shared.iterdir()] == ["restored"]
    assert (place.layout.home / done["former"] / "uploads" / "photo").exists()
    restore.restore(order(place, at=done["former"], switch=True), "shared")
    assert (shared / "uploads" / "photo").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_switch_of_folders_that_was_killed_is_finished_or_was_none(
    place: Place, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    other = place.layout.home / "shared.restored-1"
    other.mkdir()
    (place.folder / "states").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(folder, "exchange" if moment == "before" else "finish_switch", lambda *names: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            folder.switch(place.layout, "shop", other, "shared.before-20261130-021500")
    folder.finish_switch(place.layout, "shop")
    kept = "shared" if moment == "before" else "shared.before-20261130-021500"
    assert (place.layout.home / kept / "uploads" / "photo").exists()
    assert other.exists() == (moment == "before")
    assert list((place.folder / "states").glob("*.switch.json")) == []


def test_files_belong_to_the_apps_user_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo").touch()
    owned: list[Any] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group, follow_symlinks: owned.append((path.name, user, group)))
    mine = {"user": os.getuid(), "group": os.getgid()}
    folder.change_owner(tmp_path, mine, {"user": 900, "group": 901})
    folder.change_owner(tmp_path, {"user": 12345, "group": mine["group"]}, {"user": 900, "group": 901})
    assert owned == [(tmp_path.name, 900, 901), ("photo", 900, 901), (tmp_path.name, -1, 901), ("photo", -1, 901)]


LIVE = {
    "datname": "shop",
    "owner": "shop",
    "encoding": "UTF8",
    "datcollate": "C.UTF-8",
    "datctype": "C.UTF-8",
    "comment": "",
    "size": 9,
}


@pytest.fixture
def server(place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """The databases of a server, and what it was asked to do."""
    (place.folder / "states").mkdir()
    databases: dict[str, Any] = {"shop": dict(LIVE)}
    asked: list[str] = []
    monkeypatch.setattr(copies, "all_databases", lambda known: databases)
    monkeypatch.setattr(copies, "ask", lambda known, text, *more, **options: asked.append(text))
    return databases, asked


def test_a_database_whose_creation_was_killed_before_its_comment_is_made_again(place: Place, server: Any) -> None:
    databases, asked = server
    known = settings.load("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "ask", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            copies.create(known, "shop_restored", "slipway: restoring shop 1")
    databases["shop_restored"] = {**LIVE, "comment": ""}
    copies.create(known, "shop_restored", "slipway: restoring shop 1")
    assert "DROP DATABASE" in asked[0]
    with pytest.raises(ReleaseError, match="that Slipway did not make"):  # one that somebody made since
        copies.create(known, "shop_restored", "slipway: restoring shop 1")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "LC_CTYPE 'C.UTF-8';"),
        ({"datlocprovider": "i", "daticulocale": "de"}, "LC_CTYPE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'de';"),
        ({"datlocprovider": "b", "datlocale": "C"}, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C';"),
    ],
)
def test_a_database_beside_the_live_one_sorts_as_it_does(place: Place, server: Any, more: dict[str, str], text: str) -> None:
    databases, asked = server
    databases["shop"].update(more)
    assert copies.create(settings.load("shop"), "shop_restored", "slipway: restoring shop 1") == "shop_restored"
    (statements,) = asked
    assert 'CREATE DATABASE "shop_restored" OWNER "shop" TEMPLATE template0 ENCODING \'UTF8\'' in statements
    assert text in statements
    assert "REVOKE ALL" in statements
    # ALTER DATABASE ... SET, and ALTER ROLE ... IN DATABASE ... SET, which stay with the former database in a switch.
    for alter in ("ALTER DATABASE %I', 'shop_restored')", "ALTER ROLE %I IN DATABASE %I', r.rolname, 'shop_restored')"):
        assert alter in statements
    assert "AND t.setrole = 0" not in statements
    # The app sets them: SET search_path FROM CURRENT takes over what would be further statements.
    assert "coalesce(names, quote_literal(value))" in statements
    assert "string_agg(quote_literal(" in statements


@pytest.mark.parametrize(
    ("comment", "dropped"),
    [
        ("slipway: restored shop 1", True),
        ("slipway: restoring shop 1", True),
        ("", False),
        ("slipway: restored shopping 1", False),
    ],
)
def test_only_a_database_of_slipways_is_dropped(place: Place, server: Any, comment: str, dropped: bool) -> None:
    databases, asked = server
    databases["shop_restored"] = {**LIVE, "comment": comment}
    expected = contextlib.nullcontext() if dropped else pytest.raises(ReleaseError, match="that Slipway did not make")
    with expected:
        copies.create(settings.load("shop"), "shop_restored", "slipway: restoring shop 2")
    assert any("DROP DATABASE" in text for text in asked) == dropped
    assert bool(asked) == dropped


def test_a_switch_is_one_transaction(place: Place, server: Any) -> None:
    databases, asked = server
    databases["shop"]["comment"] = "Ann's"
    copies.switch(settings.load("shop"), "shop_restored", "shop_before_20261130_021500")
    (statements,) = [text for text in asked if "RENAME" in text]
    first, *lines = statements.strip().splitlines()
    assert first == "SET lock_timeout = '20s'; SET statement_timeout = '40s';"  # less than what it is waited for
    assert (lines[0], lines[-1]) == ("BEGIN;", "COMMIT;")
    assert lines[1:3] == [
        'ALTER DATABASE "shop" RENAME TO "shop_before_20261130_021500";',
        'ALTER DATABASE "shop_restored" RENAME TO "shop";',
    ]
    assert "IS 'Ann''s';" in lines[4]
    assert "pg_terminate_backend" in asked[0]


@pytest.mark.parametrize(("live", "dump", "needed"), [(100, 10, 120), (0, 100, 200), (100, 100, 200)])
def test_a_restore_requires_space_for_what_is_in_the_dump_and_not_only_for_what_is_live(
    place: Place, monkeypatch: pytest.MonkeyPatch, live: int, dump: int, needed: int
) -> None:
    monkeypatch.setattr(comparison, "ask", lambda known, text: ["/data"])
    for free in (needed, needed - 1):
        monkeypatch.setattr(os, "statvfs", lambda path, free=free: SimpleNamespace(f_bavail=free, f_frsize=1))
        enough = free == needed
        with contextlib.nullcontext() if enough else pytest.raises(ReleaseError, match=f"another database needs {needed} B"):
            comparison.require_space(settings.load("shop"), live, dump)


def test_a_restored_database_with_other_rows_than_were_counted_is_refused() -> None:
    comparison.require_rows({"public.orders": 3}, {"public.orders": 3}, "1")
    for found in ({"public.orders": 2}, {}, {"public.orders": 3, "public.more": 1}):
        with pytest.raises(ReleaseError, match="is not what was backed up"):
            comparison.require_rows({"public.orders": 3}, found, "1")


def test_what_a_switch_would_lose_is_counted() -> None:
    found = comparison.compared({"orders": 5, "later": 2}, {"orders": 3, "dropped": 9})
    assert [(row["table"], row["live"], row["backup"], row["lost"]) for row in found] == [
        ("dropped", None, 9, 0),
        ("later", 2, None, 2),
        ("orders", 5, 3, 2),
    ]
    assert "since 1970-01-01T00:00:07 UTC" in comparison.loss(found, {"time": 7})
    assert "at least 4 rows, of 2 tables" in comparison.loss(found, {})


@pytest.mark.parametrize(("database", "made"), [("shop", True), ("", False)])
def test_a_database_is_backed_up_before_a_migration(place: Place, database: str, made: bool) -> None:
    place.configure(database=database)
    assert bool(run.back_up_before_migration("shop")) == made
    assert (place.folder / "calls").exists() == made
    assert run.back_up_before_migration("kiosk") == ""
    assert not made or "forget" not in str(place.calls())  # what is old waits for the timer


def test_a_migration_is_not_run_without_its_backup(place: Place) -> None:
    run.prepare(settings.load("shop"))
    place.fail(backup=[1, "Fatal: no space left"])
    with pytest.raises(ReleaseError, match=r"nothing was migrated: .*no space left\n.*-e app_migrate_backup=false"):
        run.back_up_before_migration("shop")


def test_the_command_says_what_it_backed_up(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_hand.back_up_now("shop", as_json=False) == 0
    assert "of release 7: 160 KB, 14 B of it new" in capsys.readouterr().out


def test_messages_of_restic_are_shown_without_their_json() -> None:
    fatal = '{"message_type":"exit_error","code":1,"message":"Fatal: no"}'
    text = f'{fatal}\n{{"message_type":"error","error":{{"message":"lstat"}}}}\nplain\n'
    assert messages(text) == "Fatal: no\nlstat\nplain"


@pytest.mark.parametrize(
    ("state", "timer", "found"),
    [
        ({"run": "x", "start": -1, "end": -1, "result": "ok", "success": -1}, 0, []),
        ({}, 0, [("warning", "There is no backup yet")]),
        ({"run": "x", "start": -1, "end": -1, "result": "failed", "success": -2}, 0, [("error", "The last backup failed")]),
        (
            {"run": "x", "start": -40, "end": -40, "result": "ok", "success": -40},
            0,
            [("error", "The last good backup is too old (backup_max_age_hours)")],
        ),
        (
            {"run": "x", "start": -1, "end": -1, "result": "ok", "success": -1},
            3,
            [("error", "Backups will not be made: their timer is not active")],
        ),
    ],
)
def test_the_doctor_finds_what_is_wrong_with_backups(
    place: Place, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], timer: int, found: list[tuple[str, str]]
) -> None:
    settings.save_state("shop", state_of({"since": 0, **state}))
    monkeypatch.setattr(doctor, "output", lambda *command: (timer, ""))
    one: Any = SimpleNamespace(arguments={"name": "shop"})
    assert [(each.severity, each.what) for each in doctor.backup(one)] == found
    one.arguments["name"] = "kiosk"
    assert list(doctor.backup(one)) == []


def test_backups_are_measured(place: Place) -> None:
    def measured(app: str) -> dict[str, float]:
        one: Any = SimpleNamespace(settings={"name": app})
        return {name.replace("slipway_backup_", ""): value for name, value, _ in State.backups(one)}

    settings.save_state("shop", settings.State(since=1.0))
    assert measured("shop") == {"failed": 0, "overdue": 1}
    settings.save_state("shop", settings.State(1, "", "", "x", 2.0, 5.0, "failed", "no", 1.5, 70, 7))
    assert measured("shop") == {
        **{"failed": 1, "overdue": 1, "last_success_timestamp_seconds": 1.5, "last_duration_seconds": 3, "size_bytes": 70},
        "added_bytes": 7,
    }
    assert measured("kiosk") == {}
    assert {f"slipway_backup_{name}" for name in measured("shop")} == {name for name in GAUGES if "backup" in name}


@pytest.mark.parametrize(
    ("live", "candidate", "backup", "changes"),
    [
        ("a1", "a1", True, False),
        ("a1", "a2", True, True),
        ("", "", True, True),
        ("a1", "a2", False, False),
        (None, "a1", True, True),
        ("a1, b1", "a1, b1", True, False),
    ],
)
def test_only_a_migration_that_may_change_the_schema_waits_for_a_backup(
    monkeypatch: pytest.MonkeyPatch, live: str | None, candidate: str, backup: bool, changes: bool
) -> None:
    monkeypatch.setattr(prepare, "schema_there", lambda app: (candidate or "").replace(", ", "+"))
    records = {1: {"migration": live}, 2: {"migration": candidate}}
    layout = SimpleNamespace(live=lambda: None if live is None else 1, record=records.get)
    context: Any = SimpleNamespace(layout=layout, arguments={"migrate": {"backup": backup}, "name": "shop"})
    assert prepare.changes_schema(context, 2) == changes
    for there in ("", "a0"):  # it cannot be said, or somebody brought it to another revision
        monkeypatch.setattr(prepare, "schema_there", lambda app, there=there: there)
        assert prepare.changes_schema(context, 2) == backup


def test_the_schema_that_is_there_is_asked_of_the_database(place: Place) -> None:
    place.answer("schema", "b1\na1\n")
    assert run.schema_there("shop") == "a1+b1"
    (place.folder / "bin" / "psql").write_text("#!/bin/sh\necho no >&2; exit 2\n", encoding="ascii")
    assert run.schema_there("shop") == ""
    assert run.schema_there("kiosk") == ""
