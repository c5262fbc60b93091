"""What the hosts of one app agree on, in which order they switch, and how a canary is judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slipway.controller import canary, fleet, progress
from slipway.controller.fleet import Plan
from slipway.controller.moves import with_moves


def plan(live: int | None, needs: bool, free: int, prepared: int | None = None, again: int | None = None) -> dict[str, Any]:
    """Return what a host says in the step `plan`."""
    return {
        "release": live,
        "reason": "it changed" if needs else None,
        "next": free,
        "prepared": prepared,
        "again": again or prepared,
    }


@pytest.mark.parametrize(
    ("plans", "release", "hosts"),
    [
        pytest.param([plan(7, False, 8), plan(7, False, 8)], 0, "", id="nothing to do"),
        pytest.param([plan(7, True, 8), plan(7, True, 8)], 8, "ab", id="all need it"),
        pytest.param([plan(7, True, 8), plan(4, True, 5)], 8, "ab", id="numbers that differ become one"),
        pytest.param([plan(7, False, 8), plan(4, False, 5)], 0, "", id="what differs is not released for that alone"),
        pytest.param([plan(7, False, 8), plan(None, True, 1)], 7, "b", id="one that joins takes the others' number"),
        pytest.param([plan(7, False, 8), plan(None, True, 9)], 9, "ab", id="one that joins and has had that number already"),
        pytest.param([plan(None, True, 1), plan(None, True, 1)], 1, "ab", id="the first of all"),
        pytest.param([plan(7, False, 8), plan(7, True, 8)], 8, "ab", id="one has settings of its own"),
        pytest.param([plan(8, False, 9), plan(7, True, 9, prepared=8)], 8, "b", id="half switched: the rest follows"),
        pytest.param([plan(8, False, 9), plan(7, True, 9, again=8)], 8, "b", id="one died with it, the others were taken back"),
        pytest.param([plan(8, False, 9), plan(7, True, 9)], 9, "ab", id="one died with it, and it failed on another"),
        pytest.param([plan(7, True, 9, prepared=8), plan(7, True, 9, prepared=8)], 8, "ab", id="ready, and never switched to"),
        pytest.param([plan(7, True, 9, prepared=8), plan(7, True, 8)], 8, "ab", id="ready on one"),
        pytest.param(
            [plan(7, True, 9, prepared=8), plan(7, True, 9, again=8)], 9, "ab", id="ready on one, and taken back on another"
        ),
        pytest.param([plan(7, True, 9, again=8), plan(7, True, 9, again=8)], 9, "ab", id="what was taken back gets a new number"),
        pytest.param([plan(8, False, 9), plan(7, False, 8), plan(7, True, 8)], 9, "abc", id="two that are settled, and differ"),
    ],
)
def test_the_hosts_agree_on_one_release(plans: list[dict[str, Any]], release: int, hosts: str) -> None:
    agreed = fleet.release_plan(dict(zip("abc", plans, strict=False)), "1", 0)
    assert (agreed.release, agreed.hosts) == (release, list(hosts))
    assert [host for turn in agreed.batches for host in turn] == list(hosts)
    assert set(agreed.reasons) == set(hosts)


def test_a_host_says_why_it_switches_or_follows_the_others() -> None:
    agreed = fleet.release_plan({"a": plan(7, True, 9), "b": plan(6, False, 8)}, "1", 0)
    assert agreed.reasons == {"a": "it changed", "b": "another host of the app needs it"}


@pytest.mark.parametrize(
    ("batch", "canaries", "sizes"),
    [
        ("1", 0, [1] * 8),
        ("3", 0, [3, 3, 2]),
        ("25%", 0, [2] * 4),
        ("1%", 0, [1] * 8),
        ("100%", 0, [8]),
        ("100%", 1, [1, 7]),
        (99, 2, [2, 6]),
    ],
)
def test_they_switch_in_turns(batch: str, canaries: int, sizes: list[int]) -> None:
    assert [len(group) for group in fleet.batches("abcdefgh", 8, batch, canaries)] == sizes


def test_a_canary_needs_others_to_be_compared_with() -> None:
    three = {host: plan(7, True, 8) for host in "abc"}
    agreed = fleet.release_plan(three, "100%", 1)
    assert (agreed.canaries, agreed.compared, agreed.batches) == (["a"], ["b", "c"], [["a"], ["b", "c"]])
    for alone, many in ((three, 3), ({"a": plan(None, True, 1), "b": plan(None, True, 1)}, 1)):
        agreed = fleet.release_plan(alone, "100%", many)
        assert (agreed.canaries, agreed.batches) == ([], [list(alone)])
        assert agreed.no_canary == "No canary: no other host has an earlier release to compare it with."
    # However many there are, a few tell enough.
    assert len(fleet.release_plan({f"h{index}": plan(7, True, 8) for index in range(40)}, "1", 2).compared) == 10


def inspected(live: int | None, *good: int, newest: int = 0, problems: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what a host says in the step `look`."""
    said = {**{str(number): "" for number in good}, **(problems or {})}
    return {"release": live, "newest": newest or live or 0, "choices": list(good), "rejections": said, "next": 20}


