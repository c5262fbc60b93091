"""Hashed files of front ends: which are some, who may have them, and for how long they are served."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.host.errors import ReleaseError
from slipway.host.release import assets
from slipway.host.store import Store
from slipway.runtime.frontends import AUTO, LINE, chosen, frontends

DAY = 86400


@pytest.mark.parametrize(
    "name",
    [
        "index-BfX9k2aQ.js",
        "index-B-q2k9_a.css",
        "main.3f2a1b9c.chunk.js",
        "main-5QQR2XNA.js",
        "logo.2d0c3f5e7a9b1c4d6e8f.svg",
        "index-BfX9k2aQ.js.map",
        "Chapter-DqX2aB1c.woff2",
    ],
)
def test_a_hash_is_seen(name: str) -> None:
    assert assets.is_hashed(name)


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "favicon.ico",
        "my-component.js",
        "logo-branding.svg",
        "icon-1024x1024.png",
        "splash-800x1200.png",
        "report.20261130.pdf",
        "guide-Chapter1.pdf",
        "shot-iPhone15.png",
        "jquery-3.7.1.min.js",
        "data-VERSION2.json",
        "BfX9k2aQ",
        ".BfX9k2aQ.js",
        "index-BfX9k2aQ.js.map.gz.backup.old",
    ],
)
def test_words_and_numbers_are_no_hash(name: str) -> None:
    assert not assets.is_hashed(name)


class App:
    """One host's releases with front ends, whose step asks for one."""

    def __init__(self, home: Path) -> None:
        self.layout = Store(home, home / "run", home / "log")
        self.layout.builds.mkdir(parents=True)
        self.warnings: list[str] = []
        self.arguments: dict[str, Any] = {"runtime": {"frontend": AUTO}}

    @property
    def step(self) -> Any:
        return SimpleNamespace(layout=self.layout, warnings=self.warnings, arguments=self.arguments)

    def release(self, number: int, *files: str, path: str = "", text: str = "") -> None:
        """Make a release whose front end has files with their names for content, or `text`."""
        dist = self.layout.builds / f"b{number}" / "dist"
        for name in files:
            (dist / name).parent.mkdir(parents=True, exist_ok=True)
            (dist / name).write_text(text or name, encoding="ascii")
        self.layout.release(number).mkdir(parents=True)
        (self.layout.release(number) / "build").symlink_to(f"../../builds/b{number}")
        places = assets.place(self.step, number, {path: str(dist)})
        (self.layout.release(number) / "release.json").write_text(json.dumps({"frontend": places}), encoding="ascii")
        assets.publish(self.step, number)

    def served(self) -> set[str]:
        root = self.layout.home / "assets"
        return {f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir()}


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "shop")


ONE, TWO, BOTH = "assets/index-BfX9k2aQ.js", "assets/index-Zq8Y3kLm.js", "assets/style-aB3dE5gH.css"


def test_files_of_the_release_before_are_served_for_a_day(app: App) -> None:
    app.release(1, ONE, BOTH, "index.html")
    assert app.served() == {f"/{ONE}", f"/{BOTH}"}
    assets.retire(app.step, 1, 1000.0)
    app.release(2, TWO, BOTH, "index.html")
    assert app.served() == {f"/{ONE}", f"/{TWO}", f"/{BOTH}"}, "of all hosts, before one is live with it"
    assets.retire(app.step, 2, 2000.0)
    shutil.rmtree(app.layout.builds / "b1")
    assets.retire(app.step, 2, 2000.0 + DAY)
    assert (app.layout.home / "assets" / ONE).read_text(encoding="ascii") == ONE
    assets.retire(app.step, 2, 2001.0 + DAY)
    assert app.served() == {f"/{TWO}", f"/{BOTH}"}


def test_what_is_live_again_is_not_removed(app: App) -> None:
    app.release(1, ONE)
    app.release(2, TWO)
    assets.retire(app.step, 2, 1000.0)
    assets.publish(app.step, 1)
    assets.retire(app.step, 1, 2000.0)
    assets.retire(app.step, 1, 3000.0 + DAY)
    assert app.served() == {f"/{ONE}"}
    # And what had gone is there again after a rollback, before its pages are.
    assets.publish(app.step, 2)
    assert app.served() == {f"/{ONE}", f"/{TWO}"}


def test_a_failed_releases_files_go_a_day_after_the_next(app: App) -> None:
    app.release(1, ONE)
    app.release(2, TWO)
    assets.retire(app.step, 1, 1000.0)
    assets.retire(app.step, 1, 1001.0 + DAY)
    assert app.served() == {f"/{ONE}"}
    assert not (app.layout.home / "assets/other").exists()


def test_folders_that_are_empty_go(app: App) -> None:
    app.release(1, "old/index-BfX9k2aQ.js")
    app.release(2, ONE)
    assets.retire(app.step, 2, 0.0)
    assets.retire(app.step, 2, 1.0 + DAY)
    assert os.listdir(app.layout.home / "assets") == ["assets"]


def test_a_name_whose_content_changes_has_no_hash(app: App) -> None:
    app.release(1, ONE, text="first")
    app.release(2, ONE, text="other")
    assert app.served() == set()
    app.release(3, ONE, text="third")
    assert app.served() == set()


