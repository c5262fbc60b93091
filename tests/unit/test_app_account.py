"""Accounts and directories that are somebody else's: an app never takes them over."""

from __future__ import annotations

import functools
import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rendering import Host

from slipway.host import account as app_account

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path, run_step: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Check:
    """The module, on a host of one's own that has no account but root's."""
    for name in ("run", "log", "sysusers", "tmpfiles"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(app_account, "ACCOUNTS", f"{tmp_path}/sysusers/slipway-*.conf")
    monkeypatch.setattr(app_account, "DIRECTORIES", f"{tmp_path}/tmpfiles/slipway-{{}}.conf")
    monkeypatch.setattr(app_account, "PLACES", (str(tmp_path / "run"), str(tmp_path / "log")))
    return functools.partial(run_step, "preflight", check=True)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the host an account."""

    def add(name: str, gecos: str, home: str, shell: str = "/usr/sbin/nologin", uid: int = 990) -> None:
        entry = pwd.struct_passwd((name, "x", uid, uid, gecos, home, shell))
        known = {name: entry}
        monkeypatch.setattr(pwd, "getpwnam", known.__getitem__)
        monkeypatch.setattr(grp, "getgrgid", {27: grp.struct_group(("sudo", "x", 27, [name]))}.__getitem__)
        monkeypatch.setattr(os, "getgrouplist", lambda user, group: [group, 27])

    return add


def declare(tmp_path: Path, app: str, user: str) -> None:
    """Have an account made for an app, as the role does."""
    text = Host({"app_name": app, "app_user": user}).render("app", "user.conf.j2")
    (tmp_path / "sysusers" / f"slipway-{app}.conf").write_text(text, encoding="utf-8")


def test_a_bare_host_has_nothing_to_take_over(check: Check) -> None:
    assert check(app="shop", user="no-such-user")["changed"] is False


@pytest.mark.parametrize("declared", [False, True], ids=["never seen", "taken over before"])
def test_an_account_of_somebody_else_is_refused(tmp_path: Path, check: Check, account: Any, declared: bool) -> None:
    account("deploy", "Ann,,,", "/home/deploy", shell="/bin/bash", uid=1000)
    if declared:
        declare(tmp_path, "shop", "deploy")
    result = check(app="shop", user="deploy")
    assert result["failed"]
    for words in (
        "app_user is deploy",
        "home /home/deploy, shell /bin/bash, groups sudo",
        "Nothing was changed",
        "run this again",
    ):
        assert words in result["msg"], words


def test_an_account_of_a_package_is_refused(check: Check, account: Any) -> None:
    account("prometheus", "Prometheus daemon", "/var/lib/prometheus")
    assert check(app="shop", user="prometheus")["failed"]


def test_an_account_that_was_made_for_the_app_is_its_own(tmp_path: Path, check: Check, account: Any) -> None:
    account("clerk", "Runs shop", "/opt/shop/shared")
    declare(tmp_path, "shop", "clerk")
    assert "failed" not in check(app="shop", user="clerk")
    # A second app may share it, and an app may move.
    declare(tmp_path, "other", "clerk")
    assert "failed" not in check(app="other", user="clerk")
    account("clerk", "Runs shop", "/srv/shop/shared")
    assert "failed" not in check(app="shop", user="clerk")


@pytest.mark.parametrize("place", ["run", "log"])
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, check: Check, place: str) -> None:
    (tmp_path / place / "credentials").mkdir()
    result = check(app="credentials", user="no-such-user")
    assert result["failed"]
    assert str(tmp_path / place / "credentials") in result["msg"]
    assert "Set app_name to another name" in result["msg"]


def test_a_directory_that_was_made_for_the_app_is_its_own(tmp_path: Path, check: Check, account: Any) -> None:
    for place in ("run", "log"):
        (tmp_path / place / "shop").mkdir()
    (tmp_path / "tmpfiles" / "slipway-shop.conf").touch()
    assert "failed" not in check(app="shop", user="no-such-user")
    # Where the first run was cut off, they are its user's.
    (tmp_path / "tmpfiles" / "slipway-shop.conf").unlink()
    account("shop", "Runs shop", "/opt/shop/shared", uid=os.getuid() or 990)
    declare(tmp_path, "shop", "shop")
    for place in ("run", "log"):
        os.chown(tmp_path / place / "shop", os.getuid() or 990, -1)
    assert "failed" not in check(app="shop", user="shop")


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("dpkg-query", "installed nginx\nconfig-files apache2\ninstalled curl\n"),
        ("rpm", "installed nginx\ninstalled curl\n"),
    ],
)
def test_the_packages_of_a_host_are_known_without_those_that_were_removed(
    check: Check, program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, printed: str
) -> None:
    path = program(name, f"#!/bin/sh\nprintf '{printed}'\n")
    monkeypatch.setenv("PATH", str(path.parent))
    assert check()["ansible_facts"]["slipway_packages"] == ["curl", "nginx"]


def test_a_host_whose_packages_are_not_known_is_asked_for_each_of_them(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert check()["ansible_facts"]["slipway_packages"] == []


def test_a_host_with_a_live_release_has_no_backup_restored_as_a_new_one_would(check: Check, tmp_path: Path) -> None:
    assert not check(recover=str(tmp_path / "shop")).get("failed")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "live.sock").symlink_to("/run/shop/7.sock")
    assert not check().get("failed")
    result = check(recover=str(tmp_path / "shop"))
    assert result["failed"]
    assert (
        "Release 7 of " in result["msg"] and "nothing was changed" in result["msg"] and "playbooks/restore.yml" in result["msg"]
    )


@pytest.mark.parametrize(("restore", "expected"), [("latest", "/opt/shop"), ("", "")])
def test_what_is_to_be_restored_is_known_before_anything_is_changed(restore: str, expected: str) -> None:
    backed_up = {"backup_repository": "/srv/backup", "backup_password": "a long password"}
    host = Host({"app_name": "shop", **backed_up, **({"restore": restore} if restore else {})})
    found = [one for one in host.arguments("preflight", "slipway") if one["step"] == "preflight"]
    assert [one["arguments"]["recover"] for one in found] == [expected]