@pytest.mark.parametrize(
    ("looks", "release", "hosts"),
    [
        pytest.param([inspected(8, 6, 7, 8), inspected(8, 6, 7, 8)], 7, "ab", id="all from one"),
        pytest.param([inspected(8, 6, 7, 8), inspected(8, 6, 8)], 6, "ab", id="to what all have"),
        pytest.param([inspected(8, 6, 7, 8), inspected(7, 6, 7)], 7, "a", id="half switched: it is undone"),
        pytest.param([inspected(7, 6, 7, newest=8), inspected(8, 6, 7, 8)], 7, "b", id="half gone back: the rest follows"),
        pytest.param([inspected(7, 6, 7, newest=8), inspected(7, 6, 7)], 7, "", id="gone back, and not said so yet"),
        pytest.param([inspected(8, 7, 8), inspected(None)], 7, "a", id="one that serves nothing yet keeps no other"),
    ],
)
def test_the_hosts_agree_on_what_to_go_back_to(looks: list[dict[str, Any]], release: int, hosts: str) -> None:
    agreed = fleet.rollback_plan(dict(zip("abc", looks, strict=False)), "shop", "", False, "1")
    assert (agreed.release, agreed.hosts, agreed.refusal) == (release, list(hosts), "")
    assert agreed.to == str(release)


@pytest.mark.parametrize(
    ("batch", "order"), [("1", [["a"], ["b"], ["c"]]), ("50%", [["a", "b"], ["c"]]), ("100%", [["a", "b", "c"]])]
)
def test_hosts_roll_back_in_batches_of_the_whole_fleet_and_are_reverted_if_one_fails(batch: str, order: list[list[str]]) -> None:
    agreed = fleet.rollback_plan({**{host: inspected(8, 7, 8) for host in "abc"}, "d": inspected(None)}, "shop", "", False, batch)
    assert agreed.batches == order
    assert agreed.reasons == dict.fromkeys("abc", "rolled back from release 8")
    assert agreed.before == {**dict.fromkeys("abc", 8), "d": None}
    assert (agreed.revert, agreed.canaries) == (True, [])


def test_all_that_keeps_hosts_from_a_release_is_told_a_line_for_each() -> None:
    lacking = {host: inspected(8, 8, problems={"6": f"not on {host}"}) for host in "ab"}
    assert fleet.rollback_plan(lacking, "shop", "6", False, "1").refusal == "a: not on a\nb: not on b"
    assert fleet.rollback_plan({"a": inspected(8), "b": inspected(8, 8)}, "shop", "", False, "1").refusal.endswith(
        "Good releases: a: none; b: 8."
    )


def test_what_one_of_them_lacks_is_gone_back_to_by_none() -> None:
    lacks = {"a": inspected(8, 6, 8), "b": inspected(8, 7, 8, problems={"6": "There is no release 6 of shop on this host."})}
    assert fleet.rollback_plan(lacks, "shop", "6", False, "1").refusal == "b: There is no release 6 of shop on this host."
    refused = fleet.rollback_plan(lacks, "shop", "", False, "1")
    assert "before release 8 is kept on all its hosts. Good releases: a: 6, 8; b: 7, 8." in refused.refusal
    assert refused.hosts == []
    assert "nothing to roll back" in fleet.rollback_plan({"a": inspected(None)}, "shop", "", False, "1").refusal
    # With today's settings it is a new release.
    two = {"a": inspected(8, 7, 8), "b": {**inspected(8, 7, 8), "next": 23}}
    assert [getattr(fleet.rollback_plan(two, "shop", "7", True, "1"), key) for key in ("to", "release")] == ["7", 23]


