"""The program of a host: one file, made alike everywhere, put on a host once, and told by JSON what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import slipway as module
from slipway.controller import program as programs
from slipway.controller.secrets import split
from slipway.host.errors import ReleaseError
from slipway.host.steps import STEPS, run_step
from slipway.host.values import arguments, merged

SOURCE = Path(programs.__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The program in a file, as it is sent."""
    path = tmp_path / "sent.pyz"
    path.write_bytes(programs.program()[0])
    return path


def test_the_same_source_is_the_same_file_wherever_it_is_made(tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    os.chmod(copy / "slipway" / "host" / "cli.py", 0o600)
    code = "from slipway.controller.program import program; print(program()[1])"
    environment = {"PYTHONPATH": str(copy), "PATH": os.environ["PATH"], "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == programs.program()[1]
    with open(copy / "slipway" / "host" / "cli.py", "a", encoding="utf-8") as changed:
        changed.write("\n")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() != programs.program()[1]


def test_it_runs_by_itself(file: Path) -> None:
    command = [sys.executable, "-IS", str(file), "step", "preflight"]
    done = subprocess.run(command, input='{"arguments": {}}', capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["changed"] is False
    done = subprocess.run(command, input='{"arguments": {"x": 1}}', capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["msg"] == "This step has no argument x; it has app, recover, user."


@pytest.mark.parametrize("step", STEPS)
def test_each_step_says_what_it_is_told(step: str) -> None:
    said = run_step(step, {"nonsense": 1}, {}, False)
    assert said["failed"] and said["msg"].startswith("This step has no argument nonsense; it has ")


SPEC: dict[str, Any] = {"name": str, "count": 0, "share": float, "on": False, "file": "", "words": list}
GIVEN = {"name": "a", "share": 1, "words": []}


def test_what_is_not_given_has_a_default_and_texts_stand_for_numbers() -> None:
    wanted = {"name": "a", "count": 7, "share": 1.0, "on": True, "file": "", "words": []}
    assert arguments(SPEC, {**GIVEN, "count": "7", "on": "yes"}) == wanted
    defaults: dict[str, Any] = {"x": {}}
    arguments(defaults, {})["x"]["y"] = 1
    assert defaults == {"x": {}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": None}, "This step needs name."),
        ({"count": "x"}, "count must be of the type int, and 'x' is not."),
        ({"on": "perhaps"}, "on must be of the type bool"),
        ({"words": "a"}, "words must be of the type list"),
        ({"other": 1, "more": 1}, "This step has no argument more, other; it has count, file, name, on, share, words."),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ReleaseError) as error:
        arguments(SPEC, {**GIVEN, **given})
    assert str(error.value).startswith(said)


def test_secrets_are_told_apart() -> None:
    environment = {"INDEX": "https://ann:open@sesame.test/", "API_KEY": "k", "LANG": "0"}
    plain, secret = split(
        {"name": "shop", "packed": "", "environment": environment, "configuration": {"settings": "s", "keep": 3}}
    )
    assert plain == {"name": "shop", "environment": {"LANG": "0"}, "configuration": {"keep": 3}}
    assert secret == {
        "environment": {"INDEX": environment["INDEX"], "API_KEY": "k"},
        "configuration": {"settings": "s"},
    }
    assert merged(plain, secret) == {
        "name": "shop",
        "environment": environment,
        "configuration": {"settings": "s", "keep": 3},
    }


@pytest.fixture
def call(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Run the module on a host whose directories these are."""
    monkeypatch.setattr(module, "HOME", str(tmp_path / "opt"))
    monkeypatch.setattr(module, "COMMAND", str(tmp_path / "bin" / "slipway"))

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module(module, check=check, **{"step": "preflight", "program": programs.program()[1], **options})

    return run


def test_the_program_is_asked_for_once(call: Callable[..., dict[str, Any]], tmp_path: Path, file: Path) -> None:
    assert call()["program_missing"]
    assert call(check=True, file=str(file)).get("program_missing") is None
    assert not (tmp_path / "bin").exists(), "a dry run put it there"
    assert call(file=str(file))["program"] == programs.program()[1]
    file.unlink()
    assert call().get("program_missing") is None
    done = subprocess.run([str(tmp_path / "bin" / "slipway"), "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: slipway ")


def test_another_version_is_brought_up_to_date_and_a_few_old_ones_stay(
    call: Callable[..., dict[str, Any]], tmp_path: Path, file: Path
) -> None:
    call(file=str(file))
    for number in range(4):
        other = tmp_path / "other.pyz"
        other.write_bytes(file.read_bytes() + bytes([number]))
        version = hashlib.sha256(other.read_bytes()).hexdigest()[:16]
        assert call(program=version)["program_missing"]
        call(program=version, file=str(other))
        assert call(program=version).get("program_missing") is None
    assert len(list((tmp_path / "opt").iterdir())) == 3
    assert call()["program_missing"], "it is not the one that the command leads to"


@pytest.mark.parametrize(
    ("damage", "said"), [(lambda whole: whole + b"x", "was damaged in transit"), (lambda whole: whole[:-1], "")]
)
def test_a_damaged_program_is_not_put_there(
    call: Callable[..., dict[str, Any]], tmp_path: Path, file: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    file.write_bytes(damage(file.read_bytes()))
    result = call(file=str(file))
    assert result["failed"]
    assert said in result["msg"]
    assert not (tmp_path / "bin").exists()
    assert not (tmp_path / "opt").exists()


def test_a_program_that_cannot_be_put_there_is_told(call: Callable[..., dict[str, Any]], tmp_path: Path, file: Path) -> None:
    (tmp_path / "opt").write_text("in the way", encoding="utf-8")
    assert call(file=str(file))["msg"].startswith("The program cannot be installed on this host: ")


def test_the_program_is_there_for_everybody_whatever_the_umask(
    call: Callable[..., dict[str, Any]], tmp_path: Path, file: Path
) -> None:
    os.umask(0o077)
    call(file=str(file))
    for path in (tmp_path / "bin" / "slipway", tmp_path / "opt", (tmp_path / "bin" / "slipway").resolve().parent):
        assert path.stat().st_mode & 0o777 == 0o755, path


def test_what_breaks_a_step_is_said(call: Callable[..., dict[str, Any]], file: Path) -> None:
    assert "invalid choice: 'dance'" in call(step="dance", file=str(file))["msg"]
    assert call(arguments={"x": 1}, file=str(file))["msg"] == "This step has no argument x; it has app, recover, user."
