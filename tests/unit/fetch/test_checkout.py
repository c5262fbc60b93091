"""A version of a git repository is checked out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import Repository, names, text_in

from slipway.controller.fetch.cache import cache_directory
from slipway.controller.fetch.checkout import checkout
from slipway.controller.fetch.error import FetchError


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
    with pytest.raises(FetchError, match=r"no branch, tag or commit main \(app_version"):
        checkout(str(repository.path), "main", 20, tmp_path / "5")


def test_a_known_commit_is_fetched_once(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit(main__py="one")
    checkout(str(repository.path), commit, 20, tmp_path / "1")
    repository.path.rename(tmp_path / "away")
    assert checkout(str(repository.path), commit, 20, tmp_path / "2") == commit
    with pytest.raises(FetchError, match="git fetch failed"):
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
    with pytest.raises(FetchError, match=f"has no branch, tag or commit {version}"):
        checkout(str(repository.path), version, 20, tmp_path / "1")


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


@pytest.mark.parametrize("address", ["file://{path}", "git+file://{path}", "{path}"])
def test_an_address_on_this_machine(tmp_path: Path, address: str, fetch: Callable[..., dict[str, Any]]) -> None:
    repository = Repository(tmp_path / "my shop.git")
    commit = repository.commit(requirements__txt="fastapi", main__py="one")
    assert fetch(address.format(path=repository.path))["source"]["revision"] == commit
    if "://" in address:
        assert fetch(address.format(path=str(repository.path).replace(" ", "%20")))["source"]["revision"] == commit


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
    with pytest.raises(AnsibleActionFail, match=r"mono has no branch, tag or commit v2 \(app_version"):
        fetch(app, version="v2")
    (app.parent / "later").mkdir()
    with pytest.raises(AnsibleActionFail, match=r"v1 \(app_version\) of .* has no folder later \(app_source\)"):
        fetch(app.parent / "later", version="v1")


def test_a_version_of_a_directory_outside_git_is_refused(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"app_version is v1, and .*app \(app_source\) lies in no git work tree"):
        fetch(app, version="v1")
