"""Release and roll back an app over several hosts: agree on a release, split hosts into batches, and report the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Mapping[str, Any]]

# The plan of hosts that need nothing.
NOTHING: dict[str, Any] = {
    "release": 0,
    "to": "",
    "hosts": [],
    "reasons": {},
    "batches": [],
    "revert": False,
    "canaries": [],
    "compared": [],
    "no_canary": "",
    "refusal": "",
}


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
        usable_numbers = [plan["prepared"], *([plan["again"]] if again else [])]
        return (
            (plan["reason"] is None and plan["release"] == candidate) or candidate >= plan["next"] or candidate in usable_numbers
        )

    new = max(int(plan["next"]) for plan in plans.values())
    for candidate, again in ((next(iter(serving)), True) if len(serving) == 1 else (0, False), (max(ready, default=0), False)):
        if candidate and all(fits(candidate, plan, again) for plan in plans.values()):
            return int(candidate)
    return new


def release_plan(plans: Results, batch: str, canaries: int) -> dict[str, Any]:
    """Return what the hosts do for a release.

    Args:
        plans: what the step `plan` found on each.
        batch: how many switch together, as a number or a percentage.
        canaries: how many are to take traffic alone first.

    Returns:
        `release`, its number; `hosts` that switch, their `reasons` and `batches`, what each had `before`; in `canaries` and
        `compared` the hosts to measure, and in `no_canary` why none is measured. `revert` says whether a failure on one host
        reverts the others: if no host has an earlier release, one that serves is better than none.
    """
    before = {host: plan.get("release") for host, plan in plans.items()}
    plan: dict[str, Any] = {**NOTHING, "before": before}
    if any(failed(result) for result in plans.values()) or all(result["reason"] is None for result in plans.values()):
        return plan
    release = number(plans)
    hosts = [host for host in plans if before[host] != release or plans[host]["reason"] is not None]
    # More than ten tell no more, and a run asks only so many at a time (forks).
    others = [host for host in hosts[canaries:] if before[host] is not None][:10]
    if canaries and others:
        plan.update(canaries=hosts[:canaries], compared=others)
    elif canaries:
        plan["no_canary"] = "No canary: there is no other host with an earlier release to compare it with."
    reasons = {host: plans[host]["reason"] or "another host of the app needed it" for host in hosts}
    order = batches(hosts, len(plans), batch, len(plan["canaries"]))
    revert = any(before[host] not in (None, release) for host in plans)
    return {**plan, "release": release, "hosts": hosts, "reasons": reasons, "batches": order, "revert": revert}


def rollback_plan(inspections: Results, name: str, to: str, renew: bool, batch: str) -> dict[str, Any]:
    """Return what the hosts do for a rollback: a plan as `release_plan` returns it.

    Args:
        inspections: what the step `inspection` found on each.
        name: the app's.
        to: the release to go back to; empty for the newest good one that all hosts have and that is older than what is live.
        renew: whether it runs with today's settings, which makes a new release of it.
        batch: how many switch together, as a number or a percentage.

    Returns:
        Also `refusal`, which says why there is nothing to go back to, and `to`, what is gone back to.
    """
    before = {host: inspection.get("release") for host, inspection in inspections.items()}
    plan: dict[str, Any] = {**NOTHING, "before": before}
    # What serves nothing has nothing to go back from, and keeps no other from it.
    serving = {host: inspection for host, inspection in inspections.items() if not failed(inspection) and inspection["release"]}
    if any(failed(inspection) for inspection in inspections.values()):
        return plan
    if not serving:
        return {**plan, "refusal": f"Nothing of {name} is live, so there is nothing to go back from."}
    if not to:
        newest = max(inspection["newest"] for inspection in serving.values())
        common = set.intersection(*(set(inspection["choices"]) for inspection in serving.values()))
        earlier = [release for release in common if release < newest]
        if not earlier:
            kept = "; ".join(
                f"{host}: {', '.join(map(str, inspection['choices'])) or 'none'}" for host, inspection in serving.items()
            )
            message = f"There is no good release of {name} before release {newest} that all its hosts have. Good ones: {kept}."
            return {**plan, "refusal": message}
        to = str(max(earlier))
    rejections = [
        f"{host}: {inspection['rejections'][to]}" for host, inspection in serving.items() if inspection["rejections"].get(to)
    ]
    if rejections:
        return {**plan, "refusal": "\n".join(rejections)}
    release = max(inspection["next"] for inspection in serving.values()) if renew else int(to)
    hosts = [host for host in serving if before[host] != int(to)]
    reasons = {host: f"rolled back from release {before[host]}" for host in hosts}
    order = batches(hosts, len(inspections), batch)
    return {**plan, "release": release, "to": to, "hosts": hosts, "reasons": reasons, "batches": order, "revert": True}


def failed(result: Mapping[str, Any]) -> bool:
    """Say whether a step failed on a host, or could not reach it."""
    return bool(result.get("failed") or result.get("unreachable"))


def failures(results: Results) -> dict[str, str]:
    """Return what went wrong, by host, in the first line of what the host said."""
    found = {}
    for host, result in results.items():
        if failed(result):
            lines = str(result.get("msg") or "it said nothing").strip().splitlines()
            message = next(iter(lines), "it said nothing").removeprefix("Task failed: ").rstrip(".: ")
            if "deserialization" in message:  # what Ansible says of a module that was cut off
                message = f"it broke off (exit code {result.get('rc', '?')}): its connection, or the host itself, has gone"
            found[host] = f"cannot be reached: {message}" if result.get("unreachable") else message
    return found


def report(results: Results, plan: Mapping[str, Any], failed_hosts: Mapping[str, str], name: str, command: str) -> str:
    """Return what became of a release that some host could not have.

    Args:
        results: what each host said last.
        plan: what `release_plan` or `rollback_plan` returned.
        failed_hosts: what went wrong first, by host.
        name: the app's.
        command: what to run next, once that is mended.
    """
    what = f"Release {plan['release']} of {name}" if plan["release"] else f"The release of {name}"
    lines = [f"{what} failed on {host}: {message}." for host, message in failed_hosts.items()]
    lost = [host for host, result in results.items() if failed(result)]
    now = {host: result.get("release") for host, result in results.items() if host not in lost}
    message = [f"{host} {release or 'nothing'}" for host, release in now.items()]
    lines.append(f"What serves now: {', '.join(message)}." if message else "No host can be asked what serves now.")
    for host in lost:
        before = plan["before"].get(host) or "nothing"
        lines.append(f"{host} cannot be asked: it served {before} before, and may serve {plan['release']} when it is back.")
    left = [host for host, release in now.items() if release == plan["release"] and plan["before"].get(host) != release]
    mixed = len(set(now.values()) | {plan["before"].get(host) for host in lost}) > 1
    if left and plan["revert"]:
        lines.append(f"{', '.join(left)} could not be taken back. To have them back, too: playbooks/rollback.yml")
    elif left:
        lines.append(f"{', '.join(left)} can serve it, and no host has an earlier one, so nothing was taken back.")
    elif not mixed and not lost:
        lines.append("That is what served before on every host; nothing is left half done.")
    hosts = ",".join(failed_hosts)
    lines.append(f"To see why: playbooks/doctor.yml -l {hosts}. Mend it, and run {command} again: that makes all hosts one.")
    return "\n".join(lines)
