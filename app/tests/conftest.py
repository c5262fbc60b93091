import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from app.settings import Settings

Load = Callable[..., FastAPI]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings of the person who runs the tests out of them."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import the application anew with the given environment variables."""

    def load(**environment: str) -> FastAPI:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for name in ("app.main", "app.metrics"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        for collector in list(REGISTRY._collector_to_names):  # each import counts anew
            REGISTRY.unregister(collector)
        app = importlib.import_module("app.main").app
        assert isinstance(app, FastAPI)
        return app

    return load


@pytest.fixture
def client(load: Load) -> Iterator[TestClient]:
    with TestClient(load()) as client:
        yield client


@pytest.fixture
def served(load: Load) -> Iterator[httpx2.Client]:
    """Serve the app with Uvicorn, which trusts its caller as it would trust Nginx, and yield a client of it."""
    config = uvicorn.Config(load(), log_level="warning", forwarded_allow_ips="*", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            yield client
        server.should_exit = True
        thread.join()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
