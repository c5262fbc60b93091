"""A uv.lock is exported here for all hosts: whole, by uv alone, and with nothing of the source run."""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import Repository, text_in

from slipway.controller.fetch.export import EXPORTED
from slipway.controller.fetch.locks import PINNED

HASH = "12" * 32
PROJECT = """\
[project]
name = "shop"
version = "1"
requires-python = ">=3.99"
dependencies = ["fastapi", "torch", "six ; sys_platform == 'win32'"]
[dependency-groups]
dev = ["pytest"]
web = ["jinja2"]
[tool.uv]
default-groups = ["dev", "web"]
"""
LOCK = """\
version = 1
requires-python = ">=3.99"
[[package]]
name = "shop"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "fastapi" }, { name = "torch" }, { name = "six", marker = "sys_platform == 'win32'" }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
web = [{ name = "jinja2" }]
"""


def package(name: str, source: str = 'registry = "https://pypi.org/simple"', place: str = "") -> str:
    place = place or f'url = "https://files.example.com/{name}-1.0-py3-none-any.whl"'
    wheel = f'wheels = [{{ {place}, hash = "sha256:{HASH}" }}]\n'
    return f'[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ {source} }}\n{wheel}'


CPU = "https://download.example.com"
TORCH = package("torch", f'registry = "{CPU}/cpu"', f'url = "{CPU}/torch-1.0-py3-none-any.whl"')
WHOLE = LOCK + TORCH + "".join(map(package, ("fastapi", "six", "pytest", "jinja2")))


@pytest.fixture
def locked(app: Path) -> Path:
    """A source with a uv.lock, for a Python that nobody has yet."""
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "uv.lock").write_text(WHOLE, encoding="utf-8")
    return app


@pytest.fixture
def export(fetch: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, dict[str, Any]]]:
    """Fetch a source, and return the packages of the file that its uv.lock became."""

    def run(root: Path, **arguments: Any) -> dict[str, dict[str, Any]]:
        source = fetch(root, requirements="uv.lock", **arguments)["source"]
        assert (source["kind"], source["requirements"], source["hashed"]) == ("pylock", EXPORTED, True)
        found = tomllib.loads(text_in(source["archive"], os.path.join(source["directory"], EXPORTED).removeprefix("./")))
        return {each["name"]: each for each in found["packages"]}

    return run


def test_addresses_hashes_and_markers_are_kept(locked: Path, export: Callable[..., dict[str, dict[str, Any]]]) -> None:
    found = export(locked)
    assert set(found) == {"fastapi", "torch", "six", "jinja2"}, "the groups that the project has by default, but for dev"
    wheel = {"url": f"{CPU}/torch-1.0-py3-none-any.whl", "hashes": {"sha256": HASH}}
    assert (found["torch"]["index"], found["torch"]["wheels"]) == (f"{CPU}/cpu", [wheel])
    assert found["six"]["marker"] == "sys_platform == 'win32'"
    assert not (locked / EXPORTED).exists(), "the operator's own folder stays as it is"


