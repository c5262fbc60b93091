"""Compare the servers: what a request costs through Nginx with each of them, and what memory a worker takes.

bare uvicorn is asked at its own socket; all others are asked through Nginx, over HTTP. The app and the machine are the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from bench.requests import Way, arguments_of, live, ratio, sampled
from bench.servers import BenchError, Server, call, lab, machine, play

MACHINE = "serving.test"
WORKERS = 2
SERVERS: dict[str, dict[str, object]] = {
    "gunicorn": {"app_server": "gunicorn"},
    "asgi": {"app_server": "gunicorn", "app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}


def memory(server: Server, pid: int) -> float:
    """Return the MiB that a server and its workers take in all, for each worker; shared pages are shared out."""
    family = [str(pid), *server.run(f"pgrep --parent {pid}").split()]
    files = " ".join(f"/proc/{each}/smaps_rollup" for each in family)
    return sum(int(line.split()[1]) for line in server.run(f"grep -h ^Pss: {files}").splitlines()) / 1024 / WORKERS


def main() -> int:
    """Measure and print."""
    arguments = arguments_of("serving", __doc__ or "", 5, 3).parse_args()
    options = [f"--seconds={arguments.seconds}", f"--rate={arguments.rate}", f"--path={arguments.path}"]
    print(machine(), flush=True)
    try:
        with lab() as bench:
            server = bench.start(MACHINE)
            hosts = {f"{name}.test": {"ansible_host": MACHINE, "certbot_mode": "none", **how} for name, how in SERVERS.items()}
            settings = {"app_workers": WORKERS, "app_watch_seconds": 1}
            inventory = bench.inventory("serving", hosts, ansible_connection="containers.podman.podman", **settings)
            for host in hosts:
                play(inventory, limit=host)
            call("podman", "cp", str(Path(__file__).with_name("load.py")), f"{server.id}:/tmp/load.py")
            nginx = int(server.run("cat /run/nginx.pid"))
            pids = {name: live(server, f"{name}-test") for name in SERVERS}
            ways = {"bare uvicorn": Way("unix:/opt/uvicorn-test/live.sock", "uvicorn.test", {"app": pids["uvicorn"]})}
            ways |= {name: Way("http:80", f"{name}.test", {"app": pid, "nginx": nginx}) for name, pid in pids.items()}
            samples = sampled(server, ways, arguments.rounds, options)
            taken = {name: memory(server, pid) for name, pid in pids.items()}
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(machine())
    print(f"{'server':<14}{'app µs':>8}{'sum µs':>8}{'of bare':>9}{'per CPU s':>11}{'p50 ms':>8}{'p99 ms':>8}{'MiB/worker':>12}")
    for name, found in samples.items():
        app, total, p50, p99 = (median(each[key] for each in found) for key in ("app", "sum", "p50_ms", "p99_ms"))
        of_bare = ratio(samples, "bare uvicorn", name)
        size = f"{taken[name]:12.0f}" if name in taken else ""
        print(f"{name:<14}{app:8.1f}{total:8.1f}{of_bare:9.2f}{1e6 / total:11,.0f}{p50:8.2f}{p99:8.2f}{size}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
