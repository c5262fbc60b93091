"""Measure what a load balancer with one, two and four hosts serves against one host alone, and what a request costs it.

First without limits: p50 and p99 through the load balancer and direct, and its CPU per request beside that of a bare HAProxy,
which has the same certificate and backends and a minimal configuration. Then each app host gets a part of a processor, so that
the hosts are the bottleneck on a machine that has few processors, and requests per second are counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import WARM_UP_SECONDS
from bench.servers import BenchError, Lab, Server, call, lab, machine, play, verdict

ALONE, EDGE, CLIENT = "bench-alone.test", "bench-edge.test", "bench-client.test"
HOSTS = [f"bench-{number}.test" for number in ("one", "two", "three", "four")]
SITE = "bench-site.test"
BARE_PORT = 8443

TWO_OF_ONE, FOUR_OF_ONE = 1.9, 3.6
P99_OF_DIRECT = 2.0
CPU_OF_BARE = 1.2

ADMIN = """
import socket, sys
admin = socket.socket(socket.AF_UNIX)
admin.connect("/run/haproxy/admin.sock")
admin.sendall(sys.argv[1].encode() + b"\\n")
print(b"".join(iter(lambda: admin.recv(65536), b"")).decode())
"""

BARE = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend bare
    bind :{port} ssl crt /run/bench-bare.pem
    default_backend bare
backend bare
{servers}
"""


@dataclass(frozen=True)
class Endpoint:
    """Where requests are sent.

    Attributes:
        label: its name in the report.
        server: the name of the server.
        port: the port on it.
        domain: the name that is asked for.
        hosts: how many hosts the load balancer uses; 0 without one.
    """

    label: str
    server: str
    domain: str
    port: int = 443
    hosts: int = 0


ONE_HOST = Endpoint("one host", ALONE, ALONE)
BALANCED = {
    1: Endpoint("balancer, one host", EDGE, SITE, hosts=1),
    2: Endpoint("balancer, two hosts", EDGE, SITE, hosts=2),
    4: Endpoint("balancer, four hosts", EDGE, SITE, hosts=4),
}
BARE_HAPROXY = Endpoint("bare HAProxy, four", EDGE, SITE, BARE_PORT, hosts=4)

Samples = dict[Endpoint, list[dict[str, Any]]]


def begin(bench: Lab) -> dict[str, Server]:
    """Start the servers, provision them, and start the bare HAProxy."""
    servers = {name: bench.start(name, name) for name in (ALONE, *HOSTS, EDGE, CLIENT)}
    addresses = {name: {"haproxy_address": server.address} for name, server in servers.items()}
    groups: dict[str, object] = {
        "web": {
            "hosts": {ALONE: {"app_name": "alone"}},
            "children": {"fleet": {"hosts": {name: addresses[name] for name in HOSTS}}},
            "vars": {"app_name": "bench", "app_workers": 1, "app_watch_seconds": 1},
        },
        "balancer": {"hosts": {EDGE: addresses[EDGE]}, "vars": {"haproxy_group": "fleet", "haproxy_domains": [SITE]}},
        "all": {"vars": {"certbot_mode": "selfsigned", "ansible_connection": "containers.podman.podman"}},
    }
    run = play(bench.write("balancer", groups))
    print(f"from bare to served: {run.seconds:.0f} s", flush=True)
    start_bare(servers)
    call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{servers[CLIENT].id}:/tmp/load.py")
    return servers


def bare_configuration(addresses: dict[str, str]) -> str:
    """Return a minimal configuration of HAProxy: TLS on both sides, and nothing else.

    Args:
        addresses: the address of each host.
    """
    options = "ssl verify none sni str({}.backend.slipway.internal)"
    servers = [f"    server {name} {address}:443 {options.format(name)}" for name, address in addresses.items()]
    return BARE.format(port=BARE_PORT, servers="\n".join(servers))


def start_bare(servers: dict[str, Server]) -> None:
    """Start a second HAProxy with a minimal configuration beside the load balancer's own."""
    configuration = bare_configuration({name: servers[name].address for name in HOSTS})
    servers[EDGE].run(
        "cat /etc/haproxy/slipway/site.crt /etc/haproxy/slipway/site.key > /run/bench-bare.pem\n"
        f"cat > /run/bench-bare.cfg <<'END'\n{configuration}END\n"
        "systemd-run --quiet --unit=bench-bare haproxy -db -f /run/bench-bare.cfg"
    )


def admin(edge: Server, command: str) -> str:
    """Send a command to the runtime API of the load balancer and return the output."""
    return call("podman", "exec", edge.id, "python3", "-c", ADMIN, command)


def used_hosts(statistics: str) -> set[str]:
    """Return the hosts that get requests, from the output of `show stat`."""
    rows = csv.DictReader(statistics.removeprefix("# ").splitlines())
    return {row["svname"] for row in rows if row["pxname"] == "app" and row["svname"] in HOSTS and row["status"].startswith("UP")}


