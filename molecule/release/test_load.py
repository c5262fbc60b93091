"""Releases and rollbacks under a steady load drop no request, do nothing twice, and cut nothing off that is under way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from molecule.conftest import Answer, Host
from molecule.release.conftest import Load, deploy, rollback, serves

HOSTS = ["release.test"]
ROUNDS = 5
LEAST_REQUESTS = 30_000


def test_five_releases_and_five_rollbacks_under_load(host: Host, changed: Callable[[str], Path]) -> None:
    host.run("rm -f /opt/shop/shared/ledger")
    processes = host.run("ps -eo comm= | sort | uniq -c")
    first = serves(host)
    with Load(host) as load:
        for number in range(ROUNDS):
            run = deploy(host, app_source=str(changed(f"# {number}")), app_env={"GREETING": f"Release {number}"})
            assert run.code == 0, run.output[-3000:]
            assert "warning" not in run.output.lower(), "the public door was found wanting"
            newest = host.live()
            run = rollback(host)
            assert run.code == 0, run.output[-3000:]
            assert host.live() == first
        run = deploy(host, app_source=str(changed("# last")))
        assert run.code == 0, run.output[-3000:]
        # What ten releases do not need is asked for at the last one, so that the figures speak of enough requests.
        while len(host.run("cat /opt/shop/shared/ledger").split()) < LEAST_REQUESTS / 2:
            time.sleep(1)
    result = load.result
    print({key: value for key, value in result.items() if key != "posted"})
    assert result["failures"] == []
    assert result["requests"] >= LEAST_REQUESTS
    done = Counter(host.run("cat /opt/shop/shared/ledger").split())
    assert [order for order, times in done.items() if times > 1] == []
    assert set(done) == set(result["posted"])
    assert result["last"] == str(host.live()) == str(newest + 1)
    assert len(result["releases"]) == ROUNDS + 2
    assert result["streams"]["websockets opened"] >= 2 * ROUNDS
    assert result["streams"]["event streams opened"] >= 2 * ROUNDS
    serves(host)
    assert host.run("ps -eo comm= | sort | uniq -c") == processes


def test_what_is_under_way_is_finished(host: Host) -> None:
    old = host.live()
    answers: list[Answer] = []

    def ask_slowly() -> None:
        answers.append(host.ask("/slow?seconds=5"))

    run = threading.Thread(target=lambda: deploy(host, app_env={"GREETING": "slow"}, app_watch_seconds=0))
    run.start()
    asking = []
    while run.is_alive() and host.live() == old:
        thread = threading.Thread(target=ask_slowly)
        thread.start()
        asking.append(thread)
        time.sleep(0.5)
    run.join()
    for thread in asking:
        thread.join()
    assert host.live() > old
    assert len(asking) > 2
    assert [answer.status for answer in answers] == [200] * len(asking)
    assert str(old) in {answer.json()["release"] for answer in answers}
