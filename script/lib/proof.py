"""Run the whole proof, step after step, and say what it came to and where the time went."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / ".artefacts"
TOOLS = ROOT / ".venv" / "bin"
ENVIRONMENT = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}", "PY_COLORS": "0", "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
# Ansible is started more than a thousand times: what it imports is compiled once.
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass
class Step:
    """One step of the proof.

    `command` is run in `folder`; where it is made of tests, they are counted in the file `report`, else it counts as one.
    `packages` are Debian packages that it needs, by the program that shows whether they are there.
    Steps that name a `lane` are run after all others, the lanes side by side: what runs in one shares no host with another.
    """

    name: str
    command: list[str]
    folder: Path = ROOT
    report: str = ""
    packages: dict[str, list[str]] = field(default_factory=dict)
    lane: str = ""


@dataclass
class Outcome:
    """What became of a step: its exit code, the tests that passed and failed, and its seconds."""

    step: Step
    code: int
    passed: int
    failed: int
    seconds: float

    def row(self) -> str:
        """Return its line in the table."""
        word = "ok" if self.code == 0 else "FAILED"
        return f"  {word:8}{self.seconds:7.0f} s  {self.passed + self.failed:5d}  {self.step.name}"


def pytest(folder: str, report: str, *arguments: str) -> list[str]:
    """Return the command that runs the tests of a folder and reports them in a file."""
    return [str(TOOLS / "python"), "-m", "pytest", "--quiet", f"--junitxml={ARTEFACTS / report}", *arguments, folder]


def molecule(scenario: str, lane: str, packages: dict[str, list[str]] | None = None) -> Step:
    """Return the step that runs a Molecule scenario from end to end, with `packages` on this machine."""
    command = ["molecule", "test", "--scenario-name", scenario]
    return Step(f"scenario {scenario}", command, report=f"{scenario}.xml", packages=packages or {}, lane=lane)


FAST = [
    Step("lint and types", ["script/lint"]),
    Step("unit tests and rendered templates", pytest("tests", "unit.xml", "-n=auto", "--dist=loadfile"), report="unit.xml"),
    Step("tests of the example app", ["script/lib/test_app", str(ARTEFACTS / "app.xml")], report="app.xml"),
]
FULL = [
    *FAST,
    Step("podman", ["script/bootstrap", "--dev", "--containers"]),
    Step("the container image", pytest("molecule/image", "image.xml"), report="image.xml", packages={"catatonit": ["catatonit"]}),
    molecule("release", "first"),
    molecule("default", "first", {"chromium": ["chromium"], "chromedriver": ["chromium-driver"]}),
    molecule("fleet", "second"),
    molecule("monitor", "second", {"chromium": ["chromium"], "chromedriver": ["chromium-driver"]}),
    molecule("acme", "second"),
]
BENCH = [
    Step("podman", ["script/bootstrap", "--dev", "--containers"]),
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


def counted(report: Path, code: int) -> tuple[int, int]:
    """Return how many tests of a step passed and failed.

    A step without a report counts as one test; so does one that failed although its report, if there is any, names no failure.
    """
    if not report.is_file():
        return (1, 0) if code == 0 else (0, 1)
    total = failed = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return total - failed, failed or (1 if code else 0)


def run(step: Step, output: IO[str] | None = None) -> Outcome:
    """Run a step, its output into a file if there is one, and return what became of it."""
    report = ARTEFACTS / step.report if step.report else Path("/nonexistent")
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    done = subprocess.run(
        step.command, cwd=step.folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
    )
    return Outcome(step, done.returncode, *counted(report, done.returncode), time.monotonic() - begin)


def run_lane(steps: list[Step]) -> list[Outcome]:
    """Run steps one after the other, and show what each has printed as a whole when it is done."""
    outcomes = []
    for step in steps:
        log = ARTEFACTS / f"{step.name.rpartition(' ')[2]}.log"
        print(f"\nIn the background: {step.name}; its output goes to {log.relative_to(ROOT)}", flush=True)
        with log.open("w", encoding="utf-8") as output:
            outcomes.append(run(step, output))
        # In one piece, since another lane may print at the same time.
        print(f"\n{step.name}:\n{log.read_text(encoding='utf-8', errors='replace')}\n{outcomes[-1].row()}", flush=True)
    return outcomes


def main() -> int:
    """Run the steps; a failed one does not keep the next from running."""
    parser = argparse.ArgumentParser(prog="script/test", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="lint, types, unit tests and templates: no container; 3 minutes")
    parser.add_argument("--bench", action="store_true", help="instead, that every benchmark still runs: 15 minutes")
    arguments = parser.parse_args()
    steps = BENCH if arguments.bench else FAST if arguments.fast else FULL
    ARTEFACTS.mkdir(exist_ok=True)
    install({program: names for step in steps for program, names in step.packages.items()})
    outcomes, lanes = list[Outcome](), dict[str, list[Step]]()
    for step in steps:
        if step.lane:
            lanes.setdefault(step.lane, []).append(step)
            continue
        print(f"\n[{len(outcomes) + 1}/{len(steps)}] {step.name}", flush=True)
        outcomes.append(run(step))
    if lanes:
        with ThreadPoolExecutor(len(lanes)) as pool:
            outcomes += [outcome for lane in pool.map(run_lane, lanes.values()) for outcome in lane]
    passed, failed = sum(each.passed for each in outcomes), sum(each.failed for each in outcomes)
    print("\nWhat was run      time  tests\n" + "\n".join(each.row() for each in outcomes))
    print(f"Reports and screenshots are in {ARTEFACTS.relative_to(ROOT)}/\n\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
