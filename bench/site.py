"""Measure how long site.yml takes: from a bare server to the first answer over HTTPS, and when nothing is left to do."""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.servers import BenchError, Lab, Play, Server, lab, machine, over_ssh, play, verdict

HOSTS = 4
FIRST_SECONDS = 60
# Second runs against a play of one task on the same connection, and four hosts against one.
PODMAN_RATIO, SSH_RATIO = 4, 3.5
FOUR_HOSTS_RATIO = 2


class FirstAnswer(threading.Thread):
    """Asks a server for / over HTTPS ten times a second; `moment` (monotonic seconds) is when it answered 200."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.name, self.address = server.name, server.address
        self.moment: float | None = None
        self.trusting = ssl.create_default_context()
        self.trusting.check_hostname, self.trusting.verify_mode = False, ssl.CERT_NONE
        self.start()

    def run(self) -> None:
        """Ask until there is an answer."""
        request = f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode()
        while self.moment is None:
            try:
                raw = socket.create_connection((self.address, 443), timeout=5)
                with raw, self.trusting.wrap_socket(raw, server_hostname=self.name) as door:
                    door.sendall(request)
                    if door.recv(12) == b"HTTP/1.1 200":
                        self.moment = time.monotonic()
            except OSError:
                pass
            time.sleep(0.1)


def first_runs(bench: Lab, inventory: Path, names: list[str]) -> list[float]:
    """Take one bare server after the other to its first answer; return the seconds each took."""
    taken = []
    for name in names:
        server = bench.start(name)
        begin = time.monotonic()
        answer = FirstAnswer(server)
        run = play(inventory, limit=name)
        answer.join(timeout=10)
        if answer.moment is None:
            raise BenchError(f"{name} does not answer after site.yml.")
        taken.append(answer.moment - begin)
        print(f"first run {name}: 200 after {taken[-1]:.1f} s, site.yml ended after {run.seconds:.1f} s", flush=True)
    slowest("the last first run", run)
    return taken


def slowest(label: str, run: Play) -> None:
    """Print how many tasks a run had and which took longest."""
    print(f"\n{label}: {len(run.tasks)} tasks; the slowest:")
    for seconds, name in run.tasks[:10]:
        print(f"  {seconds:6.2f} s  {name}")
    print(flush=True)


def unchanged(inventory: Path, limit: str = "all", **environment: str) -> Play:
    """Run site.yml where nothing is left to do."""
    run = play(inventory, limit, **environment)
    if run.changed:
        raise BenchError(f"A second run changed something:\n{run.output}")
    return run


@dataclass
class Seconds:
    """What second runs took, each beside a play of one ping, and those of all hosts beside one of one host."""

    podman: list[float] = field(default_factory=list)
    podman_pings: list[float] = field(default_factory=list)
    ssh: list[float] = field(default_factory=list)
    ssh_pings: list[float] = field(default_factory=list)
    all_hosts: list[float] = field(default_factory=list)


def second_runs(bench: Lab, podman: Path, rounds: int) -> Seconds:
    """Return the seconds of second runs and of pings, interleaved: one host over podman, one over SSH, all hosts over podman."""
    one = bench.servers[0]
    ssh = over_ssh(bench, one)
    for inventory in (podman, ssh):
        unchanged(inventory, one.name)
    found = Seconds()
    for number in range(1, rounds + 1):

        def connection(use: str, number: int = number) -> dict[str, str]:
            """Return settings with SSH connections of their own: what a run costs that finds none open."""
            return {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(bench.directory / f"connections-{number}-{use}")}

        found.podman_pings.append(play(podman, one.name, playbook="bench/ping.yml").seconds)
        plain = unchanged(podman, one.name)
        found.podman.append(plain.seconds)
        found.ssh_pings.append(play(ssh, playbook="bench/ping.yml", **connection("ping")).seconds)
        found.ssh.append(unchanged(ssh, **connection("site")).seconds)
        found.all_hosts.append(unchanged(podman).seconds)
        print(
            f"second run {number}: podman {plain.seconds:.1f} s (CPU {plain.cpu:.1f} s, ping {found.podman_pings[-1]:.1f} s), "
            f"SSH {found.ssh[-1]:.1f} s (ping {found.ssh_pings[-1]:.1f} s), "
            f"{len(bench.servers)} hosts {found.all_hosts[-1]:.1f} s",
            flush=True,
        )
    slowest("the last second run over podman", plain)
    return found


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median of the ratios of what was measured side by side."""
    return median(one / other for one, other in zip(above, below, strict=True))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/run site", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="second runs of each kind (%(default)s)")
    parser.add_argument("--hosts", type=int, default=HOSTS, help="hosts, each of which gives one first run (%(default)s)")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    try:
        with lab() as bench:
            names = [f"bench-{number}.test" for number in range(1, arguments.hosts + 1)]
            podman = bench.inventory("podman", {name: {} for name in names}, ansible_connection="containers.podman.podman")
            first = first_runs(bench, podman, names)
            second = second_runs(bench, podman, arguments.rounds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"medians of {len(first)} first and {arguments.rounds} second runs:")
    print(verdict("bare server to the first 200 over HTTPS", median(first), FIRST_SECONDS, " s"))
    print(
        verdict(
            f"second run ({median(second.podman):.1f} s), podman, against a ping",
            ratio(second.podman, second.podman_pings),
            PODMAN_RATIO,
        )
    )
    print(
        verdict(f"second run ({median(second.ssh):.1f} s), SSH, against a ping", ratio(second.ssh, second.ssh_pings), SSH_RATIO)
    )
    of_all = ratio(second.all_hosts, second.podman)
    print(verdict(f"{arguments.hosts} hosts ({median(second.all_hosts):.1f} s) against one", of_all, FOUR_HOSTS_RATIO))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
