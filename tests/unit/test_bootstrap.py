"""script/bootstrap on machines whose Python is new enough, too old, or replaced by one that uv fetches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["bash", "cat", "chmod", "cp", "dirname", "env", "grep", "ln", "mkdir", "mktemp", "rm", "sed", "sha256sum", "touch"]

# A Python that says it is another, and whose virtual environments have a pip and a uv that note what they are asked.
PYTHON = """#!/usr/bin/env bash
case $1 in
  -c) exec {real} -c 'import sys; sys.version_info = (3, {minor}, 1); exec(sys.argv[1])' "$2" ;;
  --version) echo "Python 3.{minor}.1" ;;
  -m) mkdir -p "$3/bin"; cp "{here}/pip" "{here}/uv" "$3/bin/"; cp "$0" "$3/bin/python" ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >> {log}
case "$1 $2" in
  "python install") {fetch}; mkdir -p "$UV_PYTHON_INSTALL_DIR"; cp {newer} "$UV_PYTHON_INSTALL_DIR/python3.13" ;;
  "python find") echo "$UV_PYTHON_INSTALL_DIR/python3.13" ;;
esac
"""


@pytest.fixture
def bootstrap(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], str]]:
    """Run it on a machine that has Pythons of these minor versions; return the run, and what pip and uv were asked."""
    here, project, log = tmp_path / "bin", tmp_path / "project", tmp_path / "log"
    here.mkdir()
    (project / "script").mkdir(parents=True)
    shutil.copy(ROOT / "script" / "bootstrap", project / "script")
    shutil.copy(ROOT / "requirements.txt", project)
    shutil.copy(ROOT / "pyproject.toml", project)
    for tool in TOOLS:
        (here / tool).symlink_to(str(shutil.which(tool)))

    def program(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def run(*minors: int, reachable: bool = True) -> tuple[subprocess.CompletedProcess[str], str]:
        log.write_text("", encoding="utf-8")
        for old in here.glob("python3*"):
            old.unlink()
        for minor in (*minors, 13):
            text = PYTHON.format(real=sys.executable, minor=minor, here=here)
            program(tmp_path / "newer" if minor == 13 and 13 not in minors else here / f"python3.{minor}", text)
        shutil.copy(here / f"python3.{minors[0]}", here / "python3")
        program(here / "uv", UV.format(log=log, newer=tmp_path / "newer", fetch=":" if reachable else "exit 1"))
        program(here / "pip", f'#!/usr/bin/env bash\necho "pip $*" >> {log}\n')
        environment = {"PATH": str(here), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        command = [project / "script" / "bootstrap"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done, log.read_text(encoding="utf-8")

    return run


def test_the_newest_python_of_the_machine_is_taken(
    bootstrap: Callable[..., tuple[subprocess.CompletedProcess[str], str]],
) -> None:
    done, asked = bootstrap(11, 12)
    assert "Making .venv with Python 3.12.1" in done.stderr
    assert "python install" not in asked and "2.19" not in done.stderr
    again, asked = bootstrap(11, 12)
    assert (again.stderr, asked) == ("", ""), "all is there"


@pytest.mark.parametrize("minor", [9, 11])
def test_a_python_is_fetched_where_the_machine_has_none_that_will_do(
    bootstrap: Callable[..., tuple[subprocess.CompletedProcess[str], str]], minor: int
) -> None:
    done, asked = bootstrap(minor)
    assert "Making .venv with Python 3.13.1" in done.stderr
    assert "2.19" not in done.stderr
    lines = asked.splitlines()
    assert "--require-hashes" in lines[0], "uv itself is what the lock file says"
    assert lines[1] == "uv python install --no-bin 3.13"


def test_what_cannot_be_fetched_is_done_without_and_named(
    bootstrap: Callable[..., tuple[subprocess.CompletedProcess[str], str]],
) -> None:
    done, _ = bootstrap(11, reachable=False)
    assert "Making .venv with Python 3.11.1" in done.stderr
    words = " ".join(done.stderr.split())
    assert "ansible-core 2.19, which is past its end (2026-11-30)" in words
    assert "remove .venv and run this again" in words
    again, asked = bootstrap(11, reachable=False)
    assert "past its end" in again.stderr and asked == "", "it is said again, and nothing is fetched each time"
    newer, _ = bootstrap(11, 14)
    assert "Making .venv with Python 3.14.1" in newer.stderr and "past its end" not in newer.stderr
