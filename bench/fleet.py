"""Measure what a second run of site.yml and a release cost over 1, 2, 4 and 8 hosts: time, and CPU of the controller."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from bench.servers import ROOT, BenchError, Lab, Play, lab, machine, over_ssh, play, verdict

# How much more of the controller a host may cost among eight than alone; and what eight hosts may take, times one.
COST_RATIO = 1.0
WALL_RATIO = 5

KINDS = {"second run of site.yml": "site.yml", "release of changed code": "playbooks/deploy.yml"}


def begin(bench: Lab, hosts: int) -> tuple[Path, list[str]]:
    """Start servers with one app, and return the inventory and their names."""
    names = [f"bench-{number}.test" for number in range(1, hosts + 1)]
    with ThreadPoolExecutor(2) as starters:
        servers = list(starters.map(bench.start, names, names))
    inventory = over_ssh(bench, *servers, app_name="bench", app_watch_seconds=1)
    run = play(inventory)
    print(f"{hosts} hosts from bare to served: {run.seconds:.0f} s", flush=True)
    return inventory, names


def measure(bench: Lab, sizes: list[int], rounds: int, settings: dict[str, str]) -> dict[str, dict[int, list[Play]]]:
    """Return the runs of each kind over each number of hosts, interleaved."""
    inventory, names = begin(bench, max(sizes))
    found: dict[str, dict[int, list[Play]]] = {kind: {size: [] for size in sizes} for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "app")
        shutil.copytree(ROOT / "app", source, ignore=shutil.ignore_patterns(".venv", ".*_cache", "__pycache__"))
        code = source / "app" / "main.py"
        for number in range(rounds):
            for size in sizes:
                code.write_text(f"{code.read_text(encoding='utf-8')}\n# {number} {size}\n", encoding="utf-8")
                options = [f"--extra-vars=app_source={source}"]
                limit = ":".join(names[:size])
                release = play(inventory, limit, *options, playbook=KINDS["release of changed code"], **settings)
                again = play(inventory, limit, *options, **settings)
                if again.changed or release.changed < size:
                    raise BenchError(f"Not what was to be measured:\n{release.output}{again.output}")
                found["release of changed code"][size].append(release)
                found["second run of site.yml"][size].append(again)
                print(
                    f"round {number + 1}, {size} hosts: release {release.seconds:.1f} s (CPU {release.cpu:.1f} s), "
                    f"second run {again.seconds:.1f} s (CPU {again.cpu:.1f} s)",
                    flush=True,
                )
    return found


def tell(found: dict[str, dict[int, list[Play]]], sizes: list[int]) -> None:
    """Print the medians, and what they come to for each host."""
    for kind, runs in found.items():
        print(f"\n{kind}\n  hosts   seconds   per host   controller's CPU s   per host")
        wall = {size: median(run.seconds for run in runs[size]) for size in sizes}
        cost = {size: median(run.cpu for run in runs[size]) for size in sizes}
        for size in sizes:
            print(f"  {size:5} {wall[size]:9.1f} {wall[size] / size:10.2f} {cost[size]:20.1f} {cost[size] / size:10.2f}")
        first, last = sizes[0], sizes[-1]
        slowest = sorted(runs[last][-1].tasks[:6], reverse=True)
        print("  slowest: " + ", ".join(f"{name} {seconds:.1f} s" for seconds, name in slowest))
        print(verdict(f"CPU of a host among {last} against {first}", cost[last] / last / (cost[first] / first), COST_RATIO))
        print(verdict(f"time of {last} hosts against {first}", wall[last] / wall[first], WALL_RATIO))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench/run fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind over each number of hosts (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of hosts (1 2 4 8)")
    parser.add_argument("--with", dest="settings", nargs="*", default=[], help="settings of Ansible, such as ANSIBLE_FORKS=5")
    arguments = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in arguments.settings)
    sizes = sorted(arguments.sizes)
    print(machine(), *arguments.settings, flush=True)
    try:
        with lab() as bench:
            found = measure(bench, sizes, arguments.rounds, settings)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{machine()}\nmedians of {arguments.rounds} rounds over SSH; the hosts share the processors with the controller")
    tell(found, sizes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
