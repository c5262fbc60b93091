"""uv on a host: installed by its hash, once, and without showing what an index or a proxy is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rendering import Host

INDEX = "https://ann:open-sesame@pypi.example.com/simple"


@pytest.fixture
def install(tmp_path: Path, send_step: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Install uv with a Python that writes down what it is asked, and the requirements that its pip is given."""
    python = tmp_path / "python"
    text = f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncase "$2" in venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/pip"; exit ;; esac\n'
    text += f'for file; do :; done; cat "$file" >{tmp_path}/requirements; echo "$PIP_INDEX_URL 0 $UV_INDEX_PRIVATE_PASSWORD"\n'
    python.write_text(text + f"test ! -e {tmp_path}/refused && touch {tmp_path}/uv/bin/uv\n", encoding="utf-8")
    python.chmod(0o755)

    def run(**changes: Any) -> dict[str, Any]:
        usual = {"interpreter": str(python), "program": str(tmp_path / "uv/bin/uv"), "version": "0.13.9", "hashes": ["sha256:00"]}
        environment = {"PIP_INDEX_URL": INDEX, "X": "0", "UV_INDEX_PRIVATE_PASSWORD": "hunter2"}
        return send_step("uv", **usual, environment=environment, **changes)

    return run


def test_uv_is_installed_once_and_by_its_hash(tmp_path: Path, install: Callable[..., dict[str, Any]]) -> None:
    assert install(check=True)["changed"] is True
    assert not (tmp_path / "asked").exists()
    assert install()["changed"] is True
    assert (tmp_path / "requirements").read_text(encoding="utf-8") == "uv==0.13.9 --hash=sha256:00"
    made, installed = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert made == f"-m venv {tmp_path}/uv"
    assert "--require-hashes --only-binary=:all:" in installed
    assert [install(check=check)["changed"] for check in (True, False)] == [False, False]


def test_a_password_is_shown_nowhere(tmp_path: Path, install: Callable[..., dict[str, Any]]) -> None:
    (tmp_path / "refused").touch()
    result = install()
    assert "python_index_url" in result["msg"]
    assert "//***@pypi.example.com/simple 0" in result["msg"]
    assert "hunter2" not in str(result)
    assert "sesame" not in f"{result}{(tmp_path / 'asked').read_text(encoding='utf-8')}"


def test_the_hashes_are_those_of_the_controllers_lock() -> None:
    host = Host()
    assert len(host.work_out(host.variables["python_uv_hashes"], "python")) > 10
    other = Host({"python_uv_version": "0.13"})
    assert other.work_out(other.variables["python_uv_hashes"], "python") == []
