"""The file that names the app's dependencies is found, and what it says is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import BUILT, EXCLUDE, LOCK, PROJECT, text_in

from slipway.controller.fetch.export import EXPORTED


def test_missing_requirements_are_named_with_what_is_there(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "pyproject.toml").touch()
    with pytest.raises(AnsibleActionFail) as error:
        fetch(app, requirements="locked.txt")
    for word in ("locked.txt", "app_requirements", "app_directory", "There: pyproject.toml, requirements.txt"):
        assert word in str(error.value)
    with pytest.raises(AnsibleActionFail, match=r"nowhere/requirements\.txt.*no file of that kind"):
        fetch(app, directory="nowhere")


def test_requirements_that_are_excluded_are_missing(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"requirements\.txt"):
        fetch(app, exclude=[*EXCLUDE, "*.txt"])


def test_the_best_file_is_found(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    root = tmp_path / "app"
    root.mkdir()
    files = {
        "pyproject.toml": (PROJECT, "pyproject"),
        "requirements.txt": ("fastapi\n", "requirements"),
        "pylock.toml": ('lock-version = "1.0"\n', "pylock"),
        "uv.lock": (LOCK, "pylock"),
    }
    locks = set()
    for name, (text, kind) in files.items():
        (root / name).write_text(text, encoding="utf-8")
        source = fetch(root, requirements="")["source"]
        assert (source["kind"], source["requirements"]) == (kind, EXPORTED if name == "uv.lock" else name)
        locks.add(source["lock"])
    assert len(locks) == 4
    (root / "requirements.txt").write_text("fastapi==1 --hash=sha256:0\n", encoding="utf-8")
    assert fetch(root, requirements="")["source"]["requirements"] == "requirements.txt"
    for name, (_, kind) in files.items():
        assert fetch(root, requirements=name)["source"]["kind"] == kind
    (root / "pylock.web.toml").touch()
    assert fetch(root, requirements="pylock.web.toml")["source"]["kind"] == "pylock"
    with pytest.raises(AnsibleActionFail, match=r"no requirements\.txt, uv\.lock.*There: pylock\.toml, pylock\.web"):
        fetch(root, requirements="", exclude=["*requirements.txt", "*.lock", "py*.toml"])
    for path in root.iterdir():
        path.unlink()
    (root / "main.py").touch()
    with pytest.raises(AnsibleActionFail, match=r"app_requirements names another file. There: no file of that kind"):
        fetch(root, requirements="")


@pytest.mark.parametrize("kind", ["pyproject.toml", "pylock.toml", "uv.lock"])
def test_pip_installs_from_requirements_only(app: Path, kind: str, fetch: Callable[..., dict[str, Any]]) -> None:
    for name, text in {"pyproject.toml": PROJECT, "pylock.toml": "", "uv.lock": LOCK}.items():
        (app / name).write_text(text, encoding="utf-8")
    assert fetch(app, installer="pip")
    with pytest.raises(AnsibleActionFail, match=f"pip cannot install from {kind}: set python_installer: uv"):
        fetch(app, installer="pip", requirements=kind)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_environment_is_another_where_something_else_is_installed(
    app: Path, elsewhere: bool, fetch: Callable[..., dict[str, Any]]
) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")

    def lock(text: str = LOCK) -> str:
        (app / "uv.lock").write_text(text, encoding="utf-8")
        return str(fetch(app, requirements="uv.lock", elsewhere=elsewhere)["source"]["lock"])

    first = lock()
    assert lock(LOCK.replace("sha256:12", "sha256:13")) != first
    assert lock(LOCK.replace("vendor/other", "vendor/another")) == first, "what the app does not need"
    (app / "app/main.py").write_text("changed", encoding="utf-8")
    assert lock() == first
    seen = {first}
    for name in ("pyproject.toml", "uv.toml"):
        with open(app / name, "a", encoding="utf-8") as file:
            file.write("# changed\n")
        seen.add(lock())
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        (PROJECT, {}),
        (PROJECT + BUILT, {"shop": "."}),
        (PROJECT + BUILT + "[tool.uv]\npackage = false\n", {}),
        (PROJECT + "[tool.uv]\npackage = true\n", {"shop": "."}),
    ],
)
@pytest.mark.parametrize("kind", ["pyproject.toml", "pylock.toml", "requirements.txt"])
def test_a_project_that_is_a_package_is_one(
    app: Path, kind: str, text: str, packages: dict[str, str], fetch: Callable[..., dict[str, Any]]
) -> None:
    (app / "pyproject.toml").write_text(text, encoding="utf-8")
    (app / "pylock.toml").touch()
    found = fetch(app, requirements=kind)["source"]["packages"]
    assert found == (packages if kind != "requirements.txt" else {})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("pyproject.toml", "[tool.poetry]\n", r"no \[project\] table"),
        ("pyproject.toml", '[project]\ndynamic = ["dependencies"]\n', "dynamic dependencies"),
        ("pyproject.toml", "[project\n", r"pyproject\.toml of the source cannot be read"),
        ("uv.lock", "<<<<<<< HEAD\n", r"uv\.lock of the source cannot be read"),
        ("uv.lock", "version = 1\n", r"uv\.lock of the source has no project \."),
    ],
)
def test_a_project_that_is_of_no_use_is_refused(
    app: Path, name: str, text: str, says: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / name).write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=says):
        fetch(app, requirements=name)


def test_a_line_that_is_the_operators_to_say_is_refused(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "requirements.txt").write_text("fastapi\n--extra-index-url https://x.example.com/simple\n", encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"requirements\.txt:2 .*python_extra_index_urls"):
        fetch(app)
    fetch(app, environment={"UV_INDEX": "https://x.example.com/simple"})
    (app / "requirements.txt").write_text("--no-binary :all:\n", encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"requirements\.txt:1 .*app_source_builds: true"):
        fetch(app)
    fetch(app, source_builds=True)


@pytest.mark.parametrize("kind", ["requirements.txt", "pyproject.toml", "pylock.toml", "uv.lock"])
@pytest.mark.parametrize("place", ["", "backend/", "backend/api/"])
def test_settings_above_the_apps_folder_are_the_operators_too(
    tmp_path: Path, kind: str, place: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    root, folder = tmp_path / "app", tmp_path / "app/backend/api"
    folder.mkdir(parents=True)
    for name, text in {"requirements.txt": "six\n", "pyproject.toml": PROJECT, "pylock.toml": "", "uv.lock": LOCK}.items():
        (folder / name).write_text(text, encoding="utf-8")
    (root / place / "uv.toml").write_text('index-url = "https://x.example.com/simple"\n', encoding="utf-8")
    asked = {"directory": "backend/api", "requirements": kind}
    if kind == "uv.lock":
        fetch(root, **asked)  # its own addresses count
    with pytest.raises(AnsibleActionFail, match=rf"^{place}uv\.toml, setting index-url, takes packages from https://x.example"):
        fetch(root, **asked, elsewhere=True)
    fetch(root, **asked, elsewhere=True, environment={"UV_DEFAULT_INDEX": "https://x.example.com/simple"})


def test_settings_of_a_package_of_the_source_are_the_operators_too(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "lib").mkdir()
    (app / "requirements.txt").write_text("./lib\n", encoding="utf-8")
    text = '[project]\nname = "lib"\n[[tool.uv.index]]\nurl = "https://x.example.com/simple"\n'
    (app / "lib/pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"^lib/pyproject\.toml, setting index, takes packages from"):
        fetch(app)


@pytest.mark.parametrize(
    ("kind", "text", "hashed"),
    [
        ("requirements.txt", "six\n# --hash=sha256:00\n", False),
        ("requirements.txt", "\ufeff--require-hashes\nsix==1\n", True),
        ("requirements.txt", "-r base.txt\n", True),
        ("pyproject.toml", PROJECT, False),
        ("pylock.toml", "", True),
        ("uv.lock", LOCK, True),
    ],
)
def test_it_is_told_whether_there_are_hashes(
    app: Path, kind: str, text: str, hashed: bool, fetch: Callable[..., dict[str, Any]]
) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "base.txt").write_text("six==1 --hash=sha256:00\n", encoding="utf-8")
    (app / kind).write_text(text, encoding="utf-8")
    assert fetch(app, requirements=kind)["source"]["hashed"] is hashed


def test_a_source_that_installs_itself_is_built_as_a_package(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "pyproject.toml").write_text('[project]\nname = "shop"\ndependencies = ["six"]\n', encoding="utf-8")
    (app / "requirements.txt").write_text("fastapi\n-e .\n", encoding="utf-8")
    source = fetch(app)["source"]
    assert (source["packages"], source["resolve"]) == ({"shop": "."}, False)
    assert text_in(source["archive"], "requirements.txt") == "fastapi\n# -e . (built by itself)\nsix\n"
    assert (app / "requirements.txt").read_text(encoding="utf-8") == "fastapi\n-e .\n", "the operator's own file stays"
    assert "replaced" not in source
