"""Hooks run around fetching."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import Repository, archive_of, below, text_in

from slipway.controller.fetch.cache import cache_directory


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
