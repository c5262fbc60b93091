"""The source: fetched from where it is, packed by its content, and refused where a host could not use it."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import os
import random
import socket
import subprocess
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from slipway.controller import fetch as app_fetch
from slipway.controller.fetch import cache_directory, checkout, files_below, git, is_git, kind_of, lock_digest, pack

EXCLUDE = [".git", ".venv", "__pycache__", "*.pyc", ".env", ".env.*"]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The source of an app, in a directory of the controller."""
    root = tmp_path / "app"
    files = {"requirements.txt": "fastapi\n", "app/main.py": "app = None\n", "app/static/style.css": "", "run": "#!/bin/sh\n"}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
    (root / "run").chmod(0o755)
    return root


class Repository:
    """A git repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit files, a double underscore in the name standing for a dot, and return the commit."""
        for name, text in files.items():
            (self.path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x", "--allow-empty")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "origin.git")


@pytest.fixture
def fetch() -> Callable[..., dict[str, Any]]:
    """Run the action as a task would."""

    def run(source: Any, **arguments: Any) -> dict[str, Any]:
        usual = {"version": "", "directory": ".", "requirements": "requirements.txt", "exclude": EXCLUDE, "timeout": 20}
        task = SimpleNamespace(args={"source": str(source), **usual, **arguments}, check_mode=False, async_val=0)
        task.action = "app_fetch"
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        action = app_fetch.FetchAction(task, connection, None, None, None, None)
        result: dict[str, Any] = action.run(task_vars={})
        return result

    return run


def names(archive: Any) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def text_in(archive: Any, name: str) -> str:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


@pytest.mark.parametrize(
    "source",
    [
        "https://github.com/a/b",
        "http://host/x",
        "git@github.com:a/b",
        "ssh://git@host:22/a/b",
        "git://host/x",
        "git+file:///srv/x",
        "file:///srv/x",
        "/srv/x.git",
        "x.git/",
    ],
)
def test_what_is_a_git_repository(source: str) -> None:
    assert is_git(source)


@pytest.mark.parametrize("source", ["/srv/x", "../app", "~/app", ".", "/srv/x.git/app", "git", "/srv/https/x", "/srv/my.github"])
def test_what_is_a_directory(source: str) -> None:
    assert not is_git(source)


# Packing


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
    with pytest.raises(AnsibleActionFail, match="link that leads out"):
        pack(app, EXCLUDE, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_that_the_host_would_refuse_is_refused_here(app: Path, tmp_path: Path) -> None:
    # It leads out of the source and in again, which holds only while the source lies here.
    (app / "link").symlink_to("../app/run")
    with pytest.raises(AnsibleActionFail, match="link that leads out"):
        pack(app, EXCLUDE, tmp_path)


def test_links_in_a_circle_are_packed_or_refused(app: Path, tmp_path: Path) -> None:
    (app / "one").symlink_to("two")
    (app / "two").symlink_to("one")
    with contextlib.suppress(AnsibleActionFail):
        pack(app, EXCLUDE, tmp_path)


def test_a_chain_of_links_that_leads_out_is_refused(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    # Each link stays inside by its words; with the other it leads to a file of the machine.
    (app / "a/b/c/d").mkdir(parents=True)
    (app / "a/b/c/d/up").symlink_to("../../../..")
    (app / "app/static/logo.svg").symlink_to("../../a/b/c/d/up/../../../../secret")
    (tmp_path.parent / "secret").touch()
    for refuse in (lambda: pack(app, EXCLUDE, tmp_path), lambda: fetch(app)):
        with pytest.raises(AnsibleActionFail, match=r"logo\.svg is a link that leads out.*add logo\.svg to app_exclude"):
            refuse()
    fetch(app, exclude=[*EXCLUDE, "logo.svg"])


def test_links_are_judged_before_any_file_is_read_through_one(
    app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "key").write_text("-i https://hunter2.example.com\n", encoding="utf-8")
    (app / "requirements.txt").unlink()
    (app / "requirements.txt").symlink_to("../key")
    with pytest.raises(AnsibleActionFail, match="link that leads out") as error:
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
    with pytest.raises(AnsibleActionFail, match=r"odd is neither.*app_exclude"):
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

    with monkeypatch.context() as patch, contextlib.suppress(AnsibleActionFail):
        patch.setattr(tarfile, "open", edit)
        pack(app, EXCLUDE, tmp_path)
    (app / "app/main.py").write_text(text, encoding="utf-8")
    again, archive = pack(app, EXCLUDE, tmp_path)
    assert again == before
    with tarfile.open(archive) as tar:
        content = tar.extractfile("app/main.py")
        assert content is not None
        assert content.read().decode() == text


def test_what_is_packed_is_for_the_operators_eyes(app: Path) -> None:
    pack(app, EXCLUDE, cache_directory())
    assert cache_directory().stat().st_mode & 0o077 == 0


def test_files_come_in_one_order(app: Path) -> None:
    for name in ("b", "a", "c"):
        (app / name).mkdir()
        (app / name / "file").touch()
    found = [str(path.relative_to(app)) for path in files_below(app, EXCLUDE)]
    assert found == ["requirements.txt", "run", "a/file", "app/main.py", "app/static/style.css", "b/file", "c/file"]


# The lock file


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


# Git


def test_a_branch_a_tag_and_a_commit(repository: Repository, tmp_path: Path) -> None:
    old = repository.commit(main__py="one")
    repository.git("tag", "v1")
    repository.git("tag", "--annotate", "--message=x", "v1-signed")
    new = repository.commit(main__py="two")
    repository.git("checkout", "--quiet", "-b", "feature/x", old)
    feature = repository.commit(main__py="three")
    repository.git("checkout", "--quiet", "main")
    wanted = {"": new, "main": new, "v1": old, "v1-signed": old, "feature/x": feature, old: old, old[:10]: old}
    for number, (version, commit) in enumerate(wanted.items()):
        target = tmp_path / f"out{number}"
        assert checkout(f"git+file://{repository.path}", version, 20, target) == commit
        text = {old: "one", new: "two", feature: "three"}[commit]
        assert (target / "main.py").read_text(encoding="utf-8") == text
        assert [path.name for path in target.iterdir()] == ["main.py"]


def test_what_moved_is_followed(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit(main__py="one")
    repository.git("tag", "latest")
    assert checkout(str(repository.path), "latest", 20, tmp_path / "1") == first
    repository.git("commit", "--quiet", "--amend", "--message=y", "--allow-empty")
    second = repository.commit(main__py="two")
    repository.git("tag", "--force", "latest")
    assert checkout(str(repository.path), "latest", 20, tmp_path / "2") == second
    assert checkout(str(repository.path), "main", 20, tmp_path / "3") == second
    repository.git("branch", "--move", "main", "trunk")
    assert checkout(str(repository.path), "", 20, tmp_path / "4") == second
    with pytest.raises(AnsibleActionFail, match=r"no branch, tag or commit main: app_version"):
        checkout(str(repository.path), "main", 20, tmp_path / "5")


def test_a_known_commit_is_fetched_once(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(main__py="one")
    checkout(str(repository.path), commit, 20, tmp_path / "1")
    repository.path.rename(tmp_path / "away")
    assert checkout(str(repository.path), commit, 20, tmp_path / "2") == commit
    with pytest.raises(AnsibleActionFail, match="git fetch failed"):
        checkout(str(repository.path), "main", 20, tmp_path / "3")


def test_a_tag_goes_before_a_branch_of_its_name(repository: Repository, tmp_path: Path) -> None:
    tagged = repository.commit(main__py="one")
    repository.git("tag", "stable")
    repository.git("checkout", "--quiet", "-b", "stable")
    repository.commit(main__py="two")
    assert checkout(str(repository.path), "stable", 20, tmp_path / "1") == tagged


@pytest.mark.parametrize("version", ["nope", "v1", "0" * 40, "feedbeef"])
def test_a_version_that_is_not_there_is_named(repository: Repository, tmp_path: Path, version: str) -> None:
    repository.commit(main__py="one")
    with pytest.raises(AnsibleActionFail, match=f"has no branch, tag or commit {version}"):
        checkout(str(repository.path), version, 20, tmp_path / "1")


def test_a_password_is_shown_nowhere(tmp_path: Path, program: Callable[[str, str], Path]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(AnsibleActionFail, match="git fetch failed") as error:
        checkout(f"http://ann:hunter2@127.0.0.1:{port}/x.git", "", 20, tmp_path / "1")
    assert "hunter2" not in str(error.value)
    assert f"127.0.0.1:{port}" in str(error.value)
    program("git", "#!/bin/sh\necho 'fatal: https://ann:hunter2@host/x.git not found' >&2; exit 128\n")
    with pytest.raises(AnsibleActionFail, match=r"git fetch failed: fatal: https://host/x\.git not found"):
        git(["fetch"], 20)


def test_git_of_another_repository_is_left_alone(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As within a hook of the operator's own repository.
    repository.commit(main__py="one")
    own = Repository(tmp_path / "own")
    mine = own.commit(notes="mine")
    own.git("checkout", "--quiet", "-b", "work")
    monkeypatch.setenv("GIT_DIR", str(own.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(own.path / ".git/index"))
    checkout(str(repository.path), "main", 20, tmp_path / "1")
    monkeypatch.undo()
    assert (tmp_path / "1/main.py").exists()
    assert own.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines() == [
        f"refs/heads/main {mine}",
        f"refs/heads/work {mine}",
    ]


def test_git_waits_neither_for_an_answer_nor_for_ever(program: Callable[[str, str], Path]) -> None:
    program("git", "#!/bin/sh\nexec sleep 60\n")
    before = time.monotonic()
    with pytest.raises(AnsibleActionFail, match=r"git fetch took longer than 0\.2 s \(app_fetch_timeout\)"):
        git(["fetch", "x"], 0.2)
    assert time.monotonic() - before < 10
    program("git", '#!/bin/sh\necho "$GIT_TERMINAL_PROMPT"\n')
    assert git(["fetch"], 5) == "0"


def test_what_git_started_ends_with_it(program: Callable[[str, str], Path], tmp_path: Path) -> None:
    program("git", f"#!/bin/sh\n(sleep 2; touch {tmp_path}/late) &\nsleep 60\n")
    with pytest.raises(AnsibleActionFail, match="took longer"):
        git(["fetch", "x"], 0.2)
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_a_clone_that_a_killed_git_left_locked_or_torn_is_mended(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(main__py="one")
    checkout(str(repository.path), "", 20, tmp_path / "1")
    (clone,) = (path for path in cache_directory("git").iterdir() if path.is_dir())
    for lock in ("packed-refs.lock", "refs/slipway/HEAD.lock", "shallow.lock", "config.lock"):
        (clone / lock).touch()
    second = repository.commit(main__py="two")
    assert checkout(str(repository.path), "", 20, tmp_path / "2") == second
    for torn in clone.glob("objects/*/*"):
        torn.chmod(0o644)
        torn.write_bytes(b"")
    third = repository.commit(main__py="three")
    assert checkout(str(repository.path), "", 20, tmp_path / "3") == third
    assert checkout(str(repository.path), commit, 20, tmp_path / "4") == commit


def test_clones_and_leftovers_that_nobody_asks_for_are_removed(repository: Repository, app: Path, tmp_path: Path) -> None:
    repository.commit(main__py="one")
    other = Repository(tmp_path / "other.git")
    other.commit(main__py="one")
    checkout(str(other.path), "", 20, tmp_path / "1")
    (old,) = (path for path in cache_directory("git").iterdir() if path.is_dir())
    left = cache_directory() / ".4711.partial"
    left.touch()
    for path in (old, left):
        os.utime(path, (1, 1))
    checkout(str(repository.path), "", 20, tmp_path / "2")
    pack(app, EXCLUDE, cache_directory())
    assert not old.exists()
    assert not left.exists()
    assert len([path for path in cache_directory("git").iterdir() if path.is_dir()]) == 1


def test_no_more_is_kept_than_there_is_room_for(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_fetch, "KEEP_BYTES", 1000)
    for number, age in (("1", 9000), ("2", 8000), ("3", 60)):
        (tmp_path / f"{number}.tar.gz").write_bytes(b"x" * 600)
        os.utime(tmp_path / f"{number}.tar.gz", (time.time() - age,) * 2)
    pack(app, EXCLUDE, tmp_path)
    kept = {path.name for path in tmp_path.glob("?.tar.gz")}
    assert kept == {"3.tar.gz"}, "what was asked for within the hour stays: another run may need it"


@pytest.mark.parametrize("address", ["file://{path}", "git+file://{path}", "{path}"])
def test_an_address_on_this_machine(tmp_path: Path, address: str, fetch: Callable[..., dict[str, Any]]) -> None:
    repository = Repository(tmp_path / "my shop.git")
    commit = repository.commit(requirements__txt="fastapi", main__py="one")
    assert fetch(address.format(path=repository.path))["source"]["revision"] == commit
    if "://" in address:
        assert fetch(address.format(path=str(repository.path).replace(" ", "%20")))["source"]["revision"] == commit


def test_a_file_address_of_an_archive_is_its_path(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    archive = archive_of(tmp_path / "my shop.tar.gz", FILES)
    assert fetch(f"file://{tmp_path}/my%20shop.tar.gz")["source"]["digest"] == fetch(archive)["source"]["digest"]


# Submodules


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a submodule by a relative address, which has one by an absolute address."""
    for number, (name, value) in enumerate({"protocol.file.allow": "always"}.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", name)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
        monkeypatch.setenv("GIT_CONFIG_COUNT", str(number + 1))
    inner, lib, shop = (Repository(tmp_path / name) for name in ("inner", "lib.git", "shop.git"))
    inner.commit(deep__py="deep")
    lib.git("submodule", "--quiet", "add", f"file://{inner.path}", "inner")
    lib.commit(lib__py="lib")
    shop.git("submodule", "--quiet", "add", "../lib.git", "libs/my lib")
    shop.commit(requirements__txt="fastapi", main__py="one")
    # What the shop was made with, on no branch any more.
    lib.git("commit", "--quiet", "--amend", "--allow-empty", "--message=y")
    return shop


NESTED = {
    ".gitmodules",
    "libs/my lib/.gitmodules",
    "libs/my lib/inner/deep.py",
    "libs/my lib/lib.py",
    "main.py",
    "requirements.txt",
}


def test_submodules_are_fetched_with_their_own(nested: Repository, fetch: Callable[..., dict[str, Any]]) -> None:
    for address in (f"file://{nested.path}", str(nested.path)):
        assert set(names(fetch(address)["source"]["archive"])) == NESTED


def test_a_version_of_a_directory_has_its_submodules(
    nested: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    for options in ([], ["--recurse-submodules"]):
        work = tmp_path / f"work{len(options)}"
        nested.git("clone", "--quiet", *options, str(nested.path), str(work))
        assert set(names(fetch(work, version="main")["source"]["archive"])) == NESTED


def test_a_directory_whose_submodules_are_not_checked_out_is_refused(
    nested: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    nested.git("clone", "--quiet", str(nested.path), str(tmp_path / "work"))
    with pytest.raises(AnsibleActionFail, match=r"submodule libs/my lib of app_source is not checked out.*git submodule update"):
        fetch(tmp_path / "work")
    fetch(tmp_path / "work", exclude=[*EXCLUDE, "my lib"])


def test_a_submodule_that_cannot_be_had_is_named(
    nested: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    (tmp_path / "inner").rename(tmp_path / "gone")
    with pytest.raises(AnsibleActionFail, match=r"(?s)submodule inner of the source cannot be fetched.*add inner to app_exclude"):
        fetch(f"file://{nested.path}")
    assert "libs/my lib/lib.py" in names(fetch(f"file://{nested.path}", exclude=[*EXCLUDE, "inner"])["source"]["archive"])


def test_a_submodule_without_an_address_is_named(repository: Repository, fetch: Callable[..., dict[str, Any]]) -> None:
    commit = repository.commit(requirements__txt="fastapi")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    repository.git("commit", "--quiet", "--message=x")
    with pytest.raises(AnsibleActionFail, match="lib of the source is a git submodule without an address"):
        fetch(f"file://{repository.path}")


@pytest.mark.parametrize(
    ("parent", "place", "address"),
    [
        ("https://host/team/shop.git", "../lib.git", "https://host/team/lib.git"),
        ("https://host/team/shop.git/", "../../other/lib", "https://host/other/lib"),
        ("git@host:team/shop.git", "../lib.git", "git@host:team/lib.git"),
        ("git@host:shop.git", "../lib.git", "git@host:lib.git"),
        ("ssh://git@host:22/team/shop", "./lib", "ssh://git@host:22/team/shop/lib"),
        ("/srv/git/shop.git", "../lib.git", "/srv/git/lib.git"),
    ],
)
def test_a_relative_address_is_that_beside_its_parents(parent: str, place: str, address: str) -> None:
    assert app_fetch.beside(parent, place) == address


@pytest.mark.parametrize("place", ["/srv/secret", "file:///srv/secret", "../../../../srv/secret", "ext::sh -c id"])
@pytest.mark.parametrize("parent", ["https://host/shop.git", "git@host:shop.git"])
def test_a_repository_from_elsewhere_names_nothing_on_this_machine(
    parent: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(app_fetch, "checkout", lambda address, *arguments: asked.append(address))
    with contextlib.suppress(AnsibleActionFail):
        app_fetch._submodule("lib", "0" * 40, place, parent, 20, tmp_path, ("", ""), [])
    assert [address for address in asked if not app_fetch.REMOTE.match(address)] == []
    assert not asked or "srv/secret" in place


@pytest.mark.parametrize(
    ("parent", "place", "address", "token"),
    [
        ("https://ann@host/a.git", "https://host/b.git", "https://ann@host/b.git", "t"),
        ("https://ann@host/a.git", "../b.git", "https://ann@host/b.git", "t"),
        ("https://host/a.git", "https://other/b.git", "https://other/b.git", ""),
        ("https://host/a.git", "https://host.evil/b.git", "https://host.evil/b.git", ""),
        ("git@host:a.git", "git@host:b.git", "git@host:b.git", "t"),
    ],
)
def test_a_token_goes_to_the_host_of_the_source_only(
    parent: str, place: str, address: str, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(app_fetch, "checkout", lambda *arguments: asked.append(arguments))
    app_fetch._submodule("lib", "0" * 40, place, parent, 20, tmp_path, ("key", "t"), [])
    ((found, _, _, target, key, given, _),) = asked
    assert (found, target, key, given) == (address, tmp_path / "lib", "key", token)


def test_a_controller_without_git_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AnsibleActionFail, match="git is not installed on the controller"):
        git(["fetch"], 5)


def test_two_hosts_fetch_one_repository_at_once(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(main__py="one")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda name=name: found.append(checkout(str(repository.path), "main", 20, tmp_path / name)))
        for name in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [commit] * 3


def test_a_checkout_works_without_the_filters_of_later_pythons(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Python 3.11.2 of Debian 12 has none.
    commit = repository.commit(main__py="one")
    extractall = tarfile.TarFile.extractall

    def old(self: tarfile.TarFile, path: Any = ".", members: Any = None, *, numeric_owner: bool = False) -> None:
        extractall(self, path, members, numeric_owner=numeric_owner)

    monkeypatch.setattr(tarfile.TarFile, "extractall", old)
    for name in ("fully_trusted_filter", "tar_filter", "data_filter"):
        monkeypatch.delattr(tarfile, name, raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(lambda member, path: member), raising=False)
    assert checkout(str(repository.path), "main", 20, tmp_path / "1") == commit


# The action


def test_a_directory_is_fetched(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    result = fetch(app)
    source = result["source"]
    assert result["changed"] is False
    assert Path(source["archive"]).parent == cache_directory()
    assert names(source["archive"]) == ["requirements.txt", "run", "app/main.py", "app/static/style.css"]
    assert (source["origin"], source["directory"], source["requirements"]) == ("directory", ".", "requirements.txt")
    assert source["digest"].startswith(source["revision"])
    assert fetch(app) == result


def test_a_repository_is_fetched(repository: Repository, fetch: Callable[..., dict[str, Any]]) -> None:
    commit = repository.commit(requirements__txt="fastapi\n", main__py="x", __env="SECRET=1")
    source = fetch(repository.path, version="main")["source"]
    assert source["revision"] == commit
    assert source["origin"] == str(repository.path)
    assert names(source["archive"]) == ["main.py", "requirements.txt"]
    # Another commit of the same content is the same build.
    repository.commit()
    again = fetch(repository.path)["source"]
    assert again["revision"] != commit
    assert (again["digest"], again["archive"]) == (source["digest"], source["archive"])


def test_the_origin_is_remembered_without_its_password(repository: Repository, fetch: Callable[..., dict[str, Any]]) -> None:
    repository.commit(requirements__txt="fastapi\n")
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "{repository.path}"]\n insteadOf = https://ann:hunter2@host/x.git\n', encoding="utf-8"
    )
    result = fetch("https://ann:hunter2@host/x.git")
    assert "hunter2" not in str(result)
    assert result["source"]["origin"] == "https://host/x.git"


def test_a_folder_of_the_source(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "mono").mkdir()
    app.rename(tmp_path / "mono" / "backend")
    source = fetch(tmp_path / "mono", directory="backend")["source"]
    assert source["directory"] == "backend"
    assert "backend/app/main.py" in names(source["archive"])


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


def test_a_directory_that_is_not_there_is_named(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"app_source is .*nowhere.*no such directory"):
        fetch(tmp_path / "nowhere")


def test_nothing_is_left_in_the_way(
    repository: Repository, fetch: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    repository.commit(requirements__txt="fastapi\n")
    fetch(repository.path)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.suffix for path in cache_directory().iterdir()) == ["", ".gz"]


def test_what_a_source_is(tmp_path: Path) -> None:
    (tmp_path / "app.zip").mkdir()
    kinds = {
        "directory": [str(tmp_path / "app.zip"), "/srv/app", "shop>=1.4", "shop == 1.4"],
        "git": ["https://host/a/b", "https://host/shop.zip.git", "git+https://host/shop.tar.gz#x"],
        "archive": ["/srv/shop.tar", "https://host/v1.tar.gz?token=x", "shop.tgz", "x.tar.bz2", "x.tar.xz", "x.ZIP"],
        "wheel": ["/srv/shop-1.4-py3-none-any.whl", "https://host/shop-1.4-1-cp312-cp312-linux_x86_64.whl#x"],
        "package": ["shop==1.4", "shop[pg,x]==1.4rc1", "Shop.x-y==1!2.0+local"],
    }
    assert {source: kind_of(source) for sources in kinds.values() for source in sources} == {
        source: kind for kind, sources in kinds.items() for source in sources
    }


# A directory in one version


def test_a_version_of_a_directory_is_that_of_its_repository(
    repository: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]]
) -> None:
    app = repository.path.rename(tmp_path / "mono") / "backend"
    repository.path = app.parent
    app.mkdir()
    (app / "requirements.txt").write_text("fastapi\n", encoding="utf-8")
    (app / "main.py").write_text("one", encoding="utf-8")
    commit = repository.commit(outside="x")
    repository.git("tag", "v1")
    (app / "new.py").touch()
    repository.commit()
    (app / "main.py").write_text("unsaved", encoding="utf-8")
    source = fetch(app, version="v1")["source"]
    assert (source["revision"], source["origin"]) == (commit, "directory")
    assert names(source["archive"]) == ["main.py", "requirements.txt"]
    assert text_in(source["archive"], "main.py") == "one"
    assert names(fetch(app.parent, version="v1", directory="backend")["source"]["archive"]) == [
        "outside",
        "backend/main.py",
        "backend/requirements.txt",
    ]
    assert text_in(fetch(app)["source"]["archive"], "main.py") == "unsaved"
    with pytest.raises(AnsibleActionFail, match="mono has no branch, tag or commit v2: app_version"):
        fetch(app, version="v2")
    (app.parent / "later").mkdir()
    with pytest.raises(AnsibleActionFail, match=r"v1 \(app_version\) of .* has no folder later \(app_source\)"):
        fetch(app.parent / "later", version="v1")


def test_a_version_of_a_directory_outside_git_is_refused(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"app_version is v1, and .*app \(app_source\) lies in no git work tree"):
        fetch(app, version="v1")


# Private repositories


class Files(http.server.SimpleHTTPRequestHandler):
    """Files below a directory, for those who show the password, if there is one."""

    password = ""
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.password and self.headers.get("Authorization") != f"Basic {base64.b64encode(self.password.encode()).decode()}":
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Serve a directory, and return its address and a list that fills with what is asked for."""
    servers = []

    def start(directory: Path, password: str = "") -> tuple[str, list[str]]:
        asked: list[str] = []
        handler = type("Handler", (Files,), {"password": password, "asked": asked})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(directory)))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("login", "user"), [("", "x-access-token"), ("deploy@", "deploy")])
def test_a_token_opens_a_repository_and_is_seen_nowhere(
    repository: Repository,
    tmp_path: Path,
    fetch: Callable[..., dict[str, Any]],
    serve: Callable[..., tuple[str, list[str]]],
    program: Callable[[str, str], Path],
    login: str,
    user: str,
) -> None:
    commit = repository.commit(requirements__txt="fastapi\n")
    repository.git("update-server-info")
    address, _ = serve(tmp_path, f"{user}:s3cr3t-token")
    address = address.replace("//", f"//{login}") + "/origin.git/.git"
    home = Path(os.environ["HOME"])
    home.mkdir()
    (home / ".gitconfig").write_text(f"[credential]\n helper = store --file {home}/remembered\n", encoding="utf-8")
    log = tmp_path / "log"
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    program("git", f'#!/bin/sh\necho "$@" >>{log}\nexec {real} "$@"\n')
    result = fetch(f"git+{address}", git_token="s3cr3t-token")
    assert result["source"]["revision"] == commit
    secret = base64.b64encode(f"{user}:s3cr3t-token".encode()).decode()
    kept = [path for path in [*cache_directory().rglob("*"), *home.rglob("*"), log] if path.is_file()]
    assert len(kept) > 5
    for text in [str(result), *(path.read_bytes().decode("latin-1") for path in kept)]:
        assert "s3cr3t-token" not in text
        assert secret not in text
    with pytest.raises(AnsibleActionFail, match="git fetch failed") as error:
        fetch(f"git+{address}", git_token="an0ther-token")
    assert "an0ther-token" not in str(error.value)
    program("git", '#!/bin/sh\necho "$GIT_CONFIG_VALUE_0 ${GIT_CONFIG_VALUE_0##* }" >&2; test $1 = init\n')
    with pytest.raises(AnsibleActionFail, match=r"git fetch failed: \*+ \*+$"):
        fetch(f"git+{address}", git_token="s3cr3t-token")


@pytest.mark.parametrize("address", ["http://git.example.com/x.git", "ssh://git@git.example.com/x.git", "git@host:x.git"])
def test_a_token_does_not_travel_in_the_clear(fetch: Callable[..., dict[str, Any]], address: str) -> None:
    with pytest.raises(AnsibleActionFail, match="app_git_token goes to an https address only") as error:
        fetch(address, git_token="s3cr3t-token")
    assert "s3cr3t-token" not in str(error.value)


def test_a_key_opens_a_repository(
    repository: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]], program: Callable[[str, str], Path]
) -> None:
    commit = repository.commit(requirements__txt="fastapi\n")
    key = tmp_path / "a key"
    log = tmp_path / "log"
    # One that lets in whom the key is shown by.
    program("ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" >{log}\nshift $(($# - 1))\neval "exec $1"\n')
    with pytest.raises(AnsibleActionFail, match=r"app_git_key is .*a key: there is no such file"):
        fetch(f"ssh://git@host{repository.path}", git_key=str(key))
    key.touch()
    assert fetch(f"ssh://git@host{repository.path}", git_key=str(key))["source"]["revision"] == commit
    words = log.read_text(encoding="utf-8").splitlines()
    assert words[:2] == ["-i", str(key)]
    assert {"-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oStrictHostKeyChecking=accept-new"} <= set(words)


# Archives


FILES = {"requirements.txt": "fastapi\n", "app/main.py": "app = None\n", "run": "#!/bin/sh\n"}


def archive_of(path: Path, files: dict[str, str], *more: tuple[Any, ...]) -> Path:
    """Make an archive of the format that its name says; `more` are a name, a type and a target, for tar only."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (0o100755 if name.endswith("run") else 0o100644) << 16
                archive.writestr(entry, text)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), 0o755 if name.endswith("run") else 0o640
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, kind, target in more:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return path


def below(folder: str, files: dict[str, str] = FILES) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_an_archive_is_the_folder_that_it_holds(tmp_path: Path, name: str, fetch: Callable[..., dict[str, Any]]) -> None:
    sources = [
        fetch(archive_of(tmp_path / name, files), checksum=sum_)["source"]
        for files, sum_ in ((below("shop-1.4") | {"__MACOSX/x": ""}, ""), (FILES, ""), (below("./other/"), ""))
    ]
    assert names(sources[0]["archive"]) == ["requirements.txt", "run", "app/main.py"]
    assert len({source["digest"] for source in sources}) == 1
    assert (sources[0]["origin"], sources[0]["revision"]) == (name, sources[0]["digest"][:12])
    with tarfile.open(sources[0]["archive"]) as tar:
        assert {member.name: member.mode for member in tar} == {"requirements.txt": 0o644, "app/main.py": 0o644, "run": 0o755}
    assert fetch(tmp_path / name, version="v1.4")["source"]["revision"] == "v1.4"


def test_an_archive_is_downloaded_once_and_checked(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    path = archive_of(tmp_path / "x.tar.gz", below("shop"))
    address, asked = serve(tmp_path, "ann:hunter2")
    address = address.replace("//", "//ann:hunter2@") + "/x.tar.gz?token=s3cr3t"
    wanted = checksum(path)
    with pytest.raises(AnsibleActionFail, match=r"x\.tar\.gz: set app_checksum to the digest of that file"):
        fetch(address)
    with pytest.raises(AnsibleActionFail, match="is not what app_checksum names; nothing of it was unpacked") as error:
        fetch(address, checksum=f"sha256:{'0' * 64}")
    assert f"sha256:{'0' * 64}" in str(error.value)
    assert wanted in str(error.value)
    first = fetch(address, checksum=wanted.upper().replace("SHA256", "sha256"))
    assert first["source"]["origin"] == f"{address.partition('?')[0].replace('ann:hunter2@', '')}"
    number = len(asked)
    assert fetch(address, checksum=wanted) == first
    assert len(asked) == number
    # One that was damaged in the cache is fetched again.
    (cache_directory("downloads") / wanted[7:]).write_bytes(b"x")
    assert fetch(address, checksum=wanted) == first
    for text in (str(first), str(error.value)):
        assert "s3cr3t" not in text
        assert "hunter2" not in text
    assert [path.suffix for path in cache_directory("downloads").iterdir() if path.suffix != ".lock"] == [""]


def test_what_cannot_be_downloaded_is_told(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    address, _ = serve(tmp_path)
    wanted = f"sha256:{'0' * 64}"
    with pytest.raises(AnsibleActionFail, match=r"x\.zip \(app_source\) is answered with 404"):
        fetch(f"{address}/x.zip", checksum=wanted)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(AnsibleActionFail, match=r"took longer than 0\.2 s \(app_fetch_timeout\)"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip", checksum=wanted, timeout=0.2)
        port = silent.getsockname()[1]
    with pytest.raises(AnsibleActionFail, match=r"cannot be downloaded: .*refused"):
        fetch(f"http://127.0.0.1:{port}/x.zip", checksum=wanted)


def test_a_path_is_checked_where_it_has_a_checksum(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    path = archive_of(tmp_path / "x.zip", FILES)
    assert fetch(path, checksum=checksum(path))
    with pytest.raises(AnsibleActionFail, match="is not what app_checksum names"):
        fetch(path, checksum=f"sha256:{'0' * 64}")
    with pytest.raises(AnsibleActionFail, match=r"nowhere\.zip: there is no such file on this machine"):
        fetch(tmp_path / "nowhere.zip")


@pytest.mark.parametrize(
    ("files", "more", "culprit"),
    [
        ({"/proc/evil": ""}, [], "/proc/evil"),
        ({"../evil": ""}, [], "../evil"),
        ({"a/../../evil": ""}, [], "a/../../evil"),
        ({}, [("a/link", tarfile.SYMTYPE, "/etc/passwd")], "a/link"),
        ({}, [("a/link", tarfile.SYMTYPE, "../../evil")], "a/link"),
        ({}, [("hard", tarfile.LNKTYPE, "../evil")], "hard"),
        ({}, [("hard", tarfile.LNKTYPE, "/etc/passwd")], "hard"),
        ({}, [("pipe", tarfile.FIFOTYPE, "")], "pipe"),
        ({}, [("disk", tarfile.BLKTYPE, "")], "disk"),
        ({}, [("tty", tarfile.CHRTYPE, "")], "tty"),
    ],
)
def test_a_member_that_leads_outside_is_named(
    tmp_path: Path,
    files: dict[str, str],
    more: list[tuple[Any, ...]],
    culprit: str,
    fetch: Callable[..., dict[str, Any]],
) -> None:
    path = archive_of(tmp_path / "x.tar.gz", FILES | files, *more)
    with pytest.raises(AnsibleActionFail, match=f"holds {culprit}, which leads outside or is no ordinary file"):
        fetch(path)
    if not more:
        with pytest.raises(AnsibleActionFail, match=f"holds {culprit}, which leads outside"):
            fetch(archive_of(tmp_path / "x.zip", FILES | files))


def test_links_of_an_archive(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    more = [("shop/copy.py", tarfile.LNKTYPE, "shop/app/main.py"), ("shop/link.py", tarfile.SYMTYPE, "app/main.py")]
    source = fetch(archive_of(tmp_path / "x.tar", below("shop"), *more))["source"]
    assert text_in(source["archive"], "copy.py") == FILES["app/main.py"]
    with tarfile.open(source["archive"]) as tar:
        assert tar.getmember("link.py").linkname == "app/main.py"
    # Through a link nothing is written, even inside, and none leads out of the folder that is left.
    (tmp_path / "victim").mkdir()
    for more in (
        [("app/main.py", tarfile.SYMTYPE, "../run")],
        [("link", tarfile.SYMTYPE, "app"), ("link/x/y", tarfile.DIRTYPE, "")],
    ):
        with pytest.raises(AnsibleActionFail, match="cannot be unpacked"):
            fetch(archive_of(tmp_path / "x.tar", FILES, *more))
    with pytest.raises(AnsibleActionFail, match="up is a link that leads out"):
        fetch(archive_of(tmp_path / "x.tar", below("shop"), ("shop/up", tarfile.SYMTYPE, "..")))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "cut head", "zeroed", "page", "nothing"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, kind: str, fetch: Callable[..., dict[str, Any]]) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(200_000)).decode()
    whole = archive_of(tmp_path / name, {**FILES, "noise": noise, "main.py": "x"}).read_bytes()
    if (name, kind) == ("x.tar", "zeroed"):
        return  # a tar has no checksum of what it holds
    texts = {
        "empty": b"",
        "garbage": random.Random(2).randbytes(5000),
        "cut": whole[: len(whole) // 2],
        "cut head": whole[:100],
        "zeroed": whole[:100_000] + bytes(2000) + whole[102_000:],
        "page": b"<html>404</html>" * 100,
    }
    if kind == "nothing":
        archive_of(tmp_path / name, {})
    else:
        (tmp_path / name).write_bytes(texts[kind])
    with pytest.raises(AnsibleActionFail, match=rf"^{name} \(app_source\) cannot be unpacked: (it is damaged|there is nothing)"):
        fetch(tmp_path / name)


def test_a_tar_that_was_cut_between_two_files_is_refused(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    whole = archive_of(tmp_path / "x.tar", FILES).read_bytes()
    for text in (whole[:2048], whole[:2048] + b"x" * 512):
        (tmp_path / "x.tar").write_bytes(text)
        with pytest.raises(AnsibleActionFail, match="it ends in the middle"):
            fetch(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, name: str, fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_fetch, "LARGEST", 2**21)
    assert fetch(archive_of(tmp_path / name, FILES | {"zeros": "0" * 2**20}))
    for files in (FILES | {"zeros": "0" * 2**21}, FILES | {f"empty{number}": "" for number in range(4100)}):
        with pytest.raises(AnsibleActionFail, match=r"app_source unpacks to more than|cannot be unpacked"):
            fetch(archive_of(tmp_path / name, files))
    if name == "x.tar.gz":
        (tmp_path / name).write_bytes(gzip.compress(bytes(2**22)))
        with pytest.raises(AnsibleActionFail, match="app_source unpacks to more than"):
            fetch(tmp_path / name)


# Packages and wheels


@pytest.mark.parametrize("package", ["shop==1.4", "shop[pg]==1.4"])
def test_a_package_is_one_requirement(package: str, fetch: Callable[..., dict[str, Any]]) -> None:
    source = fetch(package, requirements="")["source"]
    assert names(source["archive"]) == ["requirements.txt"]
    assert text_in(source["archive"], "requirements.txt") == f"{package}\n"
    assert (source["kind"], source["revision"], source["origin"]) == ("requirements", "1.4", "package")
    assert fetch(package, version="spring")["source"]["revision"] == "spring"
    with pytest.raises(AnsibleActionFail, match="app_source is a package, which has no folders: leave app_directory as"):
        fetch(package, directory="backend")


def test_a_wheel_is_a_requirement_with_the_wheel_beside_it(
    tmp_path: Path, fetch: Callable[..., dict[str, Any]], serve: Callable[..., tuple[str, list[str]]]
) -> None:
    path = tmp_path / "shop-1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("shop.py", "x" * 5000)
    address, _ = serve(tmp_path)
    sources = [fetch(path)["source"], fetch(f"{address}/{path.name}", checksum=checksum(path))["source"]]
    assert names(sources[0]["archive"]) == ["requirements.txt", path.name]
    assert text_in(sources[0]["archive"], "requirements.txt").splitlines()[-1] == f"./{path.name}"
    assert sources[0]["digest"] == sources[1]["digest"]
    assert [source["revision"] for source in sources] == ["1.4"] * 2
    assert [source["origin"] for source in sources] == [path.name, f"{address}/{path.name}"]
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("more.py", "")
    assert fetch(path)["source"]["lock"] != sources[0]["lock"]
    whole = path.read_bytes()
    for text in (whole[:1000], whole.replace(b"xxxx", b"xxyx", 1)):
        path.write_bytes(text)
        with pytest.raises(AnsibleActionFail, match=r"\(app_source\) is damaged"):
            fetch(path)


# What the app depends on


PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["fastapi"]\n'
BUILT = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
LOCK = """\
version = 1
[[package]]
name = "shop"
source = { editable = "." }
dependencies = [{ name = "fastapi", extra = ["all"] }, { name = "core" }]
[[package]]
name = "fastapi"
source = { registry = "https://pypi.org/simple" }
[package.optional-dependencies]
all = [{ name = "extra" }]
rest = [{ name = "other" }]
[[package]]
name = "extra"
source = { directory = "vendor/extra" }
[[package]]
name = "other"
source = { directory = "vendor/other" }
[[package]]
name = "core"
source = { editable = "packages/core" }
[[package]]
name = "docs"
source = { virtual = "docs" }
"""


@pytest.mark.parametrize("place", [r"lib\nUSER root\nRUN id\n#", "pkg$(id>x)", "a b", "it's"])
def test_a_folder_with_a_name_that_is_more_is_refused(app: Path, place: str, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "uv.lock").write_text(LOCK.replace("packages/core", place), encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"^uv\.lock: .* has a name that no build can be told: rename the folder"):
        fetch(app, requirements="uv.lock")


def test_the_best_file_is_found(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    root = tmp_path / "app"
    root.mkdir()
    files = {
        "pyproject.toml": (PROJECT, "pyproject"),
        "requirements.txt": ("fastapi\n", "requirements"),
        "pylock.toml": ('lock-version = "1.0"\n', "pylock"),
        "uv.lock": (LOCK, "uv.lock"),
    }
    locks = set()
    for name, (text, kind) in files.items():
        (root / name).write_text(text, encoding="utf-8")
        source = fetch(root, requirements="")["source"]
        assert (source["kind"], source["requirements"]) == (kind, name)
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
    with pytest.raises(AnsibleActionFail, match=f"pip does not install from {kind}: set python_installer: uv"):
        fetch(app, installer="pip", requirements=kind)


def test_what_a_project_is_made_of_counts(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "uv.lock").write_text(LOCK, encoding="utf-8")
    seen = {fetch(app, requirements="uv.lock")["source"]["lock"]}
    for name in ("pyproject.toml", "uv.lock", "uv.toml"):
        with open(app / name, "a", encoding="utf-8") as file:
            file.write("# changed\n")
        seen.add(fetch(app, requirements="uv.lock")["source"]["lock"])
    assert len(seen) == 4
    (app / "app/main.py").write_text("changed", encoding="utf-8")
    assert fetch(app, requirements="uv.lock")["source"]["lock"] in seen


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


def test_a_member_of_a_workspace(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    root = tmp_path / "mono"
    lock = LOCK.replace('{ editable = "." }', '{ editable = "services/shop" }')
    folder = root / "libraries/services/shop"
    folder.mkdir(parents=True)
    (root / "libraries/uv.lock").write_text(lock, encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    source = fetch(root, requirements="", directory="libraries/services/shop")["source"]
    assert (source["kind"], source["requirements"]) == ("uv.lock", "../../uv.lock")
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


def test_a_lock_becomes_requirements_where_packages_come_from_elsewhere(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    text = 'lock-version = "1.0"\n[[packages]]\nname = "fastapi"\nversion = "1.0"\nmarker = "python_version > \'3\'"\n'
    text += '[[packages.wheels]]\nurl = "https://host/x.whl"\nhashes = {sha256 = "12"}\n'
    (app / "pylock.toml").write_text(text, encoding="utf-8")
    assert fetch(app, requirements="pylock.toml")["source"]["pins"] == []
    pinned = fetch(app, requirements="pylock.toml", elsewhere=True)["source"]["pins"]
    assert pinned == ["fastapi==1.0 ; python_version > '3' --hash=sha256:12"]
    (app / "pylock.toml").write_text('[[packages]]\nname = "core"\ndirectory = {path = "core"}\n', encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"core in pylock\.toml comes from no package index"):
        fetch(app, requirements="pylock.toml", elsewhere=True)


def test_a_wheelhouse_is_packed_apart(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    house = tmp_path / "wheels"
    house.mkdir()
    (house / "README").touch()
    with pytest.raises(AnsibleActionFail, match=r"app_wheelhouse is .*wheels: there are no wheels"):
        fetch(app, wheelhouse=str(house))
    (house / "a-1-py3-none-any.whl").write_text("a", encoding="utf-8")
    first = fetch(app, wheelhouse=str(house))["source"]
    assert names(first["wheels"]["archive"]) == ["a-1-py3-none-any.whl"]
    assert first["digest"] == fetch(app)["source"]["digest"]
    (house / "README").write_text("changed", encoding="utf-8")
    assert fetch(app, wheelhouse=str(house))["source"] == first
    (house / "a-1-py3-none-any.whl").write_text("b", encoding="utf-8")
    assert fetch(app, wheelhouse=str(house))["source"]["wheels"]["digest"] != first["wheels"]["digest"]


# Hooks


def test_hooks_run_around_a_directory(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    source = fetch(app, hooks={"before_fetch": "pwd >before", "after_fetch": "cat before >after; pwd >>after"})["source"]
    assert text_in(source["archive"], "after").splitlines() == [str(app)] * 2
    assert (app / "after").exists()


@pytest.mark.parametrize("kind", ["git", "archive", "version"])
def test_hooks_run_around_a_copy(
    kind: str, repository: Repository, tmp_path: Path, fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    repository.commit(requirements__txt="fastapi\n")
    sources = {"git": repository.path, "archive": archive_of(tmp_path / "x.tar", below("shop"))}
    sources["version"] = repository.path.rename(tmp_path / "tree") if kind == "version" else tmp_path
    before = {"version": str(tmp_path / "tree")}.get(kind, str(tmp_path / "scratch"))
    hooks = {"before_fetch": f"pwd >{tmp_path}/log", "after_fetch": "test -e requirements.txt && pwd >new"}
    source = fetch(sources[kind], hooks=hooks, version="main" if kind == "version" else "")["source"]
    assert text_in(source["archive"], "new").startswith(str(tmp_path / "scratch"))
    assert (tmp_path / "log").read_text(encoding="utf-8").startswith(before)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("name", ["before_fetch", "after_fetch"])
def test_a_hook_that_fails_is_named(app: Path, name: str, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail) as error:
        fetch(app, hooks={name: "echo no npm here >&2; exit 3"})
    assert f"he hook {name} (app_hooks) failed with exit code 3: echo no npm" in str(error.value)
    assert "\nno npm here" in str(error.value)
    begin = time.monotonic()
    with pytest.raises(AnsibleActionFail, match=rf"hook {name} \(app_hooks\) took longer than 0.2 s \(app_hook_timeout\)"):
        fetch(app, hooks={name: "sleep 60 & wait"}, hook_timeout=0.2)
    assert time.monotonic() - begin < 5
    assert list(cache_directory().glob("*.gz")) == []


def test_hooks_of_two_hosts_take_turns(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    hooks = {"before_fetch": "mkdir turn && sleep 0.1 && rmdir turn"}
    threads = [threading.Thread(target=lambda: results.append(fetch(app, hooks=hooks))) for _ in range(3)]
    results: list[dict[str, Any]] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3


@pytest.mark.parametrize(
    ("image", "version", "pulled", "revision"),
    [
        ("ghcr.io/x/shop", "", "ghcr.io/x/shop", "latest"),
        ("ghcr.io/x/shop:1.4", "", "ghcr.io/x/shop:1.4", "1.4"),
        ("127.0.0.1:5000/shop:1.4", "2.0", "127.0.0.1:5000/shop:2.0", "2.0"),
        ("127.0.0.1:5000/shop", "", "127.0.0.1:5000/shop", "latest"),
        ("shop", "v1", "shop:v1", "v1"),
        ("ghcr.io/x/shop@sha256:" + "a" * 64, "v1", "ghcr.io/x/shop@sha256:" + "a" * 64, "sha256:" + "a" * 12),
    ],
)
def test_an_image_is_its_own_source(
    image: str, version: str, pulled: str, revision: str, fetch: Callable[..., dict[str, Any]]
) -> None:
    source = fetch("/nowhere", image=image, version=version)["source"]
    assert (source["image"], source["revision"], source["kind"]) == (pulled, revision, "image")


def test_a_recipe_is_found_where_one_is_wanted(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    both = ["Dockerfile", "Containerfile"]
    assert fetch(app, dockerfiles=both)["source"]["kind"] == "requirements"
    (app / "Containerfile").write_text("FROM x\n", encoding="utf-8")
    assert fetch(app, dockerfiles=[])["source"]["kind"] == "requirements"
    source = fetch(app, dockerfiles=both, installer="pip", requirements="")["source"]
    assert (source["kind"], source["requirements"]) == ("dockerfile", "Containerfile")
    with pytest.raises(AnsibleActionFail, match=r"The source has no Dockerfile\.web"):
        fetch(app, dockerfiles=["Dockerfile.web"])


# What is asked of the interpreter


@pytest.fixture
def fetch_on(fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the action for a host whose interpreter says something of itself."""

    def run(said: str, source: Any, **arguments: Any) -> dict[str, Any]:
        answer = {"rc": 0 if said.startswith("Python") else 127, "stdout": f"{said}\n"}
        monkeypatch.setattr(app_fetch.FetchAction, "_low_level_execute_command", lambda *words, **options: answer, raising=False)
        return fetch(source, **{"interpreter": "/usr/bin/python3", "requirements": "", **arguments})

    return run


PROJECT = '[project]\nname = "shop"\nrequires-python = ">=3.13"\ndependencies = []\n'
LOCKED = 'version = 1\nrequires-python = ">=3.13"\n[[package]]\nname = "shop"\nversion = "1"\nsource = { virtual = "." }\n'


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pyproject.toml": PROJECT}, r"pyproject\.toml \(requires-python\) says >=3\.13"),
        ({"pyproject.toml": PROJECT, "requirements.txt": "fastapi"}, r"pyproject\.toml \(requires-python\)"),
        ({"requirements.txt": "fastapi", ".python-version": "3.13.1\n"}, r"\.python-version says 3\.13\.1.*app_exclude"),
        ({"pyproject.toml": '[project]\nname = "shop"\ndependencies = []\n', "uv.lock": LOCKED}, r"uv\.lock \(requires-python\)"),
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


def test_what_was_fetched_in_this_run_is_not_fetched_again(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    first = fetch(app)
    (app / "app/main.py").write_text("app = 1\n", encoding="utf-8")
    assert fetch(app, known=first) == first
    assert fetch(app, known={}) != first


# What its files may say


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
