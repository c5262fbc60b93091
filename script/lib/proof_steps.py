"""A step of the proof: its command, what became of it, and what it took."""

from __future__ import annotations

import os
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / ".artefacts"
TOOLS = ROOT / ".venv" / "bin"
COUNTED = ROOT / "script" / "lib" / "counted"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{COUNTED}:{TOOLS}:{os.environ['PATH']}",
    "PY_COLORS": "0",
    "NO_COLOR": "1",
    "ANSIBLE_NOCOLOR": "1",
}
# Ansible is started hundreds of times: what it imports is compiled once.
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass
class Step:
    """One step of the proof.

    `command` is run in `folder`; if it is made of tests, they are counted in the file `report`, else it counts as one.
    `packages` are Debian packages that it needs, by the program that shows whether they are there.
    Of steps in a row that name a `lane`, the lanes are run side by side: what runs in one shares no host with another.
    A step that takes more than `minutes` is warned of; 0 for no such ceiling.
    """

    name: str
    command: list[str]
    folder: Path = ROOT
    report: str = ""
    packages: dict[str, list[str]] = field(default_factory=dict)
    lane: str = ""
    minutes: float = 0

    @property
    def word(self) -> str:
        """The last word of its name, which its files are named by."""
        return self.name.rpartition(" ")[2]

    def file(self, kind: str) -> Path:
        """Return one of its files: `log`, `runs` with a line for each run of ansible-playbook, or `now` with the current test."""
        return ARTEFACTS / f"{self.word}.{kind}"

    def doing(self) -> str:
        """Return what it is at: the test that runs, or else the last line of its log."""
        for file in filter(Path.is_file, (self.file("now"), self.file("log"))):
            if text := file.read_text(encoding="utf-8", errors="replace").strip():
                return text.splitlines()[-1].rstrip(" *")[:120]
        return "has begun"


@dataclass
class Outcome:
    """What became of a step: its exit code, the tests that passed and failed, what it took, and the runs of ansible-playbook.

    `seconds` are of the clock, `cpu` of a processor: those of the step's own processes, not of what runs in containers.
    """

    step: Step
    code: int
    passed: int
    failed: int
    seconds: float
    cpu: float = 0
    runs: int = 0

    HEADER = "What was run      wall        CPU  tests  plays"

    def row(self) -> str:
        """Return its line in the table."""
        word = "ok" if self.code == 0 else "FAILED"
        plays = str(self.runs) if self.runs else "-"
        return f"  {word:8}{self.seconds:8.0f} s{self.cpu:9.0f} s{self.passed + self.failed:7d}{plays:>7}  {self.step.name}"

    def warning(self) -> str:
        """Return that it took more than its ceiling; empty if it did not."""
        if not self.step.minutes or self.seconds <= 60 * self.step.minutes:
            return ""
        return f"Warning: {self.step.name} took {self.seconds / 60:.1f} minutes; its ceiling is {self.step.minutes:g}."


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
    runs = step.file("runs")
    for file in (report, runs, step.file("now")):
        file.unlink(missing_ok=True)
    begin = time.monotonic()
    environment = ENVIRONMENT | {"PROOF_RUNS": str(runs)}
    with subprocess.Popen(
        step.command, cwd=step.folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    ) as process:
        # What a thread's own child used, and that child's children: getrusage would add up those of all lanes.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    plays = len(runs.read_text(encoding="ascii").splitlines()) if runs.is_file() else 0
    return Outcome(step, code, *counted(report, code), seconds, usage.ru_utime + usage.ru_stime, plays)
