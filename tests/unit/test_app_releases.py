"""The list of releases: what is kept, what the history remembers, and how large it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slipway.host.releases import releases, table
from slipway.host.store import Store


@pytest.fixture
def layout(tmp_path: Path) -> Store:
    """Releases 1 (pruned), 2 (failed), 3 (kept), 4 (rolled back) and 5 (live), the last three of builds that share a venv."""
    layout = Store(tmp_path / "home", tmp_path / "run", tmp_path / "log")
    for folder in (layout.releases, layout.builds, layout.venvs / "v"):
        folder.mkdir(parents=True)
    (layout.venvs / "v" / "python").write_bytes(b"x" * 3_000_000)
    outcomes = {1: "live", 2: "failed", 3: "live", 4: "rolled back", 5: "live"}
    for number, outcome in outcomes.items():
        entry = {
            "release": number,
            "outcome": outcome,
            "revision": f"v1.{number}",
            "who": "ann@laptop",
            "when": f"2026-11-0{number}",
        }
        layout.note({**entry, **({"reason": "no database today " * 9} if outcome == "failed" else {})})
        if number > 2:
            (layout.builds / f"b{number}").mkdir()
            (layout.builds / f"b{number}" / ".venv").symlink_to("../../venvs/v")
            (layout.builds / f"b{number}" / "code").write_bytes(b"x" * 1_000_000)
            layout.release(number).mkdir()
            (layout.release(number) / "build").symlink_to(f"../../builds/b{number}")
            (layout.release(number) / "release.json").write_text(json.dumps({**entry, "migration": "a1"}), encoding="utf-8")
    layout.live_socket.symlink_to(layout.socket(5))
    return layout


def test_each_release_has_its_state(layout: Store) -> None:
    rows = releases(layout)
    assert [(row["release"], row["state"]) for row in rows] == [
        (5, "live"),
        (4, "rolled back"),
        (3, "kept"),
        (2, "failed, gone"),
        (1, "was live, gone"),
    ]
    assert {(row["version"], row["who"], row["when"]) for row in rows[:1]} == {("v1.5", "ann@laptop", "2026-11-05")}


def test_what_is_shared_is_counted_once(layout: Store) -> None:
    sizes = {row["release"]: row["bytes"] for row in releases(layout)}
    assert 4_000_000 < sizes[5] < 4_100_000
    assert 1_000_000 < sizes[3] < 1_100_000
    assert sizes[1] == 0


def test_a_way_back_that_failed_leaves_a_release_what_it_was(layout: Store) -> None:
    layout.note({"release": 1, "outcome": "failed", "reason": "could not start"})
    assert releases(layout)[-1]["state"] == "was live, gone"


def test_the_table_is_for_people(layout: Store) -> None:
    lines = table(releases(layout))
    assert lines[0].split() == ["RELEASE", "STATE", "VERSION", "WHEN", "WHO", "SIZE", "SCHEMA", "REASON"]
    assert lines[1].split()[:3] == ["5", "live", "v1.5"]
    assert "3.8 MiB" in lines[1]
    assert max(map(len, lines)) < 160
    assert all(line == line.rstrip() for line in lines)


def test_before_the_first_release(tmp_path: Path, run_step: Any) -> None:
    layout = {name: str(tmp_path / name) for name in ("home", "runtime", "logs")}
    result = run_step("releases", layout=layout)
    assert (result["changed"], result["releases"]) == (False, [])
    assert "To deploy the first" in result["table"][0]


def test_what_was_begun_is_shown_as_what_it_is(layout: Store) -> None:
    layout.release(6).mkdir()
    (layout.release(6) / "release.json").write_text('{"outcome": "prepared", "revision": "v1.6"}', encoding="utf-8")
    layout.release(7).mkdir()
    rows = releases(layout)[:2]
    assert [(row["release"], row["state"], row["version"], row["bytes"]) for row in rows] == [
        (7, "?", "?", 0),
        (6, "prepared", "v1.6", 0),
    ]


def test_a_build_that_is_gone_has_no_size(layout: Store) -> None:
    (layout.release(3) / "build").unlink()
    (layout.release(3) / "build").symlink_to("../../builds/nowhere")
    assert next(row["bytes"] for row in releases(layout) if row["release"] == 3) == 0


def test_columns_that_nobody_needs_are_left_out(tmp_path: Path) -> None:
    layout = Store(tmp_path, tmp_path, tmp_path)
    layout.note({"release": 1, "outcome": "live", "revision": "a" * 40, "who": "ann@laptop", "when": "2026-11-01"})
    lines = table(releases(layout))
    assert lines[0].split() == ["RELEASE", "STATE", "VERSION", "WHEN", "WHO", "SIZE"]
    assert lines[1].split() == ["1", "was", "live,", "gone", "a" * 7, "2026-11-01", "ann@laptop", "-"]


def test_the_module_lists_them(layout: Store, run_step: Any) -> None:
    paths = {"home": str(layout.home), "runtime": str(layout.runtime), "logs": str(layout.logs)}
    for check in (False, True):
        result = run_step("releases", check=check, layout=paths)
        assert (result["changed"], [row["release"] for row in result["releases"]]) == (False, [5, 4, 3, 2, 1])
        assert result["table"] == table(releases(layout))
