"""One run of Ansible at a time changes an app: who wins, what the other learns, and what becomes of the dead."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.host import lock as app_lock
from slipway.host.lock import Busy, TakenOver, lock
from slipway.host.paths import Layout

ANN = {"id": "laptop 1 1", "who": "ann", "where": "laptop", "dead": ""}
BOB = {"id": "desk 2 2", "who": "bob", "where": "desk", "dead": ""}

# Holds an app for some seconds, or with 0 until it is told to stop, or says that it is held; once for each home that it reads.
HOLD = """
import sys, time
from slipway.host.paths import Layout
from slipway.host.lock import Busy, lock
name, seconds = sys.argv[1], float(sys.argv[2])
print("ready", flush=True)
for home in sys.stdin:
    try:
        with lock(Layout(home.strip(), "", ""), {"id": name, "who": name, "where": "there"}, patience=0.05):
            print("held", flush=True)
            time.sleep(seconds) if seconds else sys.stdin.readline()
    except Busy as error:
        print(error, flush=True)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path, tmp_path)


class Holder:
    """Another process that holds an app for some seconds from when it is let go; with 0, until it is let go once more."""

    def __init__(self, seconds: float = 0.0, name: str = "ann") -> None:
        command = [sys.executable, "-c", HOLD, name, str(seconds)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.said() == "ready"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self, home: Path | str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{home}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder(layout: Layout) -> Iterator[Any]:
    """Have another process hold the app."""
    started: list[Holder] = []

    def hold(seconds: float) -> Holder:
        holder = Holder(seconds)
        started.append(holder)
        holder.go(layout.home)
        assert holder.said() == "held"
        return holder

    yield hold
    for each in started:
        each.kill()


def entry(layout: Layout) -> dict[str, Any]:
    text = (layout.home / ".lock").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def test_the_loser_learns_who_holds_it_where_and_since_when(layout: Layout, holder: Any) -> None:
    holder(60)
    message = r"under way: ann on there since \d\d:\d\d:\d\d UTC\. Nothing was changed"
    with pytest.raises(Busy, match=message) as error, lock(layout, BOB, patience=0.2):
        pytest.fail("two hold the app")
    assert error.value.holder["id"] == "ann"


def test_it_is_waited_for(layout: Layout, holder: Any) -> None:
    holder(0.4)
    with lock(layout, BOB, patience=10):
        assert entry(layout)["who"] == "bob"


def test_a_dead_step_is_taken_over_from(layout: Layout, holder: Any) -> None:
    holder(60).kill()
    assert entry(layout)["who"] == "ann"
    with lock(layout, BOB, patience=0):
        assert entry(layout)["who"] == "bob"


def test_it_ends_with_the_step_even_one_that_fails(layout: Layout) -> None:
    with pytest.raises(KeyError), lock(layout, ANN, lease=60):
        raise KeyError
    with lock(layout, BOB, patience=0):
        pass
    assert entry(layout) == {}


def test_between_two_steps_of_a_run_nobody_else_gets_in(layout: Layout) -> None:
    with lock(layout, ANN, lease=60):
        pass
    since = entry(layout)["since"]
    with (
        pytest.raises(Busy, match=r"ann on laptop since .* If that run is dead, its claim ends at "),
        lock(layout, BOB, patience=0),
    ):
        pytest.fail("two hold the app")
    time.sleep(0.01)
    with lock(layout, ANN):
        assert entry(layout)["since"] == since, "it is held since the run's first step"
    with lock(layout, BOB, patience=0):
        pass


def test_a_claim_ends_by_itself(layout: Layout) -> None:
    with lock(layout, ANN, lease=0.05):
        pass
    time.sleep(0.1)
    with lock(layout, BOB, patience=0):
        assert entry(layout)["since"] > time.time() - 1


def test_the_claim_of_a_run_that_is_known_to_be_dead_is_nothing(layout: Layout) -> None:
    with lock(layout, ANN, lease=60):
        pass
    with pytest.raises(Busy), lock(layout, {**BOB, "dead": "somebody else"}, patience=0):
        pytest.fail("two hold the app")
    with lock(layout, {**BOB, "dead": ANN["id"]}, patience=0):
        pass


def test_the_last_step_of_a_dead_run_is_waited_for(layout: Layout, holder: Any) -> None:
    holder(1.0)
    begin = time.monotonic()
    with lock(layout, {**BOB, "dead": "ann"}, patience=0):
        assert 0.2 < time.monotonic() - begin < 30


def test_it_is_not_waited_for_without_end(layout: Layout, holder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_lock, "TAKE_OVER_SECONDS", 0.2)
    holder(60)
    with pytest.raises(Busy), lock(layout, {**BOB, "dead": "ann"}, patience=0):
        pytest.fail("two hold the app")


@pytest.mark.parametrize("text", ['{"id": "x", "unt', "[]", "7", "\x00\x00"])
def test_half_an_entry_is_nobodys_claim(layout: Layout, text: str) -> None:
    (layout.home / ".lock").write_text(text, encoding="utf-8")
    with lock(layout, BOB, patience=0):
        pass


def test_of_several_at_once_exactly_one_wins(tmp_path: Path) -> None:
    """Fifty times, each for an app that nobody has held before."""
    rivals = {name: Holder(name=name) for name in ("ann", "bob", "cat")}
    try:
        for turn in range(50):
            (tmp_path / str(turn)).mkdir()
            for rival in rivals.values():
                rival.go(tmp_path / str(turn))
            said = {name: rival.said() for name, rival in rivals.items()}
            (winner,) = [name for name, words in said.items() if words == "held"]
            for name in rivals.keys() - {winner}:
                assert re.match(rf"Another change of this app is under way: {winner} on there since ", said[name])
            rivals[winner].go()
    finally:
        for rival in rivals.values():
            rival.kill()


def test_a_program_started_meanwhile_does_not_keep_it(layout: Layout) -> None:
    with lock(layout, ANN):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with lock(layout, BOB, patience=0):
            pass
    finally:
        child.kill()
        child.wait()


def test_nobody_else_can_hold_it(layout: Layout) -> None:
    with lock(layout, ANN):
        pass
    # Who may open a file for reading may lock it; the app's user is one of those.
    assert (layout.home / ".lock").stat().st_mode & 0o077 == 0


def test_a_run_that_is_told_to_takes_over(layout: Layout) -> None:
    with lock(layout, ANN, lease=60):
        pass
    with lock(layout, {**BOB, "take_over": True}, lease=60, patience=0):
        assert entry(layout)["who"] == "bob"
    # It was not dead after all, and does nothing more, whether the other is at it still or has ended.
    for _ in range(2):
        with pytest.raises(TakenOver, match="bob on desk has taken this app over from this run"), lock(layout, ANN, patience=0):
            pytest.fail("a run went on that was taken over from")
        with lock(layout, BOB, patience=0):
            pass
    with lock(layout, {**ANN, "id": "laptop 1 2"}, patience=0):
        pass


def test_who_takes_over_waits_for_a_step_under_way(layout: Layout, holder: Any) -> None:
    holder(1.0)
    begin = time.monotonic()
    with lock(layout, {**BOB, "take_over": True}, patience=0):
        assert 0.2 < time.monotonic() - begin < 30


def test_a_clock_that_is_set_back_prolongs_no_claim(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock(layout, ANN, lease=0.3):
        pass
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86400)
    with pytest.raises(Busy), lock(layout, BOB, patience=0):
        pytest.fail("two hold the app")
    time.sleep(0.35)
    with lock(layout, BOB, patience=0):
        pass


@pytest.mark.parametrize(("ahead", "held"), [(60, True), (-1, False), (86400, False)])
def test_after_a_restart_of_the_host_its_clock_decides(layout: Layout, ahead: float, held: bool) -> None:
    entry = {**ANN, "since": time.time(), "until": time.time() + ahead, "boot": "another", "ticks": time.monotonic() + 1e6}
    (layout.home / ".lock").write_text(json.dumps(entry), encoding="utf-8")
    try:
        with lock(layout, BOB, patience=0):
            assert not held
    except Busy:
        assert held
