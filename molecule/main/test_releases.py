"""The main job after the first run: another app, releases and rollbacks under load, broken releases, and killed runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from molecule.conftest import Host, play, polling
from molecule.default import test_front_door
from molecule.release import test_broken, test_interrupted
from molecule.release.conftest import serves
from molecule.release.test_load import releases_and_rollbacks_under_load

HOSTS = ["main.test"]


def test_another_app_takes_the_place_of_the_example_without_a_failed_request(host: Host) -> None:
    before = serves(host)
    with polling(host, "/healthz") as failures:
        run = play(f"--limit={host.name}")
    assert run.code == 0, run.output[-3000:]
    assert failures == []
    assert serves(host) > before
    assert host.ask("/").json() == {"shop": "open"}


def test_a_dry_run_on_a_converged_host_changes_nothing_and_shows_no_secret(host: Host) -> None:
    test_front_door.test_a_dry_run_on_a_converged_host_changes_nothing_and_shows_no_secret(host)


def test_releases_and_rollbacks_under_load_drop_no_request(host: Host, changed: Callable[[str], Path]) -> None:
    releases_and_rollbacks_under_load(host, changed, rounds=2, least_requests=10_000)


# One that cannot be imported, one that is not healthy, and one that is found out after its activation.
@pytest.mark.parametrize("kind", ["import", "health 500", "answers with errors"])
def test_a_broken_release_leaves_the_old_one_serving(host: Host, shop: Path, kind: str) -> None:
    test_broken.test_a_broken_release(host, shop, kind)


def test_a_killed_run_is_finished_by_the_next(host: Host) -> None:
    problems: list[str] = []
    done: list[str] = []
    playbook = "playbooks/deploy.yml"
    found = test_interrupted.moments(host, playbook)
    # Halfway between its tasks, and two seconds into the release.
    test_interrupted.interrupt(host, playbook, [found[len(found) // 2], found[-1]], problems, done)
    assert problems == []
    assert len(done) == 2
