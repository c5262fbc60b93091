"""Two operators at once, of whom one wins, and a controller that is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import Host, Run, polling
from molecule.release import program
from molecule.release.conftest import deploy, flat, serves

SNAPSHOT = "twin.test"


@pytest.fixture(scope="module", autouse=True)
def loaded(host: Host) -> None:
    """Have Ansible load its plugins here, which it cannot do in two threads at once."""
    assert program.deploy(host).changed == {host.name: 0}


def by_playbook(host: Host, name: str, **variables: Any) -> Run:
    """Release as an operator of that name does."""
    return deploy(host, settings={"USER": name}, **variables)


def by_program(host: Host, name: str, **variables: Any) -> Run:
    """Release as that operator's playbook tells the host."""
    controller = program.Controller(host, variables)
    controller.name_of_run["who"] = name
    return controller.finish(controller.release)


# By how many seconds the second operator is later: while the first one builds, and while its release starts or is watched.
@pytest.mark.parametrize(
    ("by", "later"), [(by_playbook, 0), (by_program, 0), (by_program, 0.5), (by_program, 1.5), (by_program, 2.5)]
)
def test_of_two_operators_one_wins(host: Host, changed: Callable[[str], Path], by: Callable[..., Run], later: float) -> None:
    source = changed(f"# race {by} {later}")
    runs: dict[str, tuple[Run, float]] = {}
    begin = time.monotonic()

    def operate(name: str) -> None:
        run = by(host, name, app_source=str(source), app_env={"GREETING": name}, app_watch_seconds=3)
        runs[name] = (run, time.monotonic() - begin)

    before = serves(host)
    operators = [threading.Thread(target=operate, args=(name,)) for name in ("ann", "bob")]
    with polling(host, "/items/1") as failures:
        operators[0].start()
        time.sleep(later)
        operators[1].start()
        for operator in operators:
            operator.join()
    assert failures == []
    winners = [name for name, (run, _) in runs.items() if run.code == 0]
    assert len(winners) == 1, [run.output[-1500:] for run, _ in runs.values()]
    (loser,) = {"ann", "bob"} - set(winners)
    said = flat(runs[loser][0])
    assert f"This app is locked by another run: {winners[0]} on " in said
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
    assert "locked by another run: eve on runner-7 since " in flat(refused)
    flag = "take over its lock: ansible-playbook playbooks/deploy.yml -i molecule/inventory -l twin.test -e app_take_over_lock="
    assert f"If you are sure that that run is dead, {flag}eve@runner-7:1" in flat(refused)
    mistaken = deploy(host, app_take_over_lock="bob@runner-7:1", **wanted)
    assert mistaken.code != 0
    assert "app_take_over_lock is bob@runner-7:1, and the lock is that of eve@runner-7:1." in flat(mistaken)
    assert f"{flag}eve@runner-7:1" in flat(mistaken)
    run = deploy(host, app_take_over_lock="eve@runner-7:1", **wanted)
    assert run.code == 0, run.output[-3000:]
    serves(host)
