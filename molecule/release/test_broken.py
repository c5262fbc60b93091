"""Whatever is wrong with a release, the one before it serves on without a failed request, and the message names the cause."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SHOP, Host, Run, polling
from molecule.release import program
from molecule.release.conftest import deploy, flat, programs, serves

SNAPSHOT = "twin.test"
LIFESPAN = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def lifespan(app):
    {0}
    yield
app = FastAPI(lifespan=lifespan)
@app.get("/healthz")
async def health():
    return {{"status": "ok"}}
"""
HEALTH = "\nfrom fastapi import Response\napp = FastAPI()\n@app.get('/healthz')\ndef health():\n    {0}\n"


@dataclass
class Broken:
    """A broken release: what its code ends with, what it requires, what is set, and what the message must hold."""

    message: list[str]
    code: str = ""
    requirements: str = ""
    variables: dict[str, object] = field(default_factory=dict)


SETTINGS = """
from pydantic import Field
from pydantic_settings import BaseSettings
class Settings(BaseSettings):
    database_url: str
    pool_size: int = Field(5, gt=0)
settings = Settings()
"""
CASES = {
    "import": Broken(["No module named 'no_such_module'", "main.py"], "import no_such_module"),
    "syntax": Broken(["SyntaxError", "main.py"], "def broken(:"),
    "wrong attribute": Broken(["has no attribute 'application'"], variables={"app_module": "main:application"}),
    "wrong module": Broken(["No module named 'shop'"], variables={"app_module": "shop.main:app"}),
    "exits at import": Broken(["exit code 3"], "os._exit(3)"),
    "missing settings": Broken(
        ["Settings refuses the settings", "database_url: Field required", "pool_size: Input should be greater than 0"],
        SETTINGS,
        "fastapi==0.165.0\npydantic-settings\n",
        {"app_env": {"POOL_SIZE": "-4"}},
    ),
    "startup raises": Broken(["no database today"], LIFESPAN.format("raise RuntimeError('no database today')")),
    "startup hangs": Broken(
        ["app_health_timeout", "listens on its socket", "may still be starting"],
        LIFESPAN.format("await asyncio.sleep(60)"),
        variables={"app_health_timeout": 5},
    ),
    "says much": Broken(
        ["the app cannot be imported: ImportError: failed to find libmagic. "],
        "raise ImportError('failed to find libmagic.\\nThen: export IT=quiet\\n')",
    ),
    "writes beside its code": Broken(
        ["unable to open database file", "belongs into /opt/shop/shared"],
        "import sqlite3\nsqlite3.connect('app.db').execute('create table t (x)')",
    ),
    "hangs": Broken(
        ["it hangs: a request has waited", "app_watch_hang_seconds"],
        '@app.middleware("http")\nasync def hang(request, call_next):\n    if request.url.path == "/items/1":\n'
        "        await asyncio.sleep(600)\n    return await call_next(request)\n",
    ),
    "hangs at its root": Broken(
        ["it hangs: GET / has no answer after 3 s", "and release"],
        '@app.middleware("http")\nasync def hang(request, call_next):\n    if request.url.path == "/":\n'
        "        await asyncio.sleep(600)\n    return await call_next(request)\n",
        variables={"app_watch_hang_seconds": 3},
    ),
    "health 500": Broken(
        ["GET /healthz answers 500, not 200", "at the 3. attempt (app_health_attempts)"],
        HEALTH.format("return Response(status_code=500)"),
        variables={"app_health_attempts": 3},
    ),
    "health redirects": Broken(
        ["answers 307", "a redirect (to /login) is not healthy"],
        HEALTH.format("return Response(status_code=307, headers={'Location': '/login'})"),
        variables={"app_health_timeout": 6},
    ),
    "no health path": Broken(["answers 404", "set app_health_path"], "app = FastAPI()", variables={"app_health_timeout": 6}),
    "wrong body": Broken(
        ["does not have what app_health_body asks for (ready)"],
        "# body",
        variables={"app_health_body": "ready", "app_health_timeout": 6},
    ),
    "dies after five seconds": Broken(
        ["its program ended", "app_watch_seconds"],
        "import signal, threading\nthreading.Timer(5, os.kill, (os.getppid(), signal.SIGKILL)).start()",
        variables={"app_watch_seconds": 12},
    ),
    "workers die": Broken(
        ["of its worker processes ended"],
        "import threading\nthreading.Timer(4, os._exit, (1,)).start()",
        variables={"app_watch_seconds": 12},
    ),
    "ignores TERM": Broken(
        ["answers 503, not 200"],
        LIFESPAN.format("import signal; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGQUIT)]")
        + "from fastapi import Response\napp.routes.clear()\n"
        "@app.get('/healthz')\ndef ill():\n    return Response(status_code=503)\n",
        variables={"app_health_timeout": 6},
    ),
    "answers with errors": Broken(
        ["were answered with a 5xx status", "before it were"],
        "app.routes[:] = [route for route in app.routes if route.path != '/items/{item_id}']\n"
        "@app.get('/items/{item_id}')\ndef broken(item_id: int):\n    raise RuntimeError('boom')\n",
        variables={"app_watch_seconds": 10},
    ),
    "migration fails": Broken(
        ["the migration (app_migrate_command) failed with exit code 3", "no such table"],
        "# migration",
        variables={"app_migrate_command": "echo no such table; exit 3"},
    ),
    "migration hangs": Broken(
        ["the migration (app_migrate_command) took longer than 2 s (app_migrate_timeout)"],
        "# migration",
        variables={"app_migrate_command": "echo begun; sleep 100 & sleep 100", "app_migrate_timeout": 2},
    ),
    "hook fails": Broken(
        ["the hook before_switch (app_hooks) failed with exit code 1"],
        "# hook",
        variables={"app_hooks": {"before_switch": "false"}},
    ),
    "tampered hash": Broken(["annotated-doc", "hash"], requirements=f"annotated-doc==0.0.4 --hash=sha256:{'0' * 64}\n"),
    "source-only package": Broken(["docopt", "app_source_builds"], requirements="fastapi==0.165.0\ndocopt==0.6.2\n"),
    "unknown package": Broken(["no-such-package-of-anybody"], requirements="no-such-package-of-anybody==1.0\n"),
    "index down": Broken(
        ["127.0.0.1:9"],
        requirements="fastapi==0.164.0\n",
        variables={"python_index_url": "http://127.0.0.1:9/simple"},
    ),
    "disk nearly full": Broken(["nearly full", "app_min_free_disk_mb"], "# full", variables={"app_min_free_disk_mb": 9000000}),
}


