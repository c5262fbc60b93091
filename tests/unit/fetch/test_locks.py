"""Lock files: which packages of the source they name, what they pin, and those of other tools."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import LOCK, PROJECT, names, text_in

from slipway.controller.fetch.export import EXPORTED
from slipway.controller.fetch.locks import PINNED, lock_digest


def test_included_requirements_count(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    texts = {
        "requirements.txt": "-r base.txt\n  -c sub/limits.txt\n--requirement=more.txt\n-rtight.txt\n",
        "base.txt": "fastapi\n-r requirements.txt\n",
        "sub/limits.txt": "-r inner.txt\n",
        "sub/inner.txt": "a\n",
        "more.txt": "b\n",
        "tight.txt": "c\n",
    }
    (tmp_path / "sub").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    seen = {lock_digest(lock)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "# changed\n", encoding="utf-8")
        seen.add(lock_digest(lock))
    assert len(seen) == 1 + len(texts)
    (tmp_path / "stranger.txt").touch()
    assert lock_digest(lock) in seen
    (tmp_path / "base.txt").unlink()
    assert lock_digest(lock) not in seen


@pytest.mark.parametrize("place", [r"lib\nUSER root\nRUN id\n#", "pkg$(id>x)", "a b", "it's"])
def test_a_folder_with_a_name_that_is_more_is_refused(app: Path, place: str, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "uv.lock").write_text(LOCK.replace("packages/core", place), encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"^uv\.lock: .* has a name that cannot be passed to a build: rename the folder"):
        fetch(app, requirements="uv.lock")


def test_a_member_of_a_workspace(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    root = tmp_path / "mono"
    lock = LOCK.replace('{ editable = "." }', '{ editable = "services/shop" }')
    folder = root / "libraries/services/shop"
    folder.mkdir(parents=True)
    (root / "libraries/uv.lock").write_text(lock, encoding="utf-8")
    (root / "libraries/pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["services/*"]\n', encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    source = fetch(root, requirements="", directory="libraries/services/shop")["source"]
    assert (source["kind"], source["requirements"]) == ("pylock", EXPORTED)
    exported = tomllib.loads(text_in(source["archive"], f"libraries/services/shop/{EXPORTED}"))
    assert [package["name"] for package in exported["packages"]] == ["fastapi"]
    # What it needs, and what that needs; not what others need, nor extras that nobody asks for.
    assert source["packages"] == {
        "shop": "libraries/services/shop",
        "core": "libraries/packages/core",
        "extra": "libraries/vendor/extra",
    }
    # A project that is not of the workspace has dependencies of its own.
    other = root / "libraries/other"
    other.mkdir()
    (other / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    assert fetch(root, requirements="", directory="libraries/other")["source"]["kind"] == "pyproject"
    with pytest.raises(AnsibleActionFail, match=r"The source has no libraries/other/uv\.lock: app_requirements"):
        fetch(root, requirements="uv.lock", directory="libraries/other")
    # The lock above the source is out of reach, and so is a package.
    assert fetch(folder, requirements="")["source"]["kind"] == "pyproject"
    (root / "libraries/uv.lock").write_text(lock.replace("packages/core", "../../core"), encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"uv\.lock takes core from .*outside the source"):
        fetch(root, requirements="", directory="libraries/services/shop")


def test_a_lock_becomes_requirements_where_packages_come_from_elsewhere(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    text = 'lock-version = "1.0"\n[[packages]]\nname = "fastapi"\nversion = "1.0"\nmarker = "python_version > \'3\'"\n'
    text += '[[packages.wheels]]\nurl = "https://host/x.whl"\nhashes = {sha256 = "12"}\n'
    for name, place in (("there", 'url = "https://host/t.whl"'), ("here", 'path = "wheels/h.whl"')):
        text += f'[[packages]]\nname = "{name}"\narchive = {{ {place}, hashes = {{sha256 = "34"}} }}\n'
    (app / "pylock.toml").write_text(text, encoding="utf-8")
    source = fetch(app, requirements="pylock.toml")["source"]
    assert (source["kind"], source["requirements"], PINNED in names(source["archive"])) == ("pylock", "pylock.toml", False)
    source = fetch(app, requirements="pylock.toml", elsewhere=True)["source"]
    assert (source["kind"], source["requirements"], source["hashed"]) == ("requirements", PINNED, True)
    assert text_in(source["archive"], PINNED).splitlines() == [
        "--require-hashes",
        "fastapi==1.0 ; python_version > '3' --hash=sha256:12",
        "there @ https://host/t.whl --hash=sha256:34",
        "here @ ./wheels/h.whl --hash=sha256:34",
    ]
    (app / "pylock.toml").write_text('[[packages]]\nname = "core"\ndirectory = {path = "core"}\n', encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"core in the lock file comes from no package index"):
        fetch(app, requirements="pylock.toml", elsewhere=True)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pyproject.toml": "[tool.poetry]\n", "poetry.lock": ""}, "poetry export --with-hashes"),
        ({"pyproject.toml": PROJECT, "poetry.lock": ""}, r"poetry\.lock.*uv lock.*app_requirements: pyproject\.toml"),
        ({"pyproject.toml": "[tool.poetry]\n"}, "poetry export --with-hashes"),
        ({"pyproject.toml": "[tool.ruff]\n"}, "uv lock"),
        ({"Pipfile.lock": ""}, "pipenv requirements --hash"),
        ({"pdm.lock": "", "pyproject.toml": PROJECT}, "pdm export"),
        ({"setup.py": ""}, r"requirements\.txt with the line `\.`"),
        ({"pyproject.toml": '[project]\nname = "x"\ndynamic = ["dependencies"]\n'}, "uv lock.*with the line `.`"),
        ({"pyproject.toml": '[project]\nname = "x"\ndependencies = ["y @ git+https://x.example.com"]\n'}, "app_source_builds"),
        ({"pyproject.toml": f'{PROJECT}[tool.uv]\nindex-url = "https://x.example.com"\n'}, "python_index_url"),
    ],
)
def test_what_is_not_read_here_is_refused_with_the_remedy(
    tmp_path: Path, files: dict[str, str], words: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    root = tmp_path / "shop"
    root.mkdir()
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=words):
        fetch(root, requirements="")


def test_a_project_whose_lock_is_left_aside_on_purpose_is_fetched(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "shop/poetry.lock").touch()
    assert fetch(tmp_path / "shop", requirements="pyproject.toml")["source"]["kind"] == "pyproject"