def phased(agreed: Plan, check: bool = False, **settings: Any) -> list[fleet.Phase]:
    """Return the phases of a plan, with steps of 100 seconds."""
    return fleet.phases(agreed, fleet.Settings(**{"batch": "1", "step_seconds": 100, **settings}), check)


def test_a_release_is_prepared_on_all_hosts_and_migrated_once_before_any_switches() -> None:
    agreed = fleet.release_plan({host: plan(7, True, 8) for host in "abc"}, "2", 0)
    assert [(phase.name, phase.steps, phase.configure) for phase in phased(agreed, migration_seconds=50)] == [
        ("prepare a", {"a": "prepare"}, True),
        ("prepare the others", {"b": "prepare", "c": "prepare"}, True),
        ("migrate", {"a": "migrate"}, False),
        ("activate a, b", {"a": "activate", "b": "activate"}, False),
        ("activate c", {"c": "activate"}, False),
    ]
    assert [phase.seconds for phase in phased(agreed, migration_seconds=50)] == [100, 100, 150, 100, 100]
    assert [phase.name for phase in phased(agreed, check=True)] == ["check"]
    assert phased(agreed, check=True)[0].steps == dict.fromkeys("abc", "activate")
    assert phased(fleet.release_plan({host: plan(7, False, 8) for host in "ab"}, "1", 0)) == []


def test_a_host_that_needs_nothing_is_locked_and_the_first_of_all_before_the_others() -> None:
    agreed = fleet.release_plan({"a": plan(8, False, 9), "b": plan(7, True, 9, prepared=8)}, "1", 0)
    assert [phase.steps for phase in phased(agreed, migration_seconds=5)] == [
        {"a": "lock"},
        {"b": "prepare"},
        {"b": "migrate"},
        {"b": "activate"},
    ]
    agreed = fleet.rollback_plan({host: inspected(8, 7, 8) for host in "ab"}, "shop", "", False, "100%")
    assert [phase.steps for phase in phased(agreed, migration_seconds=5)] == [
        {"a": "lock"},
        {"b": "lock"},
        {"a": "rollback", "b": "rollback"},
    ]


def test_canaries_and_those_they_are_compared_with_are_measured_after_the_first_batch() -> None:
    agreed = fleet.release_plan({host: plan(7, True, 8) for host in "abc"}, "100%", 1)
    found = phased(agreed, canary_seconds=60)
    assert [phase.name for phase in found[2:]] == ["activate a", "measure", "activate b, c"]
    assert found[3].steps == dict.fromkeys("abc", "measure")
    assert found[3].seconds == 150


def test_a_lock_lasts_to_the_end_of_the_run() -> None:
    agreed = fleet.release_plan({host: plan(7, True, 8) for host in "abc"}, "1", 0)
    # Five phases of 100 seconds each, and what they take besides.
    assert [phase.lease for phase in phased(agreed)] == [680, 550, 420, 290, 160]


@pytest.mark.parametrize(("batch", "canaries", "seconds"), [("1", 0, 100), ("1", 0, 3000), ("5%", 1, 400), ("100%", 0, 9)])
def test_a_lock_that_would_end_before_is_renewed(batch: str, canaries: int, seconds: int) -> None:
    agreed = fleet.release_plan({f"h{index}": plan(7, True, 8) for index in range(90)}, batch, canaries)
    found = phased(agreed, step_seconds=seconds, canary_seconds=canaries and 1800)
    ends: dict[str, float] = {}
    now = 0
    for phase in found:
        longest = phase.seconds + fleet.MARGIN
        for host, end in ends.items():
            assert end >= now, f"{host} is not locked when {phase.name} begins"
            assert host in phase.steps or end >= now + longest, f"{host} is not locked to the end of {phase.name}"
        assert phase.lease <= max(fleet.LEASE, 2 * max(each.seconds + fleet.MARGIN for each in found)) + fleet.MARGIN
        # The worst that may happen: it is locked at the begin of the phase, which then takes as long as it may.
        ends |= {host: now + phase.lease for host, step in phase.steps.items() if step != "measure"}
        now += longest
    renewals = sum(step == "lock" for phase in found for step in phase.steps.values())
    assert (renewals > 0) is (now > fleet.LEASE)
    assert min(ends.values()) >= now or len(found) > 3


SETTINGS = {host: {"batch": "1", "step_seconds": 100 + len(host)} for host in "abc"}


