"""The way back: which release is chosen, what comes back with it, and when that is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from molecule.conftest import Host, polling
from molecule.release import program
from molecule.release.conftest import deploy, flat, rollback, serves

SNAPSHOT = "twin.test"


def listed(table: str) -> dict[int, str]:
    """Return the state of each release in a table of them."""
    states = {}
    for line in table[table.index("RELEASE ") :].splitlines():
        words = line.split("  ")
        cells = [word.strip() for word in words if word.strip()]
        if cells and cells[0].isdigit():
            states[int(cells[0])] = cells[1]
    return states


def greeting(host: Host) -> str:
    return str(host.ask("/items/1").json()["greeting"])


def test_back_and_back_again(host: Host, changed: Callable[[str], Path]) -> None:
    for name in ("one", "two", "three"):
        run = program.deploy(host, app_source=str(changed(f"# {name}")), app_env={"GREETING": name}, app_watch_seconds=0)
        assert run.code == 0, run.output[-3000:]
    three = host.live()
    with polling(host, "/items/1") as failures:
        run = rollback(host)
        assert run.code == 0, run.output[-3000:]
        assert f"It was rolled back from release {three}" in flat(run)
        assert (host.live(), greeting(host)) == (three - 1, "two")
        assert program.rollback(host).code == 0
        assert (host.live(), greeting(host)) == (three - 2, "one")
        # By number, one that was taken back can be had again.
        assert program.rollback(host, release=three).code == 0
        assert (host.live(), greeting(host)) == (three, "three")
    assert failures == []
    assert rollback(host, release=three).changed == {host.name: 0}
    run = deploy(host, playbook="playbooks/releases.yml")
    assert (run.code, run.changed) == (0, {host.name: 0})
    states = listed(run.output)
    assert [states[three - 2], states[three - 1], states[three]] == ["kept", "rolled back", "live"]
    # Not the one that was taken back, though it is nearest.
    assert program.rollback(host).code == 0
    assert host.live() == three - 2
    serves(host)


def test_what_cannot_be_gone_back_to(host: Host, changed: Callable[[str], Path]) -> None:
    before = serves(host)
    missing = rollback(host, release=99999)
    assert missing.code != 0
    assert "There is no release 99999 of shop on this host. Available: " in flat(missing)
    assert program.deploy(host, app_source=str(changed("import nothing_at_all"))).code != 0
    failed = max(listed(host.run("slipway releases shop")))
    refused = program.rollback(host, release=failed)
    assert refused.code != 0
    assert f"Release {failed} of shop was never good" in flat(refused)
    wrong = rollback(host, release="v1.4")
    assert wrong.code != 0
    assert "app_rollback_to is 'v1.4'" in flat(wrong)
    assert serves(host) == before


def test_back_with_todays_settings(host: Host, changed: Callable[[str], Path]) -> None:
    assert program.deploy(host, app_source=str(changed("# a")), app_env={"GREETING": "old"}, app_watch_seconds=0).code == 0
    assert program.deploy(host, app_source=str(changed("# b")), app_env={"GREETING": "rotated"}, app_watch_seconds=0).code == 0
    newest = host.live()
    run = program.rollback(host, app_env={"GREETING": "rotated"}, app_rollback_settings="current")
    assert run.code == 0, run.output[-3000:]
    assert (host.live(), greeting(host)) == (newest + 1, "rotated")
    assert host.run("tail -1 /opt/shop/current/build/main.py").strip() == "# a"


def test_the_history_survives_pruning(host: Host, changed: Callable[[str], Path]) -> None:
    for number in range(3):
        run = program.deploy(host, app_source=str(changed(f"# prune {number}")), app_watch_seconds=0, app_keep_releases=1)
        assert run.code == 0, run.output[-3000:]
    kept = host.run("ls /opt/shop/releases").split()
    assert len(kept) <= 3
    history = [json.loads(line) for line in host.run("cat /opt/shop/history.jsonl").splitlines()]
    assert {entry["release"] for entry in history} > {int(number) for number in kept}
    assert all({"who", "when", "outcome"} <= set(entry) for entry in history)
    states = listed(host.run("slipway releases shop"))
    assert any(state.endswith("gone") for state in states.values())
    assert len(states) > len(kept)
