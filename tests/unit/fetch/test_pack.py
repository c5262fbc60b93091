"""A source is packed by its content, and refused if a host could not use it."""

from __future__ import annotations

import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import EXCLUDE, names

from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.pack import files_below, pack


def test_what_is_packed_depends_on_content_alone(app: Path, tmp_path: Path) -> None:
    first, archive = pack(app, EXCLUDE, tmp_path)
    assert archive == tmp_path / f"{first}.tar.gz"
    assert names(archive) == ["requirements.txt", "run", "app/main.py", "app/static/style.css"]
    os.utime(app / "run", (1, 1))
    (app / "run").chmod(0o775)
    (app / "app/main.py").chmod(0o600)
    other = app.rename(tmp_path / "elsewhere")
    assert pack(other, EXCLUDE, tmp_path) == (first, archive)


def test_owners_and_times_of_the_controller_are_left_behind(app: Path, tmp_path: Path) -> None:
    with tarfile.open(pack(app, EXCLUDE, tmp_path)[1]) as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {(0, 0, "", "", 0)}
    assert {member.name: member.mode for member in members}["run"] == 0o755
    assert {member.mode for member in members if member.name != "run"} == {0o644}


@pytest.mark.parametrize(
    "change",
    [
        lambda app: (app / "app/main.py").write_text("app = 1\n", encoding="utf-8"),
        lambda app: (app / "app/main.py").rename(app / "app/main2.py"),
        lambda app: (app / "app/main.py").chmod(0o755),
        lambda app: (app / "new").touch(),
        lambda app: (app / "run").unlink(),
        lambda app: (app / "link").symlink_to("run"),
        lambda app: ((app / "run").unlink(), (app / "run").symlink_to("requirements.txt")),
    ],
)
def test_each_change_is_another_source(app: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    before = pack(app, EXCLUDE, tmp_path)[0]
    change(app)
    assert pack(app, EXCLUDE, tmp_path)[0] != before


def test_the_target_of_a_link_counts(app: Path, tmp_path: Path) -> None:
    digests = set()
    for target in ("run", "requirements.txt"):
        (app / "link").unlink(missing_ok=True)
        (app / "link").symlink_to(target)
        digests.add(pack(app, EXCLUDE, tmp_path)[0])
    assert len(digests) == 2


def test_a_name_and_a_target_are_two_things(app: Path, tmp_path: Path) -> None:
    digests = set()
    for name, target in (("runner", "app"), ("unner", "appr"), ("pprunner", "a")):
        (app / name).symlink_to(target)
        digests.add(pack(app, EXCLUDE, tmp_path)[0])
        (app / name).unlink()
    assert len(digests) == 3


def test_what_is_excluded_is_not_packed_and_does_not_count(app: Path, tmp_path: Path) -> None:
    before = pack(app, EXCLUDE, tmp_path)[0]
    for folder in (".git", ".venv", "app/__pycache__"):
        (app / folder).mkdir()
        (app / folder / "file").touch()
    for name in (".env", "app/.env.local", "app/x.pyc"):
        (app / name).write_text("SECRET=1", encoding="utf-8")
    (app / "app/.venv").symlink_to("../.venv")
    assert pack(app, EXCLUDE, tmp_path)[0] == before
    (app / "app/env").touch()
    assert pack(app, EXCLUDE, tmp_path)[0] != before


def test_what_a_recipe_finds_beside_the_source_is_not_the_sources(app: Path, tmp_path: Path) -> None:
    before = pack(app, [], tmp_path)[0]
    (app / ".slipway").mkdir()
    (app / ".slipway/uv.txt").touch()
    name, archive = pack(app, [], tmp_path)
    assert (name, [each for each in names(archive) if "slipway" in each]) == (before, [])


def test_links_stay_links(app: Path, tmp_path: Path) -> None:
    (app / "assets").symlink_to("app/static")
    (app / "app/dangling").symlink_to("../missing")
    with tarfile.open(pack(app, EXCLUDE, tmp_path)[1]) as tar:
        links = {member.name: member.linkname for member in tar.getmembers() if member.issym()}
    assert links == {"assets": "app/static", "app/dangling": "../missing"}


@pytest.mark.parametrize("target", ["/etc/hosts", "../secret", "{app}/run", "../app/../../etc"])
def test_a_link_that_leads_out_is_refused(app: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").touch()
    (app / "link").symlink_to(target.format(app=app))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FetchError, match="link that points outside"):
        pack(app, EXCLUDE, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_that_the_host_would_refuse_is_refused_here(app: Path, tmp_path: Path) -> None:
    # It leads out of the source and in again, which holds only while the source lies here.
    (app / "link").symlink_to("../app/run")
    with pytest.raises(FetchError, match="link that points outside"):
        pack(app, EXCLUDE, tmp_path)


def test_links_in_a_circle_are_packed_as_they_are(app: Path, tmp_path: Path) -> None:
    (app / "one").symlink_to("two")
    (app / "two").symlink_to("one")
    assert {"one", "two"} <= set(names(pack(app, EXCLUDE, tmp_path)[1]))


def test_a_chain_of_links_that_leads_out_is_refused(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    # Each link stays inside by its words; with the other it leads to a file of the machine.
    (app / "a/b/c/d").mkdir(parents=True)
    (app / "a/b/c/d/up").symlink_to("../../../..")
    (app / "app/static/logo.svg").symlink_to("../../a/b/c/d/up/../../../../secret")
    (tmp_path.parent / "secret").touch()
    for refuse in (lambda: pack(app, EXCLUDE, tmp_path), lambda: fetch(app)):
        with pytest.raises(
            (AnsibleActionFail, FetchError), match=r"logo\.svg is a link that points outside.*add logo\.svg to app_exclude"
        ):
            refuse()
    fetch(app, exclude=[*EXCLUDE, "logo.svg"])


def test_links_are_judged_before_any_file_is_read_through_one(
    app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "key").write_text("-i https://hunter2.example.com\n", encoding="utf-8")
    (app / "requirements.txt").unlink()
    (app / "requirements.txt").symlink_to("../key")
    with pytest.raises(AnsibleActionFail, match="link that points outside") as error:
        fetch(app)
    assert "hunter2" not in str(error.value)


def test_no_bit_but_that_of_a_program_is_packed(app: Path, tmp_path: Path) -> None:
    (app / "run").chmod(0o6755)
    with tarfile.open(pack(app, EXCLUDE, tmp_path)[1]) as tar:
        assert tar.getmember("run").mode == 0o755


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_named(app: Path, tmp_path: Path, short: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(app / "odd")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short / "odd"))
        (short / "odd").rename(app / "odd")
    with pytest.raises(FetchError, match=r"odd is neither.*app_exclude"):
        pack(app, EXCLUDE, tmp_path)


def test_odd_names_are_packed(app: Path, tmp_path: Path) -> None:
    odd = [b"with space", b"n\xc3\xa4me", b"-rf", b"line\nend", b"latin-\xe4", b"x" * 200]
    for name in odd:
        Path(os.fsdecode(os.fsencode(app) + b"/" + name)).touch()
    packed = names(pack(app, EXCLUDE, tmp_path)[1])
    assert {os.fsencode(name) for name in packed} >= set(odd)


def test_packing_that_is_interrupted_leaves_nothing_under_the_final_name(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tarfile.TarFile, "addfile", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        pack(app, EXCLUDE, tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))
    assert len(names(pack(app, EXCLUDE, tmp_path)[1])) == 4


def test_a_file_that_changes_while_it_is_packed_is_not_kept_under_the_old_content(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, archive = pack(app, EXCLUDE, tmp_path)
    archive.unlink()
    text = (app / "app/main.py").read_text(encoding="utf-8")
    opened = tarfile.open

    def edit(*arguments: Any, **options: Any) -> Any:
        (app / "app/main.py").write_text(text.replace("None", "1234"), encoding="utf-8")
        return opened(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", edit)
        pack(app, EXCLUDE, tmp_path)
    (app / "app/main.py").write_text(text, encoding="utf-8")
    again, archive = pack(app, EXCLUDE, tmp_path)
    assert again == before
    with tarfile.open(archive) as tar:
        content = tar.extractfile("app/main.py")
        assert content is not None
        assert content.read().decode() == text


def test_files_come_in_one_order(app: Path) -> None:
    for name in ("b", "a", "c"):
        (app / name).mkdir()
        (app / name / "file").touch()
    found = [str(path.relative_to(app)) for path in files_below(app, EXCLUDE)]
    assert found == ["requirements.txt", "run", "a/file", "app/main.py", "app/static/style.css", "b/file", "c/file"]
