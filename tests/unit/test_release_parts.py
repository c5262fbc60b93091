"""Parts of a release by themselves: what they remember, what they say, and what they pass on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from clock import Clock

from slipway.host.endpoint import Answer
from slipway.host.errors import ReleaseError
from slipway.host.release import context as release_context
from slipway.host.release import gate, plan, rollback
from slipway.host.release import watch as release_watch
from slipway.host.release.advice import migrated_by
from slipway.host.release.context import Context
from slipway.host.release.record import image_of
from slipway.host.store import Store
from slipway.host.watch import Count

Said = list[tuple[Any, ...]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An app's paths, with releases 1 to 4, of which 3 has no build any more and 4 is live."""
    store = Store(tmp_path / "shop", tmp_path / "run", tmp_path / "log")
    for number in range(1, 5):
        store.release(number).mkdir(parents=True)
    for number in (1, 2, 4):
        (store.release(number) / "build").mkdir()
    store.live_socket.symlink_to(tmp_path / "run" / "4.sock")
    return store


def context(store: Store, **more: Any) -> Context:
    """Return the context of a step, with nothing in it that is not told."""
    told: dict[str, Any] = {
        "arguments": {},
        "supervisor": None,
        "endpoint": None,
        "health": {},
        "first": True,
        "deadline": 0.0,
        **more,
    }
    return Context(layout=store, warnings=[], secrets=[], **told)


def remember(store: Store, number: int, **facts: Any) -> None:
    (store.release(number) / "release.json").write_text(json.dumps({"release": number, **facts}), encoding="utf-8")


@pytest.mark.parametrize(
    ("schema", "but", "number"),
    [
        pytest.param("b", None, 2, id="the newest whose code is there still"),
        pytest.param("b", 2, 1, id="another than that"),
        pytest.param("b, c", None, 2, id="one of several ends"),
        pytest.param("x", None, 4, id="nobody's, so the live one"),
    ],
)
def test_the_code_that_migrated_to_a_schema_is_found(store: Store, schema: str, but: int | None, number: int) -> None:
    for each in (1, 2, 3):
        remember(store, each, migration="a, b")
    assert migrated_by(context(store), schema, but) == number


@pytest.mark.parametrize(
    ("text", "found"), [('{"image": "shop:b1"}', {"image": "shop:b1"}), ('{"venv": "v1"}', {}), ("{", {}), (None, {})]
)
def test_an_image_is_that_of_a_build_that_has_one(store: Store, text: str | None, found: dict[str, Any]) -> None:
    (store.builds / "b1").mkdir(parents=True)
    if text is not None:
        (store.builds / "b1" / ".build.json").write_text(text, encoding="utf-8")
    assert image_of(context(store), "b1") == found


def test_a_command_is_run_as_the_app_is_in_its_container_or_by_its_user(store: Store) -> None:
    step = context(store, arguments={"user": "shop", "directory": "app"})
    release = store.release(2)
    through = [str(release / "build" / ".venv" / "bin" / "python"), str(release / "launch.py"), "--shell"]
    assert step.launch(2) == {"through": through, "directory": release / "build" / "app", "user": "shop"}
    assert step.container(2, "--remove-tasks") == "", "there is none that could do anything"
    (release / "container.py").write_text("import sys\nprint(sys.argv[1:])\n", encoding="utf-8")
    through = [sys.executable, str(release / "container.py"), "--shell"]
    assert step.launch(2) == {"through": through, "directory": release, "user": None}
    assert step.container(2, "--remove-tasks") == "['--remove-tasks']\n"


def test_a_container_that_cannot_be_asked_is_warned_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*words: Any, **options: Any) -> None:
        raise ReleaseError("It took longer than 60 s.")

    monkeypatch.setattr(release_context, "run", late)
    (store.release(2) / "container.py").touch()
    step = context(store)
    assert (step.container(2, "--remove-tasks"), step.warnings) == ("", ["It took longer than 60 s."])


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Said:
    """What was done of a rollback, in order."""
    said: Said = []

    def note(name: str) -> Callable[..., None]:
        return lambda context, *words, **more: said.append((name, *words, more))

    for name in ("roll_back", "switch_back", "remember", "stop", "apply_jobs"):
        monkeypatch.setattr(rollback, name, note(name))
    for name in ("remember", "stop"):
        monkeypatch.setattr(plan, name, note(name))
    return said


def test_a_release_is_reverted_to_the_one_before_with_the_settings_it_had(store: Store, noted: Said) -> None:
    rollback.revert(context(store), 4, 2)
    assert noted == [("roll_back", 2, "original", {"back": "reverted"})]


def test_the_first_release_is_reverted_to_nothing_and_it_is_said_why(store: Store, noted: Said) -> None:
    rollback.revert(context(store), 4, None)
    reason = "reverted: nothing was live before it"
    assert noted == [
        ("switch_back", None, {}, {}),
        ("remember", 4, {"outcome": "rolled back", "reason": reason}),
        ("stop", 4, {}),
        ("apply_jobs", None, {}),
    ]