def begun(command: str = "release", **results: dict[str, Any]) -> progress.Progress:
    return progress.Progress.begin(command, "shop", results or {host: plan(7, True, 8) for host in "abc"}, SETTINGS, False)


def test_progress_is_the_same_after_ansible_has_kept_it() -> None:
    first = begun()
    kept = json.loads(json.dumps(first.values()))
    assert progress.Progress.of(kept) == first
    assert kept["hosts"]["b"] == {"number": 8, "to": "", "before": 7, "limit": 101, "note": "", "first_host": "no"}


def test_only_hosts_whose_phase_has_begun_are_reverted() -> None:
    now = begun()
    fine = {host: {"release": 7} for host in "abc"}
    assert now.reverted == []
    now = now.after(fine)
    failed = now.after({**fine, "b": {"failed": True, "msg": "no"}})
    assert (failed.failures, failed.reverted) == ({"b": "no"}, [])
    assert {failed.on_failure(host) for host in "abc"} == {"unlock"}
    now = now.after(fine)
    # The batch of the first host is next: should its result get lost, it may have switched.
    assert (now.phase, now.reverted) == (2, ["a"])
    failed = now.after(fine).after({**fine, "b": {"unreachable": True, "msg": "gone"}})
    assert (failed.failures, failed.reverted) == ({"b": "host is unreachable: gone"}, ["a", "b"])
    assert [failed.on_failure(host) for host in "abc"] == ["revert", "revert", "unlock"]
    # Only the first failures count, and nothing goes on.
    assert failed.after({**fine, "c": {"failed": True, "msg": "no"}}) == failed


def test_what_keeps_all_hosts_from_a_change_is_told_to_each_of_them() -> None:
    settings = {**SETTINGS, "a": {**SETTINGS["a"], "refusal": "c cannot be reached."}}
    now = progress.Progress.begin("release", "shop", {host: plan(7, True, 8) for host in "ab"}, settings, False)
    assert (now.plan.phases, now.plan.refusal) == ([], "c cannot be reached.")
    assert now.reported({}).reports == dict.fromkeys("ab", "c cannot be reached.")
    now = begun("rollback", a=inspected(None), b=inspected(None))
    assert now.plan.refusal.endswith("nothing to roll back.\nNothing was changed on any host of shop.")


def test_the_first_host_reports_for_all() -> None:
    now = begun(a=plan(7, True, 8), b={"failed": True, "msg": "no"})
    assert (now.failures, now.plan.phases) == ({"b": "no"}, [])
    reports = now.reported({host: {"release": 7} for host in "ab"}).reports
    assert reports["a"].startswith("The release of shop failed on b: no.\nNow serving: a 7, b 7.")
    assert reports["b"] == "See the message of a, which reports for all hosts of shop."


def test_a_host_that_fails_has_nothing_agreed_on() -> None:
    failed = {"a": plan(7, True, 8), "b": {"failed": True, "msg": "This app is locked by another run: bob.\nMore."}}
    assert fleet.release_plan(failed, "1", 0).hosts == []
    assert fleet.rollback_plan(failed, "shop", "", False, "1").hosts == []
    assert progress.failures(failed) == {"b": "This app is locked by another run: bob"}
    unreachable = {"unreachable": True, "msg": "Task failed: Failed to connect: refused"}
    assert progress.failures({"a": unreachable}) == {"a": "host is unreachable: Failed to connect: refused"}
    cut = {"failed": True, "rc": 137, "msg": "Module result deserialization failed: No start of json char found"}
    assert progress.failures({"a": cut})["a"].startswith("the step broke off (exit code 137)")
    assert progress.failures({"a": {"failed": True, "msg": cut["msg"]}})["a"].startswith("the step broke off (exit code ?)")
    assert progress.failures({"a": {"failed": True}}) == {"a": "it gave no message"}
    assert progress.failures({"a": {"failed": True, "msg": " \n"}}) == {"a": "it gave no message"}
    assert progress.failures({"a": {"failed": True, "msg": "No space at X.: "}}) == {"a": "No space at X"}


