"""The whole proof: which steps run side by side, and what is said of them."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import proof
import pytest
import yaml
from proof import ARTEFACTS, FULL, ROOT, Outcome, Step

SCENARIOS = {path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("molecule/*/molecule.yml")}


def groups(scenario: str) -> set[str]:
    """Return the groups whose hosts a scenario uses."""
    arguments = SCENARIOS[scenario]["ansible"]["executor"]["args"]["ansible_playbook"]
    (limit,) = (argument for argument in arguments if argument.startswith("--limit="))
    return set(limit.removeprefix("--limit=").split(",")) - {"localhost"}


def test_every_scenario_is_run_and_shares_no_host_with_one_beside_it() -> None:
    lanes = {step.name.removeprefix("scenario "): step.lane for step in FULL if step.name.startswith("scenario ")}
    assert lanes.keys() == SCENARIOS.keys()
    for one, other in itertools.combinations(lanes, 2):
        assert lanes[one] == lanes[other] or not groups(one) & groups(other), f"{one} and {other}"


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
    monkeypatch.setattr(proof, "FULL", steps)
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    monkeypatch.setattr(proof, "ARTEFACTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["script/test"])
    assert proof.main() == 1
    assert (tmp_path / "order").read_text(encoding="utf-8").split() == ["first", "broken", "last", "long"]
    said = capsys.readouterr().out
    rows = re.findall(r"^  (ok|FAILED) +\d+ s +1  (.+)$", said.partition("What was run")[2], re.MULTILINE)
    assert rows == [("FAILED", "first"), ("ok", "scenario long"), ("FAILED", "scenario broken"), ("ok", "scenario last")]
    assert "broken said so" in said
    assert said.endswith("2 passed, 2 failed\n")


def test_tests_are_counted_by_their_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert proof.counted(report, 0) == (1, 0)
    assert proof.counted(report, 2) == (0, 1)
    report.write_text('<testsuites><testsuite tests="5" failures="1" errors="1"/></testsuites>', encoding="utf-8")
    assert proof.counted(report, 1) == (3, 2)
    report.write_text('<testsuites><testsuite tests="5" failures="0" errors="0"/></testsuites>', encoding="utf-8")
    assert proof.counted(report, 1) == (5, 1), "it broke where no test did"
    assert Outcome(FULL[0], 0, 1, 0, 3.2).row().split() == ["ok", "3", "s", "1", *FULL[0].name.split()]
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
