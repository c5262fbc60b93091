"""Every benchmark runs to its end with tiny figures and prints all that it measures, which nobody judges here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("--rounds=1", "--seconds=0.5")

# What each is told, and how many lines begin with what it prints of its figures.
BENCHMARKS: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "site": (("--rounds=1", "--hosts=1"), ["bare server to", "second run, podman", "second run, SSH", "1 hosts"]),
    "requests": (
        SHORT,
        [
            "bare ",
            "wrapped ",
            "stack ",
            "proxied ",
            "example ",
            "bare / stack",
            "the wrapper",
            "the example's",
            "stack / proxied",
        ],
    ),
    "serving": (SHORT, ["bare uvicorn ", "gunicorn ", "asgi ", "uvicorn ", "hypercorn "]),
    "telling": (SHORT, ["neither ", "metrics ", "log ", "both "]),
    "release": (("--rounds=1",), ["release of changed code", "rollback", "whole play", "build with", "processes before"]),
    "fleet": (("--rounds=1", "--sizes", "1", "2"), ["CPU of a host among 2", "time of 2 hosts"]),
    "balancer": (
        SHORT,
        [
            "one host ",
            "bare HAProxy, four ",
            "balancer, one host / one host",
            "balancer, two hosts / one host",
            "balancer, four hosts / one host",
            "p99 through the balancer / direct",
            "CPU of the balancer / bare HAProxy",
        ],
    ),
    "capacity": ((*SHORT, "--idle=40", "--websockets=10", "--slow=5"), ["alone ", "crowd "]),
    "passwords": (("--rounds=1", "--guesses=50"), ["alone ", "guesses "]),
}


def names() -> set[str]:
    """Return the benchmarks that bench/run names."""
    text = (ROOT / "bench" / "run").read_text(encoding="utf-8")
    return set(re.findall(r"^#   bench/run (\w+) ", text, re.MULTILINE))


def test_every_benchmark_is_tried() -> None:
    assert names() == set(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs_and_prints_its_figures(name: str) -> None:
    options, labels = BENCHMARKS[name]
    done = subprocess.run(
        [ROOT / "bench" / "run", name, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:]
    lines = done.stdout.splitlines()
    without = [label for label in labels if not any(line.startswith(label) and re.search(r"\d", line) for line in lines)]
    assert without == []
