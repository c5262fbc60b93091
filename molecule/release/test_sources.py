"""Apps that are not ours, from wherever they come: git with Alembic, an archive, a package, a project with uv.lock."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SHOP, Host, Run, polling
from molecule.release import program
from molecule.release.conftest import deploy, flat, serves
from tests.unit import interpreters

SNAPSHOT = "twin.test"
UV = Path(sys.executable).with_name("uv")
DATABASE = "sqlite:////opt/shop/shared/shop.db"

ENV = """
import os
from alembic import context
from sqlalchemy import create_engine
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = {revision!r}, {down!r}
def upgrade():
    {upgrade}
def downgrade():
    {downgrade}
"""
ORDERS = """
import os
from fastapi import FastAPI
from sqlalchemy import create_engine, inspect
app = FastAPI()
engine = create_engine(os.environ["DATABASE_URL"])
@app.get("/healthz")
def healthz():
    return {"columns": [column["name"] for column in inspect(engine).get_columns("orders")]}
"""


class Repository:
    """A git repository of an app with Alembic, in the folder backend of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        backend = path / "backend"
        (backend / "migrations" / "versions").mkdir(parents=True)
        (backend / "main.py").write_text(ORDERS, encoding="ascii")
        (backend / "requirements.txt").write_text("fastapi==0.165.0\nalembic\nsqlalchemy\n", encoding="ascii")
        (backend / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n", encoding="ascii")
        (backend / "migrations" / "env.py").write_text(ENV, encoding="ascii")
        self.git("init", "--quiet", "--initial-branch=main")
        table = 'op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))'
        self.migration("a1", None, table, 'op.drop_table("orders")')
        self.commit("v1")
        column = 'op.add_column("orders", sa.Column("price", sa.Integer))'
        self.migration("b2", "a1", column, "pass")
        self.commit("v2")
        (backend / "main.py").write_text(f"{ORDERS}\n# 3\n", encoding="ascii")
        self.commit("v3")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@test"]
        return subprocess.run(
            ["git", *identity, *words], cwd=self.path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def migration(self, revision: str, down: str | None, upgrade: str, downgrade: str) -> None:
        text = REVISION.format(revision=revision, down=down, upgrade=upgrade, downgrade=downgrade)
        (self.path / "backend" / "migrations" / "versions" / f"{revision}.py").write_text(text, encoding="ascii")

    def commit(self, tag: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={tag}")
        self.git("tag", tag)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("orders"))


def test_git_with_alembic_and_a_database(host: Host, repository: Repository) -> None:
    variables: dict[str, Any] = {
        "app_source": f"git+file://{repository.path}",
        "app_directory": "backend",
        "app_env": {"DATABASE_URL": DATABASE},
        "app_migrate_command": "alembic upgrade head",
        "app_watch_seconds": 0,
    }

    def release(version: str) -> Run:
        run = program.deploy(host, app_version=version, **variables)
        assert run.code == 0, run.output[-3000:]
        return run

    release("v1")
    one = host.live()
    assert host.ask("/healthz").json() == {"columns": ["id"]}
    release("v2")
    assert host.ask("/healthz").json() == {"columns": ["id", "price"]}
    release("v3")
    record = json.loads(host.run("cat /opt/shop/current/release.json"))
    assert (record["migration"], record["revision"]) == ("b2", repository.git("rev-parse", "v3"))
    # Within a schema there is a way back, and across none unless it is asked for.
    assert program.rollback(host, **variables).code == 0
    assert host.live() == one + 1
    refused = program.rollback(host, **variables)
    assert refused.code != 0
    assert "its migrations end at a1, and the database was migrated to b2 since" in flat(refused)
    assert serves(host) == one + 1
    run = program.rollback(host, app_rollback_across_migrations=True, **variables)
    assert run.code == 0, run.output[-3000:]
    assert serves(host) == one
    assert host.ask("/healthz").json() == {"columns": ["id", "price"]}, "Slipway never downgrades a database"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP to this machine alone."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def test_an_archive_by_its_address(host: Host, tmp_path: Path) -> None:
    archive = tmp_path / "shop-1.4.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(SHOP, arcname="shop-1.4")
    checksum = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    with served(tmp_path) as address:
        unsafe = program.deploy(host, app_source=f"{address}/{archive.name}")
        assert unsafe.code != 0
        assert "app_checksum" in flat(unsafe)
        run = program.deploy(host, app_source=f"{address}/{archive.name}", app_checksum=checksum, app_env={"GREETING": "packed"})
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "packed"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that holds an app, and all that it needs, for Python 3.13 on this machine's processor."""
    folder = tmp_path_factory.mktemp("wheels")
    project = tmp_path_factory.mktemp("project")
    (project / "src" / "corner_shop").mkdir(parents=True)
    (project / "src" / "corner_shop" / "__init__.py").write_text("", encoding="ascii")
    code = (SHOP / "main.py").read_text(encoding="utf-8")
    (project / "src" / "corner_shop" / "main.py").write_text(code, encoding="utf-8")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "corner-shop"\nversion = "1.4"\ndependencies = ["fastapi==0.165.0"]\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
        encoding="ascii",
    )
    subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, project], check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        "--python-version=3.13",
    ]
    needed = ["fastapi==0.165.0", "gunicorn>=23", "uvicorn-worker>=0.3", "uvicorn[standard]"]
    subprocess.run([*pip, f"--dest={folder}", *needed], check=True)
    return folder


