"""The run that a step belongs to: which it is, and whether it is dead."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible.errors import AnsibleActionFail

from slipway.controller import commands, identity
from slipway.controller.step import StepAction


def test_a_run_is_the_process_that_a_worker_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        run = pool.apply(identity.this_run)
    assert run["id"] == f"{identity.machine()} {identity.process(os.getpid())}"
    assert (run["who"], run["dead"]) == ("ann", "")
    assert run["where"]
    assert run["at"] == str(identity.STARTED), "one time for all hosts, whichever worker asks"


def test_a_worker_of_a_dead_run_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=child.pid))
    with pytest.raises(AnsibleActionFail, match="was killed"):
        Action().step("release", {}, {})


def test_who_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    holder = {"id": f"{identity.machine()} {identity.process(child.pid)}"}
    assert not identity.is_dead(holder)
    # Of another controller nothing is known from here.
    child.kill()
    assert not identity.is_dead({"id": f"other {holder['id'].split(' ', 1)[1]}"})
    # It is dead before anybody has waited for it.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.is_dead(holder)
    child.wait()
    assert identity.is_dead(holder)
    # Another process has its number.
    assert identity.is_dead({"id": f"{identity.machine()} {os.getpid()} 1"})
    for nothing in ({}, {"id": ""}, {"id": identity.machine()}, {"id": f"{identity.machine()} x y"}):
        assert not identity.is_dead(nothing)


class Action(StepAction):
    """The action, with results in place of a host."""

    def __init__(self, *results: dict[str, Any]) -> None:
        self.results = list(results)
        self.runs: list[dict[str, Any]] = []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def _execute_module(self, module: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module == "slipway"
        self.runs.append(dict(module_args["run"]))
        return self.results.pop(0)


def test_a_step_is_taken_again_where_a_dead_run_held_the_app() -> None:
    dead = {"id": f"{identity.machine()} 4194305 1", "who": "ann"}
    step = Action({"failed": True, "locked_by": dead}, {"changed": True})
    assert step.step("release", {}, {}) == {"changed": True}
    assert [run["dead"] for run in step.runs] == ["", dead["id"]]


def test_a_live_run_is_not_disturbed() -> None:
    living = {"id": f"{identity.machine()} {identity.process(os.getpid())}", "who": "ann", "where": "desk"}
    step = Action({"failed": True, "msg": "held.", "locked_by": living})
    result = step.step("release", {}, {})
    assert result["failed"]
    command = f"ansible-playbook site.yml -e app_take_over_lock=ann@desk:{os.getpid()}"
    words = f"held. If you are sure that that run is dead, take over its lock: {command} (this waits"
    assert result["msg"].startswith(words)
    assert "a run that is not dead would stop halfway" in result["msg"]
    assert [run["take_over"] for run in step.runs] == [""]


def test_the_command_that_takes_over_is_that_of_this_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "inventory": [str(tmp_path / "my hosts")],
        "subset": "one,two",
        "args": ["playbooks/deploy.yml"],
        "extra_vars": ["a=b"],
    }
    monkeypatch.setattr(context, "CLIARGS", given)
    monkeypatch.chdir(tmp_path)
    wanted = "ansible-playbook playbooks/deploy.yml -i 'my hosts' -l one,two -e app_take_over_lock=eve@runner-7:1"
    assert commands.taking_over("eve@runner-7:1") == f"{wanted}, with what else was given as -e"


@pytest.mark.parametrize(("told", "wanted"), [("eve@runner-7:1", "eve@runner-7:1"), ("", ""), (None, "")])
def test_a_run_names_the_one_that_it_takes_over_from(told: object, wanted: str) -> None:
    step = Action({"changed": True})
    step._templar = SimpleNamespace(template=lambda value: value)
    step.step("release", {}, {"__app_take_over_lock": told})
    assert [run["take_over"] for run in step.runs] == [wanted]


def test_a_step_is_taken_twice_at_most() -> None:
    dead = [{"id": f"{identity.machine()} {number} 1"} for number in (4194305, 4194306)]
    step = Action(*({"failed": True, "msg": "held", "locked_by": holder} for holder in dead))
    assert step.step("release", {}, {})["msg"].startswith("held")
    assert [run["dead"] for run in step.runs] == ["", dead[0]["id"]]


def test_a_step_that_failed_for_another_reason_is_not_taken_again() -> None:
    step = Action({"failed": True, "msg": "Release 2 failed"})
    assert step.step("release", {}, {}) == {"failed": True, "msg": "Release 2 failed"}
    assert [run["dead"] for run in step.runs] == [""]


def test_the_run_of_another_controller_is_left_alone() -> None:
    step = Action({"failed": True, "msg": "held", "locked_by": {"id": "other 4194305 1"}})
    assert step.step("release", {}, {})["failed"]
    assert len(step.runs) == 1


def test_two_tasks_are_of_one_run_and_two_runs_are_not() -> None:
    ids = []
    for _ in range(2):  # Ansible has a process of its own for each task
        with multiprocessing.get_context("fork").Pool(1) as pool:
            ids.append(pool.apply(identity.this_run)["id"])
    first, second = ids
    assert first == second
    code = "from slipway.controller.identity import this_run; print(this_run()['id'])"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other.split()[0] == first.split()[0]
    assert other != first


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["command=python -m app.tasks --limit=5"], "python -m app.tasks --limit=5"),
        (["x=1", "command=ls"], "ls"),
        (["command='python -V' x=1"], "what Ansible took it for"),
        (['{"command": "python -V"}'], "what Ansible took it for"),
        ([], "what Ansible took it for"),
    ],
)
def test_a_command_is_taken_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, given: list[str], wanted: str) -> None:
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": given})
    assert commands.as_given("what Ansible took it for", "command") == wanted