def test_the_report_says_what_failed_what_serves_and_what_to_do() -> None:
    agreed = fleet.release_plan({host: plan(7, True, 8) for host in "abc"}, "1", 0)
    seven: dict[str, Any] = {"release": 7}
    said = progress.report(dict.fromkeys("abc", seven), agreed, {"b": "it is ill"}, "shop")
    assert "Release 8 of shop failed on b: it is ill." in said
    assert "Now serving: a 7, b 7, c 7." in said
    assert "nothing is left half done" in said
    assert "playbooks/doctor.yml -l b." in said
    gone = {"a": seven, "b": {"unreachable": True}, "c": seven}
    said = progress.report(gone, agreed, {"b": "host is unreachable: x"}, "shop")
    assert "b is unreachable; it last served 7 and may come back on 8." in said
    said = progress.report({"a": {"release": 8}, "b": seven, "c": seven}, agreed, {"b": "x"}, "shop")
    assert "Could not revert a." in said
    assert "half done" not in said
    # The first release of all: one that serves is better than none.
    agreed = fleet.release_plan({host: plan(None, True, 1) for host in "ab"}, "1", 0)
    assert agreed.revert is False
    said = progress.report({"a": {"release": 1}, "b": {"release": None}}, agreed, {"b": "x"}, "shop")
    assert "Now serving: a 1, b nothing." in said
    assert "a can serve it, and no host has an earlier release" in said


GONE: dict[str, Any] = {"unreachable": True}
DOCTOR = "To find the cause: playbooks/doctor.yml -l {}. Fix it and run deploy again, so that all hosts match."


@pytest.mark.parametrize(
    ("before", "now", "failing", "lines"),
    [
        pytest.param(
            {"a": 7, "b": 7},
            {"a": 8, "b": 8},
            "ab",
            ["Now serving: a 8, b 8.", "Could not revert a, b. To roll them back: playbooks/rollback.yml"],
            id="two are left with it",
        ),
        pytest.param({"a": 8, "b": 7}, {"a": 8, "b": 7}, "b", ["Now serving: a 8, b 7."], id="one served it before"),
        pytest.param({"a": 7, "b": 6}, {"a": 7, "b": 6}, "b", ["Now serving: a 7, b 6."], id="they differed before"),
        pytest.param(
            {"a": 7, "b": None},
            {"a": 7, "b": GONE},
            "b",
            ["Now serving: a 7.", "b is unreachable; it last served nothing and may come back on 8."],
            id="one that served nothing is gone",
        ),
        pytest.param(
            {"a": 7, "b": 7},
            {"a": 7, "b": GONE},
            "b",
            ["Now serving: a 7.", "b is unreachable; it last served 7 and may come back on 8."],
            id="one is gone, and nobody knows what it serves",
        ),
        pytest.param(
            {"a": 7},
            {"a": GONE},
            "a",
            ["No host is reachable to report what it serves.", "a is unreachable; it last served 7 and may come back on 8."],
            id="all are gone",
        ),
        pytest.param(
            {"a": 7, "b": 7},
            {"a": 7, "b": 7},
            "ab",
            ["Now serving: a 7, b 7.", "Every host serves what it served before; nothing is left half done."],
            id="as before",
        ),
    ],
)
def test_the_report_tells_no_more_than_hosts_said(
    before: dict[str, Any], now: dict[str, Any], failing: str, lines: list[str]
) -> None:
    agreed = Plan(before, command="deploy", release=8, revert=True)
    results = {host: said if said is GONE else {"release": said} for host, said in now.items()}
    said = progress.report(results, agreed, dict.fromkeys(failing, "x"), "shop").splitlines()
    assert said == [*(f"Release 8 of shop failed on {host}: x." for host in failing), *lines, DOCTOR.format(",".join(failing))]


def test_hosts_that_keep_their_first_release_are_told_of_and_a_plan_that_failed_names_no_release() -> None:
    first = Plan({"a": None, "b": None, "c": None}, command="deploy", release=1)
    results: dict[str, dict[str, Any]] = {"a": {"release": 1}, "b": {"release": 1}, "c": {"release": None}}
    kept = "a, b can serve it, and no host has an earlier release, so nothing was reverted."
    assert kept in progress.report(results, first, {"c": "x"}, "shop").splitlines()
    none = Plan({"a": 7}, command="deploy")
    assert progress.report({"a": {"release": 7}}, none, {"a": "x"}, "shop").startswith("The release of shop failed on a: x.\n")


def placed(live: int | None, needs: bool = False, first: bool = False, once: bool | None = None, free: int = 9) -> dict[str, Any]:
    """Return what a host says in the step `plan` of where it is in the inventory, and of what only one host may run."""
    return {**plan(live, needs, free), "first": first, "runs_once": once}


