"""The run that a step belongs to: which it is, and whether it is dead."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

FILE = Path(__file__).resolve().parents[2] / "roles" / "app" / "action_plugins" / "app_release.py"
spec = importlib.util.spec_from_file_location("app_release_action", FILE)
assert spec is not None and spec.loader is not None
action = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = action  # for the worker in a test
spec.loader.exec_module(action)


def test_a_run_is_the_process_that_a_worker_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        run = pool.apply(action.this_run)
    assert run["id"] == f"{action.machine()} {action.process(os.getpid())}"
    assert (run["who"], run["dead"]) == ("ann", "")
    assert run["where"]


def test_a_worker_of_a_dead_run_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=child.pid))
    with pytest.raises(AnsibleActionFail, match="was killed"):
        action.this_run()


def test_who_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    holder = {"id": f"{action.machine()} {action.process(child.pid)}"}
    assert not action.is_dead(holder)
    # Of another controller nothing is known from here.
    child.kill()
    assert not action.is_dead({"id": f"other {holder['id'].split(' ', 1)[1]}"})
    # It is dead before anybody has waited for it.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert action.is_dead(holder)
    child.wait()
    assert action.is_dead(holder)
    # Another process has its number.
    assert action.is_dead({"id": f"{action.machine()} {os.getpid()} 1"})
    for nothing in ({}, {"id": ""}, {"id": action.machine()}, {"id": f"{action.machine()} x y"}):
        assert not action.is_dead(nothing)


class Action(action.ActionModule):  # type: ignore[misc,name-defined]
    """The action, with results in place of a host."""

    def __init__(self, *results: dict[str, Any]) -> None:
        self.results = list(results)
        self.runs: list[dict[str, Any]] = []

    def _execute_module(self, module: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.runs.append(dict(module_args["run"]))
        return self.results.pop(0)


def test_a_step_is_taken_again_where_a_dead_run_held_the_app() -> None:
    dead = {"id": f"{action.machine()} 4194305 1", "who": "ann"}
    step = Action({"failed": True, "holder": dead}, {"changed": True})
    assert step.step("app_release", {}, {}) == {"changed": True}
    assert [run["dead"] for run in step.runs] == ["", dead["id"]]


def test_a_live_run_is_not_disturbed() -> None:
    living = {"id": f"{action.machine()} {action.process(os.getpid())}"}
    step = Action({"failed": True, "msg": "held", "holder": living})
    assert step.step("app_release", {}, {}) == {"failed": True, "msg": "held"}
    assert len(step.runs) == 1
