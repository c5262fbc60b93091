"""The source: fetched from where it is, packed by its content, and refused where a host could not use it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import app_fetch
import pytest
from ansible.errors import AnsibleActionFail
from app_fetch import cache_directory, checkout, files_below, git, is_git, lock_digest, pack

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
        action = app_fetch.ActionModule(task, connection, None, None, None, None)
        result: dict[str, Any] = action.run(task_vars={})
        return result

    return run


def names(archive: Any) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


@pytest.mark.parametrize(
    "source",
    [
        "https://github.com/a/b",
        "http://host/x",
        "git@github.com:a/b",
        "ssh://git@host:22/a/b",
        "git://host/x",
        "git+file:///srv/x",
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
