"""Data that an app's releases share: links in a build, what the source had there, and who may write to it."""

from __future__ import annotations

import grp
import json
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.host.build.links import validate_links
from slipway.host.build.shared import SEEDS, entries, link_shared, links
from slipway.host.doctor import release as doctor
from slipway.host.errors import ReleaseError
from slipway.host.process import run
from slipway.host.release.shared import advice, provide
from slipway.host.store import Store

# A group that who runs the tests may give files to.
GROUP = "www-data" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name
SOURCE = {"directory": "backend", "requirements": "requirements.txt"}


def tree(root: Path, *files: str) -> Path:
    """Make files, each of which holds its own name."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="ascii")
    return root


def context(home: Path, user: str, *served: str) -> Any:
    """Return as much of a step as is needed here, of an app whose directory is backend."""
    arguments = {"user": user, "directory": "backend", "served": {"group": GROUP, "folders": list(served)}}
    return SimpleNamespace(layout=Store(home, home / "run", home / "log"), arguments=arguments)


def released(home: Path, user: str, number: int, shared: dict[str, str], *files: str) -> Any:
    """Make a release of its own build, with files in the app's directory, and return the step."""
    step = context(home, user)
    build = tree(home / "builds" / f"b{number}", *(f"backend/{name}" for name in ("main.py", *files)))
    link_shared(build, SOURCE, shared, home)
    (build / ".build.json").write_text(json.dumps({"shared": shared}), encoding="ascii")
    step.layout.release(number).mkdir(parents=True)
    (step.layout.release(number) / "build").symlink_to(f"../../builds/b{number}")
    provide(step, number)
    return step


@pytest.fixture
def home(short: Path, user: str) -> Path:
    """The home of an app, with its shared directory."""
    (short / "shop" / "shared").mkdir(parents=True)
    (short / "shop" / "shared").chmod(0o750)
    (short / "shop" / "builds").mkdir()
    if os.geteuid() == 0:
        import pwd

        account = pwd.getpwnam(user)
        os.chown(short / "shop" / "shared", account.pw_uid, account.pw_gid)
    return short / "shop"


def test_an_empty_name_is_the_path_and_a_point_makes_a_file() -> None:
    found = entries({"uploads": "media", "db.sqlite3": "", "media.d/": "", ".cache": "", "a/b": "c/d/"})
    assert [tuple(each) for each in found] == [
        (".cache", ".cache", True),
        ("a/b", "c/d", True),
        ("db.sqlite3", "db.sqlite3", False),
        ("media.d", "media.d", True),
        ("uploads", "media", True),
    ]


def test_a_build_has_links_and_keeps_apart_what_the_source_has(tmp_path: Path) -> None:
    build = tree(tmp_path / "b1", "backend/main.py", "backend/uploads/cats/a.png", "backend/shop.db", f"{SEEDS}/uploads/evil")
    shared, home = {"uploads": "media", "shop.db": "", "data/new": ""}, tmp_path / "home"
    link_shared(build, SOURCE, shared, home)
    expected = {"backend/data/new": "data/new", "backend/shop.db": "shop.db", "backend/uploads": "media"}
    assert links("backend", shared, home) == {path: f"{home}/shared/{name}" for path, name in expected.items()}
    assert {path: os.readlink(build / path) for path in expected} == links("backend", shared, home)
    found = sorted(str(path.relative_to(build / SEEDS)) for path in (build / SEEDS).rglob("*") if path.is_file())
    assert found == ["media/cats/a.png", "shop.db"]
    validate_links(build, links("backend", shared, home))
    with pytest.raises(ReleaseError, match="link that points outside it"):
        validate_links(build)
    (build / "backend/uploads").unlink()
    (build / "backend/uploads").symlink_to("/etc")
    with pytest.raises(ReleaseError, match=r"backend/uploads in the build is a link that points outside it \(/etc\)"):
        validate_links(build, links("backend", shared, home))


