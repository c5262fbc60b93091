"""What a candidate must pass, and what the live release must keep to in the watch, each thing alone and at its bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from clock import Clock

from slipway.host.endpoint import Answer
from slipway.host.errors import ReleaseError
from slipway.host.health import HealthCheck
from slipway.host.release import gate
from slipway.host.release import watch as release_watch
from slipway.host.release.context import Context
from slipway.host.watch import Count

HEALTHY = HealthCheck("/healthz", 200, "shop.test")
# Of a release that has nothing but its web server.
NO_PROCESSES: Any = SimpleNamespace(started=0.0, changed=lambda: ("", ""))
NEVER = SimpleNamespace(unhealthy_reason=lambda sockets: (_ for _ in ()).throw(FileNotFoundError()))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the gate and of the watch, where no release has a log."""
    clock = Clock()
    for module in (gate, release_watch):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "log_tail", lambda context, number: "")
    return clock


def program(*seen: list[int]) -> SimpleNamespace:
    """Supervisor, which finds the program with these processes, one set after the other, and the last ones from then on."""
    processes: Iterator[list[int]] = iter(seen)
    last: list[list[int]] = [[]]

    def state(number: int) -> tuple[str, list[int]]:
        last[0] = next(processes, last[0])
        return "RUNNING", last[0]

    return SimpleNamespace(state=state)


def context(**more: Any) -> Context:
    """Return what the gate and the watch go by."""
    layout = SimpleNamespace(sockets=lambda number: [Path("7.sock")], socket=lambda number: Path(f"{number}.sock"))
    told = {"layout": layout, "health": {"timeout": 60.0, "attempts": 0, "path": "/healthz"}, "warnings": [], **more}
    return cast(Context, SimpleNamespace(**told))


def test_a_candidate_whose_program_starts_again_has_crashed(clock: Clock) -> None:
    begun = clock.now
    with pytest.raises(ReleaseError, match=r"it stopped right after it was started \(RUNNING\)"):
        gate.wait_until_healthy(context(check=NEVER, supervisor=program([71], [71], [72])), 7)
    assert clock.now - begun < 5, "it was waited for"


def test_a_candidate_whose_program_goes_on_is_given_its_time(clock: Clock) -> None:
    with pytest.raises(ReleaseError, match=r"health check failed after 60 s \(app_health_timeout\)"):
        gate.wait_until_healthy(context(check=NEVER, supervisor=program([], [71])), 7)


def watched(clock: Clock, *seen: list[int]) -> None:
    """Watch a release that is healthy, and whose program has these processes, for ten seconds."""
    said = Answer(200, {"x-release": "7"}, b"")
    endpoint = SimpleNamespace(unhealthy=lambda answer: "", ask_endpoint=lambda door: said)
    traffic = cast(Any, SimpleNamespace(follow=lambda number, since: Count(), usual=Count(), now=Count()))
    told: dict[str, Any] = {"check": endpoint, "endpoint": None, "supervisor": program(*seen), "masters": lambda number: []}
    release_watch.watch(context(arguments={"watch": 10.0}, **told), 7, clock.now, traffic, 0.0, 0.0, NO_PROCESSES)


def test_a_live_release_whose_program_starts_again_has_ended(clock: Clock) -> None:
    watched(clock, [71])
    with pytest.raises(ReleaseError, match=r"its program ended in the 2 s since the switch \(app_watch_seconds\) \(RUNNING\)"):
        watched(clock, [71], [71], [72])


@pytest.mark.parametrize(
    ("status", "redirect"), [(199, False), (299, False), (300, True), (307, True), (399, True), (400, False)]
)
def test_a_redirect_is_any_answer_from_300_to_399(status: int, redirect: bool) -> None:
    said = HEALTHY.unhealthy(Answer(status, {"location": "/login"}, b""))
    assert said.startswith(f"GET /healthz answers {status}, not 200")
    assert ("a redirect (to /login) is not healthy" in said) is redirect


def interfaces(**paths: list[str]) -> Context:
    """Return a host whose releases 1 and 2 have these paths."""
    documents: dict[str, Any] = {
        "1.sock": {"paths": {f"/{path}": {"get": {}} for path in paths["live"]}},
        "2.sock": {"paths": {f"/{path}": {"get": {}} for path in paths["candidate"]}},
    }

    def ask(socket: Path, path: str, longest: int) -> Answer:
        return Answer(200, {}, json.dumps(documents[socket.name]).encode())

    return context(ask=ask, arguments={"openapi_path": "/openapi.json"})


def test_one_change_that_breaks_clients_is_enough() -> None:
    with pytest.raises(
        ReleaseError, match=r"would break clients of release 1 \(app_openapi_gate\):\n  - GET /items was removed\n"
    ):
        gate.compare_interfaces(interfaces(live=["items", "users"], candidate=["users"]), 2, 1)


def test_what_is_new_breaks_no_client() -> None:
    host = interfaces(live=["users"], candidate=["items", "users"])
    gate.compare_interfaces(host, 2, 1)
    assert host.warnings == []
