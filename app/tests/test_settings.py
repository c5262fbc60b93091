import logging
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.settings import Settings
from tests.conftest import Load

SECRET = "a-key-that-nobody-may-see"


def test_starts_without_any_setting(load: Load) -> None:
    assert load().title == "Slipway example"


def test_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_TITLE=from file\nRELEASE_ID=file\nSOMEBODY_ELSES=1\n")
    monkeypatch.setenv("RELEASE_ID", "environment")
    settings = Settings()
    assert (settings.app_title, settings.release_id) == ("from file", "environment")


@pytest.mark.parametrize(("written", "meant"), [("INFO", "info"), ("Debug", "debug"), ("error", "error")])
def test_log_level_in_any_case(monkeypatch: pytest.MonkeyPatch, written: str, meant: str) -> None:
    monkeypatch.setenv("LOG_LEVEL", written)
    assert Settings().log_level == meant


def test_log_level_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "error")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    code = "import logging, app.main; print(logging.getLogger().level)"
    level = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert int(level) == logging.ERROR


@pytest.mark.parametrize("name", ["LOG_LEVEL", "ENVIRONMENT", "DOCS_ENABLED"])
def test_errors_name_the_setting_and_hide_the_value(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(ValidationError, match=name.lower()) as caught:
        Settings()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", [None, "", "changeme", "fifteen-letters"])
def test_production_refuses_a_weak_key(load: Load, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    if key is not None:
        monkeypatch.setenv("SECRET_KEY", key)
    message = "with ENVIRONMENT=production, SECRET_KEY must have at least 16 characters"
    with pytest.raises(ValidationError, match=message) as caught:
        load()
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(("environment", "key"), [("production", "sixteen-letters!"), ("staging", "changeme")])
def test_keys_that_will_do(monkeypatch: pytest.MonkeyPatch, environment: str, key: str) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("SECRET_KEY", key)
    assert Settings().secret_key.get_secret_value() == key


def test_secret_stays_secret(load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with TestClient(load(SECRET_KEY=SECRET)) as client:
        paths = client.get("/openapi.json").json()["paths"]
        seen = [client.get(path, params={"count": 1}).text for path in [*paths, "/openapi.json", "/docs", "/redoc"]]
    settings = Settings()
    assert settings.secret_key.get_secret_value() == SECRET
    seen += [caplog.text, repr(settings), str(settings), settings.model_dump_json()]
    assert len(caplog.records) >= 2
    assert [text for text in seen if SECRET in text] == []
