"""The server beside an app's own packages: what is asked for, where its hashes come from, and what a conflict is called."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rendering import Host

from slipway.host.build import pins as app_pins
from slipway.host.build.pins import build_files, conflict, lacking, options

ROOT = Path(__file__).resolve().parents[2]
SERVER = ["gunicorn>=23", "uvicorn-worker>=0.3", "uvicorn[standard]"]
LOCK = (
    "# made by\nanyio==4 \\\n    --hash=sha256:00\nuvicorn==0.54.0 ; python_version > '3' \\\n    --hash=sha256:01\n"
    "uvicorn-worker==0.4.0 --hash=sha256:02\n"
)


def environment(root: Path, *packages: str) -> Path:
    """Make what an environment with some packages looks like."""
    for package in packages:
        (root / "venv/lib/python3.13/site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return root / "venv"


def test_the_server_goes_by_the_apps_pins(tmp_path: Path) -> None:
    venv = environment(tmp_path, "uvicorn-0.32.0", "Some_Thing.more-2.0+cpu")
    assert options(tmp_path, venv, SERVER, None) == ["--constraint", str(tmp_path / "pins.txt"), *SERVER]
    assert sorted((tmp_path / "pins.txt").read_text(encoding="utf-8").split()) == ["some-thing-more==2.0+cpu", "uvicorn==0.32.0"]


@pytest.mark.parametrize("lock", [None, LOCK, ""])
def test_an_app_that_brings_the_server_is_given_nothing(tmp_path: Path, lock: str | None) -> None:
    venv = environment(tmp_path, "uvicorn-0.40.0", "gunicorn-23.0.0", "uvicorn_worker-0.4.0")
    asked = options(tmp_path, venv, SERVER, lock)
    assert asked[:2] == ["--no-index", "--no-deps"]
    assert asked[-3:] == ["gunicorn>=23", "uvicorn-worker>=0.3", "uvicorn"]


def test_beside_hashes_only_what_is_lacking_is_installed_with_its_own(tmp_path: Path) -> None:
    venv = environment(tmp_path, "uvicorn-0.40.0")
    assert options(tmp_path, venv, SERVER, LOCK) == ["--no-deps", "--require-hashes", "-r", str(tmp_path / "server.txt")]
    text = (tmp_path / "server.txt").read_text(encoding="utf-8")
    assert text == "anyio==4 \\\n    --hash=sha256:00\nuvicorn-worker==0.4.0 --hash=sha256:02\n"
    with pytest.raises(ValueError, match=r"add gunicorn>=23, uvicorn-worker>=0\.3, uvicorn\[standard\] to the requirements"):
        options(tmp_path, venv, SERVER, "")


@pytest.mark.parametrize(
    ("said", "lock", "reason"),
    [
        (
            "The package `uvicorn-worker` requires `uvicorn>=0.36.0`, but `0.32.0` is installed",
            LOCK,
            "uvicorn-worker needs uvicorn>=0.36.0, and the app has 0.32.0. Have the app's own lock bring the server",
        ),
        (
            "uvicorn-worker 0.4.0 has requirement uvicorn<1,>=0.36.0, but you have uvicorn 0.32.0.",
            LOCK,
            "uvicorn-worker needs uvicorn<1,>=0.36.0, and the app has 0.32.0. Have the app's own lock bring the server",
        ),
        (
            "The package `uvicorn` requires `h11>=0.8`, but it's not installed",
            LOCK,
            "uvicorn needs h11>=0.8, and the app has none",
        ),
        ("The package `other` requires `h11>=0.8`, but it's not installed", LOCK, ""),
        (
            "Because you require gunicorn>=23 and gunicorn==22.0.0, we can conclude",
            None,
            f"it needs {', '.join(SERVER)}, and the app's requirements pin gunicorn at 22.0.0. Change",
        ),
        ("    The user requested (constraint) gunicorn==22.0.0", None, "pin gunicorn at 22.0.0. Change that pin"),
        ("error sending request for url (https://pypi.org/simple/x/)", None, ""),
        ("All installed packages are compatible", LOCK, ""),
    ],
)
def test_a_conflict_is_named_with_the_remedy(tmp_path: Path, said: str, lock: str | None, reason: str) -> None:
    told = conflict(said, environment(tmp_path, "gunicorn-22.0.0"), SERVER, lock)
    assert reason in told
    assert bool(told) == bool(reason)
    assert "\n" not in told


@pytest.mark.parametrize("server", Host().variables["__app_servers"])
def test_the_locked_servers_are_those_that_are_asked_for(server: str) -> None:
    ways = Host().variables["__app_servers"]
    text = (ROOT / "roles/app/files/servers" / ways[server]["lock"]).read_text(encoding="utf-8")
    made = " ".join(f"'{requirement}'" for requirement in ways[server]["requirements"])
    assert text.startswith(f"# Made by: printf '%s\\n' {made} | uv pip compile --universal --python-version 3.11 "), (
        "lock it anew"
    )
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    for requirement in map(Requirement, ways[server]["requirements"]):
        assert requirement.specifier.contains(locked[app_pins.plain(requirement.name)])
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=\S)", lacking(text, ()).strip()))


def test_an_image_asks_the_same(tmp_path: Path) -> None:
    venv = environment(tmp_path, "uvicorn-0.32.0")
    lock = tmp_path / "lock.txt"
    lock.write_text(LOCK, encoding="utf-8")
    command = [sys.executable, str(app_pins.__file__), str(venv), *SERVER]

    def ask(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], input=said, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ask().stdout.strip() == "--constraint pins.txt 'gunicorn>=23' 'uvicorn-worker>=0.3' 'uvicorn[standard]'"
    assert ask("--lock", "lock.txt").stdout.strip() == "--no-deps --require-hashes -r server.txt"
    said = "The package `uvicorn-worker` requires `uvicorn>=0.36`, but `0.32.0` is installed"
    checked = ask("--lock", "lock.txt", "--check", said=said)
    assert (checked.returncode, checked.stderr[:53]) == (1, "The server conflicts with the app's own pins: uvicorn")
    assert ask("--check", said="All installed packages are compatible").returncode == 0
    lock.write_text("", encoding="utf-8")
    assert "lock again" in ask("--lock", "lock.txt").stderr


def test_files_lie_beside_a_source_while_its_image_is_built(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!main.py", encoding="utf-8")
    with build_files(tmp_path, {"uv.txt": "uv==1"}):
        assert (tmp_path / ".slipway/uv.txt").read_text(encoding="utf-8") == "uv==1"
        assert (tmp_path / ".dockerignore").read_text(encoding="utf-8").split() == ["*", "!main.py", "!.slipway", "!.slipway/**"]
    assert [path.name for path in tmp_path.iterdir()] == [".dockerignore"]
    assert (tmp_path / ".dockerignore").read_text(encoding="utf-8") == "*\n!main.py"
