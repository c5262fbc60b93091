"""An image on a host: what the engine is told for it, and what is remembered of it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.host.build.engine import Engine
from slipway.host.build.image import Images
from slipway.host.build.shared import SEEDS
from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout, digest

REFERENCE = "ghcr.io/example/shop:1"

# An engine that knows the names it was given, and one image.
ENGINE = """#!/bin/sh
cd {directory}
echo "$*" >>commands
case "$*" in
"image inspect --format {{{{.Id}}}} "*) grep -qx "$5" names || exit 1; echo sha256:7 ;;
"image inspect --format {{{{.Size}}}} localhost/slipway-shop:"*) echo 4096 ;;
"image inspect --format {{{{json .Config.Env}}}} localhost/slipway-shop:"*) echo '["PATH=/usr/bin","PYTHON_VERSION=3.14.2"]' ;;
"image inspect --format {{{{.Config.WorkingDir}}}} "*) echo /srv/app/ ;;
*"pull --quiet "*) test ! -e refused || {{ echo unauthorized; exit 1; }}; for name; do :; done; echo "$name" >>names ;;
"tag "*) grep -qx "$2" names && echo "$3" >>names ;;
"create "*) echo "a warning"; echo c1 ;;
"cp c1:"*)
    test ! -e full || {{ mkdir "$3"; echo "no space left on device"; exit 1; }}
    test ! -e link || {{ ln -s / "$3"; exit; }}
    test -d inside || {{ echo "Error: $2 could not be found on container c1"; exit 1; }}
    case "$2" in */.) cp -r inside/. "$3" ;; *) cp -r inside "$3" ;; esac ;;
"build "*) for file; do :; done; cat "$file/Dockerfile" >recipe; ls "$file" >built; echo "$SLIPWAY_BUILDER" >>built ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, program: Callable[[str, str], Path]) -> Path:
    """Return the directory of an engine, which both of them are."""
    directory = tmp_path / "engine"
    directory.mkdir()
    (directory / "names").touch()
    for name in ("podman", "docker"):
        program(name, ENGINE.format(directory=directory))
    return directory


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    layout.builds.mkdir(parents=True)
    return layout


def images(layout: Layout, source: dict[str, Any], **changes: Any) -> Images:
    known = {"revision": "r1", "origin": REFERENCE, "directory": ".", "kind": "image", "image": REFERENCE}
    told = {
        "name": "shop",
        "engine": "podman",
        "recipe": "",
        "arguments": {},
        "files": {},
        "image": "",
        "static": [],
        "room": 1.0,
    }
    told |= {
        "credentials": {},
        "environment": {},
        "hooks": {},
        "shared": {},
        "hook_timeout": 9.0,
        "archive": "",
        "user": "",
        "cache": "",
    }
    return Images(layout, {**told, "source": {**known, **source}, **changes})


def commands(engine: Path) -> list[str]:
    """Return what the engine was told since the last time, but for questions."""
    said = (engine / "commands").read_text(encoding="utf-8").splitlines()
    (engine / "commands").unlink()
    return [line for line in said if not line.startswith("image inspect")]


