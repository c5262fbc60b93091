"""The times of an app's files: a changed file never looks unchanged, and an unchanged one stays in the caches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slipway.host.build.times import freshen, renew


@pytest.fixture
def builds(tmp_path: Path) -> Path:
    return tmp_path


def build(builds: Path, name: str, venv: str = "", at: int = 50, **files: str) -> Path:
    """Make a build of files, a double underscore in the name standing for a slash and a single one for a dot, all of one time."""
    root = builds / name
    root.mkdir()
    for file, text in files.items():
        path = root / file.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (at, at))
    if venv:
        (root / ".venv").symlink_to(builds / "venvs" / venv)
    return root


def package(builds: Path, venv: str, text: str, at: int = 50) -> Path:
    """Make an environment with a package that has a page and code."""
    folder = builds / "venvs" / venv / "lib" / "python3" / "site-packages" / "shop"
    folder.mkdir(parents=True)
    for name in ("index.html", "main.py"):
        (folder / name).write_text(text, encoding="utf-8")
        os.utime(folder / name, (at, at))
    return folder


def times(root: Path) -> dict[str, int]:
    return {path.name: int(path.stat().st_mtime) for path in root.rglob("*") if path.is_file()}


def test_a_changed_file_is_newer_and_an_unchanged_one_keeps_its_time(builds: Path) -> None:
    one = build(builds, "one", same_css="a", changed_html="AAAA", gone_js="x")
    freshen(one, None, 100)
    assert set(times(one).values()) == {100}
    two = build(builds, "two", at=7, same_css="a", changed_html="BBBB", new_js="y")
    freshen(two, one, 200)
    assert times(two) == {"same.css": 100, "changed.html": 200, "new.js": 200}


def test_after_a_rollback_what_differs_is_newer_than_what_was_served(builds: Path) -> None:
    one, two = build(builds, "one", same_css="a", index_html="AAAA"), build(builds, "two", same_css="a", index_html="BBBB")
    freshen(one, None, 100)
    freshen(two, one, 200)
    freshen(one, two, 200)  # within the same run, as after a failure
    assert times(one) == {"same.css": 100, "index.html": 201}
    freshen(two, one, 150)  # by a controller whose clock is late
    assert times(two) == {"same.css": 100, "index.html": 202}


def test_going_back_at_once_reads_nothing_and_is_seen_all_the_same(builds: Path) -> None:
    old, _ = package(builds, "v1", "AAAA", at=90), package(builds, "v2", "BBBB", at=80)
    one = build(builds, "one", venv="v1", same_css="a", index_html="AAAA", gone_js="x", main_py="a")
    two = build(builds, "two", venv="v2", same_css="a", index_html="BBBB", main_py="b")
    freshen(one, None, 100)
    again = freshen(two, one, 200)
    for file in two.iterdir():
        file.unlink()
    renew(again)
    assert times(one) == {"same.css": 100, "index.html": 201, "gone.js": 201, "main.py": 50}
    assert times(old) == {"index.html": 201, "main.py": 90}
    assert freshen(one, None, 300) == {}


def test_files_without_a_time_are_given_one_even_if_they_did_not_change(builds: Path) -> None:
    # A client may still have what another release served with no time.
    one, two = build(builds, "one", at=0, index_html="AAAA"), build(builds, "two", at=0, index_html="AAAA")
    freshen(two, one, 100)
    assert times(two) == {"index.html": 100}


def test_the_same_build_is_left_alone(builds: Path) -> None:
    one = build(builds, "one", index_html="A")
    (builds / "link").symlink_to("one")
    freshen(one, builds / "link", 100)
    assert times(one) == {"index.html": 50}


def test_code_keeps_the_time_that_its_compiled_form_names(builds: Path) -> None:
    one = build(builds, "one", main_py="a", index_html="a")
    freshen(one, None, 100)
    assert times(one) == {"main.py": 50, "index.html": 100}


def test_the_record_of_a_build_keeps_its_time(builds: Path) -> None:
    one = build(builds, "one", index_html="a")
    (one / ".build.json").write_text("{}", encoding="utf-8")
    os.utime(one / ".build.json", (60, 60))
    freshen(one, None, 55)
    assert times(one) == {".build.json": 60, "index.html": 55}


def test_links_are_not_followed(builds: Path) -> None:
    outside = builds / "outside"
    outside.write_text("x", encoding="utf-8")
    os.utime(outside, (1, 1))
    one = build(builds, "one", index_html="a")
    (one / "link").symlink_to(outside)
    (one / "folder").symlink_to(builds)
    freshen(one, None, 100)
    assert outside.stat().st_mtime == 1


def test_pages_of_a_package_in_the_environment_change_with_it(builds: Path) -> None:
    old, new = package(builds, "v1", "AAAA", at=90), package(builds, "v2", "BBBB", at=80)
    one, two = build(builds, "one", venv="v1"), build(builds, "two", venv="v2")
    freshen(two, one, 100)
    assert times(new) == {"index.html": 100, "main.py": 80}
    freshen(one, two, 100)
    assert times(old) == {"index.html": 101, "main.py": 90}


def test_an_environment_that_both_share_is_left_alone(builds: Path) -> None:
    pages = package(builds, "v1", "AAAA")
    freshen(build(builds, "two", venv="v1"), build(builds, "one", venv="v1"), 100)
    assert times(pages) == {"index.html": 50, "main.py": 50}