@pytest.mark.parametrize(
    ("answers", "until", "moves", "starters"),
    [
        pytest.param([placed(7, True, True, True), placed(7, True)], "a", "", "", id="it stays"),
        pytest.param([placed(None, True, True), placed(None, True)], "a", "", "a", id="the first release of all"),
        pytest.param([placed(7, True, True, None), placed(7, True, False, None)], "a", "", "a", id="the first release with it"),
        pytest.param([placed(None, True, True), placed(7, once=True)], "b", "b>a", "a", id="a host is added before it"),
        pytest.param([placed(7, False, True, False), placed(7, once=True)], "b", "b>a", "a", id="the order has changed"),
        pytest.param([placed(7, True, True, False), placed(7, True, once=True)], "b", "b>a", "a", id="the order, and a release"),
        pytest.param([placed(7, False, True, False), placed(7, once=False)], "", ">a", "a", id="the former one has gone"),
        pytest.param([placed(7, True, True, False), placed(7, True, once=False)], "a", "", "a", id="it has gone, and a release"),
        pytest.param([placed(7, False, True, True), placed(7, once=True)], "ab", "b>", "", id="it runs twice"),
        pytest.param(
            [placed(7, True, once=True), placed(7, True, once=False)], "a", "", "", id="the first one is not in the run"
        ),
        pytest.param([placed(7, False, True), placed(7)], "", "", "", id="there is nothing of the kind"),
    ],
)
def test_what_only_one_host_may_run_moves_when_all_serve_the_release(
    answers: list[dict[str, Any]], until: str, moves: str, starters: str
) -> None:
    results = dict(zip("ab", answers, strict=True))
    agreed = with_moves(fleet.release_plan(results, "1", 0), results)
    assert [host for host, first in agreed.first.items() if first] == [*until]
    assert ">".join("".join(hosts) for hosts in (agreed.givers, agreed.takers)) == (moves or ">")
    assert agreed.starters == [*starters]
    steps = [phase.steps for phase in phased(agreed)]
    expected = [dict.fromkeys(agreed.givers, "hand_over"), dict.fromkeys(agreed.takers, "take_over")]
    expected = [each for each in expected if each]
    assert steps[len(steps) - len(expected) :] == expected
    assert (len(steps) > len(expected)) is bool(agreed.hosts)
    # To see what would change, those steps are taken alone.
    checked = [phase.steps for phase in phased(agreed, check=True)]
    assert [sorted(each) for each in checked] == [sorted({*agreed.hosts, *agreed.givers, *agreed.takers})][: len(checked)]
    assert bool(checked) is bool(steps)


def test_nothing_moves_in_a_rollback_to_a_first_host_that_serves_nothing() -> None:
    asked = {
        "a": {**inspected(None), "first": True, "runs_once": None},
        "b": {**inspected(8, 7, 8), "first": False, "runs_once": True},
    }
    now = begun("rollback", **asked)
    assert (now.plan.givers, now.plan.takers, now.plan.first) == ([], [], {"a": False, "b": True})


def moving(phases: int) -> progress.Progress:
    """Return the progress of a host that is added before another one, after so many phases."""
    now = begun(a=placed(None, True, True, free=1), b=placed(7, once=True))
    assert [phase.name for phase in now.plan.phases[-3:]] == ["activate a", "hand over", "take over"]
    assert [now.arguments(host)["first_host"] for host in "ab"] == ["no", "yes"]
    for _ in range(len(now.plan.phases) - 3 + phases):
        now = now.after({host: {"release": 7} for host in "ab"})
    return now


SEVEN: dict[str, Any] = {"release": 7}
ILL: dict[str, Any] = {"failed": True, "msg": "its process beat ended"}
LOST: dict[str, Any] = {"unreachable": True, "msg": "gone"}
CUT: dict[str, Any] = {"failed": True, "rc": 137, "msg": "Module result deserialization failed: No start of json char found"}
LATE: dict[str, Any] = {"failed": True, "msg": "Timed out after 130 second(s)."}


