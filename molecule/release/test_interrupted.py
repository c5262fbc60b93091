"""A run that is killed after any task leaves the service untouched; one plain run finishes it; the next changes nothing."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from molecule.conftest import ROOT, Host, Run, polling
from molecule.release.conftest import FLEET, deploy, serves

HOSTS = ["release.test"]
CALLBACKS = ROOT / "molecule" / "release" / "callbacks"
SAMPLES = 26


def killed(host: Host, playbook: str, at: int, after: float, **variables: object) -> Run:
    """Run a playbook that is killed before its task number `at`, or `after` seconds into it; 0 for never."""
    settings = {"ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "kill_at"}
    settings |= {"KILL_AT": str(at), "KILL_AFTER": str(after)}
    return deploy(host, playbook=playbook, settings=settings, **variables)


def moments(host: Host, playbook: str) -> list[tuple[int, float]]:
    """Return moments to kill a run at: before each of its tasks, and within those that build and release."""
    run = killed(host, playbook, 0, 0)
    assert run.code == 0, run.output[-3000:]
    tasks = re.findall(r"^BEGUN (\d+) (.*)$", run.output, re.MULTILINE)
    within = [int(number) for number, name in tasks if re.search(r"next step: release|Build it", name)]
    return [(number, 0.0) for number in range(2, len(tasks) + 1)] + [(number, after) for number in within for after in (0.7, 2.0)]


def spread(found: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return some of these moments, spread over all of them."""
    step = max(1.0, len(found) / (SAMPLES // 2))
    return [found[int(index * step)] for index in range(min(SAMPLES // 2, len(found)))]


def interrupt(host: Host, playbook: str, chosen: list[tuple[int, float]], problems: list[str], done: list[str]) -> None:
    """Kill runs of a playbook at the chosen moments, and check what the next runs make of that."""
    for count, (at, after) in enumerate(chosen):
        where = f"{host.name}, {playbook}, task {at} + {after} s"
        wanted: dict[str, Any] = {"app_env": {"GREETING": f"{playbook} {at} {after}"}, "app_watch_seconds": 0}
        with polling(host, "/items/1") as failures:
            run = killed(host, playbook, at, after, **wanted)
            if run.code != -9:
                problems.append(f"{where}: was not killed: {run.code}")
            again = deploy(host, playbook=playbook, **wanted)
        if failures:
            problems.append(f"{where}: {failures}")
        if again.code:
            problems.append(f"{where}: the next run fails: {again.output[-2000:]}")
        elif host.ask("/items/1").json()["greeting"] != wanted["app_env"]["GREETING"]:
            problems.append(f"{where}: the next run does not finish it")
        if count % 4 == 0:
            third = deploy(host, playbook=playbook, **wanted)
            if third.changed != {host.name: 0}:
                problems.append(f"{where}: the run after that changes something: {third.output[-2000:]}")
        serves(host)
        done.append(where)


def test_a_run_that_is_killed_is_finished_by_the_next(host: Host, tmp_path: Path) -> None:
    """Two hosts at the same time, since most of it is waiting."""
    problems: list[str] = []
    done: list[str] = []

    def kill(host: Host, playbook: str) -> None:
        interrupt(host, playbook, spread(moments(host, playbook)), problems, done)

    halves = [
        threading.Thread(target=kill, args=(host, "playbooks/deploy.yml")),
        threading.Thread(target=kill, args=(Host("twin.test", "shop"), "site.yml")),
    ]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    assert problems == [], "\n".join(problems)
    assert len(done) >= 25
    assert deploy(FLEET).code == 0
