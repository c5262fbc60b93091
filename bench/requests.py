"""Measure what a request costs on its way to an app: CPU of all processes that have a part in it.

bare             the guide's app (bench/guide_app.py) with Gunicorn and its Uvicorn workers, at their Unix socket: nothing of ours
wrapped          the same app as a release of Slipway, at its Unix socket: request ids, logs in JSON
stack            that release as its clients see it: over HTTPS, through Nginx, with an access log and the exporters of the host
proxied          as the guide has it: Gunicorn at a TCP port, the distribution's Nginx with proxy_pass and nothing else, over HTTP
example          the example app, which counts its requests, started as in "bare"
example silent   the same without its own metrics

The release is what site.yml makes of the app, with all that it configures. The others are started as their manuals say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.servers import ROOT, BenchError, Lab, Server, call, lab, machine, play, verdict

NAME, APP = "requests.test", "requests-test"
WORKERS = 2
BARE_OF_STACK = 0.62
WRAPPER_PERCENT = 8
METRICS_PERCENT = 20
STACK_OF_PROXIED = 1.8
EXAMPLE = "/srv/bench-example"
PORT, PROXY_PORT = 8000, 8081
PROXY = f"""
server {{
    listen {PROXY_PORT};
    location / {{
        proxy_pass http://127.0.0.1:{PORT};
    }}
}}
"""
# The distribution's nginx.conf as it was before Slipway: as many workers as processors, and none of our sites.
UNTOUCHED = (
    "sed -E 's/worker_processes .*/worker_processes auto;/; s/worker_connections .*/worker_connections 768;/; "
    "s#/run/nginx.pid#/run/bench-nginx.pid#; /conf.d/d; s#sites-enabled/[*]#bench-site#' nginx.conf"
)


@dataclass
class Way:
    """One way to the app: the door that is asked, the name it is asked for, and the process trees that do the work."""

    door: str
    host: str
    processes: dict[str, int]


def live(server: Server, app: str) -> int:
    """Return the process id of what serves an app's live release."""
    number = server.run(f"readlink /opt/{app}/live.sock").rpartition("/")[2].removesuffix(".sock")
    return int(server.run(f"supervisorctl pid {app}-{number}"))


def gunicorn(server: Server, unit: str, directory: str, app: str, bind: str = "", **environment: str) -> int:
    """Start Gunicorn with Uvicorn workers, as their manuals say; return its process id.

    It listens at `bind` or else at /run/UNIT/app.sock. Gunicorn tells systemd when it listens.
    """
    settings = " ".join(f"--setenv={name}={value}" for name, value in environment.items())
    server.run(
        f"systemd-run --quiet --service-type=notify --unit={unit} --uid={APP} --property=RuntimeDirectory={unit} {settings} "
        f"--working-directory={directory} /opt/{APP}/current/build/.venv/bin/python -m gunicorn --workers={WORKERS} "
        f"--worker-class=uvicorn_worker.UvicornWorker --bind={bind or f'unix:/run/{unit}/app.sock'} {app}"
    )
    return int(server.run(f"systemctl show --property=MainPID --value {unit}"))


def release(bench: Lab, server: Server) -> None:
    """Have site.yml release the guide's app, with the packages of the example app, and the exporters of the host."""
    source = bench.directory / "guide"
    source.mkdir()
    shutil.copy(Path(__file__).with_name("guide_app.py"), source)
    shutil.copy(ROOT / "app" / "requirements.txt", source)
    settings = {"app_source": str(source), "app_module": "guide_app:app", "app_static": "", "app_workers": WORKERS}
    telling = {"metrics_enabled": True, "metrics_password": "only-for-the-benchmark"}
    connection = {"ansible_connection": "containers.podman.podman", "app_watch_seconds": 1}
    play(bench.inventory("requests", {server.name: {}}, **settings, **telling, **connection))
    server.run(f"mkdir {EXAMPLE}")
    call("podman", "cp", str(ROOT / "app" / "app"), f"{server.id}:{EXAMPLE}")
    call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{server.id}:/tmp/load.py")


