"""A dry run of a fleet as it was converged: before other tests release something else on it."""

from __future__ import annotations

from molecule.conftest import play


def test_a_dry_run_changes_nothing() -> None:
    run = play("--limit=one.test,two.test,balancer", "--check")  # the third host is as the second
    assert (run.code, set(run.changed.values())) == (0, {0}), run.output[-3000:]
