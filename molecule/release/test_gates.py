"""What a release is asked before the switch and at the public door after it, and what may be done in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SHOP, Host, Run
from molecule.release import program
from molecule.release.conftest import deploy, flat, serves

SNAPSHOT = "twin.test"
SITE = "/etc/nginx/conf.d/shop.conf"


def test_an_interface_that_would_break_clients_is_stopped(host: Host, shop: Path) -> None:
    before = serves(host)
    main = shop / "main.py"
    text = (SHOP / "main.py").read_text(encoding="utf-8")
    text = text.replace('@app.post("/orders/{number}")', '@app.post("/v2/orders/{number}")')
    main.write_text(text.replace("q: str | None = None", "q: int, page: int = 1"), encoding="utf-8")
    run = program.deploy(host, app_source=str(shop), app_openapi_gate=True)
    said = flat(run)
    assert run.code != 0
    assert "would break clients of release" in said
    assert "POST /orders/{number} was removed" in said
    assert "GET /items/{item_id}" in said
    assert "app_openapi_gate=false" in said
    assert serves(host) == before
    # What only adds is let through.
    main.write_text(
        (SHOP / "main.py").read_text(encoding="utf-8") + "\n@app.get('/new')\ndef new():\n    return 1\n", encoding="utf-8"
    )
    run = program.deploy(host, app_source=str(shop), app_openapi_gate=True, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]


@pytest.mark.parametrize(
    ("by", "edit", "setting"),
    [
        (deploy, "s/X-Forwarded-Proto .*;/X-Forwarded-Proto http;/", "X-Forwarded-Proto"),
        (program.deploy, "s/X-Forwarded-For .*;/X-Forwarded-For $proxy_add_x_forwarded_for;/", "nginx_real_ip_from"),
        (program.deploy, "s/proxy_set_header Upgrade .*;/proxy_set_header Upgrade '';/", "Upgrade and Connection"),
    ],
    ids=["scheme", "client address", "websocket"],
)
def test_the_public_door_is_looked_at(host: Host, by: Callable[..., Run], edit: str, setting: str) -> None:
    host.run(f'cp {SITE} /root/site.conf; sed -i "{edit.replace("$", chr(92) + "$")}" {SITE}; nginx -t; systemctl reload nginx')
    try:
        run = by(host, app_env={"GREETING": setting}, app_watch_seconds=0)
    finally:
        host.run(f"mv /root/site.conf {SITE}; systemctl reload nginx")
    assert run.code == 0, run.output[-3000:]
    assert "[WARNING]" in run.output
    assert setting in flat(run)


def test_nobody_else_is_told_what_the_door_is_asked(host: Host) -> None:
    for headers in ({}, {"X-Slipway-Door": "guess"}):
        assert host.ask("/.slipway/door", headers=headers).status == 404
    token = host.run(f"stat -c '%a %G' /opt/shop/releases/{host.live()}/door.token").split()
    assert token == ["640", "shop"]


def test_hooks_run_in_their_order_and_as_users_without_rights(host: Host, changed: Callable[[str], Path], tmp_path: Path) -> None:
    host.run("rm -f /srv/hooks; install -m 666 /dev/null /srv/hooks")
    note = 'echo "$SLIPWAY_HOOK $(id -un) $(ls main.py)" >>/srv/hooks'
    names = ("before_build", "after_build", "before_switch", "after_switch", "before_rollback", "after_rollback")
    hooks = dict.fromkeys(names, note)
    hooks |= {"before_fetch": f"echo before >>{tmp_path}/hooks", "after_fetch": f"echo after >>{tmp_path}/hooks"}
    hooks["after_build"] += "; echo made >made.css"
    source = changed(f"# hooks {time.time()}")
    run = program.deploy(host, app_source=str(source), app_hooks=hooks, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    live = host.live()
    assert host.run("cat /opt/shop/current/build/made.css") == "made\n"
    assert host.run("stat -c %U /opt/shop/current/build/made.css /opt/shop/current/build/main.py").split() == ["root", "root"]
    run = program.rollback(host, app_source=str(source), app_hooks=hooks, app_watch_seconds=0)
    assert run.code == 0, run.output[-3000:]
    assert host.live() < live
    assert (tmp_path / "hooks").read_text(encoding="ascii") == "before\nafter\n"
    lines = host.run("cat /srv/hooks").splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert [line.split()[1] for line in lines] == ["_build-shop"] * 2 + ["shop"] * 4
    refused = program.deploy(
        host, app_source=str(source), app_hooks={"after_build": "ln -s /etc/passwd style.css"}, app_watch_seconds=0
    )
    assert refused.code != 0
    assert "style.css in the build is a link that points outside it (/etc/passwd)" in flat(refused)


def test_a_hook_that_failed_is_run_again_by_the_next_run(host: Host) -> None:
    settings: dict[str, Any] = {"app_env": {"GREETING": f"{time.time()}"}, "app_watch_seconds": 0}
    run = program.deploy(host, app_hooks={"after_switch": "false"}, **settings)
    assert run.code != 0
    assert "is live, but the hook after_switch (app_hooks) failed" in flat(run)
    live = serves(host)
    doctor = deploy(host, playbook="playbooks/doctor.yml")
    assert f"The hook after_switch of release {live} failed" in flat(doctor)
    assert "Fix it, then: ansible-playbook playbooks/deploy.yml -i molecule/inventory -l twin.test" in flat(doctor)
    run = deploy(host, app_hooks={"after_switch": "touch /opt/shop/shared/mended"}, **settings)
    assert run.code == 0, run.output[-3000:]
    assert "Its hook after_switch, which had failed, has run again." in flat(run)
    host.run("rm /opt/shop/shared/mended")
    assert program.deploy(host, app_hooks={"after_switch": "false"}, **settings).code == 0, "it is not run once more"
    assert serves(host) == live


def test_a_setting_is_a_release_of_the_same_build(host: Host) -> None:
    assert program.deploy(host, app_watch_seconds=0).code == 0
    build = host.run("readlink /opt/shop/current/build")
    before = host.live()
    assert program.deploy(host, app_env={"GREETING": "set"}, app_watch_seconds=0).code == 0
    assert host.live() > before
    assert host.ask("/items/1").json()["greeting"] == "set"
    assert host.run("readlink /opt/shop/current/build") == build


def test_an_account_of_somebody_else_is_not_taken_over(host: Host) -> None:
    before = serves(host)
    host.run("id deploy 2>/dev/null || useradd --create-home --groups sudo --shell /bin/bash deploy")
    run = deploy(host, app_user="deploy")
    assert run.code != 0
    assert "app_user is deploy" in flat(run)
    assert "shell /bin/bash, groups deploy, sudo" in flat(run)
    host.run("! grep -r deploy /etc/sysusers.d")
    assert serves(host) == before