def test_a_package_on_a_host_without_an_index(host: Host, wheels: Path) -> None:
    variables: dict[str, Any] = {
        "app_module": "corner_shop.main:app",
        "python_index_url": "http://127.0.0.1:9/simple",
        "app_watch_seconds": 0,
    }
    run = program.deploy(
        host, app_source="corner-shop==1.4", app_wheelhouse=str(wheels), app_env={"GREETING": "by name"}, **variables
    )
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "by name"
    assert json.loads(host.run("cat /opt/shop/current/release.json"))["revision"] == "1.4"
    wheel = next(wheels.glob("corner_shop-*.whl"))
    run = program.deploy(host, app_source=str(wheel), app_wheelhouse=str(wheels), app_env={"GREETING": "by file"}, **variables)
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "by file"


def test_no_code_of_a_package_runs_as_root_and_the_apps_pins_are_kept(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SHOP, source)
    with zipfile.ZipFile(source / "evil-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("evil.pth", "import os; open('/srv/evil', 'a').write('%d\\n' % os.getuid())\n")
        wheel.writestr("evil-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
        wheel.writestr("evil-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("evil-1.0.dist-info/RECORD", "evil.pth,,\n")
    requirements = "fastapi==0.165.0\nuvicorn==0.32.0\n./evil-1.0-py3-none-any.whl\n"
    (source / "requirements.txt").write_text(requirements, encoding="ascii")
    host.run("rm -f /srv/evil; install -m 666 /dev/null /srv/evil")
    run = program.deploy(host, app_source=str(source), app_env={"GREETING": "evil"}, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "evil"
    users = {host.run(f"id -u {name}").strip() for name in ("_build-shop", "shop")}
    assert set(host.run("sort -u /srv/evil").split()) == users
    site = "/opt/shop/current/build/.venv/lib/python3*/site-packages"
    assert "uvicorn-0.32.0.dist-info" in host.run(f"ls {site}")
    assert host.run("find /opt/shop/builds /opt/shop/venvs ! -user root -o -perm /6000") == ""
    live = host.live()
    (source / "requirements.txt").write_text(f"{requirements}--no-binary fastapi\n", encoding="ascii")
    run = program.deploy(host, app_source=str(source), app_watch_seconds=0)
    assert run.code != 0
    assert "app_source_builds: true" in flat(run)
    assert serves(host) == live


def test_a_project_with_uv_lock_and_a_src_layout(host: Host, kiosk: Path) -> None:
    (kiosk / ".python-version").write_text("3.99\n", encoding="ascii")
    refused = program.deploy(host, app_source=str(kiosk))
    assert refused.code != 0
    assert ".python-version says 3.99" in refused.output and "there is Python 3.13." in refused.output
    (kiosk / ".python-version").unlink()
    run = program.deploy(
        host, app_source=str(kiosk), app_module="kiosk.main:app", app_env={"GREETING": "locked"}, app_watch_seconds=0
    )
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "locked"
    present = host.run("ls /opt/shop/current/build/.venv/lib/python3*/site-packages")
    assert "kiosk" in present
    assert "pytest" not in present


WHICH = """
import sys
@app.get("/python")
def which():
    return [sys.version.split()[0], sys.base_prefix]
"""


@pytest.fixture(scope="module")
def mirror(host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A list of Pythons on the host, beside the archive of the one that it has: that which runs the tests."""
    folder = tmp_path_factory.mktemp("python")
    archive = interpreters.archive(folder, tmp_path_factory.mktemp("work"))
    interpreters.listing(archive, folder / "list.json", f"file:///srv/python/{archive.name.replace('+', '%2B')}")
    host.run("mkdir -p /srv/python")
    for file in folder.iterdir():
        subprocess.run(["podman", "cp", file, f"{host.container}:/srv/python/{file.name}"], check=True)
    return "file:///srv/python/list.json"


def test_an_app_runs_on_a_python_that_the_system_lacks(host: Host, shop: Path, mirror: str) -> None:
    own, place = host.run("/usr/bin/python3 -V").split()[1], f"/opt/slipway/python/{interpreters.NAME}"
    assert own != interpreters.VERSION
    (shop / "main.py").write_text((shop / "main.py").read_text(encoding="utf-8") + WHICH, encoding="utf-8")
    project = f'[project]\nname = "shop"\nversion = "1"\nrequires-python = "=={interpreters.VERSION}"\n'
    (shop / "pyproject.toml").write_text(project, encoding="utf-8")
    wanted: dict[str, Any] = {
        "app_source": str(shop),
        "python_downloads_url": mirror,
        "app_watch_seconds": 0,
        "app_keep_releases": 1,
    }
    live = serves(host)
    refused = program.deploy(host, app_python="3.13.99", **wanted)
    assert refused.code != 0
    assert "app_python is 3.13.99, and pyproject.toml (requires-python) of the source says ==" in flat(refused)
    refused = program.deploy(host, **{**wanted, "python_downloads_url": "/srv/nothing"})
    assert refused.code != 0
    assert "/srv/nothing on this host (python_downloads_url) has no archive" in flat(refused)
    assert serves(host) == live
    with polling(host, "/healthz") as failures:
        run = deploy(host, **wanted)
    assert run.code == 0, run.output[-3000:]
    assert failures == []
    number = serves(host)
    assert host.ask("/python").json() == [interpreters.VERSION, place]
    assert host.run(f"readlink /proc/{host.master()}/exe").startswith(f"{place}/bin/python3")
    assert host.run(f"stat --format=%U /proc/{host.master()}").strip() == "shop"
    assert host.run("find /opt/slipway/python ! -type l '(' ! -user root -o -perm /022 ')'") == ""
    assert json.loads(host.run("slipway status shop --json"))[0]["python"] == interpreters.VERSION
    for arguments in ((), ("--check",)):
        again = deploy(host, *arguments, **wanted)
        assert (again.code, sum(again.changed.values())) == (0, 0), again.output[-3000:]
    # Another release on the host's own, and back, and away from it for good.
    (shop / "pyproject.toml").unlink()
    assert program.deploy(host, app_python=own, **wanted).code == 0
    assert host.ask("/python").json()[0] == own
    assert program.rollback(host, **wanted).code == 0
    assert serves(host) == number
    assert host.ask("/python").json() == [interpreters.VERSION, place]
    for greeting in ("one", "two", "three"):
        run = program.deploy(host, app_python=own, app_env={"GREETING": greeting}, **wanted)
        assert run.code == 0, run.output[-3000:]
    assert "cpython" not in host.run("ls /opt/slipway/python")


def pages(shop: Path, text: str) -> Path:
    """Have the app serve a page of its own, and Nginx another one."""
    mount = "from fastapi.staticfiles import StaticFiles\napp.mount('/pages', StaticFiles(directory='pages', html=True))\n"
    (shop / "main.py").write_text(f"{(SHOP / 'main.py').read_text(encoding='utf-8')}\n{mount}", encoding="utf-8")
    for folder in ("pages", "app/static"):
        (shop / folder).mkdir(parents=True, exist_ok=True)
        for name, content in (("index.html", text), ("same.js", "same")):
            (shop / folder / name).write_text(content, encoding="ascii")
    return shop


SHARED = """
import sqlite3
from pathlib import Path
@app.post("/orders")
def order():
    Path("uploads", f"{len(list(Path('uploads').iterdir()))}.txt").write_text("written")
    with sqlite3.connect("shop.sqlite3") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table if not exists orders (id integer primary key)")
        database.execute("insert into orders default values")
    return orders()
@app.get("/orders")
def orders():
    with sqlite3.connect("shop.sqlite3") as database:
        (count,) = database.execute("select count(*) from orders").fetchone()
    return {"files": sorted(path.name for path in Path("uploads").iterdir()), "orders": count}
"""
BESIDE = "\nopen('state.json', 'a')\n"


def test_an_app_that_writes_beside_its_code_keeps_what_it_wrote(host: Host, shop: Path) -> None:
    plain = (SHOP / "main.py").read_text(encoding="utf-8")
    (shop / "main.py").write_text(f"{plain}{SHARED}{BESIDE}", encoding="utf-8")
    (shop / "uploads").mkdir()
    (shop / "uploads" / "from-source.txt").write_text("seed", encoding="ascii")
    source: dict[str, Any] = {"app_source": str(shop), "app_watch_seconds": 0}
    live = host.live()
    refused = program.deploy(host, **source)
    assert refused.code != 0
    assert 'To keep state.json there, set app_shared: {"state.json": ""}' in flat(refused)
    assert serves(host) == live
    source["app_shared"] = {"uploads": "media", "shop.sqlite3": "", "state.json": ""}
    run = program.deploy(host, **source)
    assert run.code == 0, run.output[-3000:]
    first = serves(host)
    assert host.ask("/orders", "POST").json() == {"files": ["1.txt", "from-source.txt"], "orders": 1}
    (shop / "main.py").write_text(f"{plain}{SHARED}{BESIDE}# 2\n", encoding="utf-8")
    (shop / "uploads" / "later.txt").write_text("too late", encoding="ascii")
    run = program.deploy(host, **source)
    assert run.code == 0, run.output[-3000:]
    assert serves(host) > first
    assert host.ask("/orders", "POST").json() == {"files": ["1.txt", "2.txt", "from-source.txt"], "orders": 2}
    assert program.rollback(host, **source).code == 0
    assert serves(host) == first
    assert host.ask("/orders").json() == {"files": ["1.txt", "2.txt", "from-source.txt"], "orders": 2}
    owners = host.run(
        "stat --format=%U:%a /opt/shop/shared/media /opt/shop/shared/shop.sqlite3 /opt/shop/shared/media/2.txt"
    ).split()
    assert owners == ["shop:750", "shop:640", "shop:640"]
    assert host.run("find -L /opt/shop/builds -name '*.sqlite3-*'") == ""
    # To a release from before the setting there is a way back, too, and the data stays.
    assert program.rollback(host, app_rollback_to=str(live), **source).code == 0
    assert serves(host) == live
    assert host.run("ls /opt/shop/shared/media").split() == ["1.txt", "2.txt", "from-source.txt"]


FACTORY = """
def create_app():
    @app.get("/factory")
    def factory():
        return "made"
    return app
"""


def test_an_app_is_what_the_factory_makes_that_its_pyproject_names(host: Host, shop: Path) -> None:
    (shop / "main.py").write_text((shop / "main.py").read_text(encoding="utf-8") + FACTORY, encoding="utf-8")
    (shop / "pyproject.toml").write_text('[tool.fastapi]\nentrypoint = "main:create_app()"\n', encoding="ascii")
    run = program.deploy(host, app_source=str(shop), app_module="", app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    serves(host)
    assert host.ask("/factory").json() == "made"
    run = program.deploy(host, app_source=str(shop), app_module="main:app", app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/factory").status == 404


def test_a_library_that_an_app_lacks_is_named_and_installed_by_its_package(host: Host, shop: Path) -> None:
    text = (shop / "main.py").read_text(encoding="utf-8")
    (shop / "main.py").write_text(f"import ctypes\nctypes.CDLL('libmagic.so.1')\n{text}", encoding="utf-8")
    live = host.live()
    refused = program.deploy(host, app_source=str(shop))
    assert refused.code != 0
    assert "needs the system library libmagic.so.1" in flat(refused)
    assert "add its package to app_packages (probably libmagic1)" in flat(refused)
    assert serves(host) == live
    wanted: dict[str, Any] = {"app_source": str(shop), "app_packages": ["libmagic1"], "app_watch_seconds": 0}
    run = deploy(host, **wanted)
    assert run.code == 0, run.output[-3000:]
    assert serves(host) > live
    again = deploy(host, **wanted)
    assert (again.code, sum(again.changed.values())) == (0, 0), again.output[-3000:]


FRONTEND = """
app.frontend("/", directory="dist")
"""
YEAR = "public, max-age=31536000, immutable"


def built(shop: Path, mark: str, code: str = "") -> dict[str, Any]:
    """Have the source hold a front end, as Vite builds one, whose script has another name for each `mark`."""
    shutil.rmtree(shop / "dist", ignore_errors=True)
    (shop / "dist" / "assets").mkdir(parents=True)
    script = f"assets/index-BfX9k2a{mark}.js"
    (shop / "dist" / script).write_text(f"// {mark}", encoding="ascii")
    (shop / "dist" / "static" / "js").mkdir(parents=True)
    (shop / "dist" / "static" / "js" / f"main.3f2a1b9{mark}.js").write_text(f"// {mark}", encoding="ascii")
    (shop / "dist" / "index.html").write_text(f'<script type="module" src="/{script}"></script>', encoding="ascii")
    (shop / "dist" / "logo-branding.svg").write_text("<svg/>", encoding="ascii")
    (shop / "main.py").write_text((SHOP / "main.py").read_text(encoding="utf-8") + code, encoding="utf-8")
    return {"app_source": str(shop), "app_static": "", "app_watch_seconds": 0}


@pytest.mark.parametrize("setting", ["auto", "dist"])
def test_an_open_page_of_a_front_end_survives_a_release(host: Host, shop: Path, setting: str) -> None:
    settings: dict[str, Any] = {"app_frontend": setting, "app_static": "app/static"}
    run = deploy(host, "--tags=nginx", playbook="site.yml", **settings)
    assert run.code == 0, run.output[-3000:]
    workers = host.run("pgrep -x nginx")
    code = FRONTEND if setting == "auto" else ""
    page = {"Accept": "text/html"}

    def release(mark: str) -> None:
        run = program.deploy(host, **{**built(shop, mark, code), **settings})
        assert run.code == 0, run.output[-3000:]
        serves(host)
        # The shop has a path operation for /, which goes before a front end that the app serves.
        index = host.ask("/index.html" if setting == "auto" else "/", headers=page)
        assert (index.status, index.headers["cache-control"]) == (200, "no-cache")
        assert f"index-BfX9k2a{mark}.js" in index.body
        script = host.ask(f"/assets/index-BfX9k2a{mark}.js")
        assert (script.status, script.body, script.headers["cache-control"]) == (200, f"// {mark}", YEAR)
        assert "x-release" not in script.headers, "Nginx serves it"
        below = host.ask(f"/static/js/main.3f2a1b9{mark}.js")  # where app_static is, too
        assert (below.status, below.body, below.headers["cache-control"]) == (200, f"// {mark}", YEAR)
        assert script.headers["x-content-type-options"] == "nosniff"
        again = host.ask(f"/assets/index-BfX9k2a{mark}.js", headers={"If-None-Match": script.headers["etag"]})
        assert (again.status, again.headers["cache-control"]) == (304, YEAR)

    release("Q")
    first = host.live()
    release("R")
    for mark in "QR":
        assert host.ask(f"/assets/index-BfX9k2a{mark}.js").headers["cache-control"] == YEAR
    assert host.ask("/logo-branding.svg").headers["cache-control"] == "no-cache", "a word is no hash"
    missing = host.ask("/assets/index-BfX9k2aZ.js")
    assert (missing.status, missing.headers["x-release"]) == (404, str(host.live()))
    assert missing.headers.get("cache-control") != YEAR
    assert host.ask("/healthz").headers["x-release"] == str(host.live())
    assert host.ask("/items/1").status == 200
    assert host.ask("/assets/").headers["x-release"] == str(host.live()), "a folder without a page"
    assert host.ask("/", "POST").headers["x-release"] == str(host.live())
    assert host.ask("/assets/index-BfX9k2aR.js", "POST").headers["x-release"] == str(host.live())
    assert host.ask("/dashboard/5", headers=page).status == (200 if setting == "auto" else 404)
    assert program.rollback(host, **{**built(shop, "R", code), **settings}).code == 0
    assert serves(host) == first
    assert host.ask("/assets/index-BfX9k2aR.js").headers["cache-control"] == YEAR
    assert host.run("pgrep -x nginx") == workers, "Nginx was not reloaded"
    # A day later they are gone with the next release.
    host.run("sed -i 's/: [0-9.]*\\(,\\?\\)$/: 1.0\\1/' /opt/shop/assets.json")
    release("S")
    assert host.ask("/assets/index-BfX9k2aR.js").status == 404


def test_files_that_the_app_writes_are_served_by_nginx(host: Host, shop: Path) -> None:
    settings: dict[str, Any] = {
        "app_static": {"/static/": "web", "/media/": "shared/pictures"},
        "app_shared": {"uploads": "pictures"},
        "app_frontend": "auto",
    }
    upload = "\n@app.post('/keep')\ndef keep():\n    open('uploads/b.txt', 'w').write('written')\n    return 'done'\n"
    (shop / "main.py").write_text((SHOP / "main.py").read_text(encoding="utf-8") + upload, encoding="utf-8")
    for name in ("web/a.txt", "uploads/a.txt"):
        (shop / name).parent.mkdir()
        (shop / name).write_text(name, encoding="ascii")
    run = deploy(host, playbook="site.yml", app_source=str(shop), app_watch_seconds=0, **settings)
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/keep", "POST").status == 200
    for path, text in {"/static/a.txt": "web/a.txt", "/media/a.txt": "uploads/a.txt", "/media/b.txt": "written"}.items():
        answer = host.ask(path)
        assert (answer.body, "x-release" in answer.headers) == (text, False), path
    host.run("echo secret >/opt/shop/shared/secret; runuser -u shop -- ln -s ../secret /opt/shop/shared/pictures/link")
    assert host.ask("/media/link").status == 404
    assert host.ask("/media/../secret").status == 404
    assert host.run("runuser -u www-data -- ls /opt/shop/shared 2>&1 || true").startswith("ls: cannot open directory")
    again = deploy(host, playbook="site.yml", app_source=str(shop), app_watch_seconds=0, **settings)
    assert (again.code, sum(again.changed.values())) == (0, 0), again.output[-3000:]


def test_a_changed_page_is_new_to_every_client_also_after_a_rollback(host: Host, shop: Path) -> None:
    places = ("/pages/", "/static/index.html", "/pages/same.js", "/static/same.js")

    def see() -> dict[str, dict[str, str]]:
        answers = {place: host.ask(place) for place in places}
        assert {answer.headers["cache-control"] for answer in answers.values()} == {"no-cache"}
        return {place: answer.headers for place, answer in answers.items()}

    def asked(known: dict[str, dict[str, str]], text: str) -> None:
        for place, headers in known.items():
            conditions = {"If-None-Match": headers["etag"], "If-Modified-Since": headers["last-modified"]}
            for condition in [{name: value} for name, value in conditions.items()] + [conditions]:
                answer = host.ask(place, headers=condition)
                assert (answer.status, answer.body) == ((304, "") if "same" in place else (200, text)), (place, condition)

    def release(text: str) -> None:
        folder = str(pages(shop, text))
        run = program.deploy(host, app_source=folder, app_static="app/static", app_watch_seconds=0)
        assert run.code == 0, run.output[-3000:]

    run = deploy(host, "--tags=nginx", playbook="site.yml", app_static="app/static")
    assert run.code == 0, run.output[-3000:]
    release("AAAA")
    first = see()
    release("BBBB")
    asked(first, "BBBB")
    second = see()
    assert program.rollback(host, app_source=str(shop), app_static="app/static", app_watch_seconds=0).code == 0
    asked(second, "AAAA")
    asked({place: headers for place, headers in first.items() if "same" in place}, "")
    # What is not in Nginx's folder is the app's.
    assert host.ask("/static/nowhere").json() == {"detail": "Not Found"}


def test_a_source_that_installs_itself_with_a_submodule(host: Host, repository: Repository, tmp_path: Path) -> None:
    code = "from setuptools import setup\nsetup(name='kiosk', packages=['kiosk'], install_requires=['fastapi==0.165.0', 'six'])\n"
    inner, outer = tmp_path / "kiosk.git", tmp_path / "my kiosk.git"
    for path, files in (
        (inner, {"__init__.py": "import six", "main.py": (SHOP / "main.py").read_text(encoding="utf-8")}),
        (outer, {"setup.py": code, "requirements.txt": "-e .\n"}),
    ):
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
        repository.path, before = path, repository.path
        repository.git("init", "--quiet", "--initial-branch=main")
        if path == outer:
            repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../kiosk.git", "kiosk")
        repository.commit("v1")
        repository.path = before
    run = program.deploy(
        host, app_source=f"file://{outer}", app_module="kiosk.main:app", app_env={"GREETING": "itself"}, app_watch_seconds=0
    )
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/items/1").json()["greeting"] == "itself"


def test_a_fault_of_the_source_is_told_before_anything_else_is_looked_at(host: Host, shop: Path) -> None:
    live = serves(host)
    (shop / ".python-version").write_text("3.99\n", encoding="ascii")
    run = deploy(host, playbook="site.yml", app_source=str(shop))
    assert run.code != 0
    assert f"requires a different Python from that of {host.name}: .python-version says 3.99" in flat(run)
    assert run.changed.get(host.name, 0) == 0
    assert "TASK [python : " not in run.output and "TASK [nginx : " not in run.output
    assert serves(host) == live