def test_a_link_into_the_environment_of_its_build_leads_to_nothing_else(tmp_path: Path) -> None:
    venv = tmp_path / "venvs" / "v1"
    build = tree(tmp_path / "builds" / "b1", "web/main.py")
    skill = tree(venv, "lib/fastapi/skill.md") / "lib" / "fastapi" / "skill.md"
    (build / ".venv").symlink_to("../../venvs/v1")
    (build / "skills").symlink_to(".venv/lib/fastapi")
    (build / "web" / "dangling").symlink_to("../.venv/lib/python3.99/fastapi")
    validate_links(build, venv=venv)
    assert (build / "skills" / "skill.md").samefile(skill)
    with pytest.raises(ReleaseError, match="in the build is a link that points outside it"):
        validate_links(build)
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    for target in (".venv/bin/python", ".venv/../v2/secret", "../../venvs", str(venv / "lib" / "fastapi")):
        (build / "skills").unlink()
        (build / "skills").symlink_to(target)
        with pytest.raises(ReleaseError, match="skills in the build is a link that points outside it"):
            validate_links(build, venv=venv)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plugins", r"plugins, which holds code \(plugins/deep/x\.py\)"),
        ("tool.py", r"tool\.py, which holds code \(tool\.py\)"),
        ("requirements.txt", "requirements.txt, which lists the app's requirements"),
        ("alias", "alias, and backend/alias is a link in the source"),
        ("alias/new", "alias/new, and backend/alias is a link in the source"),
        ("main.py/new", r"main\.py/new, and backend/main\.py is a file in the source"),
    ],
)
def test_what_each_release_has_of_its_own_is_not_shared(tmp_path: Path, path: str, message: str) -> None:
    names = ("main.py", "tool.py", "requirements.txt", "data/x", "plugins/deep/x.py")
    build = tree(tmp_path / "b1", *(f"backend/{name}" for name in names))
    (build / "backend/alias").symlink_to("data")
    with pytest.raises(ReleaseError, match=f"app_shared names {message}"):
        link_shared(build, SOURCE, {path: ""}, tmp_path)


def test_the_first_release_makes_the_data_and_no_later_one_touches_it(home: Path, user: str) -> None:
    shared = {"uploads": "media", "shop.db": "db/shop.db", "empty": "", "seed.json": ""}
    released(home, user, 1, shared, "uploads/a.png", "seed.json")
    data = home / "shared"
    found = {str(path.relative_to(data)): path.stat() for path in data.rglob("*")}
    assert set(found) == {"media", "media/a.png", "db", "empty", "seed.json"}
    assert {stat.st_uid for stat in found.values()} == {data.stat().st_uid}
    assert {name: oct(stat.st_mode & 0o777) for name, stat in found.items() if name.startswith("media")} == {
        "media": "0o750",
        "media/a.png": "0o640",
    }
    app = home / "releases/1/build/backend"
    (app / "uploads" / "b.png").write_text("written", encoding="ascii")
    (data / "media" / "a.png").unlink()
    with sqlite3.connect(app / "shop.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table orders (id)")
        assert sorted(os.listdir(data / "db")) == ["shop.db", "shop.db-shm", "shop.db-wal"], "and none beside the link"
    released(home, user, 2, shared, "uploads/a.png", "uploads/c.png", "seed.json")
    assert os.listdir(data / "media") == ["b.png"]
    assert (home / "releases/2/build/backend/uploads/b.png").read_text(encoding="ascii") == "written"


def test_what_an_interrupted_release_left_is_made_anew(home: Path, user: str) -> None:
    tree(home / "shared", ".media.partial/half")
    if os.geteuid() == 0:
        for path in (home / "shared/.media.partial", home / "shared/.media.partial/half"):
            os.chown(path, (home / "shared").stat().st_uid, -1)
    released(home, user, 1, {"uploads": "media"}, "uploads/a.png")
    assert [os.listdir(home / "shared"), os.listdir(home / "shared/media")] == [["media"], ["a.png"]]


def test_data_that_cannot_be_made_is_named(home: Path, user: str) -> None:
    (home / "shared" / "db").write_text("in the way", encoding="ascii")
    with pytest.raises(
        ReleaseError, match=rf"{home}/shared/db/data \(app_shared\) could not be created for the user of the app: "
    ):
        released(home, user, 1, {"data": "db/data"})


def test_a_release_from_before_the_setting_is_left_alone(home: Path, user: str) -> None:
    step = released(home, user, 1, {})
    (step.layout.release(1) / "build" / ".build.json").unlink()
    provide(step, 1)
    assert os.listdir(home / "shared") == []


