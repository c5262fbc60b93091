"""What was logged is found, in files old and new and in the journal, and shown so that people can read it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rendering import Host

from slipway.host import logs as app_log
from slipway.host.logs import File, Journal, ends, readable
from slipway.host.store import Store

Put = Callable[[str, str], Path]

# Answers as journalctl does: what lies in a file, from a line on, with the name that was asked for.
JOURNALCTL = """#!/bin/sh
printf '%s\\n' "$*" >>"{asked}"
for word in "$@"; do
    case $word in
        --lines=all) lines=1000000 ;;
        --lines=*) lines=${{word#--lines=}} ;;
        --after-cursor=*) after=${{word#--after-cursor=}} ;;
        --identifier=shop-8) cat "{said}" >"{said}.found" ;;
    esac
done
test -e "{said}.found" || exit 1
tail -n "+$((${{after:-0}} + 1))" "{said}.found" | tail -n "$lines"
test "${{after:-0}}" -ge "$(wc -l <"{said}.found")" || echo "-- cursor: $(wc -l <"{said}.found")"
"""


@pytest.fixture
def layout(tmp_path: Path) -> Store:
    layout = Store(tmp_path / "home", tmp_path / "run", tmp_path / "logs")
    for number in (7, 8):
        layout.release(number).mkdir(parents=True)
    layout.logs.mkdir()
    return layout


@pytest.fixture
def journal(tmp_path: Path, program: Put) -> Path:
    """What the program shop-8 has said to the journal."""
    said = tmp_path / "said"
    said.write_text("", encoding="utf-8")
    program("journalctl", JOURNALCTL.format(said=said, asked=tmp_path / "asked"))
    return said


def aged(path: Path, text: str, age: int) -> Path:
    """Write a file that was last written to `age` hours ago."""
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    os.utime(path, (path.stat().st_mtime - 3600 * age,) * 2)
    return path


RECORD = {
    "time": "2026-11-25T12:00:00.123Z",
    "level": "ERROR",
    "logger": "shop",
    "message": "no order\n7",
    "release": "7",
    "request_id": "abc",
    "exception": "Traceback (most recent call last):\n  File main.py\nKeyError: 7",
}


def test_a_record_is_unfolded_and_nothing_else() -> None:
    text = f"starts\n{json.dumps(RECORD)}\n{{ no JSON\n[1]\n" + '{"event": "mine"}\n'
    assert readable(text).splitlines() == [
        "starts",
        "2026-11-25T12:00:00.123Z ERROR shop abc: no order",
        "7",
        "Traceback (most recent call last):",
        "  File main.py",
        "KeyError: 7",
        "{ no JSON",
        "[1]",
        '{"event": "mine"}',
    ]


def test_the_end_of_a_log_is_for_people(layout: Store, journal: Path) -> None:
    layout.log(7).write_text(f"starts\n{json.dumps(RECORD)}\n", encoding="utf-8")
    ((place, text),) = ends(layout, "shop", 7, 3)
    assert place == str(layout.log(7))
    assert text.splitlines()[1:] == ["7", "Traceback (most recent call last):", "  File main.py", "KeyError: 7"]
    journal.write_text(json.dumps({**RECORD, "message": "by journal"}), encoding="utf-8")
    ((place, text),) = ends(layout, "shop", 8, 30)
    assert place == "journalctl --identifier=shop-8"
    assert "ERROR shop abc: by journal\nTraceback" in text
    # Its start may have failed before it had connected there.
    layout.log(8).write_text("no such interpreter\n", encoding="utf-8")
    assert ends(layout, "shop", 8, 30)[0][1] == "no such interpreter"
    assert len(ends(layout, "shop", 8, 30)) == 2


def test_a_host_without_a_journal_has_files(layout: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert ends(layout, "shop", 7, 30) == []
    assert Journal(["shop-7"]).last(5, "") == ([], "")


def test_what_is_looked_for_is_found_in_older_files(tmp_path: Path) -> None:
    aged(tmp_path / "access.log.10.gz", "id-1 a\n", 30)
    aged(tmp_path / "access.log.2.gz", "id-1 b\nother\n", 20)
    aged(tmp_path / "access.log-20261124", "id-1 c\n", 10)
    aged(tmp_path / "access.log.1", "id-1 d\n", 5)
    aged(tmp_path / "access.log.swp", "id-1 nobody's\n", 5)
    aged(tmp_path / "access.log", "id-1 e\nlast\n", 0)
    log = File(tmp_path / "access.log")
    assert log.last(10, "id-1")[0] == ["id-1 a", "id-1 b", "id-1 c", "id-1 d", "id-1 e"]
    assert log.last(2, "id-[0-9]")[0] == ["id-1 d", "id-1 e"]
    assert log.last(3, "")[0] == ["id-1 d", "id-1 e", "last"]


def test_a_line_that_was_torn_by_a_rotation_is_whole(tmp_path: Path) -> None:
    aged(tmp_path / "7.log.1", "first\nsec", 1)
    aged(tmp_path / "7.log", "ond\nthird\n", 0)
    log = File(tmp_path / "7.log")
    assert log.last(5, "")[0] == ["first", "second", "third"]
    assert log.last(5, "sec")[0] == ["second"]


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = File(aged(tmp_path / "7.log", "".join(f"line {number}\n" for number in range(100_000)), 0))
    assert log.last(2, "")[0] == ["line 99998", "line 99999"]
    assert log.last(1000, "")[0][0] == "line 99000"


def test_a_log_is_followed_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "7.log"
    log = File(path)
    lines, place = log.last(5, "")
    assert lines == []
    seen: list[str] = []

    def follow() -> None:
        nonlocal place
        lines, place = log.since(place, "")
        seen.extend(lines)

    with path.open("a", encoding="utf-8") as file:
        for number in range(60):
            file.write(f"line {number}\nhal")
            file.flush()
            if number % 3:
                follow()
            if number % 10 == 9:
                (tmp_path / "7.log.2").unlink(missing_ok=True)
                if (tmp_path / "7.log.1").exists():
                    (tmp_path / "7.log.1").rename(tmp_path / "7.log.2")
                path.rename(tmp_path / "7.log.1")
                file.close()
                file = path.open("a", encoding="utf-8")
            file.write("f\n")
        file.flush()
        follow()
        file.close()
    assert seen == [line for number in range(60) for line in (f"line {number}", "half")]
    # Emptied in place, it begins anew.
    path.write_text("a line that is much longer\n", encoding="utf-8")
    follow()
    path.write_text("new\n", encoding="utf-8")
    follow()
    assert seen[-1] == "new"


def test_the_journal_is_read_by_the_names_of_programs(tmp_path: Path, journal: Path) -> None:
    journal.write_text("one\ntwo\nthree\n", encoding="utf-8")
    both = Journal(["shop-7", "shop-8"])
    lines, cursor = both.last(2, "")
    assert lines == ["two", "three"]
    assert "--identifier=shop-7 --identifier=shop-8" in (tmp_path / "asked").read_text(encoding="utf-8")
    assert both.last(5, "t[wh]")[0] == ["two", "three"]
    assert both.since(cursor, "") == ([], "")
    journal.write_text("one\ntwo\nthree\nfour\n", encoding="utf-8")
    assert both.since(cursor, "") == (["four"], "4")
    assert Journal([]).last(5, "") == ([], "")


@pytest.fixture
def read(layout: Store, journal: Path, tmp_path: Path, run_step: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Read the logs as the playbook does."""
    paths = {"home": str(layout.home), "runtime": str(layout.runtime), "logs": str(layout.logs)}
    others = [str(tmp_path / "access.log"), str(tmp_path / "error.log")]

    def run(**wanted: Any) -> dict[str, Any]:
        masked = Host()["__app_masked_parameters"]
        return run_step("logs", layout=paths, name="shop", others=others, masked=masked, check=True, **wanted)

    return run


def test_all_logs_of_an_app_are_read_and_followed(
    read: Callable[..., dict[str, Any]], layout: Store, journal: Path, tmp_path: Path
) -> None:
    assert read()["lines"] == []
    layout.log(7).write_text("seven 1\nseven 2\n", encoding="utf-8")
    journal.write_text("eight 1\n", encoding="utf-8")
    (tmp_path / "access.log").write_text('{"path": "/"}\n', encoding="utf-8")
    (tmp_path / "error.log").write_text('request: "GET /x?user=1&api_key=letmein&y HTTP/2.0", host\n', encoding="utf-8")
    first = read(lines=1)
    assert first["lines"] == [
        f"== {layout.log(7)}",
        "seven 2",
        f"== {tmp_path}/access.log",
        '{"path": "/"}',
        f"== {tmp_path}/error.log",
        'request: "GET /x?user=1&api_key=********&y HTTP/2.0", host',
        "== the journal",
        "eight 1",
    ]
    assert read(positions=first["positions"])["lines"] == []
    with layout.log(7).open("a", encoding="utf-8") as file:
        file.write("seven 3\n")
    layout.log(8).write_text("a new release\n", encoding="utf-8")
    journal.write_text("eight 1\neight 2\n", encoding="utf-8")
    second = read(positions=first["positions"], wait=0.01)
    assert second["lines"] == [
        f"== {layout.log(7)}",
        "seven 3",
        f"== {layout.log(8)}",
        "a new release",
        "== the journal",
        "eight 2",
    ]
    assert read(positions=second["positions"])["lines"] == []
    assert read(grep="seven [13]")["lines"] == [f"== {layout.log(7)}", "seven 1", "seven 3"]


def test_what_is_no_regular_expression_is_refused(read: Callable[..., dict[str, Any]]) -> None:
    assert "'items/(5' is not one" in read(grep="items/(5")["msg"]


def test_of_a_log_without_end_the_end_is_read(layout: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = layout.log(7)
    log.write_bytes(b"begin\n" + b"x" * 50 * 2**20 + b"\nthe last word\n")
    read: list[int] = []

    def noting(text: str) -> str:
        read.append(len(text))
        return readable(text)

    monkeypatch.setattr(app_log, "readable", noting)
    ((place, text),) = ends(layout, "shop", 7, 30)
    assert (place, text) == (str(log), "the last word")
    assert max(read) <= app_log.END_BYTES
