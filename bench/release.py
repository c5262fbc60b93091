"""Measure how long a release of changed code and a rollback take on a warm host, what a build costs, and what is left behind."""

from __future__ import annotations

import argparse
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from bench.servers import ROOT, BenchError, Lab, Play, Server, lab, machine, over_ssh, play, verdict

NAME = "release-bench.test"
RELEASE_SECONDS = 6
ROLLBACK_SECONDS = 4


class NewAnswer(threading.Thread):
    """Asks a server for / over HTTPS ten times a second; `moment` (monotonic seconds) is when another release answered."""

    def __init__(self, server: Server, release: str) -> None:
        super().__init__(daemon=True)
        self.name, self.address, self.release = server.name, server.address, release
        self.moment: float | None = None
        self.trusting = ssl.create_default_context()
        self.trusting.check_hostname, self.trusting.verify_mode = False, ssl.CERT_NONE
        self.start()

    def run(self) -> None:
        """Ask until there is such an answer."""
        old = f"\r\nx-release: {self.release}\r\n".encode()
        request = f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode()
        while self.moment is None:
            raw = socket.create_connection((self.address, 443), timeout=5)
            with raw, self.trusting.wrap_socket(raw, server_hostname=self.name) as door:
                door.sendall(request)
                head = door.recv(4096).lower()
            if b" 200 " in head and old not in head:
                self.moment = time.monotonic()
            time.sleep(0.1)


def live(server: Server, app: str) -> str:
    """Return the number of the live release."""
    return server.run(f"readlink /opt/{app}/live.sock").rpartition("/")[2].removesuffix(".sock")


def timed(server: Server, inventory: Path, app: str, playbook: str, *options: str) -> tuple[float, Play]:
    """Run a playbook and return the seconds until another release answered, and the run."""
    begin = time.monotonic()
    answer = NewAnswer(server, live(server, app))
    begin = time.monotonic()
    run = play(inventory, NAME, *options, playbook=playbook)
    answer.join(timeout=5)
    if answer.moment is None:
        raise BenchError(f"{playbook} ended, and the same release answers:\n{run.output[-3000:]}")
    return answer.moment - begin, run


def state(server: Server, app: str) -> tuple[int, int]:
    """Return how many processes the app has, and the MiB that they alone use."""
    pids = server.run(f"pgrep -u {app}").split()
    private = sum(
        int(line.split()[1])
        for pid in pids
        for line in server.run(f"grep -E '^Private_(Clean|Dirty):' /proc/{pid}/smaps_rollup").splitlines()
    )
    return len(pids), private // 1024


def build_seconds(server: Server, inventory: Path, installer: str, source: Path) -> float:
    """Return the seconds of a build that has to make its environment, with the installer's caches warm."""
    taken = []
    for number in range(3):
        requirements = source / "requirements.txt"
        requirements.write_text(f"{requirements.read_text(encoding='utf-8')}# {installer} {number}\n", encoding="utf-8")
        options = [f"--extra-vars=app_source={source} python_installer={installer} app_watch_seconds=0"]
        run = play(inventory, NAME, *options, playbook="playbooks/deploy.yml")
        taken.append(next(seconds for seconds, task in run.tasks if "Build the app" in task))
    return median(taken[1:])


def measure(bench: Lab, rounds: int) -> None:
    """Measure and print."""
    server, app = bench.start(NAME), NAME.replace(".", "-")
    inventory = over_ssh(bench, server)
    play(inventory)
    before = state(server, app)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "app")
        shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns(".venv", ".*_cache", "__pycache__"))
        releases, rollbacks, whole = [], [], []
        for number in range(1, rounds + 1):
            main_file = source / "app" / "main.py"
            main_file.write_text(f"{main_file.read_text(encoding='utf-8')}\n# {number}\n", encoding="utf-8")
            seconds, run = timed(server, inventory, app, "playbooks/deploy.yml", f"--extra-vars=app_source={source}")
            releases.append(seconds)
            whole.append(run.seconds)
            seconds, back = timed(server, inventory, app, "playbooks/rollback.yml")
            rollbacks.append(seconds)
            print(
                f"round {number}: new release answers after {releases[-1]:.1f} s (play {run.seconds:.1f} s), "
                f"old one again after {seconds:.1f} s (play {back.seconds:.1f} s)",
                flush=True,
            )
        after = state(server, app)
        uv, pip = (build_seconds(server, inventory, installer, source) for installer in ("uv", "pip"))
    print(machine())
    print(f"medians of {rounds} rounds:")
    print(verdict("release of changed code, to its first answer", median(releases), RELEASE_SECONDS, " s"))
    print(verdict("rollback, to the first answer of the old one", median(rollbacks), ROLLBACK_SECONDS, " s"))
    print(f"whole play of a release, watched for 10 s: {median(whole):.1f} s")
    print(f"build with a new environment: uv {uv:.1f} s, venv and pip {pip:.1f} s, ratio {pip / uv:.1f}")
    print(f"processes before and after: {before[0]}, {after[0]}; private memory {before[1]} MiB, {after[1]} MiB")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/run release", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="releases, each followed by a rollback (%(default)s)")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    try:
        with lab() as bench:
            measure(bench, arguments.rounds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
