"""A finding of the doctor, and what fixes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is broken, or soon will be.

    Attributes:
        severity: `error` or `warning`.
        what: the finding, in a few words.
        evidence: what shows it.
        remedy: what fixes it, a command if there is one.
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
    """Return findings as a step returns them: errors first."""
    return [asdict(finding) for finding in sorted(findings, key=lambda each: each.severity != "error")]
