"""The Python that a source asks for is compared with the one that it would run with."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

PROJECT = '[project]\nname = "shop"\nrequires-python = ">=3.13"\ndependencies = []\n'


# What the role tells of a host whose uv is the controller's.
HOST: dict[str, Any] = {"installer": "uv", "minimum": "3.11", "uv_version": version("uv")}

LOCKED = 'version = 1\nrequires-python = ">=3.13"\n[[package]]\nname = "shop"\nversion = "1"\nsource = { virtual = "." }\n'


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pyproject.toml": PROJECT}, r"pyproject\.toml \(requires-python\) says >=3\.13"),
        ({"pyproject.toml": PROJECT, "requirements.txt": "fastapi"}, r"pyproject\.toml \(requires-python\)"),
        ({"requirements.txt": "fastapi", ".python-version": "3.13.1\n"}, r"\.python-version says 3\.13\.1.*app_exclude"),
        ({"pyproject.toml": '[project]\nname = "shop"\nversion = "1"\n', "uv.lock": LOCKED}, r"uv\.lock \(requires-python\)"),
        ({"pylock.toml": 'lock-version = "1.0"\nrequires-python = ">=3.13"\n'}, r"pylock\.toml \(requires-python\)"),
    ],
)
def test_an_app_that_asks_for_another_python_gets_it_by_uv_and_is_refused_with_pip(
    tmp_path: Path, files: dict[str, str], words: str, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    root = tmp_path / "shop"
    (root / "backend").mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    if "requirements.txt" in files:  # from others pip does not install at all
        with pytest.raises(AnsibleActionFail, match=words) as error:
            fetch_on("Python 3.11.2", root, installer="pip")
        for part in ("the host", "/usr/bin/python3 there is Python 3.11.2", "python_interpreter", "app_runtime: container"):
            assert part in str(error.value)
    request = r"(>=3\.13|==3\.13\.\*),>=3\.11"
    assert re.fullmatch(request, fetch_on("Python 3.11.2", root, **HOST)["source"]["interpreter"])
    own = fetch_on("Python 3.13.0", root, **HOST)["source"]
    assert own["python"]
    assert own["interpreter"] == ""
    # Not installed yet: it is asked again before the build.
    source = fetch_on("sh: no such file", root, **HOST)
    assert source["source"]["interpreter"] == ""
    assert re.fullmatch(request, fetch_on("Python 3.11.2", root, known=source, **HOST)["source"]["interpreter"])
    # By its image, where it runs in one.
    fetch_on("Python 3.11.2", root, interpreter="", base="docker.io/library/python:3.13-slim")
    with pytest.raises(AnsibleActionFail, match=r"python:3\.12 \(app_image_base\) has Python 3\.12.*app_image_base"):
        fetch_on("Python 3.13.2", root, interpreter="", base="python:3.12")


@pytest.mark.parametrize(
    ("wanted", "host", "asked"),
    [
        ("3.14", "Python 3.13.5", "==3.14.*,>=3.13,>=3.11"),
        ("3.13", "Python 3.13.5", ""),
        ("3.13", "Python 3.14.0", "==3.13.*,>=3.13,>=3.11"),
        ("3.13.5", "Python 3.13.5", ""),
        ("3.13.5", "Python 3.13.4", "==3.13.5,>=3.13,>=3.11"),
        ("3.13t", "Python 3.13.5", "==3.13.*,>=3.13,>=3.11+freethreaded"),
        ("3.14", "sh: no such file", "==3.14.*,>=3.13,>=3.11"),
        ("", "Python 3.13.5", ""),
        ("", "Python 3.12.5", ">=3.13,>=3.11"),
    ],
)
def test_a_version_that_is_set_is_the_hosts_own_or_uvs(
    tmp_path: Path, wanted: str, host: str, asked: str, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    if wanted:  # which takes the place of what developers use
        (tmp_path / ".python-version").write_text("3.11\n", encoding="utf-8")
    source = fetch_on(host, tmp_path, python=wanted, **HOST)["source"]
    assert (source["interpreter"], source["asks"]) == (asked, wanted or ">=3.13")


def test_a_version_that_the_source_does_not_allow_is_refused_and_both_are_named(
    tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    for options in ({"interpreter": "/usr/bin/python3"}, {"interpreter": "", "base": "python:{python}"}):
        with pytest.raises(
            AnsibleActionFail, match=r"app_python is 3\.12, and pyproject\.toml \(requires-python\) .* says >=3\.13"
        ):
            fetch_on("Python 3.13.5", tmp_path, python="3.12", **{**HOST, **options})


@pytest.mark.parametrize(
    ("pin", "wanted", "words"),
    [
        (
            "3.99",
            "",
            r"\.python-version says 3\.99, and /usr/bin/python3 there is Python 3\.13\.5\. uv .* has no such .*app_exclude",
        ),
        ("3.10", "", r"\.python-version says 3\.10.* has no such Python either \(beside that: python_minimum 3\.11 or newer\)"),
        ("pypy3.11", "", r"\.python-version says pypy3\.11"),
        ("", "3.99", r"app_python says 3\.99, .*python_uv_version"),
        ("", "3.14.99", r"app_python says 3\.14\.99"),
    ],
)
def test_a_python_that_uv_does_not_know_is_refused_before_anything_is_changed(
    tmp_path: Path, pin: str, wanted: str, words: str, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "requirements.txt").write_text("fastapi", encoding="utf-8")
    (tmp_path / ".python-version").write_text(pin, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=words):
        fetch_on("Python 3.13.5", tmp_path, python=wanted, **HOST)
    # What another uv, or a list of one's own, has is only seen on the host.
    for other in ({"uv_version": "99.0"}, {"downloads": "https://mirror.example.com/list.json"}):
        assert fetch_on("Python 3.13.5", tmp_path, python=wanted, **{**HOST, **other})["source"]["interpreter"]


@pytest.mark.parametrize(
    ("requires", "pins", "wanted", "image"),
    [
        (">=3.11", "", "", "python:3.13-slim"),
        (">=3.14,<3.15", "", "", "python:3.14-slim"),
        (">=3.11", "3.12\n3.14\n", "", "python:3.14-slim"),
        (">=3.11", "3.12\n", "3.14.2", "python:3.14.2-slim"),
    ],
)
def test_the_image_follows(
    tmp_path: Path, requires: str, pins: str, wanted: str, image: str, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace(">=3.13", requires), encoding="utf-8")
    (tmp_path / ".python-version").write_text(pins, encoding="utf-8")
    source = fetch_on("", tmp_path, python=wanted, **{**HOST, "interpreter": "", "base": "python:{python}-slim"})["source"]
    assert (source["base"], source["interpreter"]) == (image, "")
    # Another one that is named must have it.
    with pytest.raises(AnsibleActionFail, match=r"python:3\.10 \(app_image_base\) has Python 3\.10"):
        fetch_on("", tmp_path, python=wanted, **{**HOST, "interpreter": "", "base": "python:3.10"})


def test_an_image_that_there_is_not_is_refused(tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace(">=3.13", ">=3.99"), encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"No image with a stable Python .* says >=3\.99.*app_image_base"):
        fetch_on("", tmp_path, **{**HOST, "interpreter": "", "base": "python:{python}-slim"})
    # A recipe of the source chooses by itself.
    (tmp_path / "Dockerfile").touch()
    options = {**HOST, "interpreter": "", "base": "python:{python}-slim", "dockerfiles": ["Dockerfile"]}
    assert fetch_on("", tmp_path, **options)["source"]["kind"] == "dockerfile"


def test_a_pin_above_the_apps_folder_counts(tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "shop/backend").mkdir(parents=True)
    (tmp_path / "shop/.python-version").write_text("3.13", encoding="utf-8")
    (tmp_path / "shop/backend/requirements.txt").write_text("fastapi", encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"\.python-version says 3\.13.*app_exclude"):
        fetch_on("Python 3.11.2", tmp_path / "shop", directory="backend", installer="pip")
    fetch_on("Python 3.11.2", tmp_path / "shop", directory="backend", installer="pip", exclude=[".python-version"])


def test_a_wheel_asks_for_its_python(tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]) -> None:
    wheel = tmp_path / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("shop-1.0.dist-info/METADATA", "Name: shop\nRequires-Python: >=3.13\n\nRequires-Python: no\n")
    with pytest.raises(AnsibleActionFail, match=r"shop-1\.0-py3-none-any\.whl \(Requires-Python\) says >=3\.13"):
        fetch_on("Python 3.12.1", wheel, installer="pip")
    fetch_on("Python 3.13.1", wheel, installer="pip")
