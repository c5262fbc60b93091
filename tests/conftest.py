"""Import paths that Ansible would find by itself, and clean surroundings for each test."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from slipway.controller.program import program as make_program
from slipway.controller.secrets import split
from slipway.host import steps

ROOT = Path(__file__).resolve().parents[1]

# Modules before action plugins: where both have a name, it means the module.
PLUGINS = ("plugins/modules", "plugins/action", "plugins/filter")
for pattern in (*PLUGINS, "roles/*/files", "script/lib", "tests/unit"):
    sys.path.extend(str(path) for path in sorted(ROOT.glob(pattern)))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep git's, Ansible's and the operator's own settings out, and the umask as it was."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "ANSIBLE_", "UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    umask = os.umask(0o022)
    yield
    os.umask(umask)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short name, since a socket's path may have 107 characters."""
    directory = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def fed() -> Iterator[None]:
    """Input for this process, which nothing that it starts may take."""
    reader, writer = os.pipe()
    before = os.dup(0)
    os.dup2(reader, 0)
    os.write(writer, b"yes\n")
    os.close(writer)
    yield
    os.dup2(before, 0)
    os.close(before)
    os.close(reader)


@pytest.fixture(scope="session")
def lacking() -> Callable[[str], NoReturn]:
    """Skip a test for a reason, where it is a person who runs it: where CI is set, all that the tests need has to be there."""

    def skip(reason: str) -> NoReturn:
        if os.environ.get("CI"):
            pytest.fail(f"CI is set, and {reason}")
        pytest.skip(reason)

    return skip


@pytest.fixture
def user() -> str:
    """A user with a group of its own name: another than this one, where this one may become another."""
    return "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a module's main() as Ansible would, and return its result."""
    # Here, so that tests of what runs on hosts need no Ansible, which has no release for Python 3.9.
    from ansible.module_utils.testing import patch_module_args

    def run(module: Any, check: bool = False, **arguments: Any) -> dict[str, Any]:
        capsys.readouterr()
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def run_step() -> Callable[..., dict[str, Any]]:
    """Take a step as the program on a host does, and return its result."""

    def run(name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        return steps.run_step(name, arguments, arguments.pop("run", {}), check)

    return run


@pytest.fixture
def send_step(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Take a step as a task does: what is secret goes its own way to the module, which sends it on to the program."""
    from plugins.modules import slipway

    monkeypatch.setattr(slipway, "HOME", str(tmp_path / "opt"))
    monkeypatch.setattr(slipway, "COMMAND", str(tmp_path / "slipway"))
    content, version = make_program()
    (tmp_path / "sent.pyz").write_bytes(content)

    def run(name: str, /, check: bool = False, **arguments: Any) -> dict[str, Any]:
        plain, secret = split(arguments)
        told = {"step": name, "arguments": plain, "secrets": secret, "program": version, "file": str(tmp_path / "sent.pyz")}
        return run_module(slipway, check=check, **told)

    return run


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program on PATH, before all others."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def put(name: str, text: str) -> Path:
        path = directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    return put