def ways(server: Server) -> dict[str, Way]:
    """Return the ways to measure on a server that the app has been released on."""
    guide = f"/opt/{APP}/current/build"
    bare = gunicorn(server, "bench-bare", guide, "guide_app:app")
    proxied = gunicorn(server, "bench-proxied", guide, "guide_app:app", f"127.0.0.1:{PORT}")
    counts = gunicorn(server, "bench-counts", EXAMPLE, "app.main:app", PROMETHEUS_MULTIPROC_DIR="/run/bench-counts")
    silent = gunicorn(server, "bench-silent", EXAMPLE, "app.main:app", METRICS_ENABLED="false")
    server.run(f"cd /etc/nginx && cat >bench-site <<'END'{PROXY}END\n{UNTOUCHED} >bench.conf && nginx -c /etc/nginx/bench.conf")
    app, nginx, other = live(server, APP), *(int(server.run(f"cat /run/{name}.pid")) for name in ("nginx", "bench-nginx"))
    exporters = int(server.run(f"systemctl show --property=MainPID --value slipway-metrics-{APP}"))
    return {
        "bare": Way("unix:/run/bench-bare/app.sock", NAME, {"app": bare}),
        "wrapped": Way(f"unix:/opt/{APP}/live.sock", NAME, {"app": app}),
        "stack": Way("https:443", NAME, {"app": app, "nginx": nginx, "exporter": exporters}),
        "proxied": Way(f"http:{PROXY_PORT}", NAME, {"app": proxied, "nginx": other}),
        "example silent": Way("unix:/run/bench-silent/app.sock", NAME, {"app": silent}),
        "example": Way("unix:/run/bench-counts/app.sock", NAME, {"app": counts}),
    }


def sample(server: Server, way: Way, options: list[str]) -> dict[str, Any]:
    """Ask one way for a few seconds and return what bench/load.py prints, with the sum of the CPU as `sum`."""
    processes = [f"--process={name}={pid}" for name, pid in way.processes.items()]
    command = ["podman", "exec", server.id, "python3", "/tmp/load.py", way.door, way.host, *processes, *options]
    found: dict[str, Any] = json.loads(call(*command))
    busy, paced = found["microseconds"], found["paced_microseconds"]
    return {**found, **busy, "sum": sum(busy.values()), "paced": sum(paced.values())}


def sampled(server: Server, every: dict[str, Way], rounds: int, options: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Ask all ways by turns, and return the samples of each; each round begins with another one."""
    samples: dict[str, list[dict[str, Any]]] = {way: [] for way in every}
    names = list(every)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(sample(server, every[name], options))
        print(f"round {number + 1}: " + ", ".join(f"{name} {samples[name][-1]['sum']:.0f} µs" for name in names), flush=True)
    return samples


def ratio(samples: dict[str, list[dict[str, Any]]], one: str, other: str, figure: str = "sum") -> float:
    """Return the median of the ratios of a figure, each of which is taken within a round."""
    return float(median(a[figure] / b[figure] for a, b in zip(samples[one], samples[other], strict=True)))


def report(samples: dict[str, list[dict[str, Any]]], rate: float) -> None:
    """Print the medians of each way, and the ratios."""
    figures = {"app": 8, "nginx": 8, "exporter": 10, "sum": 8, "per_second": 12, "paced": 8, "p50_ms": 8, "p99_ms": 8}
    print(f"app to sum: CPU in µs per request, all clients busy; paced: the sum at {rate:g} requests/s, as are p50 and p99")
    print(f"{'way':<15}" + "".join(f"{figure:>{width}}" for figure, width in figures.items()))
    for way, found in samples.items():
        digits = {"per_second": 0, "p50_ms": 2, "p99_ms": 2}
        middle = {figure: median(each.get(figure, 0.0) for each in found) for figure in figures}
        print(f"{way:<15}" + "".join(f"{middle[figure]:{width}.{digits.get(figure, 1)}f}" for figure, width in figures.items()))
    print(verdict("bare / stack", ratio(samples, "bare", "stack"), BARE_OF_STACK, least=True))
    print(verdict("the wrapper, of bare", 100 * ratio(samples, "wrapped", "bare") - 100, WRAPPER_PERCENT, " %"))
    print(verdict("the example's metrics, of it", 100 * ratio(samples, "example", "example silent") - 100, METRICS_PERCENT, " %"))
    print(verdict("stack / proxied, requests per CPU second", ratio(samples, "proxied", "stack"), STACK_OF_PROXIED, least=True))
    print(f"{'stack / proxied, requests per second':<46}{ratio(samples, 'stack', 'proxied', 'per_second'):8.2f}")


def arguments_of(name: str, description: str, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """Return a parser for what can be told to a benchmark that asks several ways by turns."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=f"bench/run {name}", description=description, formatter_class=formatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="samples of each, interleaved (%(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of each half of a sample (%(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second for p50 and p99 (%(default)s)")
    parser.add_argument("--path", default="/", help="what is asked for (%(default)s)")
    return parser


def main() -> int:
    """Measure and print."""
    arguments = arguments_of("requests", __doc__ or "", 7, 4).parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", f"--path={arguments.path}"]
    print(machine(), flush=True)
    try:
        with lab() as bench:
            server = bench.start(NAME)
            release(bench, server)
            samples = sampled(server, ways(server), arguments.rounds, options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    report(samples, arguments.rate)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
