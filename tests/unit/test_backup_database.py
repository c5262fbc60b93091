"""The database of an app under the hands of PostgreSQL's administrator, who must run nothing that the app put into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from backups import Place, without_pauses

from slipway.host.backup import database, program, run, settings
from slipway.host.errors import ReleaseError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An app that is backed up."""
    return Place(tmp_path, monkeypatch)


def position(lines: list[str], text: str) -> int:
    """Return the number of the first line with a text."""
    return next(number for number, line in enumerate(lines) if text in line)


@pytest.mark.parametrize("program", ["psql", "pg_dump", "pg_restore"])
def test_no_setting_of_the_apps_database_leads_the_administrator_or_limits_its_time(place: Place, program: str) -> None:
    arguments = database.command(settings.load("shop"), program)
    (options,) = [each.partition("=")[2] for each in arguments[: arguments.index(program)] if each.startswith("PGOPTIONS=")]
    set_there = dict(each.split("=") for each in options.split()[1::2])
    assert set(options.split()[::2]) == {"-c"}
    assert set_there.pop("search_path") == "pg_catalog"
    assert set_there == {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}


def test_settings_that_only_some_versions_have_are_set_before_anything_is_read(place: Place) -> None:
    known = settings.load("shop")
    for attempt in (lambda: database.ask(known, "SELECT 1;", "shop"), lambda: database.counts(known, "shop")):
        (place.folder / "statements").unlink(missing_ok=True)
        attempt()
        first = position(place.statements(), "SELECT ")
        assert "set_config(name" in place.statements()[first]
        told = " ".join(place.statements()[first : first + 2])
        assert "FROM pg_settings" in told  # an unknown one would end the session
        for name in ("restrict_nonsystem_relation_kind", "transaction_timeout", "idle_session_timeout"):
            assert name in told
        assert told.rstrip().endswith("\\g /dev/null")  # it is no answer


def test_the_schema_is_read_from_a_plain_table_as_it_is(place: Place) -> None:
    place.answer("schema", "b2\na1,part=contents\n")
    with database.session(settings.load("shop"), "shop") as (opened, _):
        assert opened.schema() == "a1_part_contents+b2"  # tags are separated by commas
    told = "\n".join(place.statements())
    assert "relkind = 'r'" in told
    assert "'SELECT version_num FROM ONLY %I.%I'" in told
    assert "to_regclass" not in told


def test_what_the_app_has_written_does_not_end_an_answer(place: Place) -> None:
    place.answer("schema", "slipway-end\n")
    with database.session(settings.load("shop"), "shop") as (opened, _):
        assert opened.schema() == "slipway-end"
        assert opened.counts() == {"public.orders": 3, "public.users": 1}


def test_tables_are_held_before_the_dump_and_counted_as_of_its_moment(place: Place) -> None:
    run.back_up("shop", "timer")
    told = place.statements()
    order = [position(told, text) for text in ("pg_export_snapshot", "LOCK TABLE ONLY", "pg_dump", "count(*)")]
    assert order == sorted(order)  # a TRUNCATE after the dump would have the counts be of no rows
    (dump,) = [call for call in place.calls() if call[0] == "pg_dump"]
    assert "--lock-wait-timeout=5s" in dump  # it and a TRUNCATE that waits for the session would wait for each other


def test_a_dump_that_met_a_change_of_a_table_is_made_again_in_a_new_session(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.answer("broken", "pg_dump: error: query failed\npg_dump: detail: Query was: LOCK TABLE public.orders IN ACCESS SHARE")
    without_pauses(monkeypatch, lambda seconds: (place.folder / "broken").unlink())
    assert run.back_up("shop", "timer").result == "ok"
    told = place.statements()
    assert [sum(text in line for line in told) for text in ("pg_export_snapshot", "pg_dump", "count(*)")] == [2, 2, 1]
    place.answer("broken", "Query was: LOCK TABLE public.orders")
    monkeypatch.setattr(program, "PATIENCE_SECONDS", -1)
    with pytest.raises(ReleaseError, match="about to change a table"):
        run.back_up("shop", "timer")


def test_what_is_stopped_is_the_program_itself_and_no_parent_of_it(place: Place) -> None:
    arguments = database.command(settings.load("shop"), "psql", "--quiet")
    assert arguments[:5] == ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    (place.folder / "bin" / "psql").write_text("#!/bin/sh\necho $$\n", encoding="ascii")
    opened = database.Session(settings.load("shop"), "shop")
    assert opened.process.communicate()[0].strip() == str(opened.process.pid)
    opened.close()
