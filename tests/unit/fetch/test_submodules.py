"""The submodules of a repository are fetched with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import EXCLUDE, Repository, names

from slipway.controller.fetch import checkout
from slipway.controller.fetch.error import FetchError
from slipway.controller.fetch.submodules import REMOTE, relative_to


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
    assert relative_to(parent, place) == address


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are checked out, which none is."""
    addresses: list[str] = []
    monkeypatch.setattr(checkout, "checkout", lambda address, *arguments: addresses.append(address))
    return addresses


@pytest.mark.parametrize("place", ["/srv/secret", "file:///srv/secret", "ext::sh -c id"])
@pytest.mark.parametrize("parent", ["https://host/shop.git", "git@host:shop.git"])
def test_a_repository_from_elsewhere_names_nothing_on_this_machine(
    parent: str, place: str, tmp_path: Path, asked: list[str]
) -> None:
    with pytest.raises(FetchError, match="a place on this machine, which a repository from elsewhere cannot name"):
        checkout._submodule("lib", "0" * 40, place, parent, 20, tmp_path, ("", ""), [])
    assert asked == []


@pytest.mark.parametrize("parent", ["https://host/shop.git", "git@host:shop.git"])
def test_no_number_of_steps_up_leads_from_a_repository_elsewhere_to_this_machine(
    parent: str, tmp_path: Path, asked: list[str]
) -> None:
    checkout._submodule("lib", "0" * 40, "../../../../srv/secret", parent, 20, tmp_path, ("", ""), [])
    (address,) = asked
    assert REMOTE.match(address), address


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
    monkeypatch.setattr(checkout, "checkout", lambda *arguments: asked.append(arguments))
    checkout._submodule("lib", "0" * 40, place, parent, 20, tmp_path, ("key", "t"), [])
    ((found, _, _, target, key, given, _),) = asked
    assert (found, target, key, given) == (address, tmp_path / "lib", "key", token)
