"""Follow a release or a rollback over hosts from phase to phase, and report what failed and what serves then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slipway.controller.canary import verdict
from slipway.controller.fleet import (
    HAND_OVER,
    TAKE_OVER,
    Phase,
    Plan,
    Results,
    Settings,
    failed,
    phases,
    release_plan,
    rollback_plan,
)
from slipway.controller.moves import with_moves
from slipway.host.tables import text_table

# What the failure of a host begins with that could not be reached, that was cut off, or that takes longer than it may.
UNREACHABLE, BROKEN_OFF, LATE = "host is unreachable", "the step broke off", "Timed out after"
UNANSWERED = (UNREACHABLE, BROKEN_OFF, LATE)

FIGURES = {
    **{"host": "HOST", "role": "ROLE", "release": "RELEASE", "requests": "REQUESTS", "errors": "5XX", "p95": "P95"},
    "restarts": "PROCESSES ENDED",
}


@dataclass(frozen=True)
class Progress:
    """How far the hosts of an app are.

    Attributes:
        name: the app's.
        plan: what they do.
        settings: those of the first host.
        phase: the index of the next phase, or of the one that failed.
        failures: the first failures, by host.
        judgement: the verdict on the canaries; empty before they are measured.
        messages: lines for the operator about the phase that has ended.
        reports: what failed, and what serves now, for each host; empty if nothing failed.
    """

    name: str
    plan: Plan
    settings: Settings
    phase: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    judgement: str = ""
    messages: list[str] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, command: str, name: str, results: Results, settings: Mapping[str, Mapping[str, Any]], check: bool) -> Progress:
        """Return the progress of hosts that have answered what they have and need.

        Args:
            command: `release` or `rollback`.
            name: the app's.
            results: the answer of each host, in the order of the inventory.
            settings: those of each host; the first decides, but for times: a host takes as long as it may.
            check: whether nothing may change.
        """
        each = [Settings(**settings[host]) for host in results if host in settings]
        chosen = replace(
            each[0],
            step_seconds=max(one.step_seconds for one in each),
            migration_seconds=max(one.migration_seconds for one in each),
        )
        if chosen.refusal:
            plan = Plan({host: result.get("release") for host, result in results.items()}, refusal=chosen.refusal)
        elif command == "release":
            plan = release_plan(results, chosen.batch, chosen.canaries)
        else:
            plan = rollback_plan(results, name, chosen.to, chosen.renew, chosen.batch)
            if plan.refusal:
                plan = replace(plan, refusal=f"{plan.refusal}\nNothing was changed on any host of {name}.")
        if not plan.refusal and not failures(results):
            plan = with_moves(plan, results)
        plan = replace(plan, phases=phases(plan, chosen, check))
        return cls(name, plan, chosen, failures=failures(results))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Progress:
        """Return the progress that `values` returned."""
        plan = {**values["plan"], "phases": [Phase(**phase) for phase in values["plan"]["phases"]]}
        known = {key: value for key, value in values.items() if key not in ("hosts", "on_failure")}
        return cls(**{**known, "plan": Plan(**plan), "settings": Settings(**values["settings"])})

    def values(self) -> dict[str, Any]:
        """Return it for tasks: with each host's arguments of all steps in `hosts`, its step after a failure in `on_failure`."""
        hosts = {host: self.arguments(host) for host in self.plan.before}
        return {**asdict(self), "hosts": hosts, "on_failure": {host: self.on_failure(host) for host in hosts}}

    def arguments(self, host: str) -> dict[str, Any]:
        """Return the arguments that all steps of a host have."""
        plan = self.plan
        return {
            **{"number": plan.release, "to": plan.to, "before": plan.before[host] or 0, "limit": self.settings.step_seconds},
            "note": self.judgement if host in plan.canaries else "",
            "first_host": "yes" if plan.first.get(host) else "no",
        }

    @property
    def moving(self) -> str:
        """The phase that moves what only one host may run, once all hosts serve the release; empty in any other one."""
        name = self.plan.phases[self.phase].name if self.phase < len(self.plan.phases) else ""
        return name if name in (HAND_OVER, TAKE_OVER) else ""

    def on_failure(self, host: str) -> str:
        """Return the step of a host after a failure."""
        if self.moving:
            return "take_over" if host in self.plan.givers and not self.doubtful else "unlock"
        return "revert" if host in self.reverted else "unlock"

    @property
    def doubtful(self) -> bool:
        """Whether a host did not answer when it was to take over what only one may run: nobody knows whether it runs there."""
        return self.moving == TAKE_OVER and any(message.startswith(UNANSWERED) for message in self.failures.values())

    @property
    def reverted(self) -> list[str]:
        """The hosts that may have switched, if a failure is to revert them."""
        begun = self.plan.phases[: self.phase + 1] if self.plan.revert else []
        return [host for phase in begun for host, step in phase.steps.items() if step == self.plan.change_step]

    def after(self, results: Results) -> Progress:
        """Return the progress after a phase in which each host has its result in `results`.

        Only the first failures count: later ones, such as a revert that fails, follow from them.
        """
        found = self.failures or failures(results)
        steps = self.plan.phases[self.phase].steps
        judgement, messages = self.judgement, [self.plan.no_canary] if self.plan.no_canary and self.phase == 0 else []
        if not found and "measure" in steps.values():
            measured = {host: results[host] for host, step in steps.items() if step == "measure"}
            judged = verdict(measured, self.plan.canaries, self.settings.error_points, self.settings.latency_percent)
            judgement = judged["message"]
            messages = [judgement, *text_table(judged["rows"], FIGURES)]
            found = {} if judged["promoted"] else {", ".join(self.plan.canaries): judgement}
        if not found and self.moving == TAKE_OVER:
            messages += [
                f"What only one host of {self.name} may run (hosts: first) runs on {host} now."
                for host in self.plan.takers
                if results[host].get("runs_once")
            ]
        phase = self.phase if found else self.phase + 1
        return replace(self, phase=phase, failures=dict(found), judgement=judgement, messages=messages)

    def reported(self, results: Results) -> Progress:
        """Return the progress with a report for each host, from the last result of each.

        The first host reports for all, except if nothing was done at all.
        """
        plan = self.plan
        if plan.refusal:
            return replace(self, reports=dict.fromkeys(plan.before, plan.refusal))
        text = self._report_of_move(results) if self.moving else report(results, plan, self.failures, self.name)
        short = f"See the message of {plan.leader}, which reports for all hosts of {self.name}."
        return replace(self, reports={**dict.fromkeys(plan.before, short), plan.leader: text})

    def _report_of_move(self, results: Results) -> str:
        """Report a failure after all hosts serve the release."""
        plan, takers, givers = self.plan, ", ".join(self.plan.takers), ", ".join(self.plan.givers)
        lines = [f"Release {plan.release} of {self.name} is live on all of its hosts, and stays."] if plan.release else []
        where, to = f" from {givers}" if givers else "", takers or "the first host"
        lines.append(f"What only one host of {self.name} may run (hosts: first) could not move{where} to {to}:")
        lines += [f"{host}: {message}." for host, message in self.failures.items()]
        if self.doubtful:
            again = f"It was not started on {givers} again: it" if givers else "It"
            lines.append(f"{again} may run on {takers}.")
        else:
            lost = [host for host in plan.givers if failed(results[host])]
            lines += [f"{host} cannot be asked whether it runs there." for host in lost]
            kept = ", ".join(host for host in plan.givers if host not in lost)
            lines.append(f"It runs on {kept}, as before." if kept else "It runs on no host.")
        lines.append(
            f"To find the cause: playbooks/doctor.yml -l {','.join(self.failures)}. Fix it and run {plan.command} again."
        )
        return "\n".join(lines)