def test_what_an_interrupted_rollback_left_is_stopped_pointed_and_remembered(store: Store, noted: Said) -> None:
    remember(store, 4, outcome="live", back_from=3)
    store.current.symlink_to("releases/3")
    step = context(store, supervisor=SimpleNamespace(known=lambda: [2, 4, 3], programs=list), arguments={"first": True})
    assert plan.tidy(step)
    assert str(store.current.readlink()) == "releases/4"
    assert noted == [
        ("stop", 2, {}),
        ("stop", 3, {}),
        ("remember", 3, {"outcome": "rolled back", "reason": "rolled back to release 4"}),
        ("remember", 4, {"outcome": "live", "back_from": None}),
    ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (gate, release_watch):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "log_tail", lambda context, number: f"the log of {number}")
    return clock


# Of a release that has nothing but its web server.
NO_PROCESSES: Any = SimpleNamespace(started=0.0, changed=lambda: ("", ""))


def asked(*answers: Answer | Exception) -> Any:
    """Return a health check that has these answers, one after the other, and the last of them from then on."""
    left = list(answers)

    def ask(*words: Any) -> Answer:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def judge(answer: Answer) -> str:
        return "" if answer.status == 200 else str(answer.status)

    return SimpleNamespace(ask_endpoint=ask, unhealthy=judge, unhealthy_reason=lambda sockets: judge(ask()))


def step(store: Store, check: Any, **more: Any) -> Context:
    """Return what the gate and the watch go by; the release has one process, which runs."""
    running = SimpleNamespace(state=lambda number: ("RUNNING", [71]))
    health = {"path": "/up", "timeout": 5.0, "attempts": 0}
    told = {"layout": store, "check": check, "supervisor": running, "health": health, "endpoint": None, "warnings": [], **more}
    return cast(Context, SimpleNamespace(masters=lambda number: [], arguments={"watch": 5.0}, **told))


@pytest.mark.parametrize(
    ("state", "crashed"),
    [(state, True) for state in ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN")] + [("STARTING", False), ("RUNNING", False)],
)
def test_a_candidate_has_crashed_if_supervisor_says_so(store: Store, clock: Clock, state: str, crashed: bool) -> None:
    supervisor = SimpleNamespace(state=lambda number: (state, [71]))
    words = rf"it stopped right after it was started \({state}\)" if crashed else r"health check failed after 5 s"
    with pytest.raises(ReleaseError, match=words):
        gate.wait_until_healthy(step(store, asked(FileNotFoundError()), supervisor=supervisor), 4)
    assert (clock.now < 1001) is crashed


GOOD, BAD = Answer(200, {"x-release": "4"}, b""), Answer(500, {"x-release": "4"}, b"")


def watch(store: Store, clock: Clock, *answers: Answer, settled: float = 0.0, **more: Any) -> None:
    """Watch release 4, which answers this, for five seconds; the second time at once, to prove that it is the one."""
    traffic = cast(Any, SimpleNamespace(follow=lambda number, since: Count(), usual=Count(), now=Count()))
    release_watch.watch(step(store, asked(*answers), **more), 4, clock.now, traffic, 0.0, settled, NO_PROCESSES)


def test_a_live_release_is_looked_at_each_second_and_twice_as_often_while_it_is_unhealthy(store: Store, clock: Clock) -> None:
    watch(store, clock, GOOD)
    assert clock.naps == [1.0] * 5
    clock.naps.clear()
    watch(store, clock, GOOD, GOOD, BAD, BAD, GOOD)
    assert clock.naps == [1.0, 0.5, 0.5, 1.0, 1.0, 1.0]


def test_a_live_release_has_stopped_being_healthy_at_the_third_bad_answer_in_a_row(store: Store, clock: Clock) -> None:
    with pytest.raises(
        ReleaseError, match=r"it became unhealthy in the 1 s since the switch \(app_watch_seconds\): 500\.\nthe log of 4"
    ):
        watch(store, clock, BAD)
    assert clock.naps == [0.5, 0.5]
    watch(store, clock, GOOD, BAD, BAD, GOOD, GOOD, BAD, BAD, GOOD)


def test_a_watch_does_not_end_while_the_release_is_unhealthy(store: Store, clock: Clock) -> None:
    watch(store, clock, *[GOOD] * 6, BAD, BAD, GOOD)
    assert clock.now == 1006.0


@pytest.mark.parametrize(("usual", "most"), [(0.0, 1), (0.1, 1), (0.3, 3)])
def test_twice_as_many_workers_may_end_as_was_usual_and_one_at_least(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, usual: float, most: int
) -> None:
    traffic = cast(Any, SimpleNamespace(follow=lambda number, since: Count(), usual=Count(), now=Count()))
    for ended in (most, most + 1):
        workers = SimpleNamespace(sample=lambda ended=ended: ended, ended=ended)
        monkeypatch.setattr(release_watch, "Processes", lambda pids, workers=workers: workers)
        watched = step(store, asked(GOOD))
        if ended == most:
            release_watch.watch(watched, 4, clock.now, traffic, usual, 0.0, NO_PROCESSES)
            continue
        with pytest.raises(ReleaseError, match=f"{ended} of its worker processes ended"):
            release_watch.watch(watched, 4, clock.now, traffic, usual, 0.0, NO_PROCESSES)
