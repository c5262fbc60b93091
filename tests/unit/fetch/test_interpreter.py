"""The Python that a source asks for is compared with the one that it would run with."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

PROJECT = '[project]\nname = "shop"\nrequires-python = ">=3.13"\ndependencies = []\n'


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
def test_an_app_that_asks_for_another_python_is_refused(
    tmp_path: Path, files: dict[str, str], words: str, fetch_on: Callable[..., dict[str, Any]]
) -> None:
    root = tmp_path / "shop"
    (root / "backend").mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=words) as error:
        fetch_on("Python 3.11.2", root)
    for part in ("the host", "/usr/bin/python3 there is Python 3.11.2", "python_interpreter", "app_runtime: container"):
        assert part in str(error.value)
    assert fetch_on("Python 3.13.0", root)["source"]["python"]
    # Not installed yet: it is asked again before the build.
    source = fetch_on("sh: no such file", root)
    with pytest.raises(AnsibleActionFail, match=words):
        fetch_on("Python 3.11.2", root, known=source)
    # By its image, where it runs in one.
    fetch_on("Python 3.11.2", root, interpreter="", base="docker.io/library/python:3.13-slim")
    with pytest.raises(AnsibleActionFail, match=r"python:3\.12 \(app_image_base\) has Python 3\.12.*app_image_base"):
        fetch_on("Python 3.13.2", root, interpreter="", base="python:3.12")


def test_a_pin_above_the_apps_folder_counts(tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "shop/backend").mkdir(parents=True)
    (tmp_path / "shop/.python-version").write_text("3.13", encoding="utf-8")
    (tmp_path / "shop/backend/requirements.txt").write_text("fastapi", encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"\.python-version says 3\.13"):
        fetch_on("Python 3.11.2", tmp_path / "shop", directory="backend")
    fetch_on("Python 3.11.2", tmp_path / "shop", directory="backend", exclude=[".python-version"])


def test_a_wheel_asks_for_its_python(tmp_path: Path, fetch_on: Callable[..., dict[str, Any]]) -> None:
    wheel = tmp_path / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("shop-1.0.dist-info/METADATA", "Name: shop\nRequires-Python: >=3.13\n\nRequires-Python: no\n")
    with pytest.raises(AnsibleActionFail, match=r"shop-1\.0-py3-none-any\.whl \(Requires-Python\) says >=3\.13"):
        fetch_on("Python 3.12.1", wheel)
    fetch_on("Python 3.13.1", wheel)
