"""Two hosts of one app: they change together or not at all, and a dry run of all changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from molecule.conftest import Host, podman, within
from molecule.release import program
from molecule.release.conftest import FLEET, deploy, flat, rollback, serves
from molecule.release.test_doctor import examine

HOSTS = ["release.test"]


def test_a_migration_runs_once_for_all_hosts(host: Host, changed: Callable[[str], Path]) -> None:
    twin = Host("twin.test", "shop")
    command = 'echo "$(id -un) $RELEASE_ID $GREETING" >>$HOME/migrations'
    run = deploy(FLEET, app_source=str(changed("# once")), app_migrate_command=command, app_env={"GREETING": "new"})
    assert run.code == 0, run.output[-3000:]
    done = [each.run("cat /opt/shop/shared/migrations 2>/dev/null", check=False) for each in (host, twin)]
    assert done == [f"shop {host.live()} new\n", ""]
    assert [each.ask("/items/1").json()["greeting"] for each in (host, twin)] == ["new", "new"]
    # Nothing to release, nothing to migrate.
    again = deploy(FLEET, app_source=str(changed("# once")), app_migrate_command=command, app_env={"GREETING": "new"})
    assert again.changed == {"release.test": 0, "twin.test": 0}
    assert host.run("wc -l </opt/shop/shared/migrations").strip() == "1"


def test_a_migration_that_fails_switches_no_host(host: Host, changed: Callable[[str], Path]) -> None:
    twin = Host("twin.test", "shop")
    before = (host.live(), twin.live())
    run = deploy(FLEET, app_source=str(changed("# never")), app_migrate_command="echo locked; false")
    assert run.code != 0
    assert "of shop failed on release.test: Release " in flat(run)
    assert "the migration (app_migrate_command) failed with exit code 1" in flat(run)
    assert (serves(host), serves(twin)) == before


def test_a_rollback_asks_every_host_first(host: Host) -> None:
    twin = Host("twin.test", "shop")

    def only_here() -> set[str]:
        first, second = (set(each.run("ls /opt/shop/releases").split()) for each in (host, twin))
        return first - second

    # Both may have kept the same releases, until one has one more.
    while not only_here():
        assert program.deploy(host, app_env={"GREETING": f"{time.time()}"}, app_watch_seconds=0).code == 0
    before = (host.live(), twin.live())
    run = rollback(FLEET, release=max(only_here(), key=int))
    assert run.code != 0
    assert "There is no release" in flat(run)
    assert (serves(host), serves(twin)) == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(host: Host) -> None:
    twin = Host("twin.test", "shop")
    # So that there is one to go back to.
    assert program.deploy(host, app_env={"GREETING": f"{time.time()}"}, app_watch_seconds=0).code == 0
    assert [program.deploy(each).code for each in (host, twin)] == [0, 0]
    before = (host.live(), host.run("cat /opt/shop/history.jsonl"))
    for playbook in ("site.yml", "playbooks/deploy.yml", "playbooks/releases.yml"):
        run = deploy(FLEET, "--check", "--diff", playbook=playbook)
        assert (run.code, run.changed) == (0, {"release.test": 0, "twin.test": 0}), run.output[-3000:]
    would = deploy(host, "--check", app_env={"GREETING": "would"}, app_migrate_command="touch /tmp/migrated")
    assert would.code == 0, would.output[-3000:]
    assert would.changed[host.name] > 0
    back = rollback(host, "--check")
    assert (back.code, back.changed) == (0, {host.name: 1}), back.output[-3000:]
    assert (serves(host), host.run("cat /opt/shop/history.jsonl")) == before
    assert host.run("ls /tmp/migrated", check=False) == ""


def test_the_status_of_hosts_of_which_one_is_down(host: Host, tmp_path: Path) -> None:
    twin = Host("twin.test", "shop")
    assert program.deploy(twin, app_env={"GREETING": f"{time.time()}"}, app_watch_seconds=0).code == 0
    podman("pause", host.name)
    try:
        run = deploy(FLEET, "--timeout=5", playbook="playbooks/status.yml", status_directory=str(tmp_path))
        _, silent = examine(host, tmp_path)
    finally:
        podman("unpause", host.name)
    assert run.code != 0
    rows = {row["host"]: row for row in json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["hosts"]}
    row = rows[twin.name]
    assert (row["health"], row["release"], row["workers"], row["last"]) == ("ok", serves(twin), 2, f"{serves(twin)} live")
    assert (row["server"], row["certificate_days"] > 21, 0 < row["disk_percent"] < 100) == ("gunicorn", True, True)
    assert set(rows) == {host.name, twin.name}
    assert rows[host.name]["health"] != "ok"
    assert list(silent) == ["The host is unreachable"]
    assert f"Unhealthy: {host.name}" in flat(run)
    page = (tmp_path / "status.html").read_text(encoding="utf-8")
    assert "1 of 2 hosts are healthy" in page
    assert f'<a href="https://{twin.name}/">' in page
    within(10, host.healthy)
