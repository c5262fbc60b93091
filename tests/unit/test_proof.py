"""The proof: which steps it has, which of them run side by side, and what it prints of them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import proof
import proof_steps
import proof_times
import pytest
import yaml
from proof import ALL, BENCH, FAST, MAIN, PODMAN, SERVERS
from proof_steps import ARTEFACTS, ROOT, Outcome, Step

SCENARIOS = {path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("molecule/*/molecule.yml")}


def groups(scenario: str) -> set[str]:
    """Return the groups whose hosts a scenario uses."""
    arguments = SCENARIOS[scenario]["ansible"]["executor"]["args"]["ansible_playbook"]
    (limit,) = (argument for argument in arguments if argument.startswith("--limit="))
    return set(limit.removeprefix("--limit=").split(",")) - {"localhost"}


def test_every_scenario_is_run_and_shares_no_host_with_one_beside_it() -> None:
    lanes = {step.name.removeprefix("scenario "): step.lane for step in ALL if step.name.startswith("scenario ")}
    # Those of `main` run in the others.
    assert lanes.keys() == SCENARIOS.keys() - {"main"}
    for one, other in itertools.combinations(lanes, 2):
        assert lanes[one] == lanes[other] or not groups(one) & groups(other), f"{one} and {other}"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep reports and logs out of those of the proof that runs this."""
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    monkeypatch.setattr(proof, "ARTEFACTS", tmp_path)
    monkeypatch.setattr(proof_steps, "ARTEFACTS", tmp_path)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--fast"], FAST),
        ([], MAIN),
        (["--all"], ALL),
        (["--bench"], BENCH),
        (["--only", "image"], [PODMAN, proof.SCENARIOS["image"]]),
        (["--only", "main"], MAIN[-2:]),
    ],
    ids=["fast", "main", "all", "bench", "only image", "only main"],
)
@pytest.mark.usefixtures("elsewhere")
def test_each_command_has_its_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], steps: list[Step]
) -> None:
    ran = list[Step]()

    def run(step: Step, output: object = None) -> Outcome:
        ran.append(step)
        return Outcome(step, 0, 1, 0, 1)

    monkeypatch.setattr(proof, "run", run)
    monkeypatch.setattr(proof, "install", lambda packages: None)
    monkeypatch.setattr(sys, "argv", ["script/test", *options])
    assert proof.main() == 0
    assert sorted(step.name for step in ran) == sorted(step.name for step in steps)
    said = capsys.readouterr().out
    assert [step.name for step in steps if f"] {step.name}\n" not in said and f"background: {step.name};" not in said] == []


def test_the_fast_proof_needs_no_container_and_the_main_one_a_single_scenario() -> None:
    assert not any("--containers" in step.command or "molecule" in step.command for step in FAST)
    assert SERVERS not in FAST
    assert [step.name for step in MAIN if "molecule" in step.command] == ["scenario main"]
    # What has no lane is over before those after it begin.
    assert PODMAN.lane == ""
    assert MAIN[:-1] == [*FAST, SERVERS, PODMAN]


def test_no_lane_of_the_whole_proof_waits_for_another_one() -> None:
    first, *others = ALL
    assert first == PODMAN
    assert all(step.lane for step in others)
    assert [*FAST, SERVERS] == others[: len(FAST) + 1]
    begun = [next(step.name for step in others if step.lane == lane) for lane in ("first", "second", "third")]
    assert begun == ["lint", "unit tests", "scenario fleet"]


@pytest.mark.usefixtures("elsewhere")
def test_what_fails_keeps_nothing_else_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = ["sh", "-c", 'echo "$0 said so"; echo "$0" >>order; exit "$1"']
    steps = [
        Step("first", [*note, "first", "1"], folder=tmp_path),
        Step(
            "scenario long", ["sh", "-c", "until grep -q last order; do sleep 0.01; done; echo long >>order"], tmp_path, lane="a"
        ),
        Step("scenario broken", [*note, "broken", "1"], folder=tmp_path, lane="b"),
        Step("scenario last", [*note, "last", "0"], folder=tmp_path, lane="b"),
    ]
    monkeypatch.setattr(proof, "ALL", steps)
    monkeypatch.setattr(sys, "argv", ["script/test", "--all"])
    assert proof.main() == 1
    assert (tmp_path / "order").read_text(encoding="utf-8").split() == ["first", "broken", "last", "long"]
    said = capsys.readouterr().out
    rows = re.findall(r"^  (ok|FAILED) +\d+ s +\d+ s +1 +-  (.+)$", said.partition("What was run")[2], re.MULTILINE)
    assert rows == [("FAILED", "first"), ("ok", "scenario long"), ("FAILED", "scenario broken"), ("ok", "scenario last")]
    assert "broken said so" in said
    assert said.endswith("2 passed, 2 failed\n")


