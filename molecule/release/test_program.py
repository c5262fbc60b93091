"""A host from a snapshot is one like others, and a release without a run of ansible-playbook is told what that would tell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from molecule import snapshot
from molecule.conftest import ROOT, Host
from molecule.release import program
from molecule.release.conftest import deploy, rollback, serves

SNAPSHOT = "twin.test"
CONFIGURATION = "cat /etc/slipway/apps/shop.json"
TOLD: dict[str, Any] = {
    "app_env": {"GREETING": "told", "NUMBER": 7},
    "app_health_timeout": 61,
    "app_health_headers": {"X-Probe": "yes"},
    "app_hooks": {"before_switch": "true"},
    "app_migrate_command": "true",
    "app_openapi_gate": True,
    "app_watch_seconds": 0,
}


def test_whatever_a_converged_host_is_made_of_makes_another_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [part for part in snapshot.PARTS if not (ROOT / part).exists()] == []
    monkeypatch.setattr(snapshot, "ROOT", tmp_path)
    states = [snapshot.state("bare"), snapshot.state("another")]
    for name in ("src/slipway/program.py", "roles/app/tasks/main.yml", "site.yml"):
        for text in ("", "changed"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
            states.append(snapshot.state("bare"))
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "program.pyc").touch()
    assert len(set(states)) == len(states) == 8
    assert snapshot.state("bare") == states[-1]


def test_a_host_from_a_snapshot_has_booted_anew_and_serves_what_was_converged(host: Host) -> None:
    with snapshot.started(SNAPSHOT, "second") as second:
        assert serves(second) == 1
        assert second.run("systemctl --failed --quiet") == ""
        entries = second.run("journalctl --output=json --output-fields=_BOOT_ID").splitlines()
        assert len({json.loads(entry)["_BOOT_ID"] for entry in entries}) == 1
        assert second.address != host.address
        assert second.run("cat /etc/machine-id") != host.run("cat /etc/machine-id")
        second.run("systemctl stop nginx")
        assert (second.healthy(), host.healthy()) == (False, True)


def test_what_the_inventory_says_reaches_a_host_as_it_does_through_a_playbook() -> None:
    with snapshot.started(SNAPSHOT, "untouched") as untouched:
        by_playbook = untouched.run(CONFIGURATION)
        run = program.deploy(untouched)
        assert (run.code, run.changed) == (0, {untouched.name: 0}), run.output
        assert untouched.run(CONFIGURATION) == by_playbook


def test_variables_reach_a_host_as_they_do_through_a_playbook(host: Host) -> None:
    run = deploy(host, **TOLD)
    assert run.code == 0, run.output[-3000:]
    by_playbook = host.run(CONFIGURATION)
    run = program.deploy(host, **TOLD)
    assert (run.code, run.changed) == (0, {host.name: 0}), run.output
    assert host.run(CONFIGURATION) == by_playbook


def test_a_rollback_is_told_the_same(host: Host) -> None:
    told = []
    for way in (rollback, program.rollback):
        assert program.deploy(host, app_env={"GREETING": f"before {way}"}, app_watch_seconds=0).code == 0
        live = serves(host)
        run = way(host, app_keep_releases=4, app_watch_seconds=0)
        assert run.code == 0, run.output[-3000:]
        assert serves(host) < live
        told.append(host.run(CONFIGURATION))
    assert told[0] == told[1]
