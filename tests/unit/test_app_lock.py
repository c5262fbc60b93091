"""One run of Ansible at a time changes an app: who wins, what the other learns, and what becomes of the dead."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clock import Clock

from slipway.host import lock as app_lock
from slipway.host.lock import LONGEST_SECONDS, OWN_SECONDS, SIGN_SECONDS, TAKE_OVER_SECONDS, Locked, LockTakenOver, lock
from slipway.host.paths import Layout

ANN = {"id": "laptop 1 1", "who": "ann", "where": "laptop", "dead": ""}
BOB = {"id": "desk 2 2", "who": "bob", "where": "desk", "dead": ""}

# Holds an app for some seconds, or with 0 until it is told to stop, or says that it is held; once for each home that it reads.
HOLD = """
import sys, time
from slipway.host.paths import Layout
from slipway.host.lock import Locked, lock
name, seconds = sys.argv[1], float(sys.argv[2])
print("ready", flush=True)
for home in sys.stdin:
    try:
        with lock(Layout(home.strip(), "", ""), {"id": name, "who": name, "where": "there"}, patience=0.05):
            print("held", flush=True)
            time.sleep(seconds) if seconds else sys.stdin.readline()
    except Locked as error:
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
    message = r"locked by another run: ann on there since \d\d:\d\d:\d\d UTC\. Nothing was changed"
    with pytest.raises(Locked, match=message) as error, lock(layout, BOB, patience=0.2):
        pytest.fail("two hold the app")
    assert error.value.owner["id"] == "ann"


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
        pytest.raises(Locked, match=r"ann on laptop since .* If that run is dead, its lock expires at "),
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
    with pytest.raises(Locked), lock(layout, {**BOB, "dead": "somebody else"}, patience=0):
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
    with pytest.raises(Locked), lock(layout, {**BOB, "dead": "ann"}, patience=0):
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
                assert re.match(rf"This app is locked by another run: {winner} on there since ", said[name])
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
        with (
            pytest.raises(LockTakenOver, match="bob on desk has taken over the deploy lock of this app"),
            lock(layout, ANN, patience=0),
        ):
            pytest.fail("a run went on that was taken over from")
        with lock(layout, BOB, patience=0):
            pass
    with lock(layout, {**ANN, "id": "laptop 1 2"}, patience=0):
        pass


EVE = {"id": "elsewhere 4711 9", "who": "eve", "where": "runner-7"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (EVE, "eve@runner-7:4711"),
        ({**EVE, "who": "eve v. e.", "where": "run ner'7"}, "eve_v._e.@run_ner_7:4711"),
        ({**EVE, "id": "0a1b operator"}, "eve@runner-7:operator"),
        ({"id": "x"}, "someone@somewhere"),
    ],
)
def test_a_run_has_a_name_that_is_one_word_for_a_shell(owner: dict[str, Any], name: str) -> None:
    assert app_lock.owner_name(owner) == name
    assert shlex.quote(name) == name


def test_the_lock_of_the_run_that_is_named_is_taken_over_at_once(layout: Layout) -> None:
    with lock(layout, EVE, lease=60):
        pass
    begin = time.monotonic()
    with lock(layout, {**BOB, "take_over": "eve@runner-7:4711"}, lease=60):
        assert (entry(layout)["who"], entry(layout)["gone"]) == ("bob", [EVE["id"]])
    assert time.monotonic() - begin < 1
    with pytest.raises(LockTakenOver), lock(layout, EVE):
        pytest.fail("a run went on that was taken over from")


@pytest.mark.parametrize("name", ["bob@runner-7:4711", "eve@runner-7:4712", "eve@runner-7", "eve", "4711"])
def test_the_lock_of_a_run_that_is_not_the_one_named_is_not_taken_over(layout: Layout, name: str) -> None:
    with lock(layout, EVE, lease=60):
        pass
    named = f"app_take_over_lock is {name}, and the lock is that of eve@runner-7:4711"
    with (
        pytest.raises(Locked, match=rf"locked by another run: eve on runner-7 since .* {named}\."),
        lock(layout, {**BOB, "take_over": name}, patience=0),
    ):
        pytest.fail("two hold the app")
    assert entry(layout)["id"] == EVE["id"]


def test_who_is_named_and_holds_nothing_is_no_obstacle(layout: Layout) -> None:
    with lock(layout, {**BOB, "take_over": "eve@runner-7:4711"}, patience=0):
        assert entry(layout)["gone"] == []


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
    with pytest.raises(Locked), lock(layout, BOB, patience=0):
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
    except Locked:
        assert held


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        ({}, "someone on some controller since 00:00:00 UTC. Nothing was changed. Try again once that run has ended."),
        (
            {"who": "ann", "where": "laptop", "since": 3600, "until": 0},
            "ann on laptop since 01:00:00 UTC. Nothing was changed. Try again once that run has ended.",
        ),
        (
            {"who": "ann", "where": "laptop", "since": 3600, "until": 3725},
            "ann on laptop since 01:00:00 UTC. Nothing was changed. Try again once that run has ended."
            " If that run is dead, its lock expires at 01:02:05 UTC.",
        ),
    ],
)
def test_who_is_refused_learns_when_a_claim_ends_and_of_a_step_under_way_nothing_of_the_kind(
    holder: dict[str, Any], words: str
) -> None:
    assert str(Locked(holder)) == f"This app is locked by another run: {words}"


