"""What an examination finds, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or soon will be.

    Attributes:
        severity: `error` or `warning`.
        what: what is wrong, in a few words.
        evidence: what shows it.
        remedy: what mends it, a command where there is one.
    """

    severity: str
    what: str
    evidence: str
    remedy: str


def error(what: str, evidence: str, remedy: str) -> Finding:
    """Return a finding that keeps clients from the app, or soon will."""
    return Finding("error", what, evidence.strip(), remedy)


def warning(what: str, evidence: str, remedy: str) -> Finding:
    """Return a finding that may do so one day."""
    return Finding("warning", what, evidence.strip(), remedy)


def worst_first(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return findings as a step tells them: errors before all others."""
    return [asdict(finding) for finding in sorted(findings, key=lambda each: each.severity != "error")]