@pytest.mark.parametrize(
    ("phases", "now", "then", "steps", "says"),
    [
        (0, {"a": ILL, "b": SEVEN}, SEVEN, ["unlock", "unlock"], "Release 7 of shop failed on a: its process beat ended."),
        (1, {"a": SEVEN, "b": ILL}, SEVEN, ["unlock", "take_over"], "It runs on b, as before."),
        (2, {"a": ILL, "b": SEVEN}, SEVEN, ["unlock", "take_over"], "It runs on b, as before."),
        (
            2,
            {"a": ILL, "b": SEVEN},
            ILL,
            ["unlock", "take_over"],
            "b cannot be asked whether it runs there.\nIt runs on no host.",
        ),
        (2, {"a": LOST, "b": SEVEN}, SEVEN, ["unlock", "unlock"], "It was not started on b again: it may run on a."),
        (2, {"a": CUT, "b": SEVEN}, SEVEN, ["unlock", "unlock"], "It was not started on b again: it may run on a."),
        (2, {"a": LATE, "b": SEVEN}, SEVEN, ["unlock", "unlock"], "It was not started on b again: it may run on a."),
        (1, {"a": LOST, "b": SEVEN}, SEVEN, ["unlock", "take_over"], "It runs on b, as before."),
    ],
)
def test_where_it_cannot_move_it_runs_where_it_did(
    phases: int, now: dict[str, dict[str, Any]], then: dict[str, Any], steps: list[str], says: str
) -> None:
    failed = moving(phases).after(now)
    assert [failed.on_failure(host) for host in "ab"] == steps
    said = failed.reported({"a": SEVEN, "b": then}).reports["a"]
    assert says in said
    assert ("is live on all of its hosts, and stays" in said) is (phases > 0)
    assert said.splitlines()[-1].startswith("To find the cause: playbooks/doctor.yml -l ")


def test_a_move_is_told_of() -> None:
    done = moving(2).after({"a": {**SEVEN, "runs_once": True}, "b": SEVEN})
    assert done.messages == ["What only one host of shop may run (hosts: first) runs on a now."]
    # The release that they serve now may have nothing of the kind any more.
    assert moving(2).after({"a": {**SEVEN, "runs_once": None}, "b": SEVEN}).messages == []


def test_a_dry_run_moves_nothing() -> None:
    asked = {"a": placed(7, False, True, False), "b": placed(7, once=True)}
    now = progress.Progress.begin("release", "shop", asked, SETTINGS, True)
    (phase,) = now.plan.phases
    assert phase.steps == {"a": "take_over", "b": "hand_over"}
    assert now.after({"a": {**SEVEN, "runs_once": True}, "b": SEVEN}).messages == []
    failed = now.after({"a": ILL, "b": SEVEN})
    assert [failed.on_failure(host) for host in "ab"] == ["unlock", "unlock"]
    assert "is live on all of its hosts" not in failed.reported({"a": SEVEN, "b": SEVEN}).reports["a"]


def measured(total: int, errors: int = 0, times: dict[str, int] | None = None, restarts: int = 0) -> dict[str, Any]:
    """Return what a host measured."""
    return {"release": 8, "total": total, "errors": errors, "seconds": times or {"0.02": total}, "restarts": restarts}


