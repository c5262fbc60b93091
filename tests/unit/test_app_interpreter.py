"""The Python that a source asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway.controller.interpreter import Unreadable, demand, nearest, of_image, pinned, request, unmet


@pytest.mark.parametrize(
    ("said", "fits", "does_not"),
    [
        (">=3.13", ["3.13.0", "3.14.1", "3.13"], ["3.11.2", "3.12.99"]),
        (">=3.11,<3.13", ["3.11.2", "3.12.0"], ["3.13.0", "3.10.1"]),
        ("==3.12.*", ["3.12.0", "3.12"], ["3.13.1"]),
        ("~=3.11.2", ["3.11.2", "3.11.9", "3.11"], ["3.12.0", "3.11.1"]),
        (">=3.8.*", ["3.11.2"], ["3.7.9"]),
        ("!=3.12.4,>=3.12", ["3.12.5", "3.12"], ["3.12.4"]),
        (">=3.14", ["3.14.0"], ["3.14.0rc2", "3.13"]),
        (">=3.15.0a1", ["3.15.0b1"], ["3.14.2"]),
    ],
)
def test_specifiers(said: str, fits: list[str], does_not: list[str]) -> None:
    asked = [demand("pyproject.toml", said, said)]
    assert [version for version in fits if unmet(asked, version)] == []
    assert [version for version in does_not if not unmet(asked, version)] == []


def test_what_is_no_version_is_named() -> None:
    with pytest.raises(Unreadable, match=r"pyproject\.toml of the source asks for the Python new"):
        demand("pyproject.toml", "new", "new")


@pytest.mark.parametrize("said", ["===3'$(id)'", "===3.13;id", '===3"', "===3`id`", "===3|id"])
def test_what_more_than_a_version_could_say_is_refused(said: str) -> None:
    with pytest.raises(Unreadable, match=r"\.python-version of the source asks for the Python"):
        demand(".python-version", said, said)


def test_what_is_asked_for_is_one_word() -> None:
    asked = [demand("pyproject.toml", "", ">= 3.11,\n < 4"), demand("uv.lock", "", ">=3.12")]
    assert request(asked) == ">=3.11,<4,>=3.12"


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        ("3.13\n", "3.13.5", "3.12.1"),
        ("3.13.1\n", "3.13.5", "3.12.1"),
        ("cpython@3.12", "3.12.3", "3.13.0"),
        ("cpython-3.12.1-linux-x86_64-gnu", "3.12.3", "3.13.0"),
        ("python3.12", "3.12.3", "3.11.0"),
        ("3.13t", "3.13.0", "3.12.0"),
        ("3.13-dev", "3.13.0", "3.12.0"),
        ("3", "3.11.0", "2.7.18"),
        ("# ours\n\n 3.11 # old\n3.12\n", "3.12.0", "3.13.0"),
        ("pypy3.10\n3.12\n", "3.12.0", "3.10.1"),
        (">=3.12", "3.13.0", "3.11.0"),
    ],
)
def test_a_python_version_file_counts_to_two_numbers(tmp_path: Path, text: str, fits: str, does_not: str) -> None:
    file = tmp_path / ".python-version"
    file.write_text(text, encoding="utf-8")
    asked = pinned(file, ".python-version")
    assert unmet(asked, does_not)
    assert not unmet(asked, fits)


def test_a_python_version_file_that_asks_for_another_python_than_cpython_is_met_by_none(tmp_path: Path) -> None:
    file = tmp_path / ".python-version"
    file.write_text("pypy3.10-7.3.12", encoding="utf-8")
    asked = pinned(file, ".python-version")
    assert [bool(unmet(asked, version)) for version in ("3.10.1", "3.12.3", "3.14.0")] == [True] * 3


@pytest.mark.parametrize("text", ["", "system\n", "my-environment\n", "# nothing\n"])
def test_a_python_version_file_without_a_version_asks_for_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".python-version"
    file.write_text(text, encoding="utf-8")
    assert pinned(file, ".python-version") == []


def test_the_nearest_file_counts_and_none_beyond_the_source(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "backend" / "api"
    folder.mkdir(parents=True)
    (tmp_path / ".python-version").touch()
    assert nearest(folder, tmp_path / "app", ".python-version") is None
    (tmp_path / "app" / ".python-version").touch()
    assert nearest(folder, tmp_path / "app", ".python-version") == tmp_path / "app" / ".python-version"
    (folder / ".python-version").touch()
    assert nearest(folder, tmp_path / "app", ".python-version") == folder / ".python-version"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/library/python:3.13-slim", "3.13"),
        ("python:3.12.4", "3.12.4"),
        ("registry:5000/python:3.11-alpine@sha256:aa", "3.11"),
        ("python:slim", ""),
        ("python", ""),
        ("localhost/slipway-base:1.2", ""),
        ("ghcr.io/x/mypython:3.13", ""),
    ],
)
def test_an_image_tells_its_python(image: str, version: str) -> None:
    assert of_image(image) == version
