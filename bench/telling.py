"""Measure what it costs to tell of requests: the app's own metrics, counted over its processes, and Nginx's access log in JSON.

Each is compared with neither, through Nginx over HTTP.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from bench.requests import Way, arguments_of, live, ratio, sampled
from bench.servers import BenchError, call, lab, machine, play

MACHINE = "telling.test"
WORKERS = 2
# Whether the app counts, and whether Nginx logs.
KINDS = {"neither": (False, False), "metrics": (True, False), "log": (False, True), "both": (True, True)}


def main() -> int:
    """Measure and print."""
    arguments = arguments_of("telling", __doc__ or "", 5, 3).parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", f"--path={arguments.path}"]
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
            settings = {"app_workers": WORKERS, "app_watch_seconds": 1}
            inventory = bench.inventory("telling", hosts, ansible_connection="containers.podman.podman", **settings)
            for host in hosts:
                play(inventory, limit=host)
            for name, (_, logs) in KINDS.items():
                if not logs:
                    server.run(f"sed -i 's/access_log .*/access_log off;/' /etc/nginx/conf.d/{name}-test.conf")
            server.run("nginx -t && systemctl reload nginx")
            call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{server.id}:/tmp/load.py")
            nginx = int(server.run("cat /run/nginx.pid"))
            ways = {name: Way("http:80", f"{name}.test", {"app": live(server, f"{name}-test"), "nginx": nginx}) for name in KINDS}
            samples = sampled(server, ways, arguments.rounds, options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"{'told of':<10}{'app µs':>8}{'nginx µs':>10}{'sum µs':>8}{'per CPU s':>11}{'of neither':>12}")
    for name, found in samples.items():
        app, proxy, total = (median(each[key] for each in found) for key in ("app", "nginx", "sum"))
        print(f"{name:<10}{app:8.1f}{proxy:10.1f}{total:8.1f}{1e6 / total:11,.0f}{ratio(samples, 'neither', name):12.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