def test_nginx_may_read_the_folders_that_it_serves_and_nothing_else(home: Path, user: str) -> None:
    step = released(home, user, 1, {"uploads": "media/public", "shop.db": ""}, "uploads/deep/a.png", "shop.db")
    media = home / "shared/media"
    (media / "public/shadow").symlink_to("/etc/shadow")
    (media / "public/deep/a.png").chmod(0o2600)  # of another group, soon: that is nobody's to give
    step.arguments["served"]["folders"] = ["media/public", "new"]
    provide(step, 1)
    group = grp.getgrnam(GROUP).gr_gid
    admitted = {"media": "0o750", "media/public": "0o2750", "media/public/deep": "0o2750", "media/public/deep/a.png": "0o640"}
    for name, mode in {**admitted, "new": "0o2750"}.items():
        found = (home / "shared" / name).stat()
        assert (name, oct(found.st_mode & 0o7777), found.st_gid) == (name, mode, group)
    data = (home / "shared").stat()
    assert (home / "shared/shop.db").stat().st_gid == data.st_gid
    assert {path.stat().st_uid for path in media.rglob("*") if not path.is_symlink()} == {data.st_uid}
    # What the app makes there is Nginx's to read, too; who asks again changes nothing.
    run(["sh", "-c", "umask 027; mkdir more; echo x >more/b.png"], 9, directory=media / "public", user=user)
    assert (media / "public/more/b.png").stat().st_gid == group
    (media / "public/deep/a.png").chmod(0o600)
    provide(step, 1)
    assert (media / "public/deep/a.png").stat().st_mode & 0o777 == 0o600


def test_a_folder_to_serve_is_not_looked_for_behind_a_link(home: Path, user: str) -> None:
    (home / "shared/media").symlink_to("/etc")
    step = released(home, user, 1, {})
    step.arguments["served"]["folders"] = ["media"]
    with pytest.raises(ReleaseError, match=rf"{home}/shared/media \(app_static\) cannot be opened to Nginx: "):
        provide(step, 1)


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        ("uploads", "uploads"),
        ("uploads/2026/a.png", "uploads"),
        ("{build}/var/new.json", "var"),
        ("{release}/shop/new.json", "shop/new.json"),
        ("shop/cache/x/y.json", "shop/cache"),
        ("/srv/source/backend/state.json", "state.json"),
        ("./state.json", "state.json"),
    ],
)
def test_the_path_that_an_app_was_denied_is_named(home: Path, user: str, denied: str, named: str) -> None:
    step = released(home, user, 1, {}, "shop/models.py", "var/x")
    denied = denied.format(build=home / "builds/b1/backend", release=home / "releases/1/build/backend")
    text = f"Traceback\nPermissionError: [Errno 13] Permission denied: '{denied}'\nends"
    said = advice(step, text, 1)
    assert said.startswith(f"The code directory is read-only: the app must write to {home}/shared, which its releases share. ")
    assert said.endswith(f'To keep {named} there, set app_shared: {{"{named}": ""}}')


@pytest.mark.parametrize("denied", ["/etc/shop.json", ".venv/lib/x", "../x"])
def test_a_path_that_cannot_be_shared_is_not_named(home: Path, user: str, denied: str) -> None:
    said = advice(released(home, user, 1, {}), f"OSError: [Errno 30] Read-only file system: '{denied}'", 1)
    assert 'such as app_shared: {"app.db": ""} for SQLite' in said
    assert denied not in said


def test_the_doctor_sees_data_that_the_app_cannot_write(home: Path, user: str) -> None:
    step = released(home, user, 1, {"uploads": "media", "shop.db": ""})
    layout = step.layout
    (home / "run").mkdir()
    owner = doctor.name_of_user((home / "shared").stat().st_uid)
    subject: Any = SimpleNamespace(layout=layout, live=1, arguments={"user": owner, "group": "nobody", "name": "shop"})
    what = "The app cannot write to uploads (app_shared)"
    assert what not in [found.what for found in doctor.rights(subject)]
    (home / "shared" / "media").rmdir()
    (found,) = (found for found in doctor.rights(subject) if found.what == what)
    assert (found.evidence, found.remedy) == (
        f"{home}/shared/media: not there",
        f"install -d -m 0750 -o {owner} -g {owner} {home}/shared/media",
    )
