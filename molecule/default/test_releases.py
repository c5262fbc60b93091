"""How the app gets from release to release, what an operator may get wrong, and several apps on one machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import ROOT, Host, Run, play, polling, within
from molecule.release import program
from molecule.release.conftest import deploy, flat, programs

HOSTS = ["debian12.test"]
SITE = ("--tags=certbot,nginx",)


def converge(host: Host, *arguments: str, **variables: Any) -> Run:
    """Run site.yml on one host with `variables` on top of its inventory."""
    return deploy(host, *arguments, playbook="site.yml", **variables)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the example app, to be changed."""
    copy = tmp_path / "source"
    shutil.copytree(ROOT / "app", copy, ignore=shutil.ignore_patterns(".venv", ".*_cache", "__pycache__"))
    return copy


@pytest.fixture(scope="module", autouse=True)
def restored(host: Host) -> Iterator[None]:
    """Bring the host back to what the inventory says when the tests of this file are over."""
    yield
    run = converge(host)
    assert run.code == 0, run.output[-3000:]
    assert "Hello" in host.ask("/").body


def test_a_changed_setting_is_a_release_that_drops_no_request(host: Host) -> None:
    before, venvs = host.live(), host.run(f"ls -i /opt/{host.app}/venvs")
    with polling(host) as failures:
        run = program.deploy(host, app_env={"ENVIRONMENT": "staging", "APP_TITLE": "Changed"})
    assert run.code == 0, run.output[-3000:]
    assert failures == []
    assert host.live() > before
    assert "Changed" in host.ask("/openapi.json").body
    assert programs(host) == [f"{host.app}-{host.live()}"]
    assert host.run(f"ls /run/{host.app}").split() == [f"{host.live()}.metrics", f"{host.live()}.sock"]
    assert host.run(f"ls -i /opt/{host.app}/venvs") == venvs, "the lock did not change"
    again = program.deploy(host, app_env={"ENVIRONMENT": "staging", "APP_TITLE": "Changed"})
    assert again.changed == {host.name: 0}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("app/main.py", "import no_such_module\n", "No module named 'no_such_module'"),
        ("app/main.py", "def broken(:\n", "SyntaxError"),
        (
            "app/main.py",
            "from fastapi import FastAPI\napp = FastAPI()\n",
            "answers 404, not 200: set app_health_path",
        ),
        (
            "app/main.py",
            "from fastapi import FastAPI\nfrom fastapi.responses import RedirectResponse\napp = FastAPI()\n"
            "@app.get('/healthz')\ndef health(): return RedirectResponse('/login')\n",
            "a redirect (to /login) is not healthy",
        ),
        ("app/main.py", "import time\ntime.sleep(60)\n", "took longer than 10 s"),
        (
            "app/main.py",
            "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
            "@asynccontextmanager\nasync def start(app):\n    raise RuntimeError('no database today')\n    yield\n"
            "app = FastAPI(lifespan=start)\n",
            "no database today",
        ),
        ("requirements.txt", "no-such-package-of-anybody==1.0\n", "no-such-package-of-anybody"),
    ],
    ids=["missing module", "syntax", "no health path", "redirect", "hangs", "startup fails", "missing package"],
)
def test_a_broken_release_leaves_the_old_one_serving(host: Host, source: Path, file: str, text: str, message: str) -> None:
    (source / file).write_text(text, encoding="utf-8")
    before = host.live()
    with polling(host) as failures:
        run = program.deploy(host, app_source=str(source), app_health_timeout=10)
    assert run.code != 0
    assert message in flat(run), run.output[-3000:]
    assert failures == []
    assert host.live() == before
    assert programs(host) == [f"{host.app}-{before}"]


