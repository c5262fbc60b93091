"""Plan a release or a rollback of an app over several hosts: one release for all, and the phases that lead to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Results = Mapping[str, Mapping[str, Any]]

# A lock lasts to the end of the run, but at most for so many seconds, or twice the longest phase. Then it is renewed.
LEASE = 3600
# The phases in which what only one host may run moves.
HAND_OVER, TAKE_OVER = "hand over", "take over"
# What a phase takes besides its steps, in seconds.
MARGIN = 30


@dataclass(frozen=True)
class Settings:
    """What the inventory says of a release over hosts.

    Attributes:
        batch: how many hosts activate together, as a number or a percentage of the fleet.
        canaries: how many are to serve the release alone first.
        canary_seconds: how long they are measured.
        error_points: percentage points by which their share of 5xx may exceed that of the others.
        latency_percent: percent by which their p95 may exceed that of the others.
        step_seconds: after which a step has failed.
        migration_seconds: after which the migration has failed; 0 if there is none.
        to: the release to roll back to; empty for the newest good one before the live one.
        renew: whether a rollback is a new release, with today's settings.
        refusal: why no host may change; empty if nothing keeps them from it.
    """

    batch: str
    canaries: int = 0
    canary_seconds: int = 0
    error_points: float = 0
    latency_percent: float = 0
    step_seconds: int = 0
    migration_seconds: int = 0
    to: str = ""
    renew: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class Phase:
    """Steps that hosts take at the same time.

    Attributes:
        name: for the operator.
        steps: the step of each host; a host without one waits.
        seconds: after which a step has failed.
        lease: how long the app stays locked for the next step of the run, in seconds.
        configure: whether each step brings the app's configuration.
    """

    name: str
    steps: dict[str, str]
    seconds: int = 0
    lease: int = 0
    configure: bool = False


@dataclass(frozen=True)
class Plan:
    """What the hosts of an app do for a release or a rollback.

    Attributes:
        before: the release that each host serves before, in the order of the inventory; None for none.
        command: the playbook that finishes what this run leaves.
        prepare_step: the step that writes the configuration of a host, and locks it.
        change_step: the step that makes the release live.
        release: its number on all hosts; 0 if none is agreed on.
        to: the release that is rolled back to.
        hosts: those that switch.
        reasons: why each of them switches.
        batches: which of them switch together, one batch after the other.
        revert: whether a failure reverts hosts: if no host has an earlier release, one that serves is better than none.
        first: whether each host runs what only one host may, until that moves.
        givers: hosts from which that moves, once all hosts serve the release: they are not the first one any more.
        takers: the host that it moves to.
        starters: where it starts, without having run there before.
        canaries: the hosts that are measured while they alone serve the release.
        compared: the hosts that they are compared with.
        no_canary: why none is measured, if there were to be canaries.
        refusal: why no host may change; empty if nothing keeps them from it.
        phases: what is done, one phase after the other.
    """

    before: dict[str, int | None]
    command: str = "playbooks/deploy.yml"
    prepare_step: str = "prepare"
    change_step: str = "activate"
    release: int = 0
    to: str = ""
    hosts: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)
    revert: bool = False
    first: dict[str, bool] = field(default_factory=dict)
    givers: list[str] = field(default_factory=list)
    takers: list[str] = field(default_factory=list)
    starters: list[str] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    no_canary: str = ""
    refusal: str = ""
    phases: list[Phase] = field(default_factory=list)

    @property
    def leader(self) -> str:
        """The first host. Of two runs, the one that has locked it has locked all."""
        return next(iter(self.before))


def failed(result: Mapping[str, Any]) -> bool:
    """Say whether a step failed on a host, or could not reach it."""
    return bool(result.get("failed") or result.get("unreachable"))


def batches(hosts: Sequence[str], fleet: int, batch: str, canaries: int = 0) -> list[list[str]]:
    """Return which hosts switch together, one group after the other.

    Args:
        hosts: those that switch.
        fleet: how many hosts the app has.
        batch: how many switch together; or a percentage of the fleet, rounded down as Ansible's `serial` does, but 1 at least.
        canaries: how many switch before all others.
    """
    text = str(batch)
    size = max(1, fleet * int(text[:-1]) // 100 if text.endswith("%") else int(text))
    first, rest = list(hosts[:canaries]), list(hosts[canaries:])
    return [group for group in [first, *(rest[at : at + size] for at in range(0, len(rest), size))] if group]


def number(plans: Results) -> int:
    """Return the number that the release has on all hosts.

    It is one that some host serves already, or that lies there ready, where all others can have it, too; else a new one.
    """
    serving = {plan["release"] for plan in plans.values() if plan["reason"] is None}
    ready = [plan["prepared"] for plan in plans.values() if plan["prepared"]]

    def fits(candidate: int, plan: Mapping[str, Any], again: bool) -> bool:
        fitting = [plan["prepared"], *([plan["again"]] if again else [])]
        return (plan["reason"] is None and plan["release"] == candidate) or candidate >= plan["next"] or candidate in fitting

    new = max(int(plan["next"]) for plan in plans.values())
    for candidate, again in ((next(iter(serving)), True) if len(serving) == 1 else (0, False), (max(ready, default=0), False)):
        if candidate and all(fits(candidate, plan, again) for plan in plans.values()):
            return int(candidate)
    return new


def release_plan(plans: Results, batch: str, canaries: int) -> Plan:
    """Return what the hosts do for a release, without its phases.

    Args:
        plans: what the step `plan` found on each.
        batch: how many switch together, as a number or a percentage.
        canaries: how many are to serve the release alone first.
    """
    before = {host: plan.get("release") for host, plan in plans.items()}
    if any(failed(result) for result in plans.values()) or all(result["reason"] is None for result in plans.values()):
        return Plan(before)
    release = number(plans)
    hosts = [host for host in plans if before[host] != release or plans[host]["reason"] is not None]
    # More than ten add no evidence, and a run measures only so many at a time (forks).
    compared = [host for host in hosts[canaries:] if before[host] is not None][:10] if canaries else []
    measured = hosts[:canaries] if compared else []
    return Plan(
        before,
        release=release,
        hosts=hosts,
        reasons={host: plans[host]["reason"] or "another host of the app needs it" for host in hosts},
        batches=batches(hosts, len(plans), batch, len(measured)),
        revert=any(before[host] not in (None, release) for host in plans),
        canaries=measured,
        compared=compared,
        no_canary="No canary: no other host has an earlier release to compare it with." if canaries and not compared else "",
    )


def rollback_plan(inspections: Results, name: str, to: str, renew: bool, batch: str) -> Plan:
    """Return what the hosts do for a rollback, without its phases.

    Args:
        inspections: what the step `inspect` found on each.
        name: the app's.
        to: the release to roll back to; empty for the newest good one that all hosts have and that is older than what is live.
        renew: whether it runs with today's settings, which makes a new release of it.
        batch: how many switch together, as a number or a percentage.
    """
    before = {host: inspection.get("release") for host, inspection in inspections.items()}
    plan = Plan(before, command="playbooks/rollback.yml", prepare_step="lock", change_step="rollback")
    # What serves nothing has nothing to go back from, and keeps no other from it.
    serving = {host: inspection for host, inspection in inspections.items() if not failed(inspection) and inspection["release"]}
    if any(failed(inspection) for inspection in inspections.values()):
        return plan
    if not serving:
        return replace(plan, refusal=f"No release of {name} is live, so there is nothing to roll back.")
    if not to:
        newest = max(inspection["newest"] for inspection in serving.values())
        common = set.intersection(*(set(inspection["choices"]) for inspection in serving.values()))
        earlier = [release for release in common if release < newest]
        if not earlier:
            kept = "; ".join(
                f"{host}: {', '.join(map(str, inspection['choices'])) or 'none'}" for host, inspection in serving.items()
            )
            message = f"No good release of {name} before release {newest} is kept on all its hosts. Good releases: {kept}."
            return replace(plan, refusal=message)
        to = str(max(earlier))
    rejections = [
        f"{host}: {inspection['rejections'][to]}" for host, inspection in serving.items() if inspection["rejections"].get(to)
    ]
    if rejections:
        return replace(plan, refusal="\n".join(rejections))
    hosts = [host for host in serving if before[host] != int(to)]
    return replace(
        plan,
        release=max(inspection["next"] for inspection in serving.values()) if renew else int(to),
        to=to,
        hosts=hosts,
        reasons={host: f"rolled back from release {before[host]}" for host in hosts},
        batches=batches(hosts, len(inspections), batch),
        revert=True,
    )


def phases(plan: Plan, settings: Settings, check: bool = False) -> list[Phase]:
    """Return the phases of a plan.

    The first host is locked before all others, so that of two runs one wins on all of them. A lock lasts to the end of the run;
    a host that waits for longer than a lease renews its lock in between.

    Args:
        plan: the plan, without them.
        settings: for its times.
        check: whether nothing may change.
    """
    seconds = settings.step_seconds
    moves = [
        Phase(HAND_OVER, dict.fromkeys(plan.givers, "hand_over"), seconds),
        Phase(TAKE_OVER, dict.fromkeys(plan.takers, "take_over"), seconds),
    ]
    if check:
        steps = {host: step for phase in moves for host, step in phase.steps.items()}
        steps |= dict.fromkeys(plan.hosts, plan.change_step)
        return [Phase("check", steps, seconds)] if steps else []
    if not plan.hosts:
        return leased([phase for phase in moves if phase.steps])
    first = {host: plan.prepare_step if host in plan.hosts else "lock" for host in plan.before}
    leader = plan.leader
    found = [
        Phase(f"prepare {leader}", {leader: first.pop(leader)}, seconds, configure=True),
        Phase("prepare the others", first, seconds, configure=True),
    ]
    if plan.change_step == "activate" and settings.migration_seconds:
        found.append(Phase("migrate", {plan.hosts[0]: "migrate"}, seconds + settings.migration_seconds))
    for index, batch in enumerate(plan.batches):
        found.append(Phase(f"{plan.change_step} {', '.join(batch)}", dict.fromkeys(batch, plan.change_step), seconds))
        if plan.canaries and index == 0:
            measured = dict.fromkeys([*plan.canaries, *plan.compared], "measure")
            found.append(Phase("measure", measured, settings.canary_seconds + 90))
    return leased([phase for phase in [*found, *moves] if phase.steps])


def leased(planned: Sequence[Phase]) -> list[Phase]:
    """Return phases with how long each locks its hosts, and with steps that renew a lock that would end before the next step."""
    length = [phase.seconds + MARGIN for phase in planned]
    most = max(LEASE, 2 * max(length, default=0))
    since: dict[str, int] = {}
    found = []
    for index, phase in enumerate(planned):
        # It lasts through the next phase, too: there the host may only measure, which renews nothing.
        ending = [host for host, begin in since.items() if sum(length[begin : index + 2]) > most]
        steps = {**dict.fromkeys(ending, "lock"), **phase.steps}
        since |= {host: index for host, step in steps.items() if step != "measure"}
        found.append(replace(phase, steps=steps, lease=min(sum(length[index:]) + MARGIN, most + MARGIN)))
    return found