def record(layout: Layout, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.builds / name / ".build.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("built"))
    return found


def test_what_is_taken_out_of_an_image_is_a_whole_copy_and_no_link(engine: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert not Engine("docker").take_out("shop", "/srv/app/uploads", target)
    (engine / "link").touch()
    assert not Engine("docker").take_out("shop", "/var/run", target)
    assert not target.is_symlink(), "root would follow it"
    (engine / "link").unlink()
    (engine / "full").touch()
    with pytest.raises(ReleaseError, match="no space left on device"):
        Engine("docker").take_out("shop", "/srv/app/uploads", target)


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_pulled_image_is_tagged_as_the_build_and_remembered(layout: Layout, engine: Path, name: str) -> None:
    build = digest("image", "sha256:7")
    assert images(layout, {}, engine=name).pull() == build
    tag = f"localhost/slipway-shop:{build}"
    assert commands(engine) == [f"pull --quiet {REFERENCE}", f"tag {REFERENCE} {tag}", f"rmi {REFERENCE}"]
    known = {"revision": "r1", "origin": REFERENCE, "directory": ".", "kind": "image"}
    assert record(layout, build) == {
        **known,
        "build": build,
        "image": tag,
        "engine": name,
        "bytes": 4096,
        "python_version": "3.14.2",
    }
    assert [path.name for path in layout.builds.iterdir()] == [build]
    # Once more, it is there.
    assert images(layout, {}, engine=name).pull() == build
    assert commands(engine) == [f"pull --quiet {REFERENCE}", f"rmi {REFERENCE}"]


@pytest.mark.parametrize(("name", "option"), [("podman", "pull --quiet --authfile="), ("docker", "--config=")])
def test_an_image_is_pulled_with_the_login_of_its_registry(layout: Layout, engine: Path, name: str, option: str) -> None:
    images(layout, {}, engine=name, credentials={"username": "ann", "password": "open-sesame"}).pull()
    assert commands(engine)[0].startswith(option)


def test_an_image_that_cannot_be_pulled_serves_if_it_is_here(layout: Layout, engine: Path) -> None:
    (engine / "refused").touch()
    with pytest.raises(ReleaseError, match=rf"The image {REFERENCE} \(app_image\) cannot be pulled\.\n(.|\n)*unauthorized"):
        images(layout, {}).pull()
    assert list(layout.builds.iterdir()) == []
    (engine / "names").write_text(f"{REFERENCE}\n", encoding="utf-8")
    (engine / "commands").unlink()
    assert images(layout, {}).pull() == digest("image", "sha256:7")
    assert f"rmi {REFERENCE}" not in commands(engine), "nobody could get it again"


def test_static_files_are_copied_out_of_an_image_but_no_links(layout: Layout, engine: Path) -> None:
    (engine / "inside" / "css").mkdir(parents=True)
    (engine / "inside" / "css" / "site.css").write_text("body {}", encoding="utf-8")
    (engine / "inside" / "secrets").symlink_to("/etc")
    (engine / "inside" / "css" / "shadow").symlink_to("/etc/shadow")
    build = layout.builds / images(layout, {}, static=["static"]).pull()
    found = sorted(str(path.relative_to(build)) for path in (build / "static").rglob("*"))
    assert found == ["static/css", "static/css/site.css"]
    said = commands(engine)
    assert f"create --entrypoint=/ localhost/slipway-shop:{build.name}" in said
    assert "rm --force c1" in said, "no container is left over"


def test_an_image_without_static_files_is_as_good(layout: Layout, engine: Path) -> None:
    build = layout.builds / images(layout, {}, static=["static"]).pull()
    assert list((build / "static").iterdir()) == []
    assert "rm --force c1" in commands(engine)


@pytest.mark.parametrize("loaded", [False, True])
def test_an_image_gets_links_for_what_its_releases_share(layout: Layout, engine: Path, archive: str, loaded: bool) -> None:
    (engine / "inside").mkdir()
    (engine / "inside" / "cat.png").write_text("meow", encoding="utf-8")
    (engine / "inside" / "shadow").symlink_to("/etc/shadow")
    given = {"uploads": "media", "shop.db": ""}
    if loaded:
        images(layout, PROJECT, archive=archive, image="/tmp/image.tar", shared=given).build("b1")
        build = layout.builds / "b1"
    else:
        build = layout.builds / images(layout, {}, shared=given).pull()
    assert (build.name == digest("image", "sha256:7")) is False
    assert [path.name for path in (build / SEEDS / "media").iterdir()] == ["cat.png"]
    assert record(layout, build.name)["shared"] == given
    tag = f"localhost/slipway-shop:{build.name}"
    first, user, command = (engine / "recipe").read_text(encoding="utf-8").splitlines()
    assert (first, user) == (f"FROM {tag}", "USER 0")
    program, option, code, targets = json.loads(command.partition("RUN ")[2])
    assert (program, option) == ("python3", "-c")
    assert json.loads(targets) == {"shop.db": f"{layout.home}/shared/shop.db", "uploads": f"{layout.home}/shared/media"}
    root = engine / "root"
    (root / "uploads" / "old").mkdir(parents=True)
    for _ in range(2):
        subprocess.run([sys.executable, option, code, targets], cwd=root, check=True)
    assert {path.name: os.readlink(path) for path in root.iterdir()} == json.loads(targets)


def test_code_in_an_image_is_not_shared(layout: Layout, engine: Path) -> None:
    (engine / "inside" / "deep").mkdir(parents=True)
    (engine / "inside" / "deep" / "x.py").touch()
    with pytest.raises(ReleaseError, match=r"app_shared names uploads, which holds code in the image \(media/deep/x\.py\)"):
        images(layout, {}, shared={"uploads": "media"}).pull()


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """A source whose Dockerfile is in the folder `web`."""
    with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as tar:
        for name in ("web/Dockerfile", "web/main.py"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"\n"))
    return str(tmp_path / "source.tar.gz")


PROJECT = {"kind": "dockerfile", "directory": "web", "requirements": "Dockerfile"}


def test_an_image_is_built_by_the_projects_recipe_in_its_folder(layout: Layout, engine: Path, archive: str) -> None:
    images(layout, PROJECT, archive=archive, arguments={"A": "1"}).build("b1")
    (command,) = commands(engine)
    partial = layout.builds / ".b1.partial"
    recipe = f"--build-arg=A --tag localhost/slipway-shop:b1 --file {partial}/web/Dockerfile {partial}/web"
    assert command.endswith(recipe)
    assert (engine / "built").read_text(encoding="utf-8") == "Dockerfile\nmain.py\n\n"
    assert record(layout, "b1")["bytes"] == 4096
    assert [path.name for path in layout.builds.iterdir()] == ["b1"]


def test_an_image_is_built_by_our_recipe_for_the_builds_user(
    layout: Layout, engine: Path, archive: str, tmp_path: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"recipe": "FROM x", "user": user, "cache": str(tmp_path / "cache"), "environment": {"HTTP_PROXY": "http://proxy"}}
    host = images(layout, PROJECT, archive=archive, **told)
    host.build("b1")
    (command,) = commands(engine)
    assert "--build-arg=HTTP_PROXY --build-arg=SLIPWAY_BUILDER " in command
    assert command.endswith(f"--file {layout.builds}/.b1.partial.Dockerfile {layout.builds}/.b1.partial")
    assert re.fullmatch(r"web\n\d+:\d+\n", (engine / "built").read_text(encoding="utf-8"))
    assert [path.name for path in layout.builds.iterdir()] == ["b1"], "the recipe is gone"


def test_an_image_that_the_controller_built_is_loaded(layout: Layout, engine: Path, archive: str) -> None:
    images(layout, PROJECT, archive=archive, image="/tmp/image.tar").build("b1")
    assert commands(engine) == ["load --input /tmp/image.tar"]
    assert record(layout, "b1")["image"] == "localhost/slipway-shop:b1"
