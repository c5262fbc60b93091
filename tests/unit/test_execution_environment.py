"""The controller as an image: what its definition has ansible-builder copy and run does what it is for."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = yaml.safe_load((ROOT / "execution-environment.yml").read_text(encoding="utf-8"))

# Debian's packages of the programs that the controller starts. Ansible's own are among what is locked.
PACKAGES = {"git": "git", "ssh": "openssh-client"}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What ansible-builder lays out for the build."""
    for file in DEFINITION["additional_build_files"]:
        source, target = ROOT / file["src"], tmp_path / "_build" / file["dest"] / file["src"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return tmp_path


def steps(context: Path) -> list[list[str]]:
    """Return the commands of the build, as they are run here: on what is copied in the context, and into no system."""
    copied: dict[str, str] = {}
    commands = []
    for step in DEFINITION["additional_build_steps"]["append_base"]:
        word, *words = shlex.split(step)
        if word == "COPY":
            assert (context / words[0]).exists(), step
            copied[words[1]] = str(context / words[0])
        else:
            commands.append([copied.get(each, each) for each in words])
    return commands


def test_all_that_is_installed_is_locked_with_hashes(context: Path) -> None:
    (command,) = [command for command in steps(context) if "--requirement" in command]
    assert "--require-hashes" in command
    text = Path(command[command.index("--requirement") + 1]).read_text(encoding="utf-8")
    assert text == (ROOT / "requirements.txt").read_text(encoding="utf-8"), "script/bootstrap heeds another one"
    entries = [entry for entry in text.replace("\\\n", "").splitlines() if entry[:1] not in ("", "#", " ")]
    assert len(entries) > 10
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_the_project_is_installed_from_what_is_copied_without_a_package_index(context: Path) -> None:
    (command,) = [command for command in steps(context) if command[0] == "uv"]
    target = context / "installed"
    words = [word for word in command[1:] if word not in ("--system", "--break-system-packages")]
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, *words, "--python", sys.executable, "--target", str(target)], check=True, capture_output=True)
    code = "import slipway.controller.program as program; print(program.__file__); program.program()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))


def started() -> set[str]:
    """Return the programs that stand first in the commands of the controller's code."""
    found = set()
    for path in (ROOT / "src" / "slipway" / "controller").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen", "shlex.join"):
                words = node.args[0].elts if isinstance(node.args[0], ast.List) else []
                found |= {words[0].value for _ in words[:1] if isinstance(words[0], ast.Constant)}
    return {str(name) for name in found}


def test_it_has_the_programs_that_the_controller_starts() -> None:
    needed = {name for name in started() if not name.startswith("ansible")}
    assert needed == PACKAGES.keys()
    assert set(PACKAGES.values()) <= set(DEFINITION["dependencies"]["python_interpreter"]["package_system"].split())
