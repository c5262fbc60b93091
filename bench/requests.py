"""Measure what a request costs and how long it takes on four ways to the same app, through Nginx and without.

bare      straight to the app's Unix socket
plain     through Nginx as Slipway sets it up, over HTTP
TLS       the same over HTTPS, on kept connections
default   through the distribution's own Nginx: proxy_pass http://127.0.0.1:PORT and nothing else
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.servers import BenchError, Server, call, lab, machine, play, verdict

NAME, PLAIN = "requests.test", "plain.requests.test"
WORKERS = 2
BARE_OF_PLAIN = 0.65
BARE_OF_TLS = 0.60
OURS_OF_DEFAULT = 2.0
DEFAULT_APP_PORT, DEFAULT_DOOR_PORT = 8000, 8081
DEFAULT_SITE = f"""
server {{
    listen {DEFAULT_DOOR_PORT};
    location / {{
        proxy_pass http://127.0.0.1:{DEFAULT_APP_PORT};
    }}
}}
"""


@dataclass
class Way:
    """One way to the app: the door that is asked, the name it is asked for, and the process trees that do the work."""

    door: str
    host: str
    processes: dict[str, int]


def live(server: Server, app: str) -> tuple[str, int]:
    """Return the directory of an app's live release and the process id of its Gunicorn."""
    number = server.run(f"readlink /opt/{app}/live.sock").rpartition("/")[2].removesuffix(".sock")
    return f"/opt/{app}/releases/{number}", int(server.run(f"supervisorctl pid {app}-{number}"))


def start_default(server: Server, app: str, release: str) -> int:
    """Serve the same release on TCP behind a site that the distribution's Nginx is given; return its Gunicorn's process id."""
    server.run(
        f"systemd-run --quiet --unit=bench-default --uid={app} --setenv=WEB_CONCURRENCY={WORKERS} "
        f"--working-directory={release}/build {release}/build/.venv/bin/python -m gunicorn --config {release}/server.py "
        f"--bind 127.0.0.1:{DEFAULT_APP_PORT} app.main:app"
    )
    server.run(f"cat >/etc/nginx/sites-enabled/bench-default <<'END'{DEFAULT_SITE}END\nnginx -t && systemctl reload nginx")
    return int(server.run("sleep 3; systemctl show --property=MainPID --value bench-default"))


def ways(server: Server) -> dict[str, Way]:
    """Return the ways to measure on a server that site.yml has set up for both names."""
    secure_app, plain_app = (name.replace(".", "-") for name in (NAME, PLAIN))
    release, plain_pid = live(server, plain_app)
    _, secure_pid = live(server, secure_app)
    default_pid = start_default(server, plain_app, release)
    nginx = int(server.run("cat /run/nginx.pid"))
    return {
        "bare": Way(f"unix:/opt/{plain_app}/live.sock", PLAIN, {"app": plain_pid}),
        "plain": Way("http:80", PLAIN, {"app": plain_pid, "nginx": nginx}),
        "TLS": Way("https:443", NAME, {"app": secure_pid, "nginx": nginx}),
        "default": Way(f"http:{DEFAULT_DOOR_PORT}", PLAIN, {"app": default_pid, "nginx": nginx}),
    }


def sample(server: Server, way: Way, options: list[str]) -> dict[str, Any]:
    """Ask one way for a few seconds and return what bench/load.py prints, with the sum of the CPU as `sum`."""
    processes = [f"--process={name}={pid}" for name, pid in way.processes.items()]
    command = ["podman", "exec", server.id, "python3", "/tmp/load.py", way.door, way.host, *processes, *options]
    found: dict[str, Any] = json.loads(call(*command))
    busy, paced = found["microseconds"], found["paced_microseconds"]
    parts = {"app": busy["app"], "nginx": busy.get("nginx", 0.0), "sum": sum(busy.values()), "paced": sum(paced.values())}
    return {**found, **parts}


def report(samples: dict[str, list[dict[str, Any]]], rate: float) -> None:
    """Print the medians of each way, and the ratios, which are taken within a round and then the median of them."""

    def middle(way: str, figure: str) -> float:
        return float(median(found[figure] for found in samples[way]))

    def ratio(one: str, other: str) -> float:
        return float(median(a["sum"] / b["sum"] for a, b in zip(samples[one], samples[other], strict=True)))

    figures = {"app": 8, "nginx": 8, "sum": 8, "per_second": 12, "paced": 8, "p50_ms": 8, "p99_ms": 8, "connections": 13}
    print(f"app, nginx, sum: CPU in µs per request, all clients busy; paced: the sum at {rate:g} requests/s, as are p50 and p99")
    print(f"{'way':<10}" + "".join(f"{figure:>{width}}" for figure, width in figures.items()))
    for way in samples:
        digits = {"per_second": 0, "connections": 0, "p50_ms": 2, "p99_ms": 2}
        cells = (f"{middle(way, figure):{width}.{digits.get(figure, 1)}f}" for figure, width in figures.items())
        print(f"{way:<10}" + "".join(cells))
    print(verdict("bare / plain", ratio("bare", "plain"), BARE_OF_PLAIN, least=True))
    print(verdict("bare / TLS", ratio("bare", "TLS"), BARE_OF_TLS, least=True))
    print(verdict("default / plain", ratio("default", "plain"), OURS_OF_DEFAULT, least=True))


def main() -> int:
    """Measure and print."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench/run requests", description=__doc__, formatter_class=formatter)
    parser.add_argument("--rounds", type=int, default=7, help="samples of each way, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second for p50 and p99 (%(default)s)")
    parser.add_argument("--path", default="/", help="what is asked for (%(default)s)")
    arguments = parser.parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", f"--path={arguments.path}"]
    print(machine(), flush=True)
    try:
        with lab() as bench:
            server = bench.start(NAME)
            hosts: dict[str, dict[str, object]] = {
                NAME: {"ansible_host": NAME},
                PLAIN: {"ansible_host": NAME, "certbot_mode": "none"},
            }
            inventory = bench.inventory("both", hosts, ansible_connection="containers.podman.podman", app_workers=WORKERS)
            for name in hosts:
                play(inventory, limit=name)
            call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{server.id}:/tmp/load.py")
            every = ways(server)
            samples: dict[str, list[dict[str, Any]]] = {way: [] for way in every}
            for number in range(1, arguments.rounds + 1):
                for name, way in every.items():
                    samples[name].append(sample(server, way, options))
                print(f"round {number}: " + ", ".join(f"{name} {samples[name][-1]['sum']:.0f} µs" for name in every), flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    report(samples, arguments.rate)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
