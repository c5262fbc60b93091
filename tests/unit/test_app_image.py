"""Images: what decides about them, how they are pulled, and how a container of one is started, found again and taken away."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pwd
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import released
from ansible.errors import AnsibleActionFail
from rendering import Host

from slipway.controller.image import ImageAction
from slipway.host.build import image as app_image
from slipway.host.build.engine import Engine, login
from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout
from slipway.runtime import launch

ROOT = Path(__file__).resolve().parents[2]
ME = pwd.getpwuid(os.geteuid()).pw_name

# An engine that writes down what it is asked, and answers from files beside it.
ENGINE = """#!/bin/sh
echo "$@" >>{directory}/asked
case "$1 $2" in
    "container inspect")
        test -s {directory}/state && cat {directory}/state;;
    "rm --force") : >{directory}/state;;
    "attach --no-stdin") test -e {directory}/refused || : >{directory}/state;;
    "ps --all") cat {directory}/containers;;
    "inspect --format") echo 4711;;
    "images --format") cat {directory}/images;;
    "image inspect") exit 1;;
    "build "*) sleep 0.3;;
    "save --output") echo image >"$3";;
    "pull "*) test ! -e {directory}/refused || {{ echo unauthorized; exit 125; }};;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Put an engine into the way that does nothing, and return what it is asked since the last time."""
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(ENGINE.format(directory=tmp_path), encoding="utf-8")
    program.chmod(0o755)
    for name in ("state", "containers", "images"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def lines() -> list[str]:
        file = tmp_path / "asked"
        found = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    return lines


def start(directory: Path, *words: str, inventory: dict[str, Any] | None = None, **environment: str) -> str:
    """Run the container.py of release 7."""
    host = Host({"app_name": "shop", "app_user": ME, "app_runtime": "container", **(inventory or {})})
    released.write(directory, released.told(host))
    journal = directory / "slipway" / "runtime" / "journal.py"
    journal.write_text(released.text("journal.py").replace("/run/systemd", str(directory)), encoding="utf-8")
    command = [sys.executable, str(directory / "container.py"), *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout


def test_a_container_is_started(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    start(tmp_path, SLIPWAY_INSTANCE="2")
    *questions, command = asked()
    assert {question.split()[-1] for question in questions} == {"shop-7-2"}
    words = command.split()
    assert words[0] == "run"
    assert words[-2:] == ["localhost/slipway-shop:b1", f"{tmp_path}/launch.py"]
    assert {"--rm", "--pull=never", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"} <= set(words)
    assert {"--name=shop-7-2", "--env=SLIPWAY_INSTANCE", "--network=host", f"--user={os.geteuid()}:{os.getegid()}"} <= set(words)
    assert f"--volume={tmp_path}:{tmp_path}:ro" in words
    assert not [word for word in words if word.startswith(("--memory", "--cpus"))]


def test_limits_and_options_are_the_operators(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    own = {"app_container_memory_mb": 512, "app_container_cpus": "1.5", "app_container_network": "backend"}
    start(tmp_path, inventory={**own, "app_container_options": ["--volume=/a b:/a"]})
    command = asked()[-1]
    for words in ("--memory=512m --memory-swap=512m", "--cpus=1.5", "--network=backend", "--volume=/a b:/a"):
        assert f" {words} " in command


def test_a_container_that_goes_on_is_found_again(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    (tmp_path / "state").write_text("running\n", encoding="ascii")
    start(tmp_path)
    assert [line for line in asked() if "inspect" not in line] == ["attach --no-stdin shop-7"]


def test_a_container_that_nobody_looks_after_is_replaced(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    (tmp_path / "state").write_text("running\n", encoding="ascii")
    (tmp_path / "refused").touch()
    start(tmp_path)
    told = [line for line in asked() if "inspect" not in line]
    assert told[:3] == ["attach --no-stdin shop-7", "kill shop-7", "rm --force shop-7"]
    assert told[3].startswith("run ")


def test_what_is_left_of_a_container_is_taken_away_first(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    (tmp_path / "state").write_text("exited\n", encoding="ascii")
    start(tmp_path)
    told = [line for line in asked() if "inspect" not in line]
    assert told[:2] == ["kill shop-7", "rm --force shop-7"]
    assert told[-1].startswith("run ")


def test_tasks_have_containers_of_their_own(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    start(tmp_path, "--shell", "exec true", SLIPWAY_HOOK="before_switch")
    (command,) = asked()
    assert "--label=slipway.serves=no" in command
    assert " --interactive " in command and "--tty" not in command
    assert "--name" not in command
    assert "--env=SLIPWAY_HOOK" in command
    assert command.endswith(f"localhost/slipway-shop:b1 {tmp_path}/launch.py --shell exec true")
    (tmp_path / "containers").write_text("c1\nc2\n", encoding="ascii")
    start(tmp_path, "--remove-tasks")
    told = asked()
    assert told[0].endswith("--filter=label=slipway.release=shop-7 --filter=label=slipway.serves=no")
    assert [line for line in told if line.startswith("rm ")] == ["rm --force c1", "rm --force c2"]
    start(tmp_path, "--remove")
    assert [line.rpartition("=")[2] for line in asked() if line.startswith("ps ")] == ["yes", "no"]
    assert start(tmp_path, "--pids").split() == ["4711", "4711"]


def test_the_container_of_a_job_goes_with_the_job_and_not_with_its_release(
    tmp_path: Path, asked: Callable[[], list[str]]
) -> None:
    start(tmp_path, "--job", "cleanup", "make clean", SLIPWAY_RUN="1")
    (command,) = asked()
    assert {"--label=slipway.serves=job", "--label=slipway.job=cleanup", "--env=SLIPWAY_RUN"} <= set(command.split())
    assert "--interactive" not in command
    assert command.endswith(f"localhost/slipway-shop:b1 {tmp_path}/launch.py --shell make clean")
    (tmp_path / "containers").write_text("c1\n", encoding="ascii")
    start(tmp_path, "--end-job", "cleanup")
    question, *told = asked()
    assert question.endswith("slipway.release=shop-7 --filter=label=slipway.serves=job --filter=label=slipway.job=cleanup")
    assert "rm --force c1" in told


@pytest.mark.parametrize(
    ("memory", "cpus", "workers"), [(0, 0, 5), (256, 0, 1), (1000, 0, 5), (0, 1, 3), (0, 0.5, 3), (400, "1.5", 2)]
)
def test_workers_heed_the_limits(memory: int, cpus: Any, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 4096 * 256, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("ONLY_IN_THE_IMAGE", "yes")
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    inventory = {"app_runtime": "container", "app_container_memory_mb": memory, "app_container_cpus": cpus}
    release = released.told(Host(inventory))
    environment = launch.environment(release, tmp_path)
    assert environment["WEB_CONCURRENCY"] == str(workers)
    assert environment["ONLY_IN_THE_IMAGE"] == "yes"
    assert environment["PATH"] == os.environ["PATH"]
    assert launch.command(release, tmp_path, [])[0] == sys.executable


def test_the_engines_client_logs_to_the_journal_what_serves_alone(
    tmp_path: Path, short: Path, asked: Callable[[], list[str]]
) -> None:
    logging = {"app_log_target": "journald"}
    with released.journal(tmp_path) as said:
        start(tmp_path, "--shell", "true", inventory=logging)
        start(tmp_path, "--pids", inventory=logging)
        start(tmp_path, inventory=logging)
    assert [line.split()[0] for line in asked() if "inspect" not in line] == ["run", "ps", "run"]
    assert [stream.split("\n")[0] for stream in said] == ["shop-7"]


SOURCE = {
    "kind": "requirements",
    "requirements": "requirements.txt",
    "packages": {},
    "resolve": False,
    "asks": "",
    "base": "localhost/python:1",
    "hashed": False,
}
LOCKED = {"kind": "pylock", "requirements": "pylock.slipway.toml", "hashed": True}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, ["        --requirements requirements.txt"]),
        ({"hashed": True}, ["--require-hashes --requirements requirements.txt", '"$@" --lock /slipway/server.txt']),
        (LOCKED, ["        --requirements pylock.slipway.toml\n", '"$@" --lock /slipway/server.txt']),
        ({"kind": "pyproject", "requirements": "pyproject.toml"}, ["--requirements pyproject.toml"]),
        ({"packages": {"shop": "libs/shop"}}, ["/srv/source/libs/shop", "--no-deps /tmp/wheels/*.whl"]),
        ({"packages": {"shop": "libs/shop"}, "resolve": True}, ["--no-build /tmp/wheels/*.whl"]),
        ({"packages": {"shop": "libs/a b;c"}}, ["'/srv/source/libs/a b;c' &&"]),
        ({"asks": ">=3.13,==3.14.*"}, ["uv venv --quiet --python '>=3.13,==3.14.*' /srv/.venv"]),
    ],
)
def test_our_own_recipe(source: dict[str, Any], words: list[str]) -> None:
    host = Host({"app_directory": "backend", "app_build_environment": {"UV_DEFAULT_INDEX": "x"}})
    host.variables["__app_fetched"] = {"source": {**SOURCE, **source}}
    text = host.render("app", "Dockerfile.j2")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM localhost/python:1 AS build", "FROM localhost/python:1"]
    assert "ARG UV_DEFAULT_INDEX" in lines
    assert lines[-1] == "WORKDIR /srv/source/backend"
    assert "'gunicorn>=23'" in text
    assert ("--lock /slipway/server.txt" in text) is source.get("hashed", False)
    assert "grep" not in text
    for word in words:
        assert word in text
    assert not [line for line in lines if line.endswith("\\") and not lines[lines.index(line) + 1].startswith("    ")]
    hadolint: list[str | Path] = [Path(sys.executable).with_name("hadolint"), "--no-color", "-"]
    judged = subprocess.run(hadolint, input=text, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


def arguments(**changes: Any) -> dict[str, Any]:
    source = {"digest": "d1", "directory": ".", "requirements": "Dockerfile", **changes.pop("source", {})}
    return {"source": source, "recipe": "", "arguments": {}, "environment": {}, "hooks": {}, "files": {}, "shared": {}, **changes}


def test_a_hook_that_takes_the_place_of_our_files_is_named(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    layout = Layout(tmp_path, tmp_path, tmp_path)
    images = app_image.Images(layout, arguments(name="shop", engine="podman", recipe="FROM x", source={"kind": "requirements"}))
    (tmp_path / "build/.slipway").mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"The build holds \.slipway.*before_build \(app_hooks\)"):
        images._build(tmp_path / "build", "shop:1")


def test_a_build_is_named_by_what_decides_about_it() -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"source": {"digest": "d2"}},
        {"source": {"directory": "backend"}},
        {"source": {"requirements": "Containerfile"}},
        {"recipe": "FROM x"},
        {"arguments": {"A": "1"}},
        {"environment": {"HTTP_PROXY": "x"}},
        {"hooks": {"before_build": "make"}},
        {"files": {"server.txt": "gunicorn==1"}},
        {"shared": {"uploads": ""}},
        {"shared": {"uploads": "media"}},
    ]
    assert len({app_image.name_of(arguments(**case)) for case in cases}) == len(cases)
    assert app_image.name_of(arguments(hooks={"after_switch": "x"})) == app_image.name_of(arguments())


@pytest.mark.parametrize(
    ("reference", "places"),
    [
        ("ghcr.io/example/shop:1", ["ghcr.io"]),
        ("127.0.0.1:5000/shop", ["127.0.0.1:5000"]),
        ("example/shop", ["docker.io", "https://index.docker.io/v1/"]),
        ("docker.io/example/shop", ["docker.io", "https://index.docker.io/v1/"]),
    ],
)
def test_a_login_is_there_while_it_is_needed(reference: str, places: list[str]) -> None:
    with login(reference, {"username": "ann", "password": "open:sesame"}) as directory:
        file = Path(directory, "config.json")
        assert file.stat().st_mode & 0o777 == 0o600
        entries = json.loads(file.read_text(encoding="utf-8"))["auths"]
        assert list(entries) == places
        assert {base64.b64decode(entry["auth"]).decode() for entry in entries.values()} == {"ann:open:sesame"}
    assert not file.exists()
    with login(reference, {"username": "", "password": ""}) as directory:
        assert directory == ""


def test_what_an_engine_says_of_a_failure_is_told(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    engine = Engine("podman")
    engine.pull("ghcr.io/x", {"username": "ann", "password": "open-sesame"}, {})
    assert "open-sesame" not in "".join(asked())
    (tmp_path / "refused").touch()
    with pytest.raises(ReleaseError, match="unauthorized"):
        engine.pull("ghcr.io/x", {}, {})
    (tmp_path / "images").write_text("localhost/slipway-shop:b2\nlocalhost/slipway-shop:b1\nother:x\n", encoding="utf-8")
    assert engine.tags("localhost/slipway-shop") == ["b1", "b2"]
    assert engine.fact("nobody", "{{.Id}}") == ""


def test_a_password_is_in_no_command_line_and_no_message(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    index = {"UV_DEFAULT_INDEX": "https://ann:open-sesame@pypi.example.com/simple"}
    Engine("podman").build(tmp_path, tmp_path / "Dockerfile", "localhost/x:1", {**index, "A": "1"}, {}, tmp_path)
    (command,) = asked()
    assert f"--volume={tmp_path}:/cache --build-arg=A --build-arg=UV_DEFAULT_INDEX --tag" in command
    (tmp_path / "bin/podman").write_text('#!/bin/sh\necho "$UV_DEFAULT_INDEX cannot be reached"; exit 1\n', encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"https://\*\*\*@pypi\.example\.com/simple cannot be reached") as error:
        Engine("podman").build(tmp_path, tmp_path / "Dockerfile", "localhost/x:1", index, {}, None)
    assert "sesame" not in str(error.value)


def test_an_engine_is_given_a_home_and_its_time(
    tmp_path: Path, asked: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin/podman").write_text('#!/bin/sh\necho "$HOME $HTTP_PROXY"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", "/home/ann")
    assert Engine("podman").call("info", environment={"HTTP_PROXY": "x"}) == "/home/ann x"
    monkeypatch.delenv("HOME")
    assert Engine("podman").call("info") == "/root"
    seconds = []
    monkeypatch.setattr(Engine, "call", lambda engine, *words, **options: seconds.append(options["seconds"]))
    Engine("podman").build(tmp_path, tmp_path / "Dockerfile", "x", {}, {}, None)
    Engine("podman").pull("x", {}, {})
    assert seconds == [1800, 1800], "a build or a download may take half an hour"


def test_an_engine_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("slipway.host.build.engine.PLACES", "/nowhere")
    with pytest.raises(ReleaseError, match="There is no docker here"):
        Engine("docker")


def controllers(directory: Path, **more: Any) -> dict[str, Any]:
    """Return what the controller is told that builds an image, whose source is packed there as slipway_fetch does it."""
    with tarfile.open(directory / "source.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("Dockerfile"))  # without a time
    source = {"archive": str(directory / "source.tar.gz"), "directory": ".", "requirements": "Dockerfile"}
    return {"engine": "podman", "source": source, "environment": {}, **more}


def test_the_controller_builds_once_for_hosts_that_ask_at_the_same_time(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"], "slipway")
    cache.mkdir(parents=True)
    told = controllers(cache)
    action = object.__new__(ImageAction)
    with ThreadPoolExecutor() as hosts:
        files = set(hosts.map(lambda machine: action.saved(told, "slipway/shop:b1", machine), ["x86_64"] * 3 + ["aarch64"]))
    assert [words.split()[0] for words in sorted(asked())] == ["build", "build", "rmi", "rmi", "save", "save"]
    assert {gzip.decompress(file.read_bytes()) for file in files} == {b"image\n"}
    assert len(files) == 2, "one for each kind of processor"


def test_the_controller_builds_as_a_host_does(
    tmp_path: Path, asked: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same options, but for another kind of processor; a changed page must not look unchanged."""
    seen: list[tuple[str, float, str]] = []
    build = Engine.build

    def spy(engine: Engine, context: Path, recipe: Path, *rest: Any) -> None:
        seen.append((recipe.read_text(encoding="utf-8"), (context / "Dockerfile").stat().st_mtime, rest[1].get("A", "")))
        build(engine, context, recipe, *rest)

    monkeypatch.setattr(Engine, "build", spy)
    told = controllers(tmp_path, recipe="FROM ours\n", arguments={"B": "2"}, environment={"A": 1}, files={"uv.txt": "uv"})
    object.__new__(ImageAction).saved(told, "slipway/shop:b2", "aarch64")
    ((text, time_of_page, number),) = seen
    assert (text, time_of_page > time.time() - 60, number) == ("FROM ours\n", True, "1")
    build(Engine("podman"), tmp_path, tmp_path / "Dockerfile", "slipway/shop:b2", {"A": "1", "B": "2"}, {}, None)
    theirs, ours = [command.split(" --tag ")[0] for command in asked() if command.startswith("build")]
    assert theirs == ours.replace("--build-arg", "--platform=linux/arm64 --build-arg", 1)
    assert "--security-opt=label=disable" in theirs


def test_an_image_that_the_controller_cannot_build_is_told(tmp_path: Path, asked: Callable[[], list[str]]) -> None:
    (tmp_path / "bin/podman").write_text("#!/bin/sh\necho no space left; exit 1\n", encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match=r"(?s)cannot be built on this machine.*no space left"):
        object.__new__(ImageAction).saved(controllers(tmp_path), "slipway/shop:b3", "x86_64")
    with pytest.raises(AnsibleActionFail, match=r"There is no nobody on this machine.*app_image_builder: host"):
        object.__new__(ImageAction).saved(controllers(tmp_path, engine="nobody"), "slipway/shop:b3", "x86_64")


@pytest.mark.parametrize(
    ("variables", "version"),
    [
        ('["PATH=/usr/bin","PYTHON_VERSION=3.14.2","X=1"]', "3.14.2"),
        ('["PYTHON_VERSION=3.15.0rc1"]', "3.15.0rc1"),
        ('["MY_PYTHON_VERSION=3.14.2"]', ""),
        ("null", ""),
        ("", ""),
    ],
)
def test_an_image_names_its_python(variables: str, version: str) -> None:
    assert app_image.python_version(variables) == version
