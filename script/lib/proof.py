"""Run the proof, step after step, and print what it came to and where the time went."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from proof_steps import ARTEFACTS, ROOT, TOOLS, Outcome, Step, run
from proof_times import busy, slowest, speed

PROGRESS_SECONDS = 60
CHROMIUM = {"chromium": ["chromium"], "chromedriver": ["chromium-driver"]}


def pytest(folder: str, report: str, *arguments: str) -> list[str]:
    """Return the command that runs the tests of a folder and reports them in a file."""
    return [str(TOOLS / "python"), "-m", "pytest", "--quiet", f"--junitxml={ARTEFACTS / report}", *arguments, folder]


def molecule(scenario: str, lane: str, minutes: float, packages: dict[str, list[str]] | None = None) -> Step:
    """Return the step that runs a Molecule scenario from end to end, with `packages` on this machine."""
    command = ["molecule", "test", "--scenario-name", scenario]
    return Step(f"scenario {scenario}", command, ROOT, f"{scenario}.xml", packages or {}, lane, minutes)


UNIT = pytest("tests/unit", "unit.xml", "-n=auto", "--dist=loadfile")
SERVERS = Step("real servers", pytest("tests/servers", "servers.xml"), report="servers.xml", lane="second", minutes=3)
PODMAN = Step("podman", ["script/bootstrap", "--dev", "--containers"])
FAST = [
    # Much of the first is a single process.
    Step("lint", ["script/lint"], lane="first", minutes=2),
    Step("example app", ["script/lib/test_app", str(ARTEFACTS / "app.xml")], report="app.xml", lane="first", minutes=1),
    Step("unit tests", UNIT, report="unit.xml", lane="second", minutes=2),
]
MAIN = [*FAST, SERVERS, PODMAN, molecule("main", "only", 12)]
# What the scenario `main` does the others do, too, and more of it. Podman comes first: all lanes wait for what has none.
# Much of a scenario's time it waits, and so there are more lanes than processors. Those of the third one share a CA.
ALL = [
    PODMAN,
    *FAST,
    SERVERS,
    Step(
        "the container image",
        pytest("molecule/image", "image.xml"),
        report="image.xml",
        packages={"catatonit": ["catatonit"]},
        lane="second",
        minutes=4,
    ),
    molecule("release", "first", 50),
    molecule("default", "second", 18, CHROMIUM),
    molecule("monitor", "second", 18, CHROMIUM),
    molecule("fleet", "third", 40),
    molecule("acme", "third", 9),
]
SCENARIOS = {step.word: step for step in ALL + MAIN if step not in (*FAST, SERVERS, PODMAN)}
BENCH = [
    PODMAN,
    # Modules in there have names of Python's own: their folder must not be where modules are looked for.
    Step("benchmarks", pytest("bench", "bench.xml", "--import-mode=importlib"), report="bench.xml"),
]


def install(packages: dict[str, list[str]]) -> None:
    """Install Debian packages whose program is missing, as root or through sudo.

    Raises:
        subprocess.CalledProcessError: when that fails.
    """
    missing = [name for program, names in packages.items() if not shutil.which(program) for name in names]
    if missing:
        root = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*root, "apt-get", "update", "-qq"], check=True)
        subprocess.run([*root, "apt-get", "install", "-qqy", "--no-install-recommends", *missing], check=True)


def run_lane(steps: list[Step], running: dict[str, Step]) -> list[Outcome]:
    """Run steps one after the other, noting which in `running`, and show what each has printed as a whole when it is done."""
    outcomes = []
    for step in steps:
        log = step.file("log")
        print(f"\nIn the background: {step.name}; its output goes to {log.relative_to(ROOT)}", flush=True)
        with log.open("w", encoding="utf-8") as output:
            running[step.lane] = step
            outcomes.append(run(step, output))
            del running[step.lane]
        # In one piece, since another lane may print at the same time.
        print(f"\n{step.name}:\n{log.read_text(encoding='utf-8', errors='replace')}\n{outcomes[-1].row()}", flush=True)
    return outcomes


def run_lanes(steps: list[Step]) -> list[Outcome]:
    """Run the lanes of some steps side by side, and print about every minute what each is at."""
    lanes, running, over = dict[str, list[Step]](), dict[str, Step](), threading.Event()
    for step in steps:
        lanes.setdefault(step.lane, []).append(step)

    def show_progress() -> None:
        begin = time.monotonic()
        while not over.wait(PROGRESS_SECONDS):
            for step in list(running.values()):
                print(f"  after {(time.monotonic() - begin) / 60:.0f} min, {step.name}: {step.doing()}", flush=True)

    progress = threading.Thread(target=show_progress)
    progress.start()
    try:
        with ThreadPoolExecutor(len(lanes)) as pool:
            return [outcome for lane in pool.map(lambda lane: run_lane(lane, running), lanes.values()) for outcome in lane]
    finally:
        over.set()
        progress.join()


def summary(outcomes: list[Outcome], seconds: float, all_processors: float, loop: float) -> str:
    """Return what the proof came to.

    Args:
        outcomes: what became of each step.
        seconds: what all of them took.
        all_processors: how many seconds the machine's processors were busy meanwhile.
        loop: how many seconds the fixed loop takes, by which machines are compared.
    """
    slow = slowest(ARTEFACTS / outcome.step.report for outcome in outcomes if outcome.step.report)
    warnings = list(filter(None, (outcome.warning() for outcome in outcomes)))
    passed, failed = sum(outcome.passed for outcome in outcomes), sum(outcome.failed for outcome in outcomes)
    cpu, plays = sum(outcome.cpu for outcome in outcomes), sum(outcome.runs for outcome in outcomes)
    lines = [
        *(["The slowest tests", *slow, ""] if slow else []),
        Outcome.HEADER,
        *(outcome.row() for outcome in outcomes),
        f"Together    {seconds:6.0f} s{cpu:9.0f} s{passed + failed:7d}{plays:>7}",
        "",
        "CPU is that of the steps' own processes, without what runs in containers; plays are runs of",
        "ansible-playbook in scenarios.",
        f"All that this machine did meanwhile, also for others, took {all_processors:.0f} s of its {os.cpu_count()} processors.",
        f"The fixed loop, by which machines are compared, takes {loop:.3f} s here.",
        *warnings,
        f"Reports and screenshots are in {ARTEFACTS.relative_to(ROOT)}/",
        f"\n{passed} passed, {failed} failed",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the steps; a failed one does not keep the next from running."""
    parser = argparse.ArgumentParser(prog="script/test", description="The proof: what --fast does, and the main job on one host.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--fast", action="store_true", help="lint, types, unit tests and templates: no container; some 6 minutes")
    choice.add_argument("--all", action="store_true", help="every scenario; more than an hour")
    choice.add_argument("--only", choices=sorted(SCENARIOS), help="nothing but this scenario")
    choice.add_argument("--bench", action="store_true", help="instead, that every benchmark still runs: 15 minutes")
    chosen = parser.parse_args()
    steps = BENCH if chosen.bench else FAST if chosen.fast else ALL if chosen.all else MAIN
    if chosen.only:
        steps = [PODMAN, SCENARIOS[chosen.only]]
    ARTEFACTS.mkdir(exist_ok=True)
    loop, begin, busy_before = speed(), time.monotonic(), busy()
    install({program: names for step in steps for program, names in step.packages.items()})
    outcomes = list[Outcome]()
    for apart, group in itertools.groupby(steps, key=lambda step: bool(step.lane)):
        if apart:
            outcomes += run_lanes(list(group))
            continue
        for step in group:
            print(f"\n[{len(outcomes) + 1}/{len(steps)}] {step.name}", flush=True)
            outcomes.append(run(step))
    print(f"\n{summary(outcomes, time.monotonic() - begin, busy() - busy_before, loop)}", flush=True)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
