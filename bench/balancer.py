"""Measure what a balancer with two hosts behind it serves against one host alone, and what a request costs the balancer.

Each app host may use a part of a processor, so that two of them can do more than one on a machine that has few processors.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.servers import BenchError, Lab, Server, call, lab, machine, play, verdict

ALONE, ONE, TWO, EDGE = "bench-alone.test", "bench-one.test", "bench-two.test", "bench-edge.test"
CLIENT = "bench-client.test"
SITE = "bench-site.test"
TWO_OF_ONE = 1.8


def begin(bench: Lab, processors: float) -> dict[str, Server]:
    """Start the servers, have them serve, and give each app host its part of a processor."""
    servers = {name: bench.start(name, name) for name in (ALONE, ONE, TWO, EDGE, CLIENT)}
    groups: dict[str, object] = {
        "web": {
            "hosts": {ALONE: {"app_name": "alone"}},
            "children": {"fleet": {"hosts": {name: {"balancer_address": servers[name].address} for name in (ONE, TWO)}}},
            "vars": {"app_name": "bench", "app_workers": 1},
        },
        "balancer": {"hosts": {EDGE: {}}, "vars": {"balancer_group": "fleet", "nginx_domains": [SITE]}},
        "all": {"vars": {"certbot_mode": "selfsigned", "ansible_connection": "containers.podman.podman"}},
    }
    run = play(bench.write("balancer", groups))
    print(f"from bare to served: {run.seconds:.0f} s", flush=True)
    for name in (ALONE, ONE, TWO):
        call("podman", "update", f"--cpus={processors}", servers[name].id)
    call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{servers[CLIENT].id}:/tmp/load.py")
    return servers


def used(server: Server) -> float:
    """Return the CPU microseconds that a container has used.

    Raises:
        BenchError: where the kernel does not count them.
    """
    pid = call("podman", "inspect", "--format", "{{.State.Pid}}", server.id)
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        # systemd moves into a group of its own within the container's.
        path = path.removesuffix("/init.scope")
        if "cpuacct" in controllers.split(","):
            return int(Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text(encoding="ascii")) / 1000
        if not controllers and (file := Path(f"/sys/fs/cgroup{path}/cpu.stat")).exists():
            return int(file.read_text(encoding="ascii").split()[1])
    raise BenchError(f"The CPU time of {server.name} is not counted here.")


def sample(servers: dict[str, Server], door: str, options: list[str]) -> dict[str, Any]:
    """Ask a door, and return what bench/load.py prints."""
    host = SITE if door == EDGE else door
    command = ["podman", "exec", servers[CLIENT].id, "python3", "/tmp/load.py", f"https:{servers[door].address}:443", host]
    found: dict[str, Any] = json.loads(call(*command, *options))
    return found


def main() -> int:
    """Measure and print."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench/run balancer", description=__doc__, formatter_class=formatter)
    parser.add_argument("--rounds", type=int, default=7, help="samples of each door, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--rate", type=float, default=100, help="requests per second for p50 and p99 (%(default)s)")
    parser.add_argument("--processors", type=float, default=0.2, help="what each app host may use (%(default)s)")
    arguments = parser.parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}"]
    print(machine(), flush=True)
    samples: dict[str, list[dict[str, Any]]] = {ALONE: [], EDGE: []}
    try:
        with lab() as bench:
            servers = begin(bench, arguments.processors)
            for number in range(1, arguments.rounds + 1):
                for door, taken in samples.items():
                    before = used(servers[EDGE])
                    taken.append(sample(servers, door, options))
                    answers = taken[-1]["per_second"] * arguments.seconds + arguments.rate * arguments.seconds
                    taken[-1]["edge"] = (used(servers[EDGE]) - before) / answers
                print(
                    f"round {number}: " + ", ".join(f"{door} {taken[-1]['per_second']:.0f}/s" for door, taken in samples.items()),
                    flush=True,
                )
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{machine()}\nmedians of {arguments.rounds} rounds; each app host has {arguments.processors:g} of a processor")
    print(f"{'door':<18}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'edge CPU µs':>13}")
    for door, taken in samples.items():
        cells = (median(found[figure] for found in taken) for figure in ("per_second", "p50_ms", "p99_ms", "edge"))
        print(
            f"{door:<18}"
            + "".join(
                f"{cell:{width}.{digits}f}" for cell, width, digits in zip(cells, (12, 9, 9, 13), (0, 2, 2, 0), strict=True)
            )
        )
    ratio = median(two["per_second"] / one["per_second"] for one, two in zip(samples[ALONE], samples[EDGE], strict=True))
    print(verdict("balancer and two hosts / one host", ratio, TWO_OF_ONE, least=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
