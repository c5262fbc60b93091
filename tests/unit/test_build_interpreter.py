"""A Python that a host lacks: uv installs it once for all apps, a build runs on it, and it goes with the last build that does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interpreters
import pytest
from test_app_build import UV, arguments, pack, wheel

from slipway.controller.secrets import split
from slipway.host import pythons
from slipway.host.build import interpreter
from slipway.host.build.interpreter import choose, ensure, listed
from slipway.host.build.venv import complete
from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout

REQUEST = f"=={interpreters.VERSION},>=3.11"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This Python, packed."""
    return interpreters.archive(tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("work"))


@pytest.fixture
def place(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Pythons are installed."""
    monkeypatch.setattr(pythons, "PLACE", short / "python")
    return short / "python"


@pytest.fixture
def downloads(archive: Path, tmp_path: Path) -> str:
    """A list with that Python alone."""
    interpreters.listing(archive, tmp_path / "list.json", archive.as_uri())
    return (tmp_path / "list.json").as_uri()


def asking(request: str, **changes: Any) -> dict[str, Any]:
    """Return the arguments of a step whose source asks for a Python."""
    return {"source": {"interpreter": request}, "uv": str(UV), "downloads": "", "environment": {}, "minimum": "3.11", **changes}


def chosen(request: str, **changes: Any) -> str:
    """Return the name of the Python that is chosen."""
    found = choose(asking(request, **changes))
    assert found is not None
    return found.name


def test_the_newest_stable_one_that_fits_is_chosen() -> None:
    everything = listed(str(UV), ">=3.11,<4", {})
    versions = [tuple(map(int, one.version.split("."))) for one in everything]
    assert versions == sorted(versions, reverse=True)
    assert chosen(">=3.11,<4") == everything[0].name
    assert chosen("==3.14.*,<3.14.3,>=3.11").startswith("cpython-3.14.2-linux-")
    assert chosen("==3.14.2,>=3.11+freethreaded").startswith("cpython-3.14.2+freethreaded-linux-")
    assert choose(asking("")) is None


def test_one_that_uv_does_not_know_is_refused(downloads: str, tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError, match=r"needs a Python that is ==3\.99\.\*,>=3\.11, and uv on this host knows none: set app_py"
    ):
        choose(asking("==3.99.*,>=3.11"))
    with pytest.raises(ReleaseError, match=r"the list file:.*list\.json \(python_downloads_url\) has none"):
        choose(asking("==3.99.*,>=3.11", downloads=downloads))
    with pytest.raises(
        ReleaseError, match=rf"{tmp_path} on this host .* has no archive .* Put one there, such as cpython-3\.14\.2\+"
    ):
        choose(asking("==3.14.2,>=3.11", downloads=str(tmp_path)))


@pytest.mark.parametrize("folder", ["", "20260203/"])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_directory_offers_what_is_in_it_and_its_digests_are_checked(
    tmp_path: Path, place: Path, archive: Path, folder: str, form: str
) -> None:
    (fits,) = [one for one in listed(str(UV), "==3.14.2,>=3.11", {}) if "x86_64" in one.name or "aarch64" in one.name]
    name = fits.archive[1]
    (tmp_path / "pythons" / folder).mkdir(parents=True)
    (tmp_path / "pythons" / folder / name).symlink_to(archive)  # another one than its name says
    given = asking("==3.14.*,>=3.11", downloads=form.format(tmp_path / "pythons"))
    found = choose(given)
    assert found == fits, "not the newest that uv knows, of which there is none here"
    with pythons.in_use(tmp_path), pytest.raises(ReleaseError, match=r"does not match the digest that uv knows"):
        ensure(found, given)
    assert not (place / found.name).exists()


def test_one_that_is_installed_needs_no_archive(tmp_path: Path, place: Path) -> None:
    (tmp_path / "pythons").mkdir()
    given = asking("==3.14.2,>=3.11", downloads=str(tmp_path / "pythons"))
    with pytest.raises(ReleaseError, match="has no archive"):
        choose(given)
    found = choose({**given, "downloads": ""})
    assert found is not None
    found.directory.mkdir(parents=True)
    complete(found.directory)
    assert choose(given) == found


def test_one_that_cannot_be_downloaded_names_what_to_set(tmp_path: Path, place: Path) -> None:
    given = asking("==3.14.2,>=3.11", downloads="http://ann:open-sesame@127.0.0.1:9/python", environment={"UV_HTTP_RETRIES": "0"})
    found = choose(given)
    assert found is not None
    with (
        pythons.in_use(tmp_path),
        pytest.raises(ReleaseError, match=r"Python 3\.14\.2\. Its archive cannot be downloaded: set python_do") as error,
    ):
        ensure(found, given)
    assert "sesame" not in str(error.value)


def test_a_password_of_a_mirror_is_a_secret_of_the_step() -> None:
    login, plain = "https://ann:open-sesame@mirror.example.com/python", "https://mirror.example.com/python"
    assert split({"downloads": login, "uv": "x"}) == ({"uv": "x"}, {"downloads": login})
    assert split({"downloads": plain, "uv": "x"}) == ({"downloads": plain, "uv": "x"}, {})


def test_it_is_installed_once_readable_for_all_and_writable_for_root(tmp_path: Path, place: Path, downloads: str) -> None:
    given = asking(REQUEST, downloads=downloads)
    found = choose(given)
    assert found is not None
    with pythons.in_use(tmp_path):
        assert [ensure(found, given) for _ in range(2)] == [True, False]
        (found.directory / ".complete").unlink()  # one that was interrupted is begun anew
        (found.directory / "bin" / "python").unlink()
        assert ensure(found, given) is True
    said = subprocess.run([found.program, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(place / interpreters.NAME)
    assert list(place.glob(f"{interpreters.NAME}/lib/*/__pycache__/os.*.pyc")), "its modules are compiled"
    locks = [path for path in place.iterdir() if path.name.endswith("lock")]
    assert {path.name: path.stat().st_mode & 0o777 for path in locks} == dict.fromkeys(
        (".builds.lock", ".install.lock", ".lock"), 0o600
    ), "who may open it may hold it"
    for path in [place, *place.rglob("*")]:
        if not path.is_symlink():
            assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (os.geteuid(), 0), path
            assert path.name.startswith(".") or path.stat().st_mode & 0o044 == 0o044, path


@pytest.fixture
def given(tmp_path: Path, downloads: str) -> dict[str, Any]:
    """The arguments of a step that builds an app, whose packages are in a folder."""
    home = Layout(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    for directory in (home.builds, home.venvs, tmp_path / "wheels"):
        directory.mkdir(parents=True)
    digests = {name: wheel(tmp_path / "wheels", name, "1.0") for name in ("fastapi", "gunicorn", "uvicorn-worker")}
    return arguments(home, (tmp_path / "wheels", digests), downloads=downloads)


def test_a_build_is_made_on_it_and_named_by_it(
    tmp_path: Path,
    place: Path,
    given: dict[str, Any],
    run_step: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = pack(tmp_path / "source.tar.gz", ("requirements.txt", "fastapi==1.0\n"), ("main.py", "app = None\n"))
    own = run_step("build", **given, check=True)["build"]
    given["source"]["interpreter"] = REQUEST
    expected = run_step("build", **given, check=True)
    assert (expected["changed"], place.exists()) == (True, False), "nothing changes in a dry run"
    assert expected["build"] != own
    result = run_step("build", **given)
    assert (result["needs_archive"], place.joinpath(interpreters.NAME).exists()) == (True, False)
    result = run_step("build", **given, archive=str(source))
    assert result["build"] == expected["build"]
    build = tmp_path / "shop" / "builds" / result["build"]
    python = build / ".venv" / "bin" / "python"
    assert Path(os.readlink(python)).is_relative_to(place / interpreters.NAME)
    command = [python, "-c", "import sys, gunicorn; print(sys.base_prefix)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == str(place / interpreters.NAME)
    assert pythons.version_of_build(build) == interpreters.VERSION
    assert [run_step("build", **given, check=check)["changed"] for check in (True, False)] == [False, False]
    pythons.prune()
    assert python.exists()
    (place / interpreters.NAME / ".complete").unlink()  # somebody removed it
    monkeypatch.setattr(interpreter, "download", lambda found, given: (place / "gone").rename(found.directory))
    (place / interpreters.NAME).rename(place / "gone")
    assert run_step("build", **given)["changed"] is True
    assert python.exists()


def test_a_dry_run_before_uv_is_installed_expects_a_build(
    given: dict[str, Any], run_step: Callable[..., dict[str, Any]], place: Path
) -> None:
    given["source"]["interpreter"] = REQUEST
    given["uv"] = "/no/such/uv"
    assert run_step("build", **given, check=True)["build"] == "not yet built"
    with pytest.raises(ReleaseError, match="/no/such/uv cannot be started"):
        choose(given)


def test_one_that_is_too_old_is_not_kept(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(found: interpreter.Interpreter, given: dict[str, Any]) -> None:
        found.program.parent.mkdir(parents=True)
        found.program.write_text("#!/bin/sh\necho 3.10.1\n", encoding="utf-8")
        found.program.chmod(0o755)

    monkeypatch.setattr(interpreter, "download", download)
    found = choose(asking("==3.14.2,>=3.11"))
    assert found is not None
    with pythons.in_use(tmp_path), pytest.raises(ReleaseError, match=r"is Python 3\.10\.1; the app needs 3\.11 or newer"):
        ensure(found, asking(""))
    assert not found.directory.exists()


@pytest.mark.parametrize("text", ['warning: x\n[{"implementation": "pypy", "variant": "default", "version": "3.11.1"}]', "none"])
def test_what_else_uv_prints_is_passed_over(program: Callable[[str, str], Path], text: str) -> None:
    uv = program("uv", f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    assert listed(str(uv), ">=3.11", {}) == []