# Of those that fail at a build, at their start, and when they are live, one each that an operator sees fail.
SHOWN = {"tampered hash", "import", "workers die"}


def refused(host: Host, by: Callable[..., Run] = program.deploy, **variables: Any) -> str:
    """Release something broken, see that nothing came of it, and return what was said."""
    before = serves(host)
    with polling(host, "/items/1") as failures:
        run = by(host, **variables)
    said = flat(run)
    assert run.code != 0, said[-3000:]
    # A release that answers with errors, or to some not at all, was live for a moment, and who asked it then got some of them.
    assert "were answered with a 5xx status" in said or "a request has waited" in said or failures == [], said[-3000:]
    assert serves(host) == before
    return said


@pytest.mark.parametrize("kind", CASES)
def test_a_broken_release(host: Host, shop: Path, kind: str) -> None:
    broken = CASES[kind]
    (shop / "main.py").write_text(f"{(SHOP / 'main.py').read_text(encoding='utf-8')}\n{broken.code}\n", encoding="utf-8")
    if broken.requirements:
        (shop / "requirements.txt").write_text(broken.requirements, encoding="utf-8")
    said = refused(host, deploy if kind in SHOWN else program.deploy, app_source=str(shop), **broken.variables)
    for words in broken.message:
        assert words in said, said[-3000:]


def archive(path: Path, *entries: tuple[str, bytes]) -> Path:
    """Make an archive of files; what leads outside is in there as it is written."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_a_truncated_archive(host: Host, tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tar.gz", ("requirements.txt", b"fastapi\n"), ("main.py", (SHOP / "main.py").read_bytes()))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-40])
    assert "cut.tar.gz" in refused(host, deploy, app_source=str(cut))


def test_an_archive_that_leads_outside(host: Host, tmp_path: Path) -> None:
    evil = archive(tmp_path / "evil.tar.gz", ("requirements.txt", b"fastapi\n"), ("../../etc/cron.d/evil", b"x"))
    assert "../../etc/cron.d/evil" in refused(host, app_source=str(evil))
    assert host.run("ls /etc/cron.d/evil /opt/shop/etc 2>/dev/null", check=False) == ""


def test_an_archive_with_another_checksum(host: Host, tmp_path: Path) -> None:
    whole = archive(tmp_path / "shop.tar.gz", ("requirements.txt", b"fastapi\n"), ("main.py", (SHOP / "main.py").read_bytes()))
    said = refused(host, app_source=str(whole), app_checksum=f"sha256:{'0' * 64}")
    assert "app_checksum" in said


def test_an_old_release_that_ignores_term_is_ended_all_the_same(host: Host, changed: Callable[[str], Path]) -> None:
    stubborn = "import signal\n@app.on_event('startup')\nasync def deaf():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    assert program.deploy(host, app_source=str(changed(stubborn))).code == 0
    old = host.live()
    assert host.pids(f"releases/{old}/gunicor[n]")
    with polling(host, "/items/1") as failures:
        run = program.deploy(host)
    assert run.code == 0, run.output[-3000:]
    assert failures == []
    assert programs(host) == [f"shop-{host.live()}"]
    assert host.pids(f"releases/{old}/gunicor[n]") == []
