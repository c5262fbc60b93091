"""Hosts come and go behind the balancer, by an operator's will or not, and no request is dropped."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from molecule.conftest import INVENTORY, ROOT, Run, play, podman, within
from molecule.fleet.conftest import EDGE, FLEET, NAMES, SPARE, drain, ledger, loaded
from molecule.snapshot import boot


def play_drain(name: str, *arguments: str, **variables: object) -> Run:
    """Run the playbook that takes hosts out of use, or brings them back."""
    return play(f"--limit={name}", f"--extra-vars={json.dumps(variables)}", *arguments, playbook="playbooks/drain.yml")


def flat(run: Run) -> str:
    return " ".join(run.output.split())


@pytest.fixture
def smaller(tmp_path: Path) -> Iterator[Path]:
    """The inventory without the line of three.test."""
    inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
    del inventory["web"]["children"]["fleet"]["hosts"]["three.test"]
    file = tmp_path / "hosts.yml"
    file.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    yield file


def test_a_host_is_drained_and_comes_back() -> None:
    with loaded(streams=False):
        dry = play_drain("two.test", "--check")
        assert dry.code == 0, dry.output[-3000:]
        assert EDGE.uses(*NAMES)
        run = play_drain("two.test")
        assert run.code == 0, run.output[-3000:]
        assert "two.test is out of use, and nothing is in flight there" in flat(run)
        for door in (EDGE, SPARE):
            assert door.uses("one.test", "three.test")
            assert door.state()["two.test"]["connections"] == 0
        again = play_drain("two.test")
        assert (again.code, again.changed["two.test"]) == (0, 0)
        table = play("--limit=one.test,two.test,edge.test", playbook="playbooks/status.yml")
        assert table.code == 0, table.output[-3000:]
        assert re.search(r"two\.test +shop .* drained +ok ", table.output)
        assert re.search(r"one\.test +shop .* in use +ok ", table.output)
        assert re.search(r"edge\.test +balancer +ok +\d+ ", table.output)
        # It may be stopped now.
        FLEET[1].run("systemctl stop nginx")
        time.sleep(1)
        FLEET[1].run("systemctl start nginx")
        back = play_drain("two.test", drain=False)
        assert back.code == 0, back.output[-3000:]
        assert "two.test is in use" in flat(back)


def test_what_is_in_flight_is_waited_for_and_told_of() -> None:
    # As many event streams as it takes to have one at each host.
    streams = [EDGE.connect() for _ in range(12)]
    for stream in streams:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 200 ")
    run = play_drain("one.test", drain_seconds=4)
    for stream in streams:
        stream.close()
    assert run.code != 0
    assert "one.test gets no new requests, but after 4 seconds there are still" in flat(run)
    drain("one.test")
    drain("one.test", out=False)


def test_the_last_host_stays() -> None:
    run = play_drain("fleet")
    assert run.code != 0
    assert "is the last host in use there" in flat(run)
    assert sum(entry["slots"] > 0 for entry in EDGE.state().values()) == 1
    assert EDGE.ask("/healthz").status == 200
    for name in NAMES:
        drain(name, out=False)


def test_a_host_is_taken_out_for_good_and_added(smaller: Path) -> None:
    pids = EDGE.run("systemctl show -P MainPID nginx"), EDGE.run("pgrep -f 'nginx: worker process$'")
    with loaded(streams=False) as load:
        drain("three.test")
        run = play("--limit=balancer", inventory=smaller)
        assert run.code == 0, run.output[-3000:]
        within(10, lambda: EDGE.state().keys() == {"one.test", "two.test"})
        within(10, lambda: not EDGE.run("ls /run/slipway-balancer/fleet/three.test.sock", check=False))
        assert "three.test" not in EDGE.run("systemctl list-units 'slipway-balancer-*'")
        load.taken.update(ledger(FLEET[2]))
        # What comes in its place has nothing of it but the name.
        image = subprocess.check_output([ROOT / "script" / "image", "debian13"], text=True).strip()
        boot(image, FLEET[2], "--volume=slipway-packages-three.test:/var/cache/apt/archives")
        run = play("--limit=fleet,balancer")
        assert run.code == 0, run.output[-3000:]
        within(20, lambda: EDGE.uses(*NAMES))
    assert pids == (EDGE.run("systemctl show -P MainPID nginx"), EDGE.run("pgrep -f 'nginx: worker process$'")), (
        "Nginx was reloaded"
    )


def test_a_host_that_is_killed_costs_at_most_what_it_had_in_flight() -> None:
    with loaded(allowed=8) as load:
        podman("kill", "one.test")
        within(10, lambda: EDGE.uses("two.test", "three.test"))
        time.sleep(2)
        podman("start", "one.test")
        within(60, lambda: EDGE.uses(*NAMES), pause=0.5)
    assert load.result["streams"]["messages"] > 0


def test_a_host_that_hangs_is_left_out() -> None:
    with loaded():
        podman("pause", "three.test")
        try:
            within(15, lambda: EDGE.uses("one.test", "two.test"))
            assert EDGE.state()["three.test"]["state"] == "unhealthy"
            time.sleep(2)
        finally:
            podman("unpause", "three.test")
        within(30, lambda: EDGE.uses(*NAMES))


def test_an_app_that_fails_is_left_out_though_its_host_is_well() -> None:
    host = FLEET[1]
    # Of such a host no more than what was posted there fails, and that for a second or so: it answers, if with an error.
    with loaded(allowed=60) as load:
        host.run(f"supervisorctl stop {host.app}-{host.live()}")
        within(10, lambda: EDGE.uses("one.test", "three.test"))
        assert "502" in EDGE.state()["two.test"]["reason"]
        doctor = play("--limit=one.test,two.test,edge.test", playbook="playbooks/doctor.yml")
        assert doctor.code == 2
        assert "error: two.test is not well it answers 502 instead of 200" in flat(doctor)
        # What is wrong with a balancer does not keep the host from being examined that it is wrong with.
        assert f"error: The program shop-{host.live()} is STOPPED" in flat(doctor)
        assert "one.test has no findings." in doctor.output
        host.run(f"supervisorctl start {host.app}-{host.live()}")
        within(30, lambda: EDGE.uses(*NAMES))
    assert [failure for failure in load.result["failures"] if "POST" not in failure] == []


def test_the_balancers_service_may_die() -> None:
    with loaded():
        EDGE.run("systemctl kill --signal=KILL slipway-balancer-fleet")
        within(10, lambda: EDGE.run("systemctl is-active slipway-balancer-fleet", check=False).strip() == "active")
        assert EDGE.uses(*NAMES)


def test_where_no_host_is_well_all_are_tried() -> None:
    for host in FLEET:
        host.run("systemctl stop nginx")
    within(15, lambda: {entry["state"] for entry in EDGE.state().values()} == {"unhealthy"})
    assert EDGE.uses(*NAMES)
    answer = EDGE.ask("/healthz")
    assert (answer.status, "retry-after" in answer.headers) == (502, True)
    for host in FLEET:
        host.run("systemctl start nginx")
    within(15, lambda: {entry["state"] for entry in EDGE.state().values()} == {"in use"})