def test_requirements_for_another_index_have_the_same_hashes(locked: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    source = fetch(locked, requirements="uv.lock", elsewhere=True)["source"]
    assert (source["kind"], source["requirements"], source["hashed"]) == ("requirements", PINNED, True)
    lines = {f"{name}==1.0 --hash=sha256:{HASH}" for name in ("fastapi", "torch", "jinja2")}
    lines |= {"--require-hashes", f"six==1.0 ; sys_platform == 'win32' --hash=sha256:{HASH}"}
    assert set(text_in(source["archive"], PINNED).splitlines()) == lines


def test_files_of_the_source_are_found_from_the_apps_folder(
    tmp_path: Path, export: Callable[..., dict[str, dict[str, Any]]], fetch: Callable[..., dict[str, Any]]
) -> None:
    root, folder = tmp_path / "my shop", tmp_path / "my shop/services/web"
    for each in (folder, root / "my wheels"):
        each.mkdir(parents=True)
    (root / "my wheels/six-1.0-py3-none-any.whl").write_bytes(b"six")
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["services/*"]\n', encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    flat = '[[package]]\nname = "six"\nversion = "1.0"\nsource = { registry = "my wheels" }\n'
    flat += 'wheels = [{ path = "six-1.0-py3-none-any.whl" }]\n'
    direct = package("torch", 'path = "wheels/torch-1.0-py3-none-any.whl"', 'filename = "torch-1.0-py3-none-any.whl"')
    lock = LOCK.replace('virtual = "."', 'virtual = "services/web"')
    (root / "uv.lock").write_text(lock + flat + direct + "".join(map(package, ("fastapi", "pytest", "jinja2"))), encoding="utf-8")
    found = export(root, directory="services/web")
    assert [wheel["path"] for wheel in found["six"]["wheels"]] == ["../../my wheels/six-1.0-py3-none-any.whl"]
    assert "index" not in found["six"], "which would name this machine's folders"
    assert found["torch"]["archive"]["path"] == "../../wheels/torch-1.0-py3-none-any.whl"


def test_nothing_of_the_source_is_run_and_no_settings_but_the_operators_count(
    locked: Path, tmp_path: Path, export: Callable[..., dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = export(locked)
    evil = f"open({str(tmp_path / 'evil')!r}, 'w')\n"
    for name in ("setup.py", "evil.py"):
        (locked / name).write_text(evil, encoding="utf-8")
    text = PROJECT.replace('version = "1"', 'dynamic = ["version"]')
    text += f'required-version = "<0.1"\ncache-dir = "{tmp_path}/evil"\nindex-url = "https://evil.example.com"\n'
    text += '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    (locked / "pyproject.toml").write_text(text, encoding="utf-8")
    lock = WHOLE.replace('"shop"\nversion = "1"\nsource = { virtual', '"shop"\nsource = { editable')
    (locked / "uv.lock").write_text(lock, encoding="utf-8")
    (locked / "uv.toml").write_text('required-version = "<0.1"\n', encoding="utf-8")
    monkeypatch.setenv("UV_NO_GROUP", "web")
    assert export(locked) == before
    assert not (tmp_path / "evil").exists()
    monkeypatch.delenv("UV_NO_GROUP")
    assert set(export(locked, environment={"UV_NO_GROUP": "web"})) == {"fastapi", "torch", "six"}


def test_a_lock_from_git_is_the_same_environment(
    locked: Path, repository: Repository, fetch: Callable[..., dict[str, Any]]
) -> None:
    repository.commit(pyproject__toml=PROJECT, uv__lock=WHOLE)
    sources = [fetch(place, requirements="")["source"] for place in (locked, f"file://{repository.path}")]
    assert len({source["lock"] for source in sources}) == 1
    assert len({text_in(source["archive"], EXPORTED) for source in sources}) == 1


@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_the_same_name_stays_as_it_is(
    locked: Path, link: bool, export: Callable[..., dict[str, dict[str, Any]]]
) -> None:
    if link:
        (locked / EXPORTED).symlink_to("run")
    else:
        (locked / EXPORTED).write_text("own", encoding="utf-8")
    assert "fastapi" in export(locked)
    assert (locked / EXPORTED).read_text(encoding="utf-8") == ("#!/bin/sh\n" if link else "own")


def test_a_workspace_above_the_source_is_none_of_it(
    locked: Path, tmp_path: Path, export: Callable[..., dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["app"]\n', encoding="utf-8")
    shared = tmp_path / "shared"  # where others make theirs
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    (shared / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["*/source", ".*/source"]\n', encoding="utf-8")
    assert "fastapi" in export(locked)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "version = 1\n",
            "version = 2\n",
            r"^uv\.lock of the source cannot be exported: .*`uv lock`, using a uv that is no newer",
        ),
        (package("jinja2"), "", r"^uv\.lock of the source cannot be exported"),
        (f"sha256:{HASH}", "sha256:https://ann:sesame@x", r"https://\*\*\*@x"),
    ],
)
def test_a_lock_that_uv_refuses_is_told_with_what_to_do(
    locked: Path, old: str, new: str, words: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    (locked / "uv.lock").write_text(WHOLE.replace(old, new), encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=words) as error:
        fetch(locked, requirements="uv.lock")
    assert "/uv export --quiet --frozen" in str(error.value)
    assert "sesame" not in str(error.value)


def test_a_password_in_an_address_of_a_lock_is_told_to_the_host_alone(locked: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (locked / "uv.lock").write_text(WHOLE.replace("https://files.", "https://ann:sesame@files."), encoding="utf-8")
    assert "sesame" not in str(fetch(locked, requirements="uv.lock"))


def test_a_lock_that_lacks_what_its_project_names_by_now_is_refused(locked: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    text = PROJECT.replace('"torch"', '"torch", "Jinja2>=1", "Other.Thing>=2"')
    (locked / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"^uv\.lock of the source lacks other-thing, which pyproject\.toml lists: run"):
        fetch(locked, requirements="uv.lock")
    known = '[package.metadata]\nrequires-dist = [{ name = "other-thing", marker = "sys_platform == \'win32\'" }]\n'
    (locked / "uv.lock").write_text(WHOLE.replace("[package.dev", f"{known}[package.dev"), encoding="utf-8")
    assert fetch(locked, requirements="uv.lock"), "left out of the lock on purpose"


def test_a_controller_without_uv_is_told(
    locked: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        AnsibleActionFail, match=r"uv\.lock needs uv, which is neither next to .* nor in PATH: run script/bootstrap"
    ):
        fetch(locked, requirements="uv.lock")
