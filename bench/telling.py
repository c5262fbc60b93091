"""Measure what it costs to tell of requests: the app's own metrics, counted over its processes, and Nginx's access log in JSON.

Each is compared with neither, through Nginx over HTTP.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.requests import Way, live, sample
from bench.servers import BenchError, call, lab, machine, play

MACHINE = "telling.test"
WORKERS = 2
# Whether the app counts, and whether Nginx logs.
KINDS = {"neither": (False, False), "metrics": (True, False), "log": (False, True), "both": (True, True)}


def main() -> int:
    """Measure and print."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench/run telling", description=__doc__, formatter_class=formatter)
    parser.add_argument("--rounds", type=int, default=5, help="samples of each kind, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second for p50 and p99 (%(default)s)")
    arguments = parser.parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", "--path=/"]
    print(machine(), flush=True)
    try:
        with lab() as bench:
            server = bench.start(MACHINE)
            hosts: dict[str, dict[str, object]] = {
                f"{name}.test": {
                    "ansible_host": MACHINE,
                    "certbot_mode": "none",
                    "app_env": {"METRICS_ENABLED": str(counts).lower()},
                }
                for name, (counts, _) in KINDS.items()
            }
            inventory = bench.inventory("telling", hosts, ansible_connection="containers.podman.podman", app_workers=WORKERS)
            for host in hosts:
                play(inventory, limit=host)
            for name, (_, logs) in KINDS.items():
                if not logs:
                    server.run(f"sed -i 's/access_log .*/access_log off;/' /etc/nginx/conf.d/{name}-test.conf")
            server.run("nginx -t && systemctl reload nginx")
            call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{server.id}:/tmp/load.py")
            nginx = int(server.run("cat /run/nginx.pid"))
            ways = {
                name: Way("http:80", f"{name}.test", {"app": live(server, f"{name}-test")[1], "nginx": nginx}) for name in KINDS
            }
            samples: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
            for number in range(1, arguments.rounds + 1):
                for name, way in ways.items():
                    samples[name].append(sample(server, way, options))
                print(f"round {number}: " + ", ".join(f"{name} {samples[name][-1]['sum']:.0f} µs" for name in ways), flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"{'told of':<10}{'app µs':>8}{'nginx µs':>10}{'sum µs':>8}{'per CPU s':>11}{'of neither':>12}")
    for name, found in samples.items():
        app, proxy, total = (median(each[key] for each in found) for key in ("app", "nginx", "sum"))
        ratio = median(none["sum"] / each["sum"] for none, each in zip(samples["neither"], found, strict=True))
        print(f"{name:<10}{app:8.1f}{proxy:10.1f}{total:8.1f}{1e6 / total:11,.0f}{ratio:12.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