@pytest.mark.usefixtures("elsewhere")
def test_a_step_is_charged_with_what_its_own_processes_did() -> None:
    burn = f"{sys.executable} -c 'import time\nwhile time.process_time() < {{0}}: pass'"
    # Side by side, as lanes are.
    outcomes = dict[str, Outcome]()

    def charge(name: str, command: str) -> None:
        outcomes[name] = proof_steps.run(Step(name, ["sh", "-c", f"{command}; true"]))

    steps = [("busy", burn.format(0.6)), ("idle", "sleep 0.6")]
    threads = [threading.Thread(target=charge, args=step) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes["busy"].cpu >= 0.6
    assert outcomes["idle"].cpu < 0.3
    assert outcomes["idle"].seconds >= 0.6


@pytest.mark.usefixtures("elsewhere")
def test_runs_of_ansible_playbook_are_counted(tmp_path: Path) -> None:
    (tmp_path / "counted.runs").write_text("run\n", encoding="ascii")  # of another time
    command = "ansible-playbook --version && ansible-playbook --help && ansible-playbook none.yml; exec true"
    outcome = proof_steps.run(Step("is counted", ["sh", "-c", f"({command}) >/dev/null 2>&1"], tmp_path))
    assert (outcome.code, outcome.runs) == (0, 2), "a question for the version is none"
    assert outcome.row().split()[-3:] == ["2", "is", "counted"]
    done = subprocess.run(
        ["ansible-playbook", "--version"], env=proof_steps.ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("ansible-playbook [core "), "it is no longer what it was"


@pytest.mark.usefixtures("elsewhere")
def test_what_a_lane_is_at_is_shown_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proof, "PROGRESS_SECONDS", 0.05)
    commands = {
        "scenario new": "sleep 0.3",
        "scenario early": "echo; echo 'TASK [nginx : Install it] ******'; echo; sleep 0.3",
        "scenario late": f"echo TASK; echo a/test_b.py::test_c[d.test] >{tmp_path}/late.now; sleep 0.3",
    }
    (tmp_path / "early.now").write_text("of another time", encoding="ascii")
    proof.run_lanes([Step(name, ["sh", "-c", command], tmp_path, lane=name) for name, command in commands.items()])
    said = capsys.readouterr().out
    for shown in ("new: has begun", "early: TASK [nginx : Install it]", "late: a/test_b.py::test_c[d.test]"):
        assert said.count(f"  after 0 min, scenario {shown}\n") >= 2, said
    assert "of another time" not in said


def test_the_tests_that_took_longest_are_listed(tmp_path: Path) -> None:
    for name, seconds in (("one", "1.25"), ("two", "20")):
        case = f'<testcase classname="tests.{name}" name="test_it" time="{seconds}"/>'
        more = '<testcase classname="tests.quick" name="test_it" time="0.1"/>'
        (tmp_path / f"{name}.xml").write_text(f"<testsuites><testsuite>{case}{more}</testsuite></testsuites>", encoding="utf-8")
    reports = [tmp_path / "one.xml", tmp_path / "none.xml", tmp_path / "two.xml"]
    found = [line.split() for line in proof_times.slowest(reports, most=2)]
    assert found == [["20.0", "s", "tests.two::test_it"], ["1.2", "s", "tests.one::test_it"]]


def test_a_ceiling_is_a_warning_and_no_failure() -> None:
    step = Step("scenario long", [], minutes=2)
    late, early = Outcome(step, 0, 3, 0, 121), Outcome(step, 0, 3, 0, 120)
    assert late.warning() == "Warning: scenario long took 2.0 minutes; its ceiling is 2."
    assert early.warning() == Outcome(Step("free", []), 0, 1, 0, 9999).warning() == ""
    said = proof.summary([late, early], 241, 300, 0.2)
    assert said.count("Warning: ") == 1
    assert said.endswith("6 passed, 0 failed")
    assert [step.name for step in ALL + MAIN if step.lane and not step.minutes] == []


def test_the_machine_is_measured(tmp_path: Path) -> None:
    assert 0 < proof_times.speed(1000) < proof_times.speed(200_000)
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9000 500 4 6 0 0 0\ncpu0 1 2 3 4 5 6 7 0 0 0\n", encoding="ascii")
    assert proof_times.busy(stat) == 1.6
    assert proof_times.busy() > 0


def test_tests_are_counted_by_their_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert proof_steps.counted(report, 0) == (1, 0)
    assert proof_steps.counted(report, 2) == (0, 1)
    report.write_text('<testsuites><testsuite tests="5" failures="1" errors="1"/></testsuites>', encoding="utf-8")
    assert proof_steps.counted(report, 1) == (3, 2)
    report.write_text('<testsuites><testsuite tests="5" failures="0" errors="0"/></testsuites>', encoding="utf-8")
    assert proof_steps.counted(report, 1) == (5, 1), "it broke where no test did"
    assert Outcome(FAST[0], 0, 1, 0, 3.2, 2.9, 4).row().split() == ["ok", "3", "s", "3", "s", "1", "4", *FAST[0].name.split()]
    assert ARTEFACTS.is_relative_to(ROOT)


def test_what_is_skipped_for_a_person_fails_where_ci_is_set(
    monkeypatch: pytest.MonkeyPatch, lacking: Callable[[str], NoReturn]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no npm"):
        lacking("there is no npm")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI is set, and there is no npm"):
        lacking("there is no npm")
