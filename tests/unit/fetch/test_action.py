"""The action fetches the source of an app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from sources import names

from slipway.controller.fetch.cache import cache_directory


def test_a_directory_is_fetched(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    result = fetch(app)
    source = result["source"]
    assert result["changed"] is False
    assert Path(source["archive"]).parent == cache_directory()
    assert names(source["archive"]) == ["requirements.txt", "run", "app/main.py", "app/static/style.css"]
    assert (source["origin"], source["directory"], source["requirements"]) == ("directory", ".", "requirements.txt")
    assert source["digest"].startswith(source["revision"])
    assert fetch(app) == result


def test_a_folder_of_the_source(app: Path, tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "mono").mkdir()
    app.rename(tmp_path / "mono" / "backend")
    source = fetch(tmp_path / "mono", directory="backend")["source"]
    assert source["directory"] == "backend"
    assert "backend/app/main.py" in names(source["archive"])


def test_a_directory_that_is_not_there_is_named(tmp_path: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleActionFail, match=r"app_source is .*nowhere.*no such directory"):
        fetch(tmp_path / "nowhere")


def test_what_was_fetched_in_this_run_is_not_fetched_again(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    first = fetch(app)
    (app / "app/main.py").write_text("app = 1\n", encoding="utf-8")
    assert fetch(app, known=first) == first
    assert fetch(app, known={}) != first
