"""Sources of an app, and the action that fetches them."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sources import EXCLUDE, Files, Repository

from slipway.controller.fetch.action import FetchAction


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
        action = FetchAction(task, connection, None, None, None, None)
        result: dict[str, Any] = action.run(task_vars={})
        return result

    return run


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


@pytest.fixture
def fetch_on(fetch: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the action for a host whose interpreter says something of itself."""

    def run(said: str, source: Any, **arguments: Any) -> dict[str, Any]:
        answer = {"rc": 0 if said.startswith("Python") else 127, "stdout": f"{said}\n"}
        monkeypatch.setattr(FetchAction, "_low_level_execute_command", lambda *words, **options: answer, raising=False)
        return fetch(source, **{"interpreter": "/usr/bin/python3", "requirements": "", **arguments})

    return run
