"""The Pythons of a host that uv installed: which builds use them, and that one goes with the last build that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.host import pythons


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are."""
    monkeypatch.setattr(pythons, "PLACE", tmp_path / "python")
    return tmp_path / "python"


def using(home: Path, name: str) -> Path:
    """Make an environment of an app in `home` that was made from the Python `name`."""
    venv = home / "venvs" / "v1"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(pythons.PLACE / name / "bin" / "python3")
    return venv


def test_what_no_build_of_any_app_uses_is_pruned(tmp_path: Path, place: Path) -> None:
    pythons.prune()  # there are none yet
    for name in ("shop", "kiosk"):
        with pythons.in_use(tmp_path / name):
            (place / name / "bin").mkdir(parents=True)
            using(tmp_path / name, name)
    (place / "old").mkdir()
    (place / "cpython-3.14").symlink_to("old")
    with pythons.in_use(tmp_path / "third"):  # whose build may come to use it
        pythons.prune()
        assert (place / "old").exists()
    pythons.prune()
    assert sorted(path.name for path in place.iterdir() if path.name[0] != ".") == ["kiosk", "shop"]
    assert pythons.users() == {"kiosk": {str(tmp_path / "kiosk")}, "shop": {str(tmp_path / "shop")}}
    (tmp_path / "kiosk" / "venvs" / "v1").rename(tmp_path / "gone")
    pythons.prune()
    assert sorted(path.name for path in place.iterdir() if path.name[0] != ".") == ["shop"]
    assert len(list((place / ".homes").iterdir())) == 1


def test_the_version_that_a_build_runs_on(tmp_path: Path) -> None:
    assert pythons.version_of_build(tmp_path) == ""
    (tmp_path / ".build.json").write_text('{"python_version": "3.13.1"}', encoding="utf-8")
    assert pythons.version_of_build(tmp_path) == "3.13.1"
    (tmp_path / ".venv").mkdir()
    for text, version in (
        ("home = /usr/bin\nversion = 3.11.2\n", "3.11.2"),
        ("home = /opt/slipway/python/cpython-3.14.2+freethreaded-linux-x86_64-gnu/bin\nversion_info = 3.14.2\n", "3.14.2t"),
        ("home = /usr/bin\n", ""),
    ):
        (tmp_path / ".venv" / "pyvenv.cfg").write_text(text, encoding="utf-8")
        assert pythons.version_of_build(tmp_path) == version
