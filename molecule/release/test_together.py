"""Two operators at once, two hosts of one app, and a controller that is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import Host, Run, polling
from molecule.release.conftest import FLEET, deploy, flat, rollback, serves

HOSTS = ["release.test"]


@pytest.mark.parametrize("round_", range(3))
def test_of_two_operators_one_wins(host: Host, changed: Callable[[str], Path], round_: int) -> None:
    source = changed(f"# race {round_}")
    runs: dict[str, tuple[Run, float]] = {}

    def operate(name: str) -> None:
        settings = {"USER": name}
        begin = time.monotonic()
        run = deploy(host, settings=settings, app_source=str(source), app_env={"GREETING": name}, app_watch_seconds=0)
        runs[name] = (run, time.monotonic() - begin)

    before = host.live()
    operators = [threading.Thread(target=operate, args=(name,)) for name in ("ann", "bob")]
    with polling(host, "/items/1") as failures:
        for operator in operators:
            operator.start()
        for operator in operators:
            operator.join()
    assert failures == []
    winners = [name for name, (run, _) in runs.items() if run.code == 0]
    assert len(winners) == 1, [run.output[-1500:] for run, _ in runs.values()]
    (loser,) = {"ann", "bob"} - set(winners)
    said = flat(runs[loser][0])
    assert f"Another change of this app is under way: {winners[0]} on " in said
    assert " since " in said
    assert runs[loser][1] < runs[winners[0]][1]
    assert host.ask("/items/1").json()["greeting"] == winners[0]
    assert serves(host) == before + 1


def test_a_run_that_is_gone_for_good_is_taken_over_from(host: Host) -> None:
    entry = {"id": "elsewhere 1 1", "who": "eve", "where": "runner-7", "since": time.time(), "until": time.time() + 600}
    host.run(f"echo '{json.dumps(entry)}' >/opt/shop/.lock")
    wanted: dict[str, Any] = {"app_env": {"GREETING": f"{time.time()}"}, "app_watch_seconds": 0}
    refused = deploy(host, **wanted)
    assert refused.code != 0
    assert "under way: eve on runner-7 since " in flat(refused)
    assert (
        "If that run is gone, take the app over from it: ansible-playbook playbooks/deploy.yml -i molecule/inventory "
        "-l release.test -e app_take_over=true"
    ) in flat(refused)
    run = deploy(host, app_take_over=True, **wanted)
    assert run.code == 0, run.output[-3000:]
    serves(host)


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
        assert deploy(host, app_env={"GREETING": f"{time.time()}"}, app_watch_seconds=0).code == 0
    before = (host.live(), twin.live())
    run = rollback(FLEET, release=max(only_here(), key=int))
    assert run.code != 0
    assert "There is no release" in flat(run)
    assert (serves(host), serves(twin)) == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(host: Host) -> None:
    assert deploy(FLEET).code == 0
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