def failures(results: Results) -> dict[str, str]:
    """Return the failures by host: the first line of each host's message."""
    found = {}
    for host, result in results.items():
        if failed(result):
            lines = str(result.get("msg") or "it gave no message").strip().splitlines()
            message = next(iter(lines), "it gave no message").removeprefix("Task failed: ").rstrip(".: ")
            if "deserialization" in message:  # what Ansible says of a module that was cut off
                message = f"{BROKEN_OFF} (exit code {result.get('rc', '?')}): the connection or the host was lost"
            found[host] = f"{UNREACHABLE}: {message}" if result.get("unreachable") else message
    return found


def report(results: Results, plan: Plan, failed_hosts: Mapping[str, str], name: str) -> str:
    """Report the outcome of a release that failed on some host.

    Args:
        results: the last result of each host.
        plan: what the hosts were to do.
        failed_hosts: the first failure of each host that failed.
        name: the app's.
    """
    what = f"Release {plan.release} of {name}" if plan.release else f"The release of {name}"
    lines = [f"{what} failed on {host}: {message}." for host, message in failed_hosts.items()]
    lost = [host for host, result in results.items() if failed(result)]
    now = {host: result.get("release") for host, result in results.items() if host not in lost}
    message = [f"{host} {release or 'nothing'}" for host, release in now.items()]
    lines.append(f"Now serving: {', '.join(message)}." if message else "No host is reachable to report what it serves.")
    for host in lost:
        before = plan.before.get(host) or "nothing"
        lines.append(f"{host} is unreachable; it last served {before} and may come back on {plan.release}.")
    left = [host for host, release in now.items() if release == plan.release and plan.before.get(host) != release]
    mixed = len(set(now.values()) | {plan.before.get(host) for host in lost}) > 1
    if left and plan.revert:
        lines.append(f"Could not revert {', '.join(left)}. To roll them back: playbooks/rollback.yml")
    elif left:
        lines.append(f"{', '.join(left)} can serve it, and no host has an earlier release, so nothing was reverted.")
    elif not mixed and not lost:
        lines.append("Every host serves what it served before; nothing is left half done.")
    doctor = f"playbooks/doctor.yml -l {','.join(failed_hosts)}"
    lines.append(f"To find the cause: {doctor}. Fix it and run {plan.command} again, so that all hosts match.")
    return "\n".join(lines)
