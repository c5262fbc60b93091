"""What runs on the first host of an app alone goes to the next one with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from molecule.conftest import INVENTORY, Run, play, within
from molecule.fleet.conftest import FLEET, loaded

FIRST, SECOND, THIRD = FLEET
PROCESSES: dict[str, Any] = {"scheduler": {"command": "sleep 4711", "hosts": "first"}, "worker": "sleep 4712"}


def running(seconds: int) -> list[str]:
    """Return the hosts on which the process that sleeps for so long runs."""
    return [host.name for host in FLEET if host.run(f"pgrep -fx 'sleep {seconds}'", check=False)]


def test_what_runs_once_goes_to_the_next_host_and_comes_back(tmp_path: Path) -> None:
    def deploy(*gone: str, **variables: object) -> Run:
        """Deploy with an inventory in which no other host has an app of that name, and some of the fleet are gone."""
        inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
        groups = inventory["web"]["children"]
        for others in ("released", "nested", "main"):
            del groups[others]
        for name in gone:
            del groups["fleet"]["hosts"][name]
        file = tmp_path / "hosts.yml"
        file.write_text(yaml.safe_dump(inventory, sort_keys=False), encoding="utf-8")  # their order is what matters
        settings = {"app_watch_seconds": 1, **variables}
        return play("--limit=fleet", f"--extra-vars={json.dumps(settings)}", playbook="playbooks/deploy.yml", inventory=file)

    def done(run: Run) -> None:
        assert run.code == 0, run.output[-3000:]

    with loaded():
        done(deploy(app_processes=PROCESSES))
        assert (running(4711), running(4712)) == (["one.test"], ["one.test", "two.test", "three.test"])
        done(deploy("one.test", app_processes=PROCESSES))
        # A host that is not in the inventory is left as it is: an operator stops it.
        assert running(4711) == ["one.test", "two.test"]
        FIRST.run("supervisorctl stop $(supervisorctl status | awk '/scheduler/ {print $1}')")
        # It is back, and its release fails: what ran elsewhere goes on there.
        failed = deploy(app_processes={**PROCESSES, "worker": f"[ $(hostname) != {FIRST.name} ] && exec sleep 4712"})
        said = " ".join(failed.output.split())
        assert failed.code != 0
        assert "its process worker (app_processes) ended right after it was started" in said, failed.output[-3000:]
        assert (running(4711), running(4712)) == (["two.test"], ["one.test", "two.test", "three.test"])
        run = deploy(app_processes=PROCESSES)
        done(run)
        assert "(hosts: first) runs on one.test now" in " ".join(run.output.split())
        assert running(4711) == ["one.test"]
        assert not any(deploy(app_processes=PROCESSES).changed.values())
        done(deploy())
        within(60, lambda: running(4711) + running(4712) == [])