def test_a_git_repository_at_a_version(host: Host, source: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@test"]
        return subprocess.run(["git", *identity, *words], cwd=source, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=One")
    git("tag", "v1")
    main = source / "app" / "main.py"
    main.write_text(main.read_text(encoding="utf-8").replace("Hello, World!", "Hello, git!"), encoding="utf-8")
    git("commit", "--quiet", "--all", "--message=Two")

    address = f"git+file://{source}"
    run = program.deploy(host, app_source=address, app_version="v1")
    assert run.code == 0, run.output[-3000:]
    assert host.ask("/version").json()["revision"] == git("rev-parse", "v1")
    assert program.deploy(host, app_source=address).code == 0
    assert host.ask("/").json() == {"message": "Hello, git!"}
    assert host.ask("/version").json()["revision"] == git("rev-parse", "main")
    missing = program.deploy(host, app_source=address, app_version="v9")
    assert missing.code != 0
    assert "has no branch, tag or commit v9 (app_version)" in flat(missing)


def test_a_bad_inventory_changes_nothing(host: Host) -> None:
    host.run("touch /run/stamp")
    run = converge(host, app_workers="two", nginx_domain="x.test")
    said = flat(run)
    assert run.code != 0
    assert f"{host.name}: 2 errors in the inventory. Nothing was changed." in said
    assert "app_workers is 'two'; it must be a whole number" in said
    assert "nginx_domain is not a Slipway variable: did you mean nginx_domains?" in said
    touched = host.run("find / -xdev -newer /run/stamp -type f -not -path '/var/log/*' -not -path '/tmp/*'")
    assert [path for path in touched.split() if not path.startswith(("/run/", "/var/lib/systemd", "/root/.ansible"))] == []


def test_an_unknown_system_is_refused(host: Host) -> None:
    run = converge(host, preflight_systems=["Debian 99"])
    assert run.code != 0
    assert f"{host.name} runs Debian 12" in flat(run)


def test_a_user_with_sudo_will_do(host: Host) -> None:
    host.run("id deploy || useradd --create-home deploy; echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy")
    assert host.run("command -v setfacl", check=False) == "", "this is to work without acl"
    run = converge(host, ansible_user="deploy", app_env={"ENVIRONMENT": "staging", "APP_TITLE": "By sudo"})
    assert run.code == 0, run.output[-3000:]
    assert "By sudo" in host.ask("/openapi.json").body


def test_a_configuration_that_nginx_refuses_is_put_back(host: Host) -> None:
    site = f"/etc/nginx/conf.d/{host.app}.conf"
    before = host.run(f"sha256sum {site}")
    host.run("echo 'nonsense;' > /etc/nginx/conf.d/zz-foreign.conf")
    try:
        run = converge(host, *SITE, nginx_timeout=61)
    finally:
        host.run("rm /etc/nginx/conf.d/zz-foreign.conf")
    said = flat(run)
    assert run.code != 0
    assert "zz-foreign.conf" in said
    assert "It was already invalid before this change" in said
    assert host.run(f"sha256sum {site}") == before
    assert host.healthy()


def test_two_apps_share_a_machine(host: Host, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    common = {"ansible_connection": "containers.podman.podman", "ansible_user": "root", "ansible_host": host.name}
    second = {**common, "certbot_mode": "none", "app_workers": 1, "app_env": {"APP_TITLE": "The second"}}
    inventory.write_text(json.dumps({"web": {"hosts": {"second.test": second}}}), encoding="utf-8")
    first_master = host.master()
    run = play(inventory=inventory)
    assert run.code == 0, run.output[-3000:]
    answer = host.ask("/openapi.json", tls=False, name="second.test")
    assert (answer.status, json.loads(answer.body)["info"]["title"]) == (200, "The second")
    assert "The second" not in host.ask("/openapi.json").body
    assert host.master() == first_master, "the neighbour was disturbed"
    assert play(inventory=inventory).changed == {"second.test": 0}
    assert converge(host, "--check").code == 0
    host.run("supervisorctl stop second-test-1; rm /etc/*/conf.d/second-test*.conf")
    host.run("supervisorctl update second-test-1; systemctl reload nginx")


def test_a_certificate_of_ones_own(host: Host, tmp_path: Path) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subject = ["-subj", "/CN=own", "-addext", f"subjectAltName=DNS:{host.name}", "-days", "30"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        *subject,
    ]
    subprocess.run(command, check=True, capture_output=True)
    settings = {"certbot_mode": "files", "certbot_own_certificate": str(certificate), "certbot_own_key": str(key)}
    run = converge(host, *SITE, **settings)
    assert run.code == 0, run.output[-3000:]
    assert "PRIVATE KEY" not in run.output
    vars(host).pop("trust", None)
    with host.connect() as connection:
        assert ("commonName", "own") in dict(connection.getpeercert() or {})["subject"][0]
    assert converge(host, *SITE, **settings).changed == {host.name: 0}
    host.run(f"rm /etc/nginx/slipway/{host.app}/*.pem")
    vars(host).pop("trust", None)


def test_plain_http_where_that_is_asked_for(host: Host) -> None:
    run = converge(host, *SITE, certbot_mode="none")
    assert run.code == 0, run.output[-3000:]
    answer = host.ask("/whoami", tls=False)
    assert (answer.status, answer.json()["scheme"]) == (200, "http")
    assert "strict-transport-security" not in answer.headers


def test_answers_are_cached_where_that_is_asked_for(host: Host) -> None:
    assert converge(host, *SITE, nginx_cache_seconds=60).code == 0
    release = f"{host.app}-{host.live()}"
    assert host.ask("/items/99").status == 200
    host.run(f"supervisorctl stop {release}")
    try:
        assert host.ask("/items/99").json() == {"item_id": 99, "q": None}
        assert host.ask("/items/98").status == 502
    finally:
        host.run(f"supervisorctl start {release}")
    within(10, host.healthy)
