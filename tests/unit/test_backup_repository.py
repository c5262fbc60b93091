"""A repository that other hosts and apps use as well, by versions of restic that say the same in different words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backups import Place, without_pauses

from slipway.host.backup import listing, program, restore, run, settings
from slipway.host.backup.restic import Repository
from slipway.host.errors import ReleaseError

# How restic says that another process has locked the repository, since 0.17 and before.
LOCKED = [
    (11, '{"message_type":"exit_error","code":11,"message":"unable to create lock in backend"}'),
    (1, "unable to create lock in backend: repository is already locked exclusively by PID 7 on other by root (UID 0, GID 0)"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An app that is backed up."""
    return Place(tmp_path, monkeypatch)


def lock(place: Place, count: int, code: int = 11, message: str = "") -> None:
    """Have others hold the lock for as many attempts."""
    place.answer("locked", json.dumps([count, code, message]))


@pytest.mark.parametrize(("code", "message"), LOCKED)
def test_a_backup_waits_for_others_that_have_locked_the_repository(
    place: Place, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    run.prepare(settings.load("shop"))
    waited: list[float] = []
    without_pauses(monkeypatch, waited.append)
    lock(place, 2, code, message)
    assert run.back_up("shop", "timer").result == "ok"
    assert waited == [program.PAUSE_SECONDS] * 2
    told = place.statements()
    assert sum("pg_export_snapshot" in line for line in told) == 3  # no table is held while it waits
    for command in ("forget", "check"):  # which nobody else may be at work during
        lock(place, 1, code, message)
        Repository(settings.load("shop")).ask(command)
    assert len(waited) == 4
    assert [call[0] for call in place.calls()].count("unlock") > 4  # a process that holds it may have died
    monkeypatch.setattr(program, "PATIENCE_SECONDS", -1)
    lock(place, 9, code, message)
    with pytest.raises(ReleaseError, match=f"exit code {code}: unable to create lock"):
        run.back_up("shop", "timer")


def test_what_only_reads_waits_for_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run.back_up("shop", "timer")
    without_pauses(monkeypatch, lambda seconds: 1 / 0)
    lock(place, 99)
    known = settings.load("shop")
    repository = Repository(known)
    assert not run.prepare(known, check=True)
    (backup,) = listing.backups(repository)
    saved = listing.contents(repository, backup)["database"]["snapshot"]
    before = len(place.calls())
    with repository.reading(saved, "/database.dump", lock=True) as stream:
        assert stream.read() == b"the dump" * 20000
    assert [call[-1] == "--no-lock" for call in place.calls()[before:]] == [False, True]
    who = {"id": "1 t", "who": "ann", "where": "laptop", "dead": ""}
    restore.restore(restore.Order(known, "latest", switch=False, run=who, check=False), "shared")
    assert [call[-1] == "--no-lock" for call in place.calls() if call[0] == "restore"] == [False, True]


def test_a_failure_to_read_is_shown_and_not_what_comes_of_reading_nothing(place: Place) -> None:
    run.back_up("shop", "timer")
    repository = Repository(settings.load("shop"))
    place.fail(dump=[1, "Fatal: pack 1234 is damaged"])
    with pytest.raises(ReleaseError, match="pack 1234 is damaged"), repository.reading("1", "/database.dump", lock=True):
        pytest.fail("It was read all the same.")


def test_what_takes_long_to_read_has_others_wait_and_a_dry_run_writes_no_lock(place: Place) -> None:
    run.back_up("shop", "timer")
    known = settings.load("shop")
    repository = Repository(known)
    before = len(place.calls())
    run.prepare(known, check=True)
    (backup,) = listing.backups(repository)
    saved = listing.contents(repository, backup)["database"]["snapshot"]
    assert all("--no-lock" in call for call in place.calls()[before:])
    with repository.reading(saved, "/database.dump", lock=True) as stream:
        assert stream.read() == b"the dump" * 20000
    assert "--no-lock" not in place.calls()[-1]


def test_a_repository_that_another_host_makes_at_the_same_time_is_used(place: Place) -> None:
    place.fail(beaten=True)
    assert not run.prepare(settings.load("shop"))
    assert settings.load_state("shop").repository == "theirs"
    (place.folder / "repository" / "config").unlink()
    (place.folder / "states" / "shop.json").unlink()
    place.fail(init=[1, "Fatal: no space left"])
    with pytest.raises(ReleaseError, match="no space left"):
        run.prepare(settings.load("shop"))


GONE = '{"message_type":"error","error":{"message":"lstat /a: no such file or directory"},"during":"archival","item":"/a"}'
GONE_BEFORE = '{"message_type":"error","error":{"Op":"lstat","Path":"/a","Err":2},"during":"archival","item":"/a"}'
UNREADABLE = '{"message_type":"error","error":{"Op":"open","Path":"/b","Err":5},"during":"archival","item":"/b"}'
END = "Warning: at least one source file could not be read"


@pytest.mark.parametrize(
    ("errors", "good"),
    [
        ([GONE, f'{{"message_type":"exit_error","code":3,"message":"{END}"}}'], True),
        ([GONE_BEFORE, END], True),
        (["error: lstat /a: no such file or directory", END], True),
        ([*[GONE] * 9, END], True),
        ([UNREADABLE, *[GONE] * 9, END], False),
        ([GONE_BEFORE, UNREADABLE, END], False),
        (["/opt/shop/shared does not exist, skipping", GONE, END], False),
        ([END], False),
    ],
)
def test_a_file_that_is_removed_during_a_backup_is_no_failure(place: Place, errors: list[str], good: bool) -> None:
    place.fail(files=[3, "\n".join(errors)])
    if good:
        assert run.back_up("shop", "timer").result == "ok"
    else:
        with pytest.raises(ReleaseError, match="exit code 3"):
            run.back_up("shop", "timer")