def test_a_file_that_cannot_be_linked_is_copied(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    app.release(1, ONE)
    assert app.served() == {f"/{ONE}"}
    assert (app.layout.home / "assets" / ONE).stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_published_is_left_to_the_app(app: App) -> None:
    (app.layout.home / "assets").mkdir()
    (app.layout.home / "assets/assets").write_text("in the way", encoding="ascii")
    app.release(1, ONE)
    assert app.warnings == [f"Nginx cannot serve /{ONE}, so the app serves it: File exists."]


def test_a_full_disk_is_no_reason_to_fail(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    app.release(1, ONE)
    monkeypatch.setattr(assets, "write", refuse)
    assets.retire(app.step, 7, 1000.0)
    assert app.warnings == [f"{app.layout.home}/assets.json cannot be written: No space left on device."]


def test_a_front_end_below_a_path_is_served_there(app: App) -> None:
    app.release(1, ONE, path="/admin/ui")
    assert app.served() == {f"/admin/ui/{ONE}"}


def test_links_and_other_folders_are_not_served(app: App, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/index-BfX9k2aQ.js").write_text("secret", encoding="ascii")
    (app.layout.builds / "b1/dist").mkdir(parents=True)
    (app.layout.builds / "b1/dist/index-BfX9k2aQ.js").symlink_to(tmp_path / "elsewhere/index-BfX9k2aQ.js")
    app.release(1)
    assert app.served() == set()
    assert assets.place(app.step, 1, {"": str(tmp_path / "elsewhere"), "/x": "/etc"}) == {}


def test_what_nginx_is_not_to_serve_any_more_goes_at_once(app: App) -> None:
    app.release(1, ONE)
    app.arguments["runtime"]["frontend"] = ""
    app.layout.release(2).mkdir()
    assets.publish(app.step, 2)
    assets.retire(app.step, 2, 1000.0)
    assert app.served() == set()


def test_nginx_finds_the_folder_that_is_set(app: App) -> None:
    app.release(1, "index.html")
    assert not (app.layout.release(1) / "frontend").exists()
    app.arguments["runtime"]["frontend"] = "dist"
    app.release(2, "index.html")
    assert os.readlink(app.layout.release(2) / "frontend") == "../../builds/b2/dist"


@pytest.mark.parametrize("line", ["no json", "[]", '{"": "dist"}', '{"/..": "/x"}', '{"/a/../b": "/x"}', '{"/a": 1}'])
def test_what_no_check_prints_is_refused(line: str) -> None:
    with pytest.raises(ReleaseError, match="the app printed what its check prints"):
        assets.read_frontends(line)
    assert assets.read_frontends('{"": "/x/dist", "/ui": "/y"}') == {"": "/x/dist", "/ui": "/y"}


def served(path: str, folder: Path) -> Any:
    return SimpleNamespace(path=path, app=SimpleNamespace(directory=folder))


def having(*groups: Any) -> Any:
    """Return an app as FastAPI has it: groups of its own, and what came of including a router's."""
    return SimpleNamespace(router=SimpleNamespace(_iter_low_priority_routes=lambda: iter(groups)))


def test_the_front_ends_of_an_app_are_those_without_dependencies(tmp_path: Path) -> None:
    own = SimpleNamespace(routes=[served("/", tmp_path / "a"), served("/ui", tmp_path / "b")], dependencies=[])
    closed = SimpleNamespace(routes=[served("/staff", tmp_path / "c")], dependencies=["password"])
    inner = SimpleNamespace(routes=[served("/", tmp_path / "d"), served("/e", tmp_path / "e")], dependencies=[])
    included = SimpleNamespace(original_route=inner, frontend_prefix="/admin", dependencies=[])
    guarded = SimpleNamespace(original_route=inner, frontend_prefix="/guarded", dependencies=["password"])
    expected = {"": "a", "/ui": "b", "/admin": "d", "/admin/e": "e"}
    found = frontends(having(own, closed, included, guarded))
    assert found == {path: str(tmp_path / name) for path, name in expected.items()}


@pytest.mark.parametrize("app", [object(), None, having(object()), SimpleNamespace(router=SimpleNamespace())])
def test_another_app_has_none(app: Any) -> None:
    assert frontends(app) == {}


def test_which_front_ends_nginx_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    app = having(SimpleNamespace(routes=[served("/", Path("dist")), served("/ui", Path("ui"))], dependencies=[]))
    other = having(SimpleNamespace(routes=[served("/", Path("other"))], dependencies=[]))
    assert chosen(app, AUTO) == {"": f"{tmp_path}/dist", "/ui": f"{tmp_path}/ui"}
    assert chosen(app, "dist") == chosen(object(), "dist") == {"": f"{tmp_path}/dist"}
    first, *_ = capsys.readouterr().out.splitlines()
    assert assets.read_frontends(first[len(LINE) :]) == chosen(app, AUTO)
    capsys.readouterr()
    assert chosen(app, "") == chosen(object(), AUTO) == {}
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"there is no folder built \(app_frontend\)"):
        chosen(app, "built")
    with pytest.raises(ValueError, match=r"/other as its front end, and app_frontend is dist"):
        chosen(other, "dist")
