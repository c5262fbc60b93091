"""Move what only one host of an app may run, such as a scheduler, to the host that is the first one now."""

from __future__ import annotations

from dataclasses import replace

from slipway.controller.fleet import Plan, Results


def with_moves(plan: Plan, answers: Results) -> Plan:
    """Return a plan that knows where what only one host of the app may run is, and where that moves to.

    It runs on the first host of the inventory. Where that is another one than before, it moves when all hosts serve the release:
    until then it stays where it was, so that a release that fails moves nothing.

    Args:
        plan: the plan, without its phases.
        answers: what the step `plan` or `inspect` found on each host: in `first` whether it is the first one, and in `runs_once`
            whether it runs this; None where its live release has nothing of the kind, or there is none.
    """
    first = [
        host for host, each in answers.items() if each.get("first") and (each.get("runs_once") is not None or host in plan.hosts)
    ]
    holders = [host for host, each in answers.items() if each.get("runs_once")]
    givers = [host for host in holders if host not in first] if first else []
    # Without a host to take it from, it starts with the release.
    takers = [host for host in first if host not in holders and (givers or host not in plan.hosts)]
    until = {host: host in holders if host in givers or not first else host in first and host not in takers for host in answers}
    starters = [host for host in answers if host not in holders and (until[host] or host in takers)]
    return replace(plan, first=until, givers=givers, takers=takers, starters=starters)
