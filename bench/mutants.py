"""What the unit tests notice: small changes of the program, one at a time, each of which a test should turn red for.

mutmut makes them and runs the tests, in a copy of what git tracks for each part of the program.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / ".artefacts" / "mutate"

# The files of each part of the program, and the files of unit tests that use them.
PARTS: dict[str, tuple[list[str], list[str]]] = {
    "release": (["host/release/*"], ["test_app_release.py", "test_release_*.py", "test_operator.py"]),
    "lock": (["host/lock.py"], ["test_app_lock.py", "test_operator.py"]),
    "build": (
        ["host/build/*"],
        ["test_app_build.py", "test_app_image.py", "test_app_pins.py", "test_app_requirements.py", "test_app_times.py"],
    ),
    "health": (
        ["host/health.py", "host/watch.py"],
        ["test_health.py", "test_app_watch.py", "test_app_door.py", "test_access_log.py"],
    ),
    "fleet": (["controller/fleet.py", "controller/progress.py"], ["test_app_fleet.py"]),
    "canary": (["controller/canary.py"], ["test_app_fleet.py"]),
    "openapi": (["host/openapi/*"], ["test_app_openapi.py"]),
    "fetch": (["controller/fetch/*"], ["fetch"]),
}

# What mutmut makes before it runs a test: only then it is known which mutants there are.
GENERATE = "from mutmut.__main__ import *; copy_src_dir(); copy_also_copy_files(); create_mutants(1)"

# What its exit codes of a mutant's tests mean; a mutant without a code was not tried.
SURVIVED, NO_TESTS = 0, (5, 33)


def copy(part: str, directory: Path) -> None:
    """Copy the tree for a part into a directory, and configure mutmut for that."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    files, tests = PARTS[part]
    found = sorted(path for test in tests for path in (directory / "tests" / "unit").glob(test))
    settings = {
        "only_mutate": [f"src/slipway/{file}" for file in files],
        "pytest_add_cli_args_test_selection": [str(path.relative_to(directory)) for path in found],
    }
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    project = directory / "pyproject.toml"
    text = project.read_text(encoding="utf-8").replace("[tool.mutmut]\n", f"[tool.mutmut]\n{lines}")
    project.write_text(text, encoding="utf-8")
    for file in (directory / "src").rglob("*.py"):
        file.write_text(undecorated(file.read_text(encoding="utf-8")), encoding="utf-8")
    # Python looks once for what is on its path.
    (directory / "mutants" / "src").mkdir(parents=True)


def undecorated(text: str) -> str:
    """Return a module whose context managers become that after their function: mutmut leaves those with a decorator alone."""
    lines = text.splitlines(keepends=True)
    for node in reversed(ast.parse(text).body):
        names = [ast.unparse(each) for each in node.decorator_list] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.FunctionDef) and names in (["contextmanager"], ["contextlib.contextmanager"]):
            lines.insert(node.end_lineno or 0, f"\n\n{node.name} = {names[0]}({node.name})\n")
            del lines[node.decorator_list[0].lineno - 1]
    return "".join(lines)


def mutmut(directory: Path, *words: str, program: str = "mutmut", shown: bool = False) -> str:
    """Run mutmut where the tree was copied to; return its output, unless that is shown as it comes."""
    tools = Path(sys.executable).parent
    # Processes that tests start are to have the copy, too.
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(directory / "mutants" / "src")}
    output = None if shown else subprocess.PIPE
    done = subprocess.run([tools / program, *words], cwd=directory, env=environment, stdout=output, text=True, check=True)
    return done.stdout or ""


def verdicts(directory: Path) -> dict[str, int | None]:
    """Return how the tests of each mutant ended, by its name."""
    found: dict[str, int | None] = {}
    for file in sorted((directory / "mutants").rglob("*.meta")):
        found |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def run(part: str, most: int, seed: int, processes: int, directory: Path) -> str:
    """Try a part's mutants in a copy of the tree, write a report, and return one line of a table."""
    copy(part, directory)
    mutmut(directory, "-c", GENERATE, program="python")
    names = sorted(verdicts(directory))
    chosen = sorted(random.Random(seed).sample(names, min(most, len(names))))
    print(f"\n{part}: {len(chosen)} of {len(names)} mutants, seed {seed}", flush=True)
    mutmut(directory, "run", "--max-children", str(processes), *chosen, shown=True)
    codes = verdicts(directory)
    left = {name: codes[name] for name in chosen if codes[name] in (SURVIVED, *NO_TESTS, None)}
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / f"{part}.txt"
    with report.open("w", encoding="utf-8") as file:
        for name, code in left.items():
            file.write(f"{mutmut(directory, 'show', name)}\n")
            print(f"survived{' (no test reaches it)' if code in NO_TESTS else ''}: {name}")
    killed = len(chosen) - len(left)
    return f"{part:10} {len(names):6} {len(chosen):6} {killed:7} {killed / len(chosen):7.1%}  {report.relative_to(ROOT)}"


def main() -> None:
    """Try the mutants of the parts that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench/mutate")
    parser.add_argument("part", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them, if none is named")
    parser.add_argument("--most", type=int, default=100, help="mutants of each part, drawn by the seed (100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="how many mutants at a time (2)")
    told = parser.parse_args()
    if unknown := set(told.part) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    rows = []
    for part in told.part or PARTS:
        with tempfile.TemporaryDirectory(prefix="mutate-") as directory:
            rows.append(run(part, told.most, told.seed, told.processes, Path(directory)))
    print(f"\n{'part':10} {'made':>6} {'tried':>6} {'killed':>7} {'score':>7}  the survivors' differences")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
