"""Measure what an ordinary client waits for an answer while thousands of others hold connections, against when it is alone.

All of them are in the server's own container and have one address, so that a limit by address would show, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.requests import Way, live, sample
from bench.servers import BenchError, Server, call, lab, machine, play

NAME = "crowded.test"
APP = "crowded-test"
PRIVATE = "/private/"


@contextmanager
def crowd(server: Server, *options: str) -> Iterator[dict[str, Any]]:
    """Have bench/crowd.py there while the block runs; afterwards the dictionary has what it says.

    Raises:
        BenchError: when not all of it came.
    """
    command = ["podman", "exec", "--interactive", server.id, "python3", "/tmp/crowd.py", NAME, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin and running.stdout
        said: dict[str, Any] = {}
        if running.stdout.readline().strip() != "ready":
            running.kill()
            raise BenchError("The crowd did not come in whole.")
        yield said
        running.stdin.close()
        said |= json.loads(running.stdout.read())


def compare(name: str, crowds: dict[str, list[str]], rounds: int, options: list[str]) -> int:
    """Ask as an ordinary client, alone and with each of some crowds by turns; print how long the answers took."""
    print(machine(), flush=True)
    try:
        with lab() as bench:
            server = bench.start(NAME)
            private = {"nginx_private_locations": {PRIVATE: "/srv/private/"}, "nginx_private_password": "right-and-long-enough"}
            inventory = bench.inventory(
                name, {NAME: {}}, ansible_connection="containers.podman.podman", app_workers=2, app_watch_seconds=1, **private
            )
            play(inventory)
            for file in ("load.py", "crowd.py"):
                call("podman", "cp", str(Path(__file__).with_name(file)), f"{server.id}:/tmp/{file}")
            way = Way("https:443", NAME, {"app": live(server, APP), "nginx": int(server.run("cat /run/nginx.pid"))})
            samples: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("alone", *crowds)}
            for number in range(1, rounds + 1):
                samples["alone"].append(sample(server, way, options))
                for kind, wanted in crowds.items():
                    with crowd(server, *wanted) as said:
                        samples[kind].append(sample(server, way, options))
                    print(f"round {number}, {kind}: {json.dumps(said)}", flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"{'client':<12}{'p50 ms':>8}{'p99 ms':>8}{'p99 of alone':>14}")
    for kind, found in samples.items():
        ratio = median(each["p99_ms"] / alone["p99_ms"] for alone, each in zip(samples["alone"], found, strict=True))
        p50, p99 = (median(each[figure] for each in found) for figure in ("p50_ms", "p99_ms"))
        print(f"{kind:<12}{p50:8.2f}{p99:8.2f}{ratio:14.2f}")
    return 0


def arguments_of(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser for what both programs can be told."""
    parser = argparse.ArgumentParser(
        prog=f"bench/run {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="samples of each kind, interleaved (%(default)s)")
    parser.add_argument("--rate", type=float, default=100, help="requests per second of the ordinary client (%(default)s)")
    return parser


def main() -> int:
    """Measure and print."""
    parser = arguments_of("capacity", __doc__ or "")
    parser.add_argument("--seconds", type=float, default=6, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--idle", type=int, default=4000, help="connections on which nothing is asked any more (%(default)s)")
    parser.add_argument("--websockets", type=int, default=1000, help="open WebSockets (%(default)s)")
    parser.add_argument("--slow", type=int, default=500, help="clients that never get to the end of a request (%(default)s)")
    arguments = parser.parse_args()
    wanted = [f"--{kind}={getattr(arguments, kind)}" for kind in ("idle", "websockets", "slow")]
    options = ["--connections=4", f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", "--path=/"]
    return compare("capacity", {"crowd": wanted}, arguments.rounds, options)


if __name__ == "__main__":
    raise SystemExit(main())
