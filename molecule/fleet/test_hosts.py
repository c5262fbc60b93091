"""Hosts and load balancers come and go, by an operator's will or not, and no request is dropped."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from molecule.conftest import INVENTORY, ROOT, Run, play, podman, polling, within
from molecule.fleet.conftest import BALANCERS, EDGE, FLEET, NAMES, SPARE, drain, ledger, loaded, running, start_again
from molecule.snapshot import boot

# A failing host has at most one request of each of the eight clients, a WebSocket and an event stream under way.
UNDER_WAY = 10


def play_drain(name: str, *arguments: str, **variables: object) -> Run:
    """Run the playbook that drains hosts, or puts them back into use."""
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


def test_a_host_is_drained_and_comes_back(tmp_path: Path) -> None:
    with loaded(streams=False):
        dry = play_drain("two.test", "--check")
        assert dry.code == 0, dry.output[-3000:]
        assert EDGE.uses(*NAMES)
        run = play_drain("two.test")
        assert run.code == 0, run.output[-3000:]
        assert re.search(r"two\.test is (drained|out of use)", flat(run)), run.output[-3000:]
        for balancer in BALANCERS:
            assert balancer.uses("one.test", "three.test")
            assert balancer.state()["two.test"].state in ("drain", "maint")
            assert balancer.state()["two.test"].sessions == 0
        again = play_drain("two.test")
        assert (again.code, again.changed["two.test"]) == (0, 0)
        report = f"--extra-vars=status_directory={tmp_path}"
        table = play("--limit=one.test,two.test,edge.test", report, playbook="playbooks/status.yml")
        assert table.code == 0, table.output[-3000:]
        assert re.search(r"two\.test +shop .* (drain|maint) +ok ", table.output), table.output[-3000:]
        assert re.search(r"one\.test +shop .* up +ok ", table.output)
        assert re.search(r"edge\.test +haproxy +ok +\d+ ", table.output)
        rows = {row["host"]: row for row in json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["hosts"]}
        backends = {backend["backend"]: backend for backend in rows["edge.test"]["backends"]}
        assert list(backends) == NAMES
        assert [backends[name]["state"] for name in NAMES] == ["up", EDGE.state()["two.test"].state, "up"]
        assert "L7OK" in backends["one.test"]["check"]
        assert [backends["two.test"]["sessions"], backends["one.test"]["sessions"] >= 0] == [0, True]
        # It may be stopped now.
        FLEET[1].run("systemctl stop nginx")
        time.sleep(1)
        FLEET[1].run("systemctl start nginx")
        back = play_drain("two.test", drain=False)
        assert back.code == 0, back.output[-3000:]
        assert re.search(r"two\.test is (in use|up)", flat(back)), back.output[-3000:]


def test_what_is_in_flight_is_waited_for_and_reported() -> None:
    # As many event streams as it takes to have one at each host.
    streams = [EDGE.connect() for _ in range(12)]
    for stream in streams:
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 200 ")
    run = play_drain("one.test", drain_seconds=4)
    assert EDGE.state()["one.test"].sessions > 0
    for stream in streams:
        stream.close()
    assert run.code != 0
    assert re.search(r"one\.test gets no new requests, but after 4 seconds there (are|is) still", flat(run)), run.output[-3000:]
    drain("one.test")
    drain("one.test", out=False)


def test_the_last_host_stays() -> None:
    run = play_drain("fleet")
    assert run.code != 0
    assert re.search(r"is the last (host|backend)", flat(run)), run.output[-3000:]
    assert [backend.state for backend in EDGE.state().values()].count("up") == 1
    assert EDGE.ask("/healthz").status == 200
    for name in NAMES:
        drain(name, out=False)


def test_states_outlast_reloads_restarts_and_kills() -> None:
    """One host is drained and another one is down; the load is on the balancer that is reloaded, then on the other one."""
    drain("two.test")
    FLEET[2].run("systemctl stop nginx")
    within(15, lambda: all(balancer.uses("one.test") for balancer in BALANCERS))
    with loaded():
        for _ in range(5):
            EDGE.reload()
            states = {name: backend.state for name, backend in EDGE.state().items()}
            assert states["three.test"] == "down", states
            assert states["two.test"] in ("drain", "maint"), states
            assert states["one.test"] == "up", states
    FLEET[2].run("systemctl start nginx")
    within(15, lambda: EDGE.uses("one.test", "three.test"))
    with loaded(SPARE):
        # The last two: of one process, and of all that there are.
        for command in ("systemctl restart haproxy", "kill -KILL {}", "systemctl kill --signal=KILL haproxy"):
            before = EDGE.pid()
            EDGE.run(command.format(before))
            within(15, partial(EDGE.active, before))
            assert EDGE.state()["two.test"].state in ("drain", "maint"), command
        within(15, lambda: EDGE.uses("one.test", "three.test"))
    drain("two.test", out=False)


def test_a_host_is_taken_out_for_good_and_added(smaller: Path) -> None:
    with loaded(streams=False) as load:
        drain("three.test")
        run = play("--limit=balancer", inventory=smaller)
        assert run.code == 0, run.output[-3000:]
        within(10, lambda: EDGE.state().keys() == {"one.test", "two.test"})
        assert "three.test" not in EDGE.run("ls /etc/haproxy/slipway/backends")
        assert EDGE.run("grep -r three[.]test /etc/haproxy", check=False) == ""
        load.taken.update(ledger(FLEET[2]))
        # What comes in its place has nothing of it but the name.
        image = subprocess.check_output([ROOT / "script" / "image", "debian13"], text=True).strip()
        boot(image, FLEET[2], "--volume=slipway-packages-three.test:/var/cache/apt/archives")
        run = play("--limit=fleet,balancer")
        assert run.code == 0, run.output[-3000:]
        within(20, lambda: EDGE.uses(*NAMES) and SPARE.uses(*NAMES))


def test_a_host_that_is_killed_costs_at_most_what_it_had_in_flight() -> None:
    address = FLEET[0].address
    with loaded(allowed=8) as load:
        podman("kill", "one.test")
        within(10, lambda: EDGE.uses("two.test", "three.test"))
        time.sleep(2)
        start_again(FLEET[0], address)
        within(60, lambda: EDGE.uses(*NAMES), pause=0.5)
    assert load.result["streams"]["messages"] > 0


def test_a_host_that_hangs_is_left_out() -> None:
    with loaded():
        podman("pause", "three.test")
        try:
            within(15, lambda: EDGE.uses("one.test", "two.test"))
            assert EDGE.state()["three.test"].state == "down"
            time.sleep(2)
        finally:
            podman("unpause", "three.test")
        within(30, lambda: EDGE.uses(*NAMES))


@pytest.mark.parametrize(("kind", "check"), [("mute", "L6TOUT"), ("dripping", "L7TOUT")])
def test_a_host_that_serves_badly_is_left_out(kind: str, check: str) -> None:
    host = FLEET[2]
    server = (Path(__file__).with_name("faults.py")).read_text(encoding="utf-8")
    pair = [host.pinned, host.key] if kind == "dripping" else []
    with loaded(allowed=UNDER_WAY):
        # It listens as soon as Nginx does not, which still answers what is under way.
        with running(host, "fault", "python3", "-c", server, kind, *pair):
            host.run("systemctl stop --no-block nginx")
            within(15, lambda: all(balancer.uses("one.test", "two.test") for balancer in BALANCERS))
            assert {balancer.state()["three.test"].check for balancer in BALANCERS} == {check}
            time.sleep(2)
        host.run("systemctl start nginx")
        within(30, lambda: EDGE.uses(*NAMES))


def test_a_host_whose_disk_is_full_goes_on_serving() -> None:
    """Nginx cannot log there, which clients do not notice; an alert names the host."""
    host = FLEET[2]
    with loaded():
        host.run(
            "mount -t tmpfs -o size=64k tmpfs /var/log/nginx && { dd if=/dev/zero of=/var/log/nginx/full bs=1k 2>/dev/null; "
            "nginx -s reopen; }"
        )
        try:
            time.sleep(3)
            assert EDGE.uses(*NAMES)
        finally:
            host.run("umount --lazy /var/log/nginx && nginx -s reopen")


def test_an_app_that_fails_is_left_out_though_its_host_is_well() -> None:
    host = FLEET[1]
    # Of such a host no more than what was posted there fails, and that for a second or so: it answers, if with an error.
    with loaded(allowed=60) as load:
        host.run(f"supervisorctl stop {host.app}-{host.live()}")
        within(10, lambda: EDGE.uses("one.test", "three.test"))
        assert EDGE.state()["two.test"].code == "502"
        doctor = play("--limit=one.test,two.test,edge.test", playbook="playbooks/doctor.yml")
        assert doctor.code == 2
        assert re.search(r"error: [^:]{0,40}two\.test .{0,80}502", flat(doctor)), doctor.output[-3000:]
        # What is wrong with a balancer does not keep the host from being examined that it is wrong with.
        assert f"error: The program shop-{host.live()} is STOPPED" in flat(doctor)
        assert "one.test has no findings." in doctor.output
        host.run(f"supervisorctl start {host.app}-{host.live()}")
        within(30, lambda: EDGE.uses(*NAMES))
    assert [failure for failure in load.result["failures"] if "POST" not in failure] == []


def test_a_balancer_that_is_killed_comes_back_by_itself() -> None:
    address = EDGE.address
    with loaded(SPARE):
        podman("kill", EDGE.name)
        start_again(EDGE, address)
        within(60, lambda: EDGE.active() and EDGE.uses(*NAMES), pause=0.5)
    assert EDGE.ask("/items/1").status == 200


def test_a_load_balancer_is_replaced_while_the_other_one_serves() -> None:
    with loaded(EDGE, streams=False):
        # A bare server at the same name, of which DNS has no record: the CA reaches the other one alone, which asks this one.
        image = subprocess.check_output([ROOT / "script" / "image", "debian13"], text=True).strip()
        boot(image, SPARE, f"--volume=slipway-packages-{SPARE.name}:/var/cache/apt/archives")
        run = play("--limit=fleet,balancer")
        assert run.code == 0, run.output[-3000:]
        within(20, lambda: SPARE.uses(*NAMES))
        assert SPARE.serial() != EDGE.serial()  # verified, and of its own
    with loaded(SPARE):
        run = play("--limit=fleet,balancer")
        assert (run.code, set(run.changed.values())) == (0, {0}), run.output[-3000:]


def test_a_load_balancer_gets_another_name(tmp_path: Path) -> None:
    inventory = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))
    hosts = inventory["balancer"]["hosts"]
    hosts["other-balancer.test"] = {**hosts.pop(SPARE.name), "ansible_host": SPARE.name}
    renamed = tmp_path / "hosts.yml"
    renamed.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    before = [balancer.serial() for balancer in BALANCERS]
    with loaded(EDGE), polling(SPARE, "/healthz") as failures:
        for file in (renamed, INVENTORY):
            run = play("--limit=fleet,balancer", inventory=file)
            assert run.code == 0, run.output[-3000:]
            assert all(balancer.uses(*NAMES) for balancer in BALANCERS)
    assert failures == []
    assert [balancer.serial() for balancer in BALANCERS] == before


def test_without_a_healthy_host_clients_get_a_page() -> None:
    for host in FLEET:
        host.run("systemctl stop nginx")
    try:
        within(15, lambda: {backend.state for backend in EDGE.state().values()} == {"down"})
        answer = EDGE.ask("/healthz")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "Back in a moment" in answer.body
        assert len(answer.headers["x-request-id"]) >= 16
        assert "nosniff" in answer.headers["x-content-type-options"]
        assert EDGE.ask("/upload", "POST", body=b"x").status == 503
    finally:
        for host in FLEET:
            host.run("systemctl start nginx")
    within(15, lambda: {backend.state for backend in EDGE.state().values()} == {"up"})
    assert "retry-after" not in EDGE.ask("/").headers
