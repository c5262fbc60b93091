"""What GitHub reads: the workflow leaves no step of the proof out, and its forms and settings are valid."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import proof
import pytest
import yaml
from proof_steps import ROOT


def test_the_workflow_runs_every_step() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert sorted(jobs["scenario"]["strategy"]["matrix"]["scenario"]) == sorted(proof.SCENARIOS)
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for command in ("script/lint", " --dist=loadfile ", "script/lib/test_app ", "script/lib/test_host ", "script/test --only "):
        assert command in commands


def imports(path: Path) -> set[str]:
    """Return what a test file imports, with what the files beside it import that it needs."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    beside = {path.with_name(f"{name}.py") for name in found} & set(path.parent.glob("*.py"))
    return found.union(*map(imports, beside)) - {file.stem for file in beside}


def test_what_runs_on_hosts_is_tested_with_their_oldest_python_where_that_needs_no_ansible() -> None:
    there = {*sys.stdlib_module_names, "pytest", "cryptography", "prometheus_client"}
    able = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        names = imports(path)
        of_hosts = {name for name in names if name.startswith(("slipway.host", "slipway.runtime"))}
        if of_hosts and all(name.partition(".")[0] in there for name in names - of_hosts):
            able.append(path.name)
    text = (ROOT / "script" / "lib" / "test_host").read_text(encoding="utf-8")
    assert re.findall(r"^  (test_\w+\.py)$", text, re.MULTILINE) == able
    assert len(able) > 5


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("dependabot", "dependabot.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
    ],
)
def test_a_file_for_github_is_valid(schema: str, pattern: str) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    files = [str(path) for path in sorted((ROOT / ".github").glob(pattern))]
    assert files
    command = [str(program), "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
