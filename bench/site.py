"""Measure how long site.yml takes: from a bare server to the first answer over HTTPS, and when nothing is left to do."""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from statistics import median

from bench.servers import BenchError, Lab, Play, Server, lab, machine, over_ssh, play, verdict

HOSTS = 4
FIRST_SECONDS = 60
SECOND_PODMAN_SECONDS = 10
SECOND_SSH_SECONDS = 8
FOUR_HOSTS_RATIO = 3


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


def second_runs(bench: Lab, podman: Path, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of second runs, interleaved: one host over podman, one over SSH, all hosts over podman."""
    one = bench.servers[0]
    ssh = over_ssh(bench, one)
    for inventory in (podman, ssh):
        unchanged(inventory, one.name)
    of_podman, of_ssh, of_all = [], [], []
    for number in range(1, rounds + 1):
        plain = unchanged(podman, one.name)
        # A connection of its own each time: what a run costs that finds none open.
        secure = unchanged(ssh, ANSIBLE_SSH_CONTROL_PATH_DIR=str(bench.directory / f"connections-{number}"))
        fleet = unchanged(podman)
        of_podman.append(plain.seconds)
        of_ssh.append(secure.seconds)
        of_all.append(fleet.seconds)
        print(
            f"second run {number}: podman {plain.seconds:.1f} s, SSH {secure.seconds:.1f} s, "
            f"{len(bench.servers)} hosts {fleet.seconds:.1f} s",
            flush=True,
        )
    slowest("the last second run over podman", plain)
    return of_podman, of_ssh, of_all


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
            of_podman, of_ssh, of_all = second_runs(bench, podman, arguments.rounds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"medians of {len(first)} first and {arguments.rounds} second runs:")
    print(verdict("bare server to the first 200 over HTTPS", median(first), FIRST_SECONDS, " s"))
    print(verdict("second run, podman", median(of_podman), SECOND_PODMAN_SECONDS, " s"))
    print(verdict("second run, SSH", median(of_ssh), SECOND_SSH_SECONDS, " s"))
    ratios = [all_hosts / one for all_hosts, one in zip(of_all, of_podman, strict=True)]
    print(verdict(f"{arguments.hosts} hosts ({median(of_all):.1f} s) against one", median(ratios), FOUR_HOSTS_RATIO))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
