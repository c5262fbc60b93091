"""A build: the packed source unpacked, its environment made or shared, and nothing seen of it before it is whole."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import app_build
import pytest
from ansible.module_utils.app_layout import Layout, ReleaseError, lock
from app_build import build, install, python_version, unpack

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")


def wheel(directory: Path, name: str, version: str) -> str:
    """Make a wheel with one module, and return the digest of its file."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"__version__ = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={hashed},{len(text)}\n")
    path = directory / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in {**files, f"{info}/RECORD": "".join([*rows, f"{info}/RECORD,,\n"])}.items():
            archive.writestr(name_inside, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of wheels in place of the package index, and their digests."""
    directory = tmp_path_factory.mktemp("wheels")
    names = ("fastapi", "gunicorn", "uvicorn-worker", "uvicorn")
    return directory, {name: wheel(directory, name, "1.0") for name in names} | {"new": wheel(directory, "fastapi", "2.0")}


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, index: tuple[Path, dict[str, str]]) -> Path:
    """An environment that is complete, for tests that are about something else."""
    home = tmp_path_factory.mktemp("made")
    (home / "requirements.txt").write_text("fastapi==1.0\n", encoding="utf-8")
    install(home / "v1", home / "requirements.txt", arguments(Layout(home, home, home), index))
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
        "source_builds": False,
        "environment": {
            **dict.fromkeys(("UV_NO_INDEX", "PIP_NO_INDEX", "UV_OFFLINE"), "1"),
            **{name: str(index[0]) for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS")},
        },
        "who": "ann@laptop",
        **changes,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A packed app."""
    files = [("requirements.txt", "fastapi==1.0\n"), ("app/main.py", "app = None\n"), ("app/__init__.py", "")]
    return pack(tmp_path / "source.tar.gz", *files)


@pytest.fixture
def module(run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(app_build, "lock", functools.partial(lock, patience=0.1))
    return functools.partial(run_module, app_build)


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
        # Each link stays inside by its own words, and both together lead out.
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
    with pytest.raises(ReleaseError, match="leads outside or is no ordinary file"):
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
    install(venv, requirements, arguments(layout, index))
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
    python = program("python", text + 'test "$1" != -c\n')
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"fastapi==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    changed = arguments(layout, index, installer="pip", uv="/no/such/uv", interpreter=str(python))
    install(layout.venvs / "v1", requirements, changed)
    calls = [call.split() for call in log.read_text(encoding="utf-8").splitlines()]
    assert [call[0] for call in calls] == ["1", "1", "0", "1"]
    made, locked, _, besides = [call[1:] for call in calls]
    assert made == ["-m", "venv", str(layout.venvs / "v1")]
    wheels = ["--only-binary", ":all:"]
    assert locked[:3] == besides[:3] == ["-m", "pip", "install"]
    assert locked[-5:] == [*wheels, "--require-hashes", "-r", str(requirements)]
    assert besides[-4:] == [*wheels, "gunicorn>=1", "uvicorn-worker"]
    assert {"--no-input", "--disable-pip-version-check"} <= set(locked) & set(besides)


def test_a_lock_that_has_the_server_is_enough(tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("gunicorn\nuvicorn-worker\n", encoding="utf-8")
    install(layout.venvs / "v1", requirements, arguments(layout, index, server=["no-such-package"]))
    assert import_in(layout.venvs / "v1", "gunicorn") == "1.0"


def test_hashes_are_enforced_where_there_are_any(tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"fastapi==1.0 \\\n    --hash=sha256:{index[1]['fastapi']}\n", encoding="utf-8")
    install(layout.venvs / "v1", requirements, arguments(layout, index))
    assert import_in(layout.venvs / "v1", "fastapi") == "1.0"
    for text in (f"fastapi==1.0 --hash=sha256:{'0' * 64}\n", f"fastapi==1.0 --hash=sha256:{index[1]['fastapi']}\nuvicorn\n"):
        requirements.write_text(text, encoding="utf-8")
        with pytest.raises(ReleaseError, match=r"(?i)hash"):
            install(layout.venvs / "v2", requirements, arguments(layout, index))


@pytest.mark.parametrize("allowed", [False, True])
def test_packages_are_built_from_source_only_where_that_is_allowed(
    tmp_path: Path, layout: Layout, index: tuple[Path, dict[str, str]], program: Callable[[str, str], Path], allowed: bool
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("fastapi==1.0\n", encoding="utf-8")
    log = tmp_path / "log"
    uv = program("uv", f'#!/bin/sh\necho "$UV_PYTHON_DOWNLOADS $UV_CACHE_DIR $@" >>{log}\nexec {UV} "$@"\n')
    install(layout.venvs / "v1", requirements, arguments(layout, index, uv=str(uv), source_builds=allowed))
    calls = log.read_text(encoding="utf-8").splitlines()
    assert all(call.startswith(f"never {layout.home / 'cache'} ") for call in calls)
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


@pytest.mark.parametrize("step", ["unpack", "install", "point", "write", "settle"])
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
        patch.setattr(app_build, step, killed)
        build(layout, "b1", "v1", arguments(layout, index, archive=str(source)))
    if step != "settle":
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
    assert list(layout.builds.iterdir()) == []
    second = module(**arguments(layout, index, archive=str(source)))
    assert (second["changed"], second["build"], second["needs_archive"]) == (True, first["build"], False)
    assert [path.name for path in layout.builds.iterdir()] == [first["build"]]
    third = module(**arguments(layout, index))
    assert (third["changed"], third["build"], third["needs_archive"]) == (False, first["build"], False)


def test_a_build_is_named_by_what_went_into_it(
    layout: Layout, index: tuple[Path, dict[str, str]], module: Any, program: Callable[[str, str], Path]
) -> None:
    pythons = [str(program(f"python{version}", f"#!/bin/sh\necho {version}\n")) for version in ("3.13.1", "3.13.2")]
    usual = arguments(layout, index, interpreter=pythons[0])
    name = module(**usual)["build"]
    same: list[dict[str, Any]] = [{"who": "bob@desk"}, {"uv": "/other/uv"}, {"cache": "/other"}, {"environment": {}}]
    same += [{"source": {**usual["source"], key: "other"}} for key in ("archive", "revision", "origin")]
    assert {module(**{**usual, **change})["build"] for change in same} == {name}
    other: list[dict[str, Any]] = [{"installer": "pip"}, {"server": ["gunicorn==1"]}, {"source_builds": True}]
    other += [{"interpreter": pythons[1]}]
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
    assert "what was live still is" in result["msg"]
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
    with lock(layout, "bob@desk"):
        result = module(**arguments(layout, index, archive=str(source)))
        assert "bob@desk since" in result["msg"]
        assert list(layout.builds.iterdir()) == []
        # To say that nothing is needed takes no lock.
        assert module(**arguments(layout, index))["needs_archive"] is True


# The action


class Action:
    """The action plugin over a host that answers as the module would."""

    def __init__(self, answers: list[dict[str, Any]], check: bool = False) -> None:
        path = ROOT / "roles/app/action_plugins/app_build.py"
        spec = importlib.util.spec_from_file_location("app_build_action", path)
        assert spec is not None
        assert spec.loader is not None
        plugin = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(plugin)
        self.answers = answers
        self.calls: list[dict[str, Any]] = []
        self.sent: list[tuple[str, str]] = []
        self.removed: list[str] = []
        task = SimpleNamespace(args={"source": {"archive": "/cache/x.tar.gz"}}, check_mode=check, async_val=0, action="app_build")
        shell = SimpleNamespace(join_path=os.path.join, tmpdir=None)
        connection = SimpleNamespace(_shell=shell)
        action = plugin.ActionModule(task, connection, None, None, None, None)
        action._execute_module = self.execute
        action._make_tmp_path = lambda: setattr(shell, "tmpdir", "/tmp/ansible-1")
        action._remove_tmp_path = self.removed.append
        action._transfer_file = lambda local, remote: self.sent.append((local, remote))
        action._fixup_perms2 = lambda paths: None
        self.action = action

    def execute(self, name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.calls.append(dict(module_args))
        return self.answers.pop(0)


def test_the_source_is_sent_when_it_is_needed() -> None:
    answers: list[dict[str, Any]] = [{"changed": True, "build": "b1", "needs_archive": True}]
    host = Action([*answers, {"changed": True, "build": "b1", "needs_archive": False}])
    assert host.action.run(task_vars={}) == {"changed": True, "build": "b1"}
    assert host.sent == [("/cache/x.tar.gz", "/tmp/ansible-1/source.tar.gz")]
    assert [call.get("archive") for call in host.calls] == [None, "/tmp/ansible-1/source.tar.gz"]
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
