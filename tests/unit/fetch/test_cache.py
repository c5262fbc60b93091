"""What is kept on the controller, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sources import EXCLUDE, Repository

from slipway.controller.fetch import cache
from slipway.controller.fetch.cache import cache_directory
from slipway.controller.fetch.checkout import checkout
from slipway.controller.fetch.pack import pack


def test_what_is_packed_is_for_the_operators_eyes(app: Path) -> None:
    pack(app, EXCLUDE, cache_directory())
    assert cache_directory().stat().st_mode & 0o077 == 0


def test_clones_and_leftovers_that_nobody_asks_for_are_removed(repository: Repository, app: Path, tmp_path: Path) -> None:
    repository.commit(main__py="one")
    other = Repository(tmp_path / "other.git")
    other.commit(main__py="one")
    checkout(str(other.path), "", 20, tmp_path / "1")
    (old,) = (path for path in cache_directory("git").iterdir() if path.is_dir())
    left = cache_directory() / ".4711.partial"
    left.touch()
    for path in (old, left):
        os.utime(path, (1, 1))
    checkout(str(repository.path), "", 20, tmp_path / "2")
    pack(app, EXCLUDE, cache_directory())
    assert not old.exists()
    assert not left.exists()
    assert len([path for path in cache_directory("git").iterdir() if path.is_dir()]) == 1


def test_no_more_is_kept_than_there_is_room_for(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "KEEP_BYTES", 1000)
    for number, age in (("1", 9000), ("2", 8000), ("3", 60)):
        (tmp_path / f"{number}.tar.gz").write_bytes(b"x" * 600)
        os.utime(tmp_path / f"{number}.tar.gz", (time.time() - age,) * 2)
    pack(app, EXCLUDE, tmp_path)
    kept = {path.name for path in tmp_path.glob("?.tar.gz")}
    assert kept == {"3.tar.gz"}, "what was asked for within the hour stays: another run may need it"


def test_nothing_is_left_in_the_way(
    repository: Repository, fetch: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    repository.commit(requirements__txt="fastapi\n")
    fetch(repository.path)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.suffix for path in cache_directory().iterdir()) == ["", ".gz"]
