"""Judge a release that a few hosts serve alone, by what clients got of it and of the others in the same time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from slipway.host.watch import LEAST_ERRORS

# Of fewer requests a p95 is that of two or three, which tell nothing.
LEAST_REQUESTS = 50
# What nobody notices is not called slow, however short the others' p95 is.
LEAST_SECONDS = 0.05
# How likely a difference may be by chance alone that a release is taken back for. It costs little to try one again, and much to
# have a bad one everywhere.
CHANCE = 0.05


class Side:
    """What some hosts measured, taken together."""

    def __init__(self, measured: list[Mapping[str, Any]]) -> None:
        self.hosts = len(measured)
        self.total = sum(int(each["total"]) for each in measured)
        self.errors = sum(int(each["errors"]) for each in measured)
        self.ends = sum(int(each["restarts"]) for each in measured)
        self.seconds: Counter[float] = Counter()
        for each in measured:
            for seconds, count in each["seconds"].items():
                self.seconds[float(seconds)] += int(count)

    @property
    def share(self) -> float:
        """The share of 5xx, from 0 to 1."""
        return self.errors / self.total if self.total else 0.0

    @property
    def timed(self) -> int:
        """How many requests have a time."""
        return sum(self.seconds.values())

    @property
    def p95(self) -> float:
        """The seconds in which 95 of 100 requests were answered; 0 where there were none."""
        rank, seen = 0.95 * self.timed, 0
        for seconds in sorted(self.seconds):
            seen += self.seconds[seconds]
            if seen >= rank:
                return seconds
        return 0.0

    def slower_than(self, limit: float) -> int:
        """Return how many requests took longer than `limit` seconds."""
        return sum(count for seconds, count in self.seconds.items() if seconds > limit)


def chance(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """Return how likely at least `hits` of `total` are if both sides are alike: Fisher's exact test, one-sided."""

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    all_hits = hits + other_hits
    everything = log_choose(total + other_total, all_hits)
    most = min(total, all_hits)
    return sum(math.exp(log_choose(total, k) + log_choose(other_total, all_hits - k) - everything) for k in range(hits, most + 1))


def findings(canary: Side, others: Side, errors_percent: float, slower_percent: float) -> list[str]:
    """Return in what the canary is worse than the others, in words."""
    found = []
    # Where the others had no requests, there is no reason to expect errors.
    usual, of = (others.errors, others.total) if others.total else (0, canary.total)
    more = canary.share - (usual / of if of else 0.0)
    if canary.errors >= LEAST_ERRORS and more > errors_percent / 100 and chance(canary.errors, canary.total, usual, of) <= CHANCE:
        found.append(f"{canary.share:.1%} of its answers are 5xx, {others.share:.1%} of the others'")
    if min(canary.timed, others.timed) >= LEAST_REQUESTS:
        limit = max(others.p95 * (1 + slower_percent / 100), others.p95 + LEAST_SECONDS)
        slow = canary.slower_than(limit)
        if canary.p95 > limit and chance(slow, canary.timed, others.slower_than(limit), others.timed) <= CHANCE:
            found.append(f"its p95 is {canary.p95 * 1000:.0f} ms, the others' {others.p95 * 1000:.0f} ms")
    usual_ends = others.ends / others.hosts if others.hosts else 0.0
    if canary.hosts and canary.ends / canary.hosts > max(1.0, 2 * usual_ends):
        found.append(f"{canary.ends} of its processes ended, {usual_ends:.1f} on each of the others")
    return found


def verdict(
    measured: Mapping[str, Mapping[str, Any]], canaries: list[str], errors_percent: float | str, slower_percent: float | str
) -> dict[str, Any]:
    """Say whether the release that the canaries have goes on.

    Args:
        measured: what was measured, by host.
        canaries: the hosts that have the new release.
        errors_percent: percentage points that its share of 5xx may be above the others'.
        slower_percent: how much longer its p95 may be than the others', in percent.

    Returns:
        `promoted`, in `message` why, and in `rows` the figures of each host.
    """
    sides = [Side([each for host, each in measured.items() if (host in canaries) is new]) for new in (True, False)]
    canary, others = sides
    found = findings(canary, others, float(errors_percent), float(slower_percent))
    if found:
        message = f"taken back: {'; '.join(found)}"
    elif min(canary.timed, others.timed) < LEAST_REQUESTS:
        few = f"{canary.total} requests, and {others.total} of the others"
        message = f"promoted, though {few}, are too few to compare ({LEAST_REQUESTS})"
    else:
        message = (
            f"promoted: 5xx {canary.share:.1%} (others {others.share:.1%}), "
            f"p95 {canary.p95 * 1000:.0f} ms (others {others.p95 * 1000:.0f} ms)"
        )
    rows = []
    for host, each in measured.items():
        side = Side([each])
        rows.append(
            {
                "host": host,
                "role": "canary" if host in canaries else "other",
                "release": each["release"],
                "requests": side.total,
                "errors": f"{side.errors} ({side.share:.1%})",
                "p95": f"{side.p95 * 1000:.0f} ms" if side.timed else "-",
                "restarts": side.ends,
            }
        )
    return {"promoted": not found, "message": message, "rows": rows}