@pytest.mark.parametrize(
    ("new", "old", "says"),
    [
        pytest.param(measured(0, times={}), measured(0, times={}), "promoted, though 0 requests", id="no traffic"),
        pytest.param(measured(0, times={}), measured(900), "promoted, though 0 requests, and 900", id="traffic at the others"),
        pytest.param(measured(900), measured(0, times={}), "promoted, though 900 requests, and 0", id="traffic at the canary"),
        pytest.param(measured(900, 90), measured(0, times={}), "reverted: 10.0% of its responses", id="ill, beside none"),
        pytest.param(measured(12, 12), measured(900), "reverted: 100.0%", id="few requests, all of them ill"),
        pytest.param(measured(900), measured(900), "promoted: 5xx 0.0% (others 0.0%), p95 20 ms (others 20 ms)", id="alike"),
        pytest.param(measured(900, 2), measured(900), "promoted: 5xx", id="two errors are chance"),
        pytest.param(measured(900, 12), measured(900, 9), "promoted: 5xx", id="about as many errors as the others"),
        pytest.param(measured(900, 90), measured(900, 90), "promoted: 5xx 10.0%", id="ill, and so are the others"),
        pytest.param(measured(100, 3), measured(60), "promoted: 5xx", id="three errors of few are noise"),
        pytest.param(
            measured(900, 27), measured(900), "reverted: 3.0% of its responses are 5xx, against 0.0%", id="3 in 100 are ill"
        ),
        pytest.param(
            measured(900, times={"0.9": 900}),
            measured(900, times={"0.9": 900}),
            "promoted: 5xx",
            id="slow, as the others",
        ),
        pytest.param(
            measured(900, times={"0.02": 700, "0.5": 200}),
            measured(900),
            "reverted: its p95 is 500 ms, against 20 ms",
            id="slower",
        ),
        pytest.param(measured(900, times={"0.06": 900}), measured(900), "promoted: 5xx", id="thrice as slow, and nobody notices"),
        pytest.param(
            measured(60, times={"0.02": 56, "0.5": 4}),
            measured(60, times={"0.02": 58, "0.5": 2}),
            "promoted",
            id="noise of few requests",
        ),
        pytest.param(measured(30, times={"0.9": 30}), measured(900), "promoted, though 30", id="slow, but of few requests"),
        pytest.param(measured(900, restarts=1), measured(900), "promoted: 5xx", id="one process ended"),
        pytest.param(measured(900, restarts=4), measured(900), "reverted: 4 of its processes ended", id="processes end"),
        pytest.param(measured(900, restarts=4), measured(900, restarts=3), "promoted: 5xx", id="they end at the others, too"),
    ],
)
def test_a_canary_is_judged(new: dict[str, Any], old: dict[str, Any], says: str) -> None:
    half = {**old, "total": old["total"]}
    verdict = canary.verdict({"a": new, "b": half}, ["a"], 1, 50)
    assert verdict["message"].startswith(says)
    assert verdict["promoted"] is says.startswith("promoted")
    assert [row["role"] for row in verdict["rows"]] == ["canary", "other"]
    assert verdict["rows"][0]["requests"] == new["total"]


@pytest.mark.parametrize(
    ("new", "old", "percents", "promoted"),
    [
        pytest.param(measured(100, 3), measured(900), (1, 50), False, id="three errors"),
        pytest.param(measured(100, 2), measured(9000), (1, 50), True, id="two errors"),
        pytest.param(measured(1000, 250), measured(1000), (25, 50), True, id="as many errors as may be"),
        pytest.param(measured(1000, 251), measured(1000), (25, 50), False, id="one error more"),
        pytest.param(
            measured(900, times={"1.0": 900}), measured(900, times={"0.5": 900}), (1, 100), True, id="as slow as it may"
        ),
        pytest.param(measured(900, times={"1.001": 900}), measured(900, times={"0.5": 900}), (1, 100), False, id="a bit slower"),
        pytest.param(measured(50, times={"9": 50}), measured(900), (1, 50), False, id="slow, of just enough requests"),
        pytest.param(measured(49, times={"9": 49}), measured(900), (1, 50), True, id="slow, of one request too few"),
        pytest.param(measured(900), measured(50, times={"0.001": 50}), (1, 50), True, id="nobody notices what is below 50 ms"),
        pytest.param(measured(900, times={"0.06": 900}), measured(50, times={"0.001": 50}), (1, 50), False, id="this is above"),
        pytest.param(measured(900, restarts=2), measured(900), (1, 50), False, id="two processes end"),
        pytest.param(measured(900, restarts=6), measured(900, restarts=3), (1, 50), True, id="twice as many as at the others"),
        pytest.param(measured(900, restarts=7), measured(900, restarts=3), (1, 50), False, id="more than twice as many"),
    ],
)
def test_a_canary_is_judged_at_its_bounds(
    new: dict[str, Any], old: dict[str, Any], percents: tuple[float, float], promoted: bool
) -> None:
    assert canary.verdict({"a": new, "b": old}, ["a"], *percents)["promoted"] is promoted


def test_how_a_canary_is_judged_is_the_operators() -> None:
    ill = {"a": measured(900, 27), "b": measured(900)}
    slow = {"a": measured(900, times={"0.3": 900}), "b": measured(900, times={"0.2": 900})}
    assert [canary.verdict(ill, ["a"], percent, 50)["promoted"] for percent in ("1", 5)] == [False, True]
    assert [canary.verdict(slow, ["a"], 1, percent)["promoted"] for percent in ("20", 80)] == [False, True]


def test_chance_is_that_of_fishers_exact_test() -> None:
    # Of eight cups of tea, four with milk first: who names three of them right may have guessed.
    assert canary.chance(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert canary.chance(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert canary.chance(0, 4, 0, 4) == pytest.approx(1)