@pytest.mark.parametrize(("entry", "who"), [({}, "someone on some controller"), ({"who": "bob", "where": "desk"}, "bob on desk")])
def test_who_was_taken_over_from_learns_by_whom_and_that_this_was_asked_for(entry: dict[str, Any], who: str) -> None:
    said = "has taken over the deploy lock of this app from this run (app_take_over_lock). This run stops here."
    assert str(LockTakenOver(entry)) == f"{who} {said}"


def test_whoever_asks_learns_who_holds_the_app(layout: Layout) -> None:
    assert app_lock.lock_owner(layout) == {}, "nobody has ever held it"
    with lock(layout, ANN):
        assert app_lock.lock_owner(layout)["id"] == ANN["id"], "a step is under way"
        (layout.home / ".lock").write_text("", encoding="utf-8")
        assert app_lock.lock_owner(layout) == {"who": "someone"}, "a step is under way that has not signed yet"
    assert app_lock.lock_owner(layout) == {}, "the run has ended"
    with lock(layout, ANN, lease=60):
        pass
    assert app_lock.lock_owner(layout)["who"] == "ann", "the run has another step to take"
    with lock(layout, {**BOB, "take_over": True}):
        pass
    assert entry(layout)["gone"] == [ANN["id"]]
    assert app_lock.lock_owner(layout) == {}, "what is left of a run that has ended holds nothing"
    claim = {"since": 1.0, "until": time.time() + 60}
    (layout.home / ".lock").write_text(json.dumps(claim), encoding="utf-8")
    assert app_lock.lock_owner(layout) == {}, "a claim is somebody's"
    (layout.home / ".lock").write_text(json.dumps({**ANN, "until": time.time() - 60}), encoding="utf-8")
    assert app_lock.lock_owner(layout) == {}, "a claim has ended"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(app_lock, "time", clock)
    monkeypatch.setattr(app_lock, "_boot", lambda: "this")
    return clock


@pytest.mark.parametrize(
    ("claim", "lasts"),
    [
        ({"boot": "this", "ticks": 1000.1, "until": 1}, True),
        ({"boot": "this", "ticks": 1000.0, "until": 1001}, False),
        ({"boot": "this", "until": 1001}, False),
        ({"boot": "another", "ticks": 1, "until": 1000.5}, True),
        ({"boot": "another", "ticks": 9999, "until": 1000.0}, False),
        ({"boot": "", "ticks": 9999, "until": 1000.0}, False),
        ({"until": 1000.0 + LONGEST_SECONDS}, True),
        ({"until": 1000.1 + LONGEST_SECONDS}, False),
        ({}, False),
    ],
)
def test_a_claim_lasts_to_its_bound(layout: Layout, clock: Clock, claim: dict[str, Any], lasts: bool) -> None:
    (layout.home / ".lock").write_text(json.dumps({**ANN, "since": 1.0, **claim}), encoding="utf-8")
    assert bool(app_lock.lock_owner(layout)) is lasts


def test_a_claim_lasts_as_long_as_its_lease(layout: Layout, clock: Clock) -> None:
    with lock(layout, ANN, lease=60):
        assert entry(layout) == {"id": ANN["id"], "who": "ann", "where": "laptop", "since": 1000.0, "gone": [], "until": 0}
        clock.now += 5
    claim = entry(layout)
    assert (claim["since"], claim["until"], claim["ticks"], claim["boot"]) == (1000.0, 1065.0, 1065.0, "this")


@pytest.mark.parametrize(
    ("run", "signed", "seconds"),
    [
        pytest.param(BOB, ANN, 1.0, id="another run"),
        pytest.param(BOB, {}, 1.0 + SIGN_SECONDS, id="somebody who has not signed yet"),
        pytest.param(ANN, ANN, OWN_SECONDS, id="a step of its own"),
        pytest.param({**BOB, "dead": ANN["id"]}, ANN, TAKE_OVER_SECONDS, id="the last step of a dead run"),
        pytest.param({**BOB, "dead": "x"}, ANN, 1.0, id="while another run is dead"),
        pytest.param({**BOB, "take_over": True}, ANN, TAKE_OVER_SECONDS, id="a run that is taken over from"),
        pytest.param({**BOB, "take_over": "ann@laptop:1"}, ANN, TAKE_OVER_SECONDS, id="the run that is named"),
        pytest.param({**BOB, "take_over": "ann@laptop:2"}, ANN, 1.0, id="a run that is not named"),
    ],
)
def test_a_step_under_way_is_waited_for_as_long_as_is_fit(
    layout: Layout, clock: Clock, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], signed: dict[str, Any], seconds: float
) -> None:
    def flock(file: Any, how: int) -> None:
        assert how == app_lock.fcntl.LOCK_EX | app_lock.fcntl.LOCK_NB
        raise BlockingIOError

    monkeypatch.setattr(app_lock.fcntl, "flock", flock)
    (layout.home / ".lock").write_text(json.dumps(signed), encoding="utf-8")
    with pytest.raises(Locked) as error, lock(layout, run):
        pytest.fail("two hold the app")
    assert error.value.owner == signed
    assert seconds <= clock.now - 1000.0 <= seconds + 0.3


def test_runs_that_were_taken_over_from_are_remembered_the_last_five_of_them(layout: Layout) -> None:
    for number in range(7):
        with lock(layout, {"id": f"run {number}", "who": "ann", "where": "desk", "take_over": True}, lease=60):
            pass
    assert entry(layout)["gone"] == [f"run {number}" for number in range(1, 6)]
    with lock(layout, {**BOB, "take_over": True}):
        pass
    assert entry(layout) == {"gone": [f"run {number}" for number in range(2, 7)], "who": "bob", "where": "desk"}
