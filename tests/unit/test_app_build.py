"""A build: the packed source unpacked, its environment made or shared, and nothing seen of it before it is whole."""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import gzip
import hashlib
import http.server
import io
import itertools
import json
import os
import pwd
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from slipway.controller.build import BuildAction
from slipway.controller.fetch import pack as fetch_pack
from slipway.controller.fetch.dependencies import Dependencies
from slipway.host.build import builder as builders
from slipway.host.build import hooks, make, prebuilt
from slipway.host.build import installer as installers
from slipway.host.build import step as build_step
from slipway.host.build import venv as venvs
from slipway.host.build.archive import pack as pack_directory
from slipway.host.build.archive import unpack
from slipway.host.build.builder import Builder
from slipway.host.build.make import build
from slipway.host.build.names import names
from slipway.host.build.permissions import Allowed
from slipway.host.build.venv import complete, install, is_complete, python_version, validate_venv
from slipway.host.errors import ReleaseError
from slipway.host.lock import Locked, lock
from slipway.host.paths import Layout

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
BOB = {"id": "r2", "who": "bob", "where": "desk", "dead": ""}


def wheel(directory: Path, name: str, version: str, code: str = "", needs: str = "", **more: str) -> str:
    """Make a wheel with one module, and more files, and return the digest of its file."""
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": code or f"__version__ = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **more,
    }
    rows = []
    for name_inside, text in files.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{name_inside},sha256={hashed},{len(text)}\n")
    path = directory / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in {**files, f"{info}/RECORD": "".join([*rows, f"{info}/RECORD,,\n"])}.items():
            archive.writestr(name_inside, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def index() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder of wheels in place of the package index, which another user may look into, and their digests."""
    directory = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    directory.chmod(0o755)
    names = ("fastapi", "gunicorn", "uvicorn-worker", "uvicorn")
    yield directory, {name: wheel(directory, name, "1.0") for name in names} | {"new": wheel(directory, "fastapi", "2.0")}
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, index: tuple[Path, dict[str, str]]) -> Path:
    """An environment that is complete, for tests that are about something else."""
    home = tmp_path_factory.mktemp("made")
    (home / "requirements.txt").write_text("fastapi==1.0\n", encoding="utf-8")
    install(home / "v1", home, arguments(Layout(home, home, home), index))
    (home / "v1/.complete").touch()
    return home / "v1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    for directory in (layout.home, layout.builds, layout.venvs):
        directory.mkdir()
    return layout


def pack(path: Path, *entries: tuple[Any, ...]) -> Path:
    """Make an archive of entries: a name and its text, or a name, a type and what it links to."""
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry[0])
            if len(entry) == 2:
                body = entry[1].encode()
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
            else:
                member.type, member.linkname = entry[1:]
                tar.addfile(member)
    return path


def arguments(layout: Layout, index: tuple[Path, dict[str, str]], **changes: Any) -> dict[str, Any]:
    """Return the module's arguments for an app whose lock names fastapi, and the server in its own list."""
    return {
        "layout": {"home": str(layout.home), "runtime": str(layout.runtime), "logs": str(layout.logs)},
        "source": {
            "archive": "/home/ann/.cache/slipway/x.tar.gz",
            "digest": "d" * 40,
            "lock": "l" * 40,
            "revision": "r1",
            "origin": "directory",
            "directory": ".",
            "requirements": "requirements.txt",
        },
        "interpreter": sys.executable,
        "minimum": "3.11",
        "installer": "uv",
        "uv": str(UV),
        "cache": str(layout.home / "cache"),
        "server": ["gunicorn>=1", "uvicorn-worker"],
        "server_lock": "".join(
            f"{name}==1.0 \\\n    --hash=sha256:{index[1][name]}\n" for name in ("gunicorn", "uvicorn-worker")
        ),
        "server_modules": ["gunicorn", "uvicorn_worker"],
        "extra": [],
        "source_builds": False,
        "environment": {
            **dict.fromkeys(("UV_NO_INDEX", "PIP_NO_INDEX", "UV_OFFLINE"), "1"),
            **{name: str(index[0]) for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS")},
        },
        "user": getpass.getuser(),
        "room": 1,
        "shared": {},
        "hooks": {},
        "hook_timeout": 20,
        "run": {"id": "r1", "who": "ann", "where": "laptop", "dead": ""},
        **changes,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A packed app."""
    files = [("requirements.txt", "fastapi==1.0\n"), ("app/main.py", "app = None\n"), ("app/__init__.py", "")]
    return pack(tmp_path / "source.tar.gz", *files)


@pytest.fixture
def module(run_step: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(build_step, "lock", functools.partial(lock, patience=0.1))
    return functools.partial(run_step, "build")


def import_in(venv: Path, name: str) -> str:
    """Return the version of a module in an environment; its error where it is not there."""
    code = f"try:\n import {name}; print({name}.__version__)\nexcept ImportError as error:\n print(type(error).__name__)"
    return subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# The interpreter


def test_the_version_of_an_interpreter(program: Callable[[str, str], Path]) -> None:
    assert python_version(sys.executable, "3.11") == ".".join(map(str, sys.version_info[:3]))
    candidate = program("python", "#!/bin/sh\necho 3.14.0rc1\n")
    assert python_version(str(candidate), "3.14") == "3.14.0rc1"


@pytest.mark.parametrize(("version", "minimum"), [("3.9.18", "3.11"), ("3.10.1", "3.11"), ("3.11.2", "3.12"), ("2.7.18", "3.11")])
def test_an_old_interpreter_is_refused(program: Callable[[str, str], Path], version: str, minimum: str) -> None:
    candidate = program("python", f"#!/bin/sh\necho {version}\n")
    with pytest.raises(ReleaseError, match=rf"is Python {version}; the app needs {minimum} or newer.*python_interpreter"):
        python_version(str(candidate), minimum)


def test_an_interpreter_that_makes_no_environments_is_refused(program: Callable[[str, str], Path]) -> None:
    candidate = program("python", "#!/bin/sh\necho \"No module named 'ensurepip'\"; exit 1\n")
    with pytest.raises(ReleaseError, match=r"cannot make virtual environments[\s\S]*ensurepip"):
        python_version(str(candidate), "3.11")
    with pytest.raises(ReleaseError, match=r"cannot make virtual environments[\s\S]*cannot be started"):
        python_version("/no/such/python", "3.11")


# The archive


def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    entries = [("app/main.py", "x = 'ü'\n"), ("run", "#!/bin/sh\n"), ("a/link", tarfile.SYMTYPE, "../app/main.py")]
    entries += [("a/dangling", tarfile.SYMTYPE, "missing"), ("folder", tarfile.DIRTYPE, ""), ("..odd", "odd")]
    unpack(pack(tmp_path / "x.tar.gz", *entries), tmp_path / "out")
    assert (tmp_path / "out/app/main.py").read_text(encoding="utf-8") == "x = 'ü'\n"
    assert (tmp_path / "out/a/link").read_text(encoding="utf-8") == "x = 'ü'\n"
    assert (tmp_path / "out/folder").is_dir()
    assert (tmp_path / "out/..odd").read_text(encoding="utf-8") == "odd"
    assert (tmp_path / "out/run").stat().st_mtime > time.time() - 60, "a file without a time is as new as its build"
    assert {path.stat().st_uid for path in (tmp_path / "out").rglob("*") if path.exists()} == {os.geteuid()}


@pytest.mark.parametrize(
    "entries",
    [
        [("/{out}/evil", "evil")],
        [("../evil", "evil")],
        [("app/../../evil", "evil")],
        [("link", tarfile.SYMTYPE, "/etc/passwd")],
        [("link", tarfile.SYMTYPE, "../evil")],
        [("app/link", tarfile.SYMTYPE, "../../evil")],
        [("hard", tarfile.LNKTYPE, "../evil")],
        [("main.py", "x"), ("hard", tarfile.LNKTYPE, "main.py")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("disk", tarfile.BLKTYPE, "")],
        [("tty", tarfile.CHRTYPE, "")],
        # A link and a file of one name.
        [("link", tarfile.SYMTYPE, "other"), ("link", "evil")],
        # Each link stays inside by its own words, and both together lead out.
        [("a/b/c/x", "x"), ("a/b/c/q", tarfile.SYMTYPE, "../../.."), ("app/e", tarfile.SYMTYPE, "../a/b/c/q/../../evil")],
        [
            ("a/b/c/main.py", "x"),
            ("a/b/c/top", tarfile.SYMTYPE, "../../.."),
            ("a/b/c/top/out", tarfile.SYMTYPE, "../../evil"),
            ("a/b/c/top/out/file", "evil"),
        ],
    ],
)
def test_an_archive_that_leads_outside_is_refused(tmp_path: Path, entries: list[tuple[Any, ...]]) -> None:
    outside = tmp_path / "evil"
    outside.mkdir()
    (tmp_path / "in").mkdir()
    entries = [(entry[0].replace("{out}", str(outside)), *entry[1:]) for entry in entries]
    with pytest.raises(ReleaseError, match="leads outside of it or is not a regular file"):
        unpack(pack(tmp_path / "x.tar.gz", *entries), tmp_path / "in" / "out")
    assert list(outside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "in", "x.tar.gz"]


def damaged(path: Path, kind: str) -> Path:
    whole = pack(
        path, ("first", "x"), ("noise", base64.b64encode(random.Random(1).randbytes(300_000)).decode()), ("main.py", "x")
    ).read_bytes()
    texts = {
        "empty": b"",
        "no archive": b"<html>404</html>",
        "cut": whole[: len(whole) // 2],
        "cut head": whole[:5],
        "zeroed": whole[:100_000] + bytes(2000) + whole[102_000:],
        "no tar": gzip.compress(b"hello" * 1000),
    }
    path.write_bytes(texts[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "no archive", "cut", "cut head", "zeroed", "no tar"])
def test_a_damaged_archive_is_said_to_be_one(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ReleaseError, match="cannot be unpacked"):
        unpack(damaged(tmp_path / "x.tar.gz", kind), tmp_path / "out")


# The environment


def test_uv_installs_what_the_lock_names_and_the_server_besides(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("fastapi==1.0\n", encoding="utf-8")
    venv = layout.venvs / "v1"
    (venv / "bin").mkdir(parents=True)
    (venv / "left-over").touch()
    install(venv, tmp_path, arguments(layout, index))
    assert [import_in(venv, name) for name in ("fastapi", "gunicorn", "uvicorn_worker")] == ["1.0"] * 3
    assert not (venv / "left-over").exists()
    # Compiled now: the app's user could not do it later.
    assert list((venv / "lib").glob("python*/site-packages/__pycache__/fastapi.*.pyc"))


def test_pip_is_asked_for_the_same(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], program: Callable[[str, str], Path]
) -> None:
    # One that takes no time, unlike pip; it says that the server is not there.
    log = tmp_path / "log"
    text = f'#!/bin/sh\necho "${{PIP_NO_INDEX:-0}} $*" >>{log}\n'
    text += 'case "$2" in venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;; esac\n'
    python = program("python", text)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"fastapi==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    changed = arguments(layout, index, installer="pip", uv="/no/such/uv", interpreter=str(python))
    install(layout.venvs / "v1", tmp_path, changed)
    calls = [call.split() for call in log.read_text(encoding="utf-8").splitlines()]
    assert [call[0] for call in calls] == ["1"] * 4
    made, locked, besides, checked = [call[1:] for call in calls]
    assert made == ["-m", "venv", str(layout.venvs / "v1")]
    wheels = ["--only-binary", ":all:"]
    assert locked[:3] == besides[:3] == ["-m", "pip", "install"]
    assert locked[-5:] == [*wheels, "--require-hashes", "-r", str(requirements)]
    assert besides[-6:-1] == [*wheels, "--no-deps", "--require-hashes", "-r"]
    assert checked == ["-m", "pip", "check"]
    assert {"--no-input", "--disable-pip-version-check"} <= set(locked) & set(besides)


def test_a_lock_that_has_the_server_is_enough(tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("gunicorn\nuvicorn-worker\n", encoding="utf-8")
    install(layout.venvs / "v1", tmp_path, arguments(layout, index, server=["gunicorn[no-such-extra]>=1", "Uvicorn_Worker"]))
    assert import_in(layout.venvs / "v1", "gunicorn") == "1.0"


def test_hashes_are_enforced_where_there_are_any(tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"fastapi==1.0 \\\n    --hash=sha256:{index[1]['fastapi']}\n", encoding="utf-8")
    install(layout.venvs / "v1", tmp_path, arguments(layout, index))
    assert import_in(layout.venvs / "v1", "fastapi") == "1.0"
    for text in (f"fastapi==1.0 --hash=sha256:{'0' * 64}\n", f"fastapi==1.0 --hash=sha256:{index[1]['fastapi']}\nuvicorn\n"):
        requirements.write_text(text, encoding="utf-8")
        with pytest.raises(ReleaseError, match=r"(?i)hash"):
            install(layout.venvs / "v2", tmp_path, arguments(layout, index))


@pytest.fixture(scope="session")
def newer(index: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The same wheels, and newer ones of the server, one of which needs another newer one."""
    directory = tmp_path_factory.mktemp("newer")
    shutil.copytree(index[0], directory, dirs_exist_ok=True)
    made = {"uvicorn 2": wheel(directory, "uvicorn", "2.0")}
    made["uvicorn-worker 2"] = wheel(directory, "uvicorn-worker", "2.0", needs="uvicorn>=2")
    return directory, {**index[1], **made}


def test_the_apps_own_pins_are_kept(tmp_path: Path, layout: Layout, newer: tuple[Path, dict[str, str]]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("uvicorn==1.0\n", encoding="utf-8")
    install(layout.venvs / "v1", tmp_path, arguments(layout, newer))
    assert [import_in(layout.venvs / "v1", name) for name in ("uvicorn", "uvicorn_worker")] == ["1.0", "1.0"]
    for text, server in (("gunicorn==1.0\n", ["gunicorn>=1.5", "uvicorn-worker"]), ("gunicorn==1.0\n", ["gunicorn>=1.5"])):
        requirements.write_text(text, encoding="utf-8")
        with pytest.raises(
            ReleaseError, match=r"^The server conflicts with the app's own pins: it needs gunicorn>=1\.5.* gunicorn at"
        ):
            install(layout.venvs / "v2", tmp_path, arguments(layout, newer, server=server))


def test_the_server_has_hashes_where_the_app_has(tmp_path: Path, layout: Layout, newer: tuple[Path, dict[str, str]]) -> None:
    (tmp_path / "requirements.txt").write_text(f"uvicorn==1.0 --hash=sha256:{newer[1]['uvicorn']}\n", encoding="utf-8")
    usual = arguments(layout, newer)
    install(layout.venvs / "v1", tmp_path, usual)
    # The newest ones are not those of our own lock.
    assert [import_in(layout.venvs / "v1", name) for name in ("uvicorn", "uvicorn_worker")] == ["1.0", "1.0"]
    cases = {
        "A package does not match its hash in the lock file": usual["server_lock"].replace(newer[1]["gunicorn"], "0" * 64),
        "add gunicorn>=1, uvicorn-worker to the requirements that it is made from": "",
        r"uvicorn-worker needs uvicorn>=2, and the app has 1\.0\. Have the app's own lock bring the server": (
            usual["server_lock"].partition("uvicorn")[0] + f"uvicorn-worker==2.0 --hash=sha256:{newer[1]['uvicorn-worker 2']}\n"
        ),
    }
    for says, text in cases.items():
        with pytest.raises(ReleaseError, match=says):
            install(layout.venvs / "v2", tmp_path, {**usual, "server_lock": text})


def test_extra_requirements_are_installed_beside_the_apps(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], module: Any
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("uvicorn\n", encoding="utf-8")
    install(layout.venvs / "v1", tmp_path, arguments(layout, index, extra=["fastapi<2"]))
    assert import_in(layout.venvs / "v1", "fastapi") == "1.0"
    with pytest.raises(ReleaseError, match=r"^app_extra_requirements:1 takes a package from \./fastapi"):
        install(layout.venvs / "v1", tmp_path, arguments(layout, index, extra=["./fastapi"]))
    with pytest.raises(ReleaseError, match=r"^app_extra_requirements:1 builds packages from source .*app_source_builds: true"):
        install(layout.venvs / "v1", tmp_path, arguments(layout, index, extra=["--no-binary fastapi"]))
    requirements.write_text(f"uvicorn==1.0 --hash=sha256:{index[1]['uvicorn']}\n", encoding="utf-8")
    with pytest.raises(
        ReleaseError, match=r"^fastapi==1\.0 in app_extra_requirements has no hash, and requirements\.txt has one"
    ):
        install(layout.venvs / "v1", tmp_path, arguments(layout, index, extra=["fastapi==1.0"]))
    hashed = f"fastapi==1.0 --hash=sha256:{index[1]['fastapi']}"
    install(layout.venvs / "v2", tmp_path, arguments(layout, index, extra=[hashed]))
    assert import_in(layout.venvs / "v2", "fastapi") == "1.0"
    assert len({module(**arguments(layout, index, extra=extra))["build"] for extra in ([], ["a"], ["b"])}) == 3


@pytest.mark.parametrize("allowed", [False, True])
def test_packages_are_built_from_source_only_where_that_is_allowed(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], program: Callable[[str, str], Path], allowed: bool
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("fastapi==1.0\n", encoding="utf-8")
    log = tmp_path / "log"
    uv = program("uv", f'#!/bin/sh\necho "$UV_PYTHON_DOWNLOADS $UV_LINK_MODE $UV_CACHE_DIR $@" >>{log}\nexec {UV} "$@"\n')
    install(layout.venvs / "v1", tmp_path, arguments(layout, index, uv=str(uv), source_builds=allowed))
    calls = log.read_text(encoding="utf-8").splitlines()
    assert all(call.startswith(f"never copy {layout.home / 'cache/downloads/uv'} ") for call in calls)
    installs = [call for call in calls if " pip install " in call]
    assert ["--only-binary :all:" in call for call in installs] == [not allowed] * 2


# The build


def test_a_build_is_whole(layout: Layout, index: tuple[Path, dict[str, str]], source: Path, environment: Path) -> None:
    (layout.venvs / "v1").symlink_to(environment)
    build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    directory = layout.builds / "b1"
    assert (directory / "app/main.py").read_text(encoding="utf-8") == "app = None\n"
    assert os.readlink(directory / ".venv") == "../../venvs/v1"
    assert import_in(directory / ".venv", "fastapi") == "1.0"
    assert list((directory / "app/__pycache__").glob("main.*.pyc"))
    record = json.loads((directory / ".build.json").read_text(encoding="utf-8"))
    assert {"build": "b1", "venv": "v1", "revision": "r1", "origin": "directory"}.items() <= record.items()
    assert "/home/ann" not in (directory / ".build.json").read_text(encoding="utf-8")
    assert [path.name for path in layout.builds.iterdir()] == ["b1"]


def test_a_build_has_links_to_the_shared_directory_also_on_another_host(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, environment: Path, tmp_path: Path
) -> None:
    (layout.venvs / "v1").symlink_to(environment)
    given = arguments(layout, index, archive=str(source), shared={"data/": "", "app/shop.db": "db/shop.db"})
    build(layout, "b1", "v1", given)
    links = {"data": "data", "app/shop.db": "db/shop.db"}
    assert {path: os.readlink(layout.builds / "b1" / path) for path in links} == {
        path: f"{layout.home}/shared/{name}" for path, name in links.items()
    }
    packed = {"build": pack_directory(layout.builds / "b1", tmp_path / "build.tar.gz")}
    shutil.rmtree(layout.builds / "b1")
    prebuilt.install_prebuilt(layout, "b1", "v1", {**given, "build": str(tmp_path / "build.tar.gz"), "prebuilt": packed})
    assert os.readlink(layout.builds / "b1" / "data") == f"{layout.home}/shared/data"
    shutil.rmtree(layout.builds / "b1")
    with pytest.raises(ReleaseError, match="link that points outside it"):
        prebuilt.install_prebuilt(
            layout, "b1", "v1", {**given, "build": str(tmp_path / "build.tar.gz"), "prebuilt": packed, "shared": {"data": ""}}
        )


def test_an_unchanged_lock_is_not_installed_again(
    layout: Layout,
    index: tuple[Path, dict[str, str]],
    source: Path,
    environment: Path,
    program: Callable[[str, str], Path],
) -> None:
    (layout.venvs / "v1").symlink_to(environment)
    broken = program("uv", "#!/bin/sh\nexit 1\n")
    build(layout, "b2", "v1", arguments(layout, index, archive=str(source), uv=str(broken)))
    assert (layout.builds / "b2/.venv").resolve() == environment
    with pytest.raises(ReleaseError, match="failed with exit code 1"):
        build(layout, "b3", "v2", arguments(layout, index, archive=str(source), uv=str(broken)))


def test_an_environment_that_was_begun_is_made_anew(layout: Layout, index: tuple[Path, dict[str, str]], source: Path) -> None:
    shutil.copytree(sys.prefix, layout.venvs / "v1", symlinks=True, ignore=lambda directory, names: ["lib", "bin"])
    build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    assert import_in(layout.builds / "b1/.venv", "fastapi") == "1.0"
    assert (layout.venvs / "v1/.complete").exists()


def test_no_package_marks_its_environment_as_complete(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, broken, usual = layout.venvs / "v1", True, installers.Installer.server

    def server(installer: installers.Installer) -> None:
        (venv / ".complete").mkdir()
        if broken:
            raise ReleaseError("no server")
        usual(installer)

    monkeypatch.setattr(installers.Installer, "server", server)
    with pytest.raises(ReleaseError, match="no server"):
        build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    assert not venv.exists()
    (venv / ".complete").mkdir(parents=True)  # as is left where the build was killed
    broken = False
    build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    assert (import_in(venv, "fastapi"), (venv / ".complete").is_file()) == ("1.0", True)


def test_a_mark_of_another_user_is_none(layout: Layout, user: str, lacking: Callable[[str], NoReturn]) -> None:
    if user == getpass.getuser():
        lacking("there is no other user to become")
    (layout.venvs / "v1").mkdir()
    (layout.venvs / "v1/.complete").touch()
    assert is_complete(layout.venvs / "v1")
    shutil.chown(layout.venvs / "v1/.complete", user)
    assert not is_complete(layout.venvs / "v1")
    complete(layout.venvs / "v1")
    assert is_complete(layout.venvs / "v1")


@pytest.mark.parametrize("step", ["unpack", "install", "atomic_symlink", "write", "fsync_directory"])
def test_nothing_is_seen_of_a_build_that_was_interrupted(
    layout: Layout,
    index: tuple[Path, dict[str, str]],
    source: Path,
    environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    if step != "install":
        (layout.venvs / "v1").symlink_to(environment)

    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make, step, killed)
        build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    if step != "fsync_directory":
        assert not (layout.builds / "b1").exists()
        build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    assert import_in(layout.builds / "b1/.venv", "fastapi") == "1.0"
    assert [path.name for path in layout.builds.iterdir()] == ["b1"]


def test_what_is_left_of_a_build_that_was_being_removed_is_in_nobodys_way(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, environment: Path
) -> None:
    (layout.venvs / "v1").symlink_to(environment)
    (layout.builds / "b1" / "app").mkdir(parents=True)
    build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    assert (layout.builds / "b1/app/main.py").exists()


def test_the_app_can_read_its_build_whatever_the_umask(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any
) -> None:
    os.umask(0o077)
    result = module(**arguments(layout, index, archive=str(source)))
    directory = layout.builds / result["build"]
    closed = [path for path in [directory, *directory.rglob("*"), *layout.venvs.rglob("*")] if not path.stat().st_mode & 0o004]
    assert [str(path) for path in closed][:5] == []


# The module


def test_the_module_asks_for_the_source_and_builds_once(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any
) -> None:
    first = module(**arguments(layout, index))
    assert (first["changed"], first["needs_archive"]) == (True, True)
    expected = prebuilt.build_fingerprint(layout, first["build"])
    assert first["build_fingerprint"] == expected, "hosts with another build are not like this one"
    assert list(layout.builds.iterdir()) == []
    second = module(**arguments(layout, index, archive=str(source)))
    assert (second["changed"], second["build"], second["needs_archive"]) == (True, first["build"], False)
    assert [path.name for path in layout.builds.iterdir()] == [first["build"]]
    third = module(**arguments(layout, index))
    assert (third["changed"], third["build"], third["needs_archive"]) == (False, first["build"], False)


def test_the_module_builds_at_once_what_came_with_the_question(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any
) -> None:
    packed = base64.b64encode(source.read_bytes()).decode()
    result = module(**arguments(layout, index, packed=packed))
    assert (result["changed"], result["needs_archive"]) == (True, False)
    assert [path.name for path in layout.builds.iterdir()] == [result["build"]]


# The build of another host


@pytest.fixture
def made(
    short: Path, index: tuple[Path, dict[str, str]], source: Path, module: Any, run_step: Callable[..., dict[str, Any]]
) -> Callable[[Layout], dict[str, Any]]:
    """Have another host, whose app lies at the same place, build and pack; return what is known of that."""

    def make(layout: Layout) -> dict[str, Any]:
        known: dict[str, Any] = module(**arguments(layout, index, archive=str(source)))
        run = arguments(layout, index)["run"]
        packed = run_step(
            "pack", layout=arguments(layout, index)["layout"], build=known["build"], venv=True, folder=str(short), run=run
        )
        known.update({piece: str(short / f"{piece}.tar.gz") for piece in ("build", "venv")}, name=known["build"])
        known["prebuilt"] = packed["digests"]
        shutil.rmtree(layout.home)
        for directory in (layout.home, layout.builds, layout.venvs):
            directory.mkdir()
        return {key: known[key] for key in ("prebuilt", "build", "venv", "name", "build_fingerprint")}

    return make


def test_a_build_of_another_host_is_as_good(
    layout: Layout, index: tuple[Path, dict[str, str]], module: Any, made: Callable[[Layout], dict[str, Any]]
) -> None:
    known = made(layout)
    theirs, name = {"prebuilt": known["prebuilt"], "uv": "/no/such/uv"}, known["name"]
    asked = module(**arguments(layout, index, **theirs))
    assert (asked["build"], asked["build_fingerprint"], asked["lacks_venv"]) == (name, known["build_fingerprint"], True)
    assert [asked[f"needs_{piece}"] for piece in ("archive", "wheels", "build", "venv")] == [False, False, True, True]
    had = module(**arguments(layout, index, **theirs, build=known["build"], venv=known["venv"]))
    assert (had["changed"], had["build"], had["needs_build"]) == (True, name, False)
    assert import_in(layout.builds / name / ".venv", "fastapi") == "1.0"
    assert (layout.builds / name / "app/main.py").read_text(encoding="utf-8") == "app = None\n"
    assert [path.name for path in layout.builds.iterdir()] == [name]
    (venv,) = layout.venvs.iterdir()
    assert (venv / ".complete").exists()
    again = module(**arguments(layout, index, **theirs))
    assert (again["changed"], again["needs_build"], again["needs_venv"]) == (False, False, False)
    # Other code, and the same environment.
    shutil.rmtree(layout.builds / name)
    asked = module(**arguments(layout, index, **theirs))
    assert (asked["needs_build"], asked["needs_venv"]) == (True, False)
    assert module(**arguments(layout, index, **theirs, build=known["build"]))["build"] == name


@pytest.mark.parametrize("piece", ["build", "venv"])
def test_a_build_that_was_damaged_on_its_way_is_not_had(
    layout: Layout, index: tuple[Path, dict[str, str]], module: Any, made: Callable[[Layout], dict[str, Any]], piece: str
) -> None:
    known = made(layout)
    file = Path(known[piece])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    options = {key: known[key] for key in ("prebuilt", "build", "venv")}
    assert f"{piece} was damaged in transit" in module(**arguments(layout, index, **options))["msg"]
    assert list(layout.builds.iterdir()) == []
    assert (list(layout.venvs.glob("*/.complete")) != []) == (piece == "build")


def test_an_environment_that_does_not_run_here_is_not_had(
    layout: Layout, index: tuple[Path, dict[str, str]], module: Any, made: Callable[[Layout], dict[str, Any]]
) -> None:
    known = made(layout)
    options = {key: known[key] for key in ("prebuilt", "build", "venv")}
    failed = module(**arguments(layout, index, **options, server_modules=["not_in_it"]))
    assert "does not run here" in failed["msg"]
    assert "No module named 'not_in_it'" in failed["msg"]
    assert (list(layout.builds.iterdir()), list(layout.venvs.glob("*/.complete"))) == ([], [])
    assert module(**arguments(layout, index, **options))["changed"], "what is left of it is in nobody's way"


def test_one_file_with_two_names_is_packed_as_two(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/one").write_text("same", encoding="utf-8")
    os.link(tmp_path / "venv/one", tmp_path / "venv/two")
    (tmp_path / "venv/python").symlink_to("/usr/bin/python3")
    (tmp_path / "venv/.complete").touch()
    digest = pack_directory(tmp_path / "venv", tmp_path / "venv.tar.gz")
    assert digest == hashlib.sha256((tmp_path / "venv.tar.gz").read_bytes()).hexdigest()
    unpack(tmp_path / "venv.tar.gz", tmp_path / "out", links_out=True)
    assert {path.name: os.readlink(path) if path.is_symlink() else path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "one": "same",
        "two": "same",
        "python": "/usr/bin/python3",
    }


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    archive = pack(tmp_path / "x.tar.gz", ("lib", tarfile.SYMTYPE, str(tmp_path / "evil")), ("lib/x", "evil"))
    with pytest.raises(ReleaseError, match="leads outside"):
        unpack(archive, tmp_path / "out", links_out=True)
    assert list((tmp_path / "evil").iterdir()) == []


def test_a_build_is_named_by_what_went_into_it(
    layout: Layout, index: tuple[Path, dict[str, str]], module: Any, program: Callable[[str, str], Path]
) -> None:
    pythons = [str(program(f"python{version}", f"#!/bin/sh\necho {version}\n")) for version in ("3.13.1", "3.13.2")]
    usual = arguments(layout, index, interpreter=pythons[0])
    name = module(**usual)["build"]
    same: list[dict[str, Any]] = [
        {"run": {**BOB, "dead": usual["run"]["id"]}},
        {"user": "bob"},
        {"room": 2},
        {"hook_timeout": 5},
        {"uv": "/other/uv"},
        {"cache": "/other"},
        {"environment": {}},
    ]
    same += [{"source": {**usual["source"], key: "other"}} for key in ("archive", "revision", "origin")]
    assert {module(check=True, **{**usual, **change})["build"] for change in same} == {name}
    other: list[dict[str, Any]] = [{"installer": "pip"}, {"server": ["gunicorn==1"]}, {"source_builds": True}]
    other += [{"interpreter": pythons[1]}, {"shared": {"uploads": ""}}, {"shared": {"uploads": "media"}}]
    other += [{"source": {**usual["source"], key: "other"}} for key in ("digest", "lock", "directory")]
    names = [module(**{**usual, **change})["build"] for change in other]
    assert len({name, *names}) == len(other) + 1
    # The same interpreter after an upgrade of the system is another one.
    program("python3.13.1", "#!/bin/sh\necho 3.13.9\n")
    assert module(**usual)["build"] not in {name, *names}


def test_a_dry_run_builds_nothing(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any, tmp_path: Path
) -> None:
    result = module(check=True, **arguments(layout, index, archive=str(source)))
    assert result["changed"]
    assert list(layout.builds.iterdir()) == []
    nowhere = {name: str(tmp_path / "nowhere") for name in ("home", "runtime", "logs")}
    bare = module(check=True, **{**arguments(layout, index), "layout": nowhere, "interpreter": "/no/such/python"})
    assert (bare["changed"], bare["needs_archive"]) == (True, False)


def test_a_build_that_fails_says_why(layout: Layout, index: tuple[Path, dict[str, str]], tmp_path: Path, module: Any) -> None:
    archive = pack(tmp_path / "source.tar.gz", ("requirements.txt", "no-such-package\n"))
    result = module(**arguments(layout, index, archive=str(archive)))
    assert result["failed"]
    assert "The live release is unchanged" in result["msg"]
    assert "no-such-package" in result["msg"]
    assert [path.name for path in layout.builds.iterdir() if path.name[0] != "."] == []


def test_a_source_without_its_requirements_is_named(
    layout: Layout, index: tuple[Path, dict[str, str]], tmp_path: Path, module: Any
) -> None:
    result = module(**arguments(layout, index, archive=str(pack(tmp_path / "x.tar.gz", ("app/main.py", "x")))))
    assert result["failed"]
    assert "requirements.txt" in result["msg"]


def test_a_change_under_way_refuses_the_build(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any
) -> None:
    with lock(layout, BOB):
        result = module(**arguments(layout, index, archive=str(source)))
        assert "bob on desk since" in result["msg"]
        assert result["locked_by"]["id"] == BOB["id"]
        assert list(layout.builds.iterdir()) == []
        # Nor is anything sent to a host that another run has.
        assert module(**arguments(layout, index))["locked_by"]["id"] == BOB["id"]


def test_a_full_disk_is_told_before_anything_is_sent(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any, environment: Path
) -> None:
    for archive in (None, str(source)):
        result = module(**arguments(layout, index, archive=archive, room=1e9))
        assert re.search(r"nearly full: \d+ MiB are free, and app_min_free_disk_mb requires 1000000000", result["msg"])
    assert list(layout.builds.iterdir()) == list(layout.venvs.iterdir()) == []
    assert not (layout.home / ".lock").exists()
    # What is built already needs none.
    name = module(**arguments(layout, index))["build"]
    (layout.builds / name).mkdir()
    (layout.builds / name / ".build.json").touch()
    assert module(**arguments(layout, index, room=1e9))["changed"] is False
    assert module(check=True, **arguments(layout, index, server=["x"], room=1e9))["changed"] is True


def test_the_app_stays_held_for_the_next_step_of_the_run(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any
) -> None:
    usual = arguments(layout, index, archive=str(source))
    module(**usual)
    with pytest.raises(Locked), lock(layout, BOB, patience=0.1):
        pass
    with lock(layout, usual["run"], patience=0.1):
        pass


# Other files that name dependencies


@pytest.fixture(scope="session")
def online(index: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The same wheels in a package index, its address, and the folder of its files."""
    root = tmp_path_factory.mktemp("index")
    shutil.copytree(index[0], root / "files")
    for wheel_file in (root / "files").iterdir():
        page = root / "simple" / wheel_file.name.partition("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with open(page, "a", encoding="utf-8") as file:
            hashed = hashlib.sha256(wheel_file.read_bytes()).hexdigest()
            file.write(f'<a href="../../files/{wheel_file.name}#sha256={hashed}">{wheel_file.name}</a>\n')
    with served(root) as address:
        yield f"{address}/simple/", root / "files"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP, and return its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


PROJECT = """\
[project]
name = "shop"
version = "1.4"
dependencies = ["fastapi<2", "uvicorn"]
requires-python = ">=3.11"
"""
BUILT = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'


def project(root: Path, online: tuple[str, Path], text: str = PROJECT) -> Path:
    """Make a source with a src layout, and all kinds of lock files."""
    (root / "src/shop").mkdir(parents=True, exist_ok=True)
    (root / "src/shop/__init__.py").write_text(
        "import importlib.metadata\n__version__ = importlib.metadata.version('shop')\n", encoding="utf-8"
    )
    (root / "pyproject.toml").write_text(text, encoding="utf-8")
    environment = {**os.environ, "UV_CACHE_DIR": str(root.parent / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never"}
    quiet: dict[str, Any] = {"cwd": root, "env": environment, "check": True, "capture_output": True}
    subprocess.run([UV, "lock", "--python", sys.executable, "--default-index", online[0]], **quiet)
    options = ["--quiet", "--frozen", "--no-emit-project", "--format", "pylock.toml", "--output-file", "pylock.toml"]
    subprocess.run([UV, "export", *options], **quiet)
    return root


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, online: tuple[str, Path]) -> Path:
    return project(tmp_path_factory.mktemp("shop") / "shop", online, PROJECT + BUILT)


FILES = ["uv.lock", "pylock.toml", "pyproject.toml"]


def wanting(
    layout: Layout, index: tuple[Path, dict[str, str]], root: Path, file: str, online: tuple[str, Path], **changes: Any
) -> dict[str, Any]:
    """Return the module's arguments for a project whose dependencies a file names, as it is after fetching."""
    usual, more, elsewhere = arguments(layout, index), changes.pop("source", {}), changes.pop("elsewhere", False)
    allowed = Allowed.of({"UV_DEFAULT_INDEX": online[0]}, False, "uv")
    facts = Dependencies(root, ".", [], allowed).facts(file, elsewhere, {})
    for name, text in facts.pop("replaced").items():
        (root / name).write_text(text, encoding="utf-8")
    usual["source"].update({**facts, "packages": {}, **more})
    return {**usual, "environment": {"UV_INDEX_URL": online[0], "UV_HTTP_RETRIES": "0"}, **changes}


@pytest.mark.parametrize("file", FILES)
def test_what_a_project_names_is_installed(
    layout: Layout, index: tuple[Path, dict[str, str]], online: tuple[str, Path], shop: Path, file: str
) -> None:
    install(layout.venvs / "v1", shop, wanting(layout, index, shop, file, online))
    found = [import_in(layout.venvs / "v1", name) for name in ("fastapi", "uvicorn", "gunicorn", "uvicorn_worker", "shop")]
    assert found == ["1.0"] * 4 + ["ModuleNotFoundError"]
    assert list((layout.venvs / "v1/lib").glob("python*/site-packages/__pycache__/fastapi.*.pyc"))
    assert [path.name for path in layout.venvs.iterdir()] == ["v1"]


def test_each_package_of_a_lock_comes_from_its_own_address(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], online: tuple[str, Path]
) -> None:
    """An index of its own, an address, a file and a folder of files of the source, which `uv sync` would take, too."""
    root, other = tmp_path / "shop", tmp_path / "other"
    for folder in (root / "files", root / "flat", other / "simple/torch", other / "simple/extra"):
        folder.mkdir(parents=True)
    wheel(root / "files", "pathy", "1.0")
    wheel(root / "flat", "flatty", "1.0")
    digests = {"torch": wheel(other, "torch", "2.0"), "extra": wheel(other, "extra", "2.0", needs="fastapi")}
    for name, digest in digests.items():
        page = f'<a href="../../{name}-2.0-py3-none-any.whl#sha256={digest}">{name}-2.0-py3-none-any.whl</a>\n'
        (other / f"simple/{name}/index.html").write_text(page, encoding="utf-8")
    with served(other) as address:
        text = PROJECT.replace('"uvicorn"', '"torch", "pathy", "flatty", "uvicorn"')
        text += '[tool.uv.sources]\npathy = { path = "files/pathy-1.0-py3-none-any.whl" }\n'
        text += 'flatty = { index = "flat" }\ntorch = { index = "cpu" }\n'
        text += f'uvicorn = {{ url = "{online[0]}../files/uvicorn-1.0-py3-none-any.whl" }}\n'
        text += f'[[tool.uv.index]]\nname = "cpu"\nurl = "{address}/simple/"\nexplicit = true\n'
        text += '[[tool.uv.index]]\nname = "flat"\nurl = "./flat"\nformat = "flat"\nexplicit = true\n'
        project(root, online, text)
        usual = wanting(layout, index, root, "uv.lock", online, extra=[f"extra==2.0 --hash=sha256:{digests['extra']}"])
        usual["environment"]["UV_INDEX"] = f"{address}/simple/"
        install(layout.venvs / "v1", root, usual)
    found = {name: import_in(layout.venvs / "v1", name) for name in ("fastapi", "torch", "pathy", "flatty", "uvicorn", "extra")}
    assert found == {**dict.fromkeys(found, "1.0"), "torch": "2.0", "extra": "2.0"}


@pytest.mark.parametrize("file", ["uv.lock", "pylock.toml"])
def test_what_an_index_serves_must_be_what_was_locked(
    layout: Layout, index: tuple[Path, dict[str, str]], online: tuple[str, Path], shop: Path, file: str
) -> None:
    in_index = online[1] / "fastapi-1.0-py3-none-any.whl"
    whole = in_index.read_bytes()
    try:
        in_index.unlink()
        wheel(online[1], "fastapi", "1.0", "__version__ = '6.6'\n")
        with pytest.raises(ReleaseError, match=r"^A package does not match its hash in the lock file"):
            install(layout.venvs / "v1", shop, wanting(layout, index, shop, file, online))
    finally:
        in_index.write_bytes(whole)


@pytest.mark.parametrize("file", ["uv.lock", "pylock.toml"])
@pytest.mark.parametrize("way", ["wheelhouse", "mirror"])
def test_a_lock_is_kept_where_packages_come_from_elsewhere(
    tmp_path: Path,
    layout: Layout,
    index: tuple[Path, dict[str, str]],
    online: tuple[str, Path],
    shop: Path,
    file: str,
    way: str,
) -> None:
    # The address in the lock file answers no more.
    root = shutil.copytree(shop, tmp_path / "copy")
    gone = online[0].replace("127.0.0.1", "127.0.0.2").rpartition(":")[0] + ":9"
    for name in ("uv.lock", "pylock.toml"):
        text = (root / name).read_text(encoding="utf-8")
        (root / name).write_text(re.sub(r"http://127\.0\.0\.1:\d+", gone, text), encoding="utf-8")
    changes: dict[str, Any] = {"environment": {"UV_DEFAULT_INDEX": online[0], "UV_HTTP_RETRIES": "0"}}
    if way == "wheelhouse":
        house = tmp_path / "house"
        shutil.copytree(index[0], house)
        digest, archive = fetch_pack.pack(house, [], tmp_path)
        changes = {"source": {"wheels": {"digest": digest, "archive": "/elsewhere"}}, "wheels": str(archive)}
        changes["environment"] = {"UV_HTTP_RETRIES": "0"}
    usual = wanting(layout, index, root, file, online, elsewhere=True, **changes)
    install(layout.venvs / "v1", root, usual)
    assert [import_in(layout.venvs / "v1", name) for name in ("fastapi", "gunicorn")] == ["1.0"] * 2
    # Its hashes still count.
    text = (root / file).read_text(encoding="utf-8")
    (root / file).write_text(re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text), encoding="utf-8")
    usual = wanting(layout, index, root, file, online, elsewhere=True, **changes)
    with pytest.raises(ReleaseError, match="does not match its hash in the lock file"):
        install(layout.venvs / "v2", root, usual)


def test_a_wheelhouse_serves_requirements(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], module: Any, source: Path
) -> None:
    digest, archive = fetch_pack.pack(index[0], [], tmp_path)
    usual = arguments(layout, index, environment={"UV_HTTP_RETRIES": "0"})
    without = module(**usual)
    usual["source"]["wheels"] = {"digest": digest, "archive": "/home/ann/x.tar.gz"}
    first = module(**usual)
    assert (without["needs_wheels"], first["needs_wheels"], first["needs_archive"]) == (False, True, True)
    assert first["build"] != without["build"]
    assert "Run again" in module(**usual, archive=str(source))["msg"]
    done = module(**usual, archive=str(source), wheels=str(archive))
    assert import_in(layout.builds / done["build"] / ".venv", "gunicorn") == "1.0"
    assert "/home/ann" not in (layout.builds / done["build"] / ".build.json").read_text(encoding="utf-8")
    # Another build with the same environment needs no wheels.
    usual["source"]["digest"] = "e" * 40
    assert module(**usual)["needs_wheels"] is False
    usual["source"]["wheels"] = {"digest": "other", "archive": "/home/ann/x.tar.gz"}
    assert module(**usual)["needs_wheels"] is True


def test_a_wheelhouse_serves_an_app_that_brings_the_server(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]
) -> None:
    (tmp_path / "requirements.txt").write_text("gunicorn\nuvicorn-worker\n", encoding="utf-8")
    usual = arguments(layout, index, environment={"UV_OFFLINE": "1"}, server=["gunicorn", "uvicorn-worker"])
    digest, archive = fetch_pack.pack(index[0], [], tmp_path)
    usual["source"]["wheels"] = {"digest": digest, "archive": str(archive)}
    install(layout.venvs / "v1", tmp_path, {**usual, "wheels": str(archive)})
    assert import_in(layout.venvs / "v1", "gunicorn") == "1.0"


# What runs as the app's user


@pytest.fixture
def builder(user: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A user, another one where that is possible, and a Python that this one may run."""
    if user != getpass.getuser():
        version = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=False).stdout.split()[-1:]
        if version and tuple(map(int, version[0].split(".")[:2])) >= (3, 11):
            return user, "/usr/bin/python3"
    for module, name in ((installers, "run"), (make, "run"), (prebuilt, "run"), (hooks, "shell")):
        usual = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *words, _usual=usual, user=None, **options: _usual(*words, **options))
    return getpass.getuser(), sys.executable


@pytest.fixture
def open_layout(short: Path) -> Layout:
    """One that another user may look into."""
    layout = Layout(short / "shop", short / "run", short / "log")
    for directory in (layout.home, layout.builds, layout.venvs):
        directory.mkdir()
    return layout


@pytest.mark.parametrize("file", FILES)
def test_a_project_that_is_a_package_is_installed(
    open_layout: Layout,
    index: tuple[Path, dict[str, str]],
    online: tuple[str, Path],
    shop: Path,
    file: str,
    builder: tuple[str, str],
    program: Callable[[str, str], Path],
) -> None:
    root = shutil.copytree(shop, open_layout.home / "source")
    log = open_layout.home / "log"
    uv = open_layout.home / "uv"
    uv.write_text(f'#!/bin/sh\necho "$(id -un) $1 $HOME" >>{log}\nexec {UV} "$@"\n', encoding="utf-8")
    uv.chmod(0o755)
    log.touch()
    log.chmod(0o666)
    user, interpreter = builder
    changes = {"user": user, "interpreter": interpreter, "uv": str(uv), "source": {"packages": {"shop": "."}}}
    install(open_layout.venvs / "v1", root, wanting(open_layout, index, root, file, online, **changes))
    assert import_in(open_layout.venvs / "v1", "shop") == "1.4"
    (place,) = (open_layout.venvs / "v1/lib").glob("python*/site-packages/shop")
    assert place.is_dir()
    builds = [line for line in log.read_text(encoding="utf-8").splitlines() if line.split()[1] == "build"]
    assert [line.split()[0] for line in builds] == [user]
    assert builds[0].rpartition(" ")[2].startswith(f"{open_layout.home}/cache/homes/")
    assert {path.lstat().st_uid for path in open_layout.venvs.rglob("*")} == {os.geteuid()}
    assert [path.name for path in open_layout.venvs.iterdir()] == ["v1"]
    assert not (root / "dist").exists()


def test_a_project_that_cannot_be_built_says_so(
    open_layout: Layout, index: tuple[Path, dict[str, str]], online: tuple[str, Path], builder: tuple[str, str], short: Path
) -> None:
    root = short / "broken"
    root.mkdir()
    (root / "pyproject.toml").write_text(PROJECT + BUILT, encoding="utf-8")
    user, interpreter = builder
    changes = {"user": user, "interpreter": interpreter, "source": {"packages": {"shop": "."}}}
    with pytest.raises(ReleaseError, match=r"^shop cannot be built as a package.*`package = false`") as error:
        install(open_layout.venvs / "v1", root, wanting(open_layout, index, root, "pyproject.toml", online, **changes))
    assert "src/shop" in str(error.value)


def test_a_project_has_an_environment_of_its_own(layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    def name(digest: str, packages: dict[str, str], **changes: Any) -> str:
        source = {"digest": digest, "kind": "pylock", "packages": packages}
        usual = arguments(layout, index, **changes)
        usual["source"].update(source)
        return names(usual, "3.12.1")[0]

    assert name("a", {}) == name("b", {})
    assert name("a", {"shop": "."}) != name("b", {"shop": "."})
    assert len({name("a", {}), name("a", {}, hooks={"before_build": "x"}), name("a", {}, installer="pip")}) == 3
    assert name("a", {}, hooks={"after_build": "x", "before_switch": "y"}) == name("a", {})


def hooked(layout: Layout, index: tuple[Path, dict[str, str]], builder: tuple[str, str], **hooks: str) -> dict[str, Any]:
    source = {**arguments(layout, index)["source"], "directory": "backend"}
    return arguments(layout, index, user=builder[0], interpreter=builder[1], hooks=hooks, source=source)


BACKEND = (("backend/requirements.txt", "fastapi==1.0\n"), ("backend/main.py", "app = None\n"), ("outside.txt", "x\n"))


def test_hooks_run_as_the_builds_user_in_the_build(
    open_layout: Layout, index: tuple[Path, dict[str, str]], builder: tuple[str, str], module: Any, short: Path
) -> None:
    before = "id -un >>who; pwd >>who; command -v gunicorn >>who || echo none >>who; test ! -e ../.venv; mkdir assets"
    after = (
        "id -un >>who; command -v python >>who; umask 077; echo x >assets/app.js; echo 'y = 1' >made.py; echo >>../outside.txt; "
        "ln -s assets/app.js link; mkfifo pipe; "
        "chmod 777 assets; printf '#!/bin/sh' >tool; chmod 4700 tool; "
        'test "$UV_NO_INDEX" = 1; touch "$HOME/kept"; rm ../.venv; ln -s /tmp ../.venv'
    )
    usual = hooked(open_layout, index, builder, before_build=before, after_build=f"set -e; {after}", before_switch="exit 1")
    result = module(**usual, archive=str(pack(short / "x.tar.gz", *BACKEND)))
    directory = open_layout.builds / result["build"]
    venv = (directory / ".venv").resolve()
    assert venv.parent == open_layout.venvs.resolve()
    user = builder[0]
    partial = f"{open_layout.builds}/.{result['build']}.partial/backend"
    expected = [user, partial, "none", user, f"{open_layout.venvs / venv.name}/bin/python"]
    assert (directory / "backend/who").read_text(encoding="utf-8").splitlines() == expected
    paths = [directory, *directory.rglob("*")]
    assert {path.lstat().st_uid for path in paths} == {os.geteuid()}
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in paths if not path.is_symlink()}
    assert {name: modes[name] for name in ("assets", "app.js", "tool", "made.py", "backend")} == {
        "assets": 0o755,
        "app.js": 0o644,
        "tool": 0o755,
        "made.py": 0o644,
        "backend": 0o755,
    }
    assert (directory / "backend/link").is_symlink()
    assert not (directory / "backend/pipe").exists()
    assert module(**usual)["changed"] is False


def test_modules_that_a_hook_makes_are_compiled(
    open_layout: Layout, index: tuple[Path, dict[str, str]], builder: tuple[str, str], module: Any, short: Path
) -> None:
    usual = hooked(open_layout, index, builder, after_build="echo 'y = 1' >made.py")
    result = module(**usual, archive=str(pack(short / "x.tar.gz", *BACKEND)))
    compiled = list((open_layout.builds / result["build"] / "backend/__pycache__").glob("made.*.pyc"))
    assert [path.stat().st_uid for path in compiled] == [os.geteuid()]


@pytest.mark.parametrize(
    "link",
    [
        "{short}/victim",
        "{short}/victim/file",
        "../../../../victim",
        "/etc/passwd",
        "../.venv/bin/python",
        "$PWD/main.py",
        "up/../../x",
    ],
)
@pytest.mark.parametrize("name", ["before_build", "after_build"])
def test_a_hook_that_leaves_a_link_out_of_the_build_fails(
    open_layout: Layout,
    index: tuple[Path, dict[str, str]],
    builder: tuple[str, str],
    module: Any,
    short: Path,
    environment: Path,
    name: str,
    link: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victim = short / "victim"
    victim.mkdir()
    (victim / "file").touch(0o600)
    before_it = [path.stat() for path in (victim, victim / "file")]
    monkeypatch.setattr(make, "install", lambda venv, *words: venv.symlink_to(environment))
    monkeypatch.setattr(make, "compile_code", lambda *words: None)
    usual = hooked(open_layout, index, builder, **{name: f"ln -s .. up; ln -s {link.format(short=short)} __pycache__"})
    result = module(**usual, archive=str(pack(short / "x.tar.gz", *BACKEND)))
    assert "backend/__pycache__ in the build is a link that points outside it" in result["msg"]
    assert "app_hooks" in result["msg"]
    assert list(open_layout.builds.glob("[!.]*")) == []
    assert [path.stat() for path in (victim, victim / "file")] == before_it


def test_only_links_to_the_interpreter_lead_out_of_an_environment(tmp_path: Path) -> None:
    for folder in ("bin", "lib"):
        (tmp_path / folder).mkdir()
    for name, target in {
        "bin/python": sys.executable,
        "bin/python3": "python",
        "lib64": "lib",
        "bin/python3.99": "/usr/bin/python3.99",
    }.items():
        (tmp_path / name).symlink_to(target)
    validate_venv(tmp_path)
    for name, target in {"bin/host": "/", "bin/python9": "/", "bin/pythons": "/etc/passwd", "lib/python": sys.executable}.items():
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ReleaseError, match=f"{name} in the virtual environment is a link"):
            validate_venv(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["before_build", "after_build"])
def test_a_hook_may_leave_a_link_into_the_environment_of_the_build(
    open_layout: Layout,
    index: tuple[Path, dict[str, str]],
    builder: tuple[str, str],
    module: Any,
    short: Path,
    environment: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make, "install", lambda venv, *words: venv.symlink_to(environment))
    monkeypatch.setattr(make, "compile_code", lambda *words: None)
    usual = hooked(open_layout, index, builder, **{name: "ln -s ../.venv/lib skills"})
    result = module(**usual, archive=str(pack(short / "x.tar.gz", *BACKEND)))
    assert not result.get("failed"), result["msg"]
    assert (open_layout.builds / result["build"] / "backend/skills").samefile(environment / "lib")


def test_what_a_hook_starts_ends_with_it_and_gains_nothing(
    open_layout: Layout, index: tuple[Path, dict[str, str]], builder: tuple[str, str], module: Any, short: Path
) -> None:
    left = "setsid sh -c 'echo $$ >pid; sleep 60' </dev/null >/dev/null 2>&1 & while ! test -s pid; do :; done; "
    usual = hooked(open_layout, index, builder, before_build=left + "grep -h NoNewPrivs /proc/self/status >status")
    result = module(**usual, archive=str(pack(short / "x.tar.gz", *BACKEND)))
    made = open_layout.builds / result["build"] / "backend"
    assert not Path("/proc", (made / "pid").read_text(encoding="ascii").strip()).exists()
    assert (made / "status").read_text(encoding="ascii").split()[-1] == "1"


def test_what_is_kept_of_downloads_is_begun_anew_after_a_month(builder: tuple[str, str], short: Path) -> None:
    def kept() -> Path:
        with Builder(builder[0], short / "cache").environment() as told:
            assert {Path(told[name]).parent for name in ("UV_CACHE_DIR", "PIP_CACHE_DIR")} == {short / "cache/downloads"}
            return short / "cache/downloads"

    assert (kept().stat().st_mode & 0o777, kept().owner()) == (0o700, builder[0])
    (kept() / "kept").touch()
    assert (kept() / "kept").exists()
    os.utime(short / "cache", (0, time.time() - 31 * 86400))
    assert list(kept().iterdir()) == []


def test_a_home_lasts_no_longer_than_a_step_of_a_build(builder: tuple[str, str], short: Path) -> None:
    homes = []
    for _ in range(2):
        with Builder(builder[0], short / "cache").environment() as told:
            homes.append(Path(told["HOME"]))
            assert (homes[-1].stat().st_mode & 0o777, homes[-1].owner(), list(homes[-1].iterdir())) == (0o700, builder[0], [])
            (homes[-1] / ".config").mkdir()
    (short / "cache/homes/killed").mkdir()
    with Builder(builder[0], short / "cache").environment() as told:
        assert [str(path) for path in (short / "cache/homes").iterdir()] == [told["HOME"]]
    assert homes[0] != homes[1]
    assert list((short / "cache/homes").iterdir()) == []


def test_what_is_kept_of_downloads_has_a_limit(
    layout: Layout, index: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = layout.home / "cache/downloads"
    (tmp_path / "requirements.txt").write_text("fastapi==1.0\n", encoding="utf-8")
    install(layout.venvs / "v1", tmp_path, arguments(layout, index))
    size = sum(path.lstat().st_size for path in cache.rglob("*") if not path.is_dir())
    assert size
    monkeypatch.setattr(builders, "CACHE_BYTES", size + 100)
    (cache / "more").write_bytes(bytes(90))
    install(layout.venvs / "v1", tmp_path, arguments(layout, index))
    assert (cache / "uv").exists()
    (cache / "more").write_bytes(bytes(200))
    (cache / "link").symlink_to(tmp_path / "nowhere")
    install(layout.venvs / "v1", tmp_path, arguments(layout, index))
    assert not cache.exists()


def test_uv_is_asked_to_prune_its_cache(
    layout: Layout, index: tuple[Path, dict[str, str]], tmp_path: Path, program: Callable[[str, str], Path]
) -> None:
    (tmp_path / "requirements.txt").write_text("fastapi==1.0\n", encoding="utf-8")
    text = f'#!/bin/sh\nif [ "$1" = cache ]; then echo "$UV_CACHE_DIR $@" >{tmp_path}/log; exit 1; fi\nexec {UV} "$@"\n'
    install(layout.venvs / "v1", tmp_path, arguments(layout, index, uv=str(program("uv", text))))
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert said == f"{layout.home}/cache/downloads/uv cache prune --quiet\n"


def test_a_build_is_on_the_disk_before_it_is_marked_as_complete(
    layout: Layout, index: tuple[Path, dict[str, str]], source: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    for where, name in itertools.product((make, venvs), ("on_disk", "write")):
        usual = getattr(where, name)

        def noted(path: Path, *words: Any, _name: str = name, _usual: Any = usual) -> None:
            done.append((_name, path.name))
            _usual(path, *words)

        monkeypatch.setattr(where, name, noted)
    result = module(**arguments(layout, index, archive=str(source)))
    venv = (layout.builds / result["build"] / ".venv").resolve().name
    partial = f".{result['build']}.partial"
    assert done == [("on_disk", venv), ("write", ".complete"), ("on_disk", partial), ("write", ".build.json")]


def test_no_code_that_comes_with_an_app_runs_as_root(
    open_layout: Layout,
    index: tuple[Path, dict[str, str]],
    builder: tuple[str, str],
    module: Any,
    short: Path,
    run_step: Callable[..., dict[str, Any]],
    lacking: Callable[[str], NoReturn],
) -> None:
    if builder[0] == getpass.getuser():
        lacking("there is no other user to become")
    seen = short / "seen"
    seen.touch()
    seen.chmod(0o666)
    wheels = short / "wheels"
    shutil.copytree(index[0], wheels)
    trace = f"import os; open('{seen}', 'a').write('{{}} %d\\n' % os.getuid())"
    wheel(wheels, "evil", "1.0", **{"evil.pth": f"{trace.format('pth')}\n"})
    wheel(wheels, "gunicorn", "1.1", f"{trace.format('server')}\n")
    backend = f"{trace.format('backend')}\ndef get_requires_for_build_wheel(settings=None): return []\n"
    backend += (
        "def build_wheel(folder, settings=None, metadata=None):\n"
        "    import pathlib, shutil\n"
        "    return shutil.copy(next(pathlib.Path().glob('*.whl')), folder).rpartition('/')[2]\n"
    )
    wheel(short, "shop", "1.4")
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = [
        ("pyproject.toml", f'[project]\nname = "shop"\nversion = "1.4"\ndependencies = ["evil"]\n{system}'),
        ("backend.py", backend),
        ("main.py", "app = None\n"),
    ]
    archive = short / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files:
            (short / name).write_text(text, encoding="utf-8")
            tar.add(short / name, name)
        tar.add(short / "shop-1.4-py3-none-any.whl", "shop-1.4-py3-none-any.whl")
    hooks = dict.fromkeys(("before_build", "after_build"), f'echo "hook $(id -u)" >>{seen}')
    usual = hooked(open_layout, index, builder, **hooks)
    usual["environment"] = {"UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels)}
    usual["source"].update(directory=".", kind="pyproject", requirements="pyproject.toml", packages={"shop": "."})
    result = module(**usual, archive=str(archive))
    assert result.get("build"), result["msg"]
    kinds = {line.split()[0] for line in seen.read_text(encoding="ascii").splitlines()}
    assert kinds == {"pth", "backend", "hook"}
    packed = run_step("pack", layout=usual["layout"], build=result["build"], venv=True, folder=str(short), run=usual["run"])
    for directory in (open_layout.builds, open_layout.venvs):
        shutil.rmtree(directory)
        directory.mkdir()
    pieces = {piece: str(short / f"{piece}.tar.gz") for piece in ("build", "venv")}
    assert module(**usual, prebuilt=packed["digests"], **pieces)["changed"] is True
    lines = seen.read_text(encoding="ascii").splitlines()
    assert "server" in {line.split()[0] for line in lines}, "another host's environment is tried here"
    uid = pwd.getpwnam(builder[0]).pw_uid
    assert {line.split()[1] for line in lines} == {str(uid)}
    left = [path for path in open_layout.home.rglob("*") if path.lstat().st_uid and "cache" not in path.parts]
    assert left == []


def test_a_second_name_of_anothers_file_is_not_taken_into_a_build(
    open_layout: Layout, builder: tuple[str, str], short: Path, lacking: Callable[[str], NoReturn]
) -> None:
    if builder[0] == getpass.getuser():
        lacking("there is no other user to become")
    (short / "shadow").write_text("secret", encoding="utf-8")
    (short / "shadow").chmod(0o600)
    message = rf"^{open_layout.builds}/mine is a hard link to a file that is not part of the build"
    with pytest.raises(ReleaseError, match=message), Builder(builder[0], short / "cache").having(open_layout.builds):
        os.link(short / "shadow", open_layout.builds / "mine")  # as a user can where fs.protected_hardlinks is 0
    assert list(open_layout.builds.iterdir()) == []
    assert (short / "shadow").stat().st_mode & 0o777 == 0o600
    with Builder(builder[0], short / "cache").having(open_layout.builds):
        (open_layout.builds / "one").touch()
        shutil.chown(open_layout.builds / "one", builder[0])
        os.link(open_layout.builds / "one", open_layout.builds / "two")  # as npm's like do with what is their own
    assert sorted(path.name for path in open_layout.builds.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("name", ["before_build", "after_build"])
def test_a_hook_that_fails_changes_nothing(
    open_layout: Layout,
    index: tuple[Path, dict[str, str]],
    builder: tuple[str, str],
    module: Any,
    short: Path,
    name: str,
) -> None:
    archive = str(pack(short / "x.tar.gz", *BACKEND))
    result = module(**hooked(open_layout, index, builder, **{name: "echo no npm; touch x; exit 3"}), archive=archive)
    assert f"he hook {name} (app_hooks) failed with exit code 3" in result["msg"]
    assert result["msg"].endswith("\nno npm")
    slow = {**hooked(open_layout, index, builder, **{name: "sleep 60 & wait"}), "hook_timeout": 0.2}
    begin = time.monotonic()
    result = module(**slow, archive=archive)
    assert f"he hook {name} (app_hooks) took longer than 0.2 s (app_hook_timeout)" in result["msg"]
    assert time.monotonic() - begin < 15
    assert [path.name for path in open_layout.builds.iterdir() if path.name[0] != "."] == []
    left = [path for path in open_layout.builds.rglob("*") if path.lstat().st_uid != os.geteuid()]
    assert left == []


def test_hooks_are_part_of_a_build(layout: Layout, index: tuple[Path, dict[str, str]], module: Any) -> None:
    hooks: list[dict[str, str]] = [{}, {"before_build": "a"}, {"before_build": "b"}, {"after_build": "a"}]
    names = [module(**arguments(layout, index, hooks=each))["build"] for each in hooks]
    assert len(set(names)) == 4
    assert module(**arguments(layout, index, hooks={"before_switch": "a"}))["build"] == names[0]


def test_a_user_that_is_not_there_is_named(layout: Layout, index: tuple[Path, dict[str, str]], module: Any, source: Path) -> None:
    result = module(**arguments(layout, index, archive=str(source), user="no-such-user", hooks={"before_build": "id"}))
    assert "There is no user no-such-user on this host" in result["msg"]


# Errors


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize(
    ("uv", "pip", "advice"),
    [
        (
            "error: Request failed after 3 retries\n  cause: error sending request for url (https://pypi.org/simple/x/)",
            "WARNING: Retrying (Retry(total=0)) NewConnectionError('Failed to establish a new connection')\n"
            "ERROR: No matching distribution found for fastapi",
            "The package index does not answer this host",
        ),
        (
            "error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`",
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "A package does not match its hash in the lock file",
        ),
        (
            "error: In `--require-hashes` mode, all requirements must have a hash, but none were provided for: uvicorn",
            "ERROR: Hashes are required in --require-hashes mode, but they are missing from some requirements.",
            "Some requirements have hashes and some have none",
        ),
        (
            "Because a==1 has no usable wheels and you require a==1, your requirements are unsatisfiable.",
            "ERROR: No matching distribution found for a==1",
            "app_source_builds: true",
        ),
        (
            "Because the current Python version (3.11.2) does not satisfy Python>=3.13 and a==1 depends on Python>=3.13, we can "
            "conclude that a==1 cannot be used.",
            "ERROR: Package 'a' requires a different Python: 3.11.2 not in '>=3.13'",
            "set app_python to .*python_installer: uv",
        ),
        (
            "No solution found when resolving dependencies",
            "ERROR: No matching distribution found for a==9",
            "cannot be met|no wheel",
        ),
        ("something new", "something new", r" pip install .*requirements\.txt"),
    ],
)
def test_an_installers_error_begins_with_what_to_do(
    tmp_path: Path,
    layout: Layout,
    index: tuple[Path, dict[str, str]],
    program: Callable[[str, str], Path],
    installer: str,
    uv: str,
    pip: str,
    advice: str,
) -> None:
    said = uv if installer == "uv" else pip
    (tmp_path / "said").write_text(said, encoding="utf-8")
    text = f'#!/bin/sh\ncase "$*" in *" install "*) cat {tmp_path}/said; exit 1 ;; esac\n'
    text += 'case "$2" in venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;; esac\n'
    fake = str(program("fake", text))
    (tmp_path / "requirements.txt").write_text("fastapi\n", encoding="utf-8")
    with pytest.raises(ReleaseError) as error:
        install(layout.venvs / "v1", tmp_path, arguments(layout, index, installer=installer, uv=fake, interpreter=fake))
    first = str(error.value).splitlines()[0]
    assert re.search(advice, first), first
    assert said.splitlines()[0] in str(error.value)


def test_what_uv_really_says_is_understood(tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    source_only = tmp_path / "links"
    source_only.mkdir()
    pack(source_only / "old-1.0.tar.gz", ("old-1.0/setup.py", "import setuptools\nsetuptools.setup(name='old', version='1.0')\n"))
    closed = {"UV_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    linked = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": f"{source_only},{index[0]}", "UV_OFFLINE": "1"}
    cases = [
        ("fastapi\n", closed, r"^The package index does not answer this host"),
        ("old==1.0\n", linked, r"^A package has no wheel for this host.*app_source_builds: true"),
        (f"fastapi==1.0 --hash=sha256:{'0' * 64}\n", linked, r"^A package does not match its hash in the lock file"),
        (f"uvicorn\nfastapi==1.0 --hash=sha256:{index[1]['fastapi']}\n", linked, r"^Some requirements have hashes"),
        ("fastapi==9\n", linked, r"^The requirements cannot be met"),
    ]
    for text, environment, says in cases:
        (tmp_path / "requirements.txt").write_text(text, encoding="utf-8")
        with pytest.raises(ReleaseError, match=says):
            install(layout.venvs / "v1", tmp_path, arguments(layout, index, environment=environment))


# The action


class Action:
    """The action plugin over a host that answers as the module would."""

    def __init__(
        self, answers: list[dict[str, Any]], check: bool = False, source: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.answers = answers
        self.calls: list[dict[str, Any]] = []
        self.sent: list[tuple[str, str]] = []
        self.removed: list[str] = []
        source = source or {"archive": "/cache/x.tar.gz", "wheels": {"archive": "/cache/w.tar.gz"}}
        task = SimpleNamespace(args={"source": source, **options}, check_mode=check, async_val=0, action="slipway_build")
        shell = SimpleNamespace(join_path=os.path.join, tmpdir=None)
        connection = SimpleNamespace(_shell=shell)
        action = BuildAction(task, connection, None, None, None, None)
        action._execute_module = self.execute
        action._make_tmp_path = lambda: setattr(shell, "tmpdir", "/tmp/ansible-1")
        action._remove_tmp_path = self.removed.append
        action._transfer_file = lambda local, remote: self.sent.append((local, remote))
        action._fixup_perms2 = lambda paths: None
        self.action = action

    def execute(self, name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.calls.append({**module_args["arguments"], **module_args["secrets"], "run": module_args["run"]})
        return self.answers.pop(0)


def test_the_source_is_sent_when_it_is_needed() -> None:
    answers: list[dict[str, Any]] = [{"changed": True, "build": "b1", "needs_archive": True}]
    host = Action([*answers, {"changed": True, "build": "b1", "needs_archive": False}])
    assert host.action.run(task_vars={}) == {"changed": True, "build": "b1"}
    assert host.sent == [("/cache/x.tar.gz", "/tmp/ansible-1/archive.tar.gz")]
    assert [call.get("archive") for call in host.calls] == [None, "/tmp/ansible-1/archive.tar.gz"]
    assert host.removed == ["/tmp/ansible-1"]


@pytest.mark.parametrize(
    ("answer", "check"),
    [
        ({"changed": False, "build": "b1", "needs_archive": False}, False),
        ({"changed": True, "build": "b1", "needs_archive": True}, True),
        ({"failed": True, "msg": "no"}, False),
    ],
)
def test_the_source_is_not_sent_when_it_is_not(answer: dict[str, Any], check: bool) -> None:
    host = Action([dict(answer)], check)
    result = host.action.run(task_vars={})
    assert (host.sent, len(host.calls)) == ([], 1)
    assert result.get("failed") == answer.get("failed")
    assert "needs_archive" not in result


@pytest.mark.parametrize(
    ("size", "check", "along"), [(10, False, True), (2**18, False, True), (2**18 + 1, False, False), (10, True, False)]
)
def test_a_small_source_goes_along_with_the_question(tmp_path: Path, size: int, check: bool, along: bool) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"x" * size)
    host = Action([{"changed": True, "build": "b1", "needs_archive": False}], check, {"archive": str(archive)})
    assert host.action.run(task_vars={}) == {"changed": True, "build": "b1"}
    assert [len(base64.b64decode(call.get("packed", ""))) for call in host.calls] == [size if along else 0]
    assert host.sent == []


def test_wheels_are_sent_where_an_environment_is_made() -> None:
    first = {"changed": True, "build": "b1", "needs_archive": True, "needs_wheels": True}
    host = Action([first, {"changed": True, "build": "b1", "needs_archive": False, "needs_wheels": False}])
    assert host.action.run(task_vars={}) == {"changed": True, "build": "b1"}
    assert host.sent == [
        ("/cache/x.tar.gz", "/tmp/ansible-1/archive.tar.gz"),
        ("/cache/w.tar.gz", "/tmp/ansible-1/wheels.tar.gz"),
    ]
    assert host.calls[1]["wheels"] == "/tmp/ansible-1/wheels.tar.gz"
    assert host.calls[1]["run"]["id"]


def test_a_host_that_waits_is_sent_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"small enough to go along")
    lacks = {"changed": True, "build": "b1", "needs_archive": True, "lacks_venv": True, "build_fingerprint": "t1"}
    host = Action([dict(lacks)], source={"archive": str(archive)}, waits_for="one.test")
    result = host.action.run(task_vars={})
    assert result == {"changed": False, "build": "b1", "lacks_venv": True, "build_fingerprint": "t1", "waits_for": "one.test"}
    assert (host.sent, "packed" in host.calls[0], "waits_for" in host.calls[0]) == ([], False, False)
    has = Action([{**lacks, "changed": False, "needs_archive": False}], source={"archive": str(archive)}, waits_for="one.test")
    assert "waits_for" not in has.action.run(task_vars={})


@pytest.mark.parametrize("venv", [True, False])
def test_what_another_host_built_is_sent(venv: bool) -> None:
    prebuilt = {piece: {"file": f"/local/one.test-{piece}.tar.gz", "digest": piece[0] * 64} for piece in ("build", "venv")}
    first = {"changed": True, "build": "b1", "needs_archive": False, "needs_build": True, "needs_venv": venv}
    host = Action([first, {"changed": True, "build": "b1"}], prebuilt=prebuilt)
    assert host.action.run(task_vars={}) == {"changed": True, "build": "b1"}
    pieces = ["build", "venv"][: 1 + venv]
    assert host.sent == [(f"/local/one.test-{piece}.tar.gz", f"/tmp/ansible-1/{piece}.tar.gz") for piece in pieces]
    assert host.calls[1]["prebuilt"] == {"build": "b" * 64, "venv": "v" * 64}
    assert [host.calls[1][piece] for piece in pieces] == [remote for _, remote in host.sent]