def use(edge: Server, count: int) -> None:
    """Use the first hosts alone.

    Args:
        edge: the load balancer.
        count: how many.

    Raises:
        BenchError: if they are not up after ten seconds.
    """
    for number, name in enumerate(HOSTS):
        admin(edge, f"set server app/{name} state {'ready' if number < count else 'maint'}")
    deadline = time.monotonic() + 10
    while used_hosts(admin(edge, "show stat")) != set(HOSTS[:count]):
        if time.monotonic() > deadline:
            raise BenchError(f"The load balancer does not use {count} hosts.")
        time.sleep(0.2)


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


def idle(edge: Server, seconds: float) -> float:
    """Return the CPU microseconds that the load balancer uses in a second without requests."""
    before, start = used(edge), time.monotonic()
    time.sleep(seconds)
    return (used(edge) - before) / (time.monotonic() - start)


def sample(servers: dict[str, Server], endpoint: Endpoint, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask an endpoint, and return what bench/load.py prints, with the load balancer's CPU microseconds per request as `edge`.

    The CPU that it uses anyway, for health checks, counts for its own HAProxy and not for the bare one.
    """
    edge = servers[EDGE]
    if endpoint.hosts:
        use(edge, endpoint.hosts)
    others = idle(edge, arguments.seconds / 2) if endpoint is BARE_HAPROXY else 0.0
    before, start = used(edge), time.monotonic()
    place = f"https:{servers[endpoint.server].address}:{endpoint.port}"
    command = ["podman", "exec", servers[CLIENT].id, "python3", "/tmp/load.py", place, endpoint.domain]
    found: dict[str, Any] = json.loads(call(*command, f"--seconds={arguments.seconds}", f"--rate={arguments.rate}"))
    cpu = used(edge) - before - others * (time.monotonic() - start)
    answers = found["per_second"] * (arguments.seconds + WARM_UP_SECONDS) + arguments.rate * arguments.seconds
    return {**found, "edge": cpu / answers}


def sampled(take: Callable[[Endpoint], dict[str, Any]], endpoints: list[Endpoint], rounds: int) -> Samples:
    """Take a sample of each endpoint in each round; each round begins with another one."""
    samples: Samples = {endpoint: [] for endpoint in endpoints}
    for number in range(rounds):
        first = number % len(endpoints)
        for endpoint in endpoints[first:] + endpoints[:first]:
            samples[endpoint].append(take(endpoint))
        each = (f"{endpoint.label} {taken[-1]['per_second']:.0f}/s" for endpoint, taken in samples.items())
        print(f"round {number + 1}: {'; '.join(each)}", flush=True)
    return samples


def ratio(samples: Samples, one: Endpoint, other: Endpoint, figure: str) -> float:
    """Return the median of the ratios of a figure, each of which is taken within a round."""
    return float(median(a[figure] / b[figure] for a, b in zip(samples[one], samples[other], strict=True)))


def table(samples: Samples, title: str) -> None:
    """Print the medians of each endpoint."""
    print(f"{title}\n{'endpoint':<22}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'edge CPU µs':>13}")
    for endpoint, taken in samples.items():
        middle = {figure: median(each[figure] for each in taken) for figure in ("per_second", "p50_ms", "p99_ms", "edge")}
        cost = f"{middle['edge']:13.0f}" if endpoint.hosts else f"{'-':>13}"
        print(f"{endpoint.label:<22}{middle['per_second']:12.0f}{middle['p50_ms']:9.2f}{middle['p99_ms']:9.2f}{cost}")


def report(free: Samples, limited: Samples, arguments: argparse.Namespace) -> None:
    """Print both tables and the ratios."""
    table(free, f"medians of {arguments.rounds} rounds, without limits; p50 and p99 at {arguments.rate:g} requests/s")
    table(limited, f"medians of {arguments.rounds} rounds; each app host has {arguments.processors:g} of a processor")
    for count, target in ((2, TWO_OF_ONE), (4, FOUR_OF_ONE)):
        found = ratio(limited, BALANCED[count], ONE_HOST, "per_second")
        print(verdict(f"{BALANCED[count].label} / one host", found, target, least=True))
    print(f"{BALANCED[1].label + ' / one host':<46}{ratio(limited, BALANCED[1], ONE_HOST, 'per_second'):8.2f}")
    print(verdict("p99 through the balancer / direct", ratio(free, BALANCED[4], ONE_HOST, "p99_ms"), P99_OF_DIRECT))
    print(verdict("CPU of the balancer / bare HAProxy", ratio(free, BALANCED[4], BARE_HAPROXY, "edge"), CPU_OF_BARE))


def main() -> int:
    """Measure and print."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench/run balancer", description=__doc__, formatter_class=formatter)
    parser.add_argument("--rounds", type=int, default=5, help="samples of each endpoint, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--rate", type=float, default=100, help="requests per second for p50 and p99 (%(default)s)")
    parser.add_argument("--processors", type=float, default=0.1, help="what each app host may use (%(default)s)")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    try:
        with lab() as bench:
            servers = begin(bench)

            def take(endpoint: Endpoint) -> dict[str, Any]:
                return sample(servers, endpoint, arguments)

            free = sampled(take, [ONE_HOST, BALANCED[4], BARE_HAPROXY], arguments.rounds)
            for name in (ALONE, *HOSTS):
                call("podman", "update", f"--cpus={arguments.processors}", servers[name].id)
            limited = sampled(take, [ONE_HOST, *BALANCED.values()], arguments.rounds)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    report(free, limited, arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
