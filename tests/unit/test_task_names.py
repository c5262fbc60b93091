"""Task names read as those of the field: each begins with a verb of a list, so that a log can be searched for what was done."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rendering import ROOT

# A new verb is added here if the field uses it, and no listed one means the same.
WORDS = """
    Activate Add Allow Apply Back Build Check Collect Compare Configure Copy Create Deploy Detect Diagnose Disable Drain
    Enable Fail Fetch Finish Flush Gather Generate Import Include Install Issue List Load Lock Measure Migrate Monitor
    Open Order Pack Ping Plan Prepare Provision Prune Publish Read Record Refresh Register Release Reload Remove Render
    Renew Report Require Restart Restore Revert Roll Run Set Show Start Stop Test Unlock Update Upload Validate Verify
    Wait Write
"""
VERBS = frozenset(WORDS.split())
MOST_VERBS = 75
NEVER = {"Ask", "Give", "Go", "Have", "Keep", "Know", "Learn", "Let", "Look", "Miss", "Say", "See", "Take", "Tell"}

FILES = sorted(
    path
    for pattern in ("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "playbooks/**/*.yml", "site.yml")
    for path in ROOT.glob(pattern)
)


def names(path: Path) -> list[str]:
    """Return the names of the plays, tasks and handlers of a file, those within blocks included."""
    found: list[str] = []
    pending = list(yaml.safe_load(path.read_text(encoding="utf-8")) or [])
    while pending:
        entry = pending.pop(0)
        if not isinstance(entry, dict):
            continue
        found += [str(entry["name"])] if "name" in entry else []
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            pending.extend(entry.get(key) or [])
    return found


def place(path: Path) -> str:
    """Return a file's path below the project."""
    return path.relative_to(ROOT).as_posix()


def verb(name: str) -> str:
    """Return the first word of a task's name."""
    return name.split()[0]


NAMES = {place(path): names(path) for path in FILES}
JUDGED = [path for path, found in NAMES.items() if found]


def test_the_list_of_verbs_is_short_and_holds_no_riddle() -> None:
    assert len(VERBS) <= MOST_VERBS
    assert not VERBS & NEVER


@pytest.mark.parametrize("path", JUDGED)
def test_a_task_name_begins_with_a_verb_of_the_field(path: str) -> None:
    assert [name for name in NAMES[path] if verb(name) not in VERBS] == []


def test_most_task_names_begin_with_a_verb_of_the_field() -> None:
    every = [name for found in NAMES.values() for name in found]
    good = [name for name in every if verb(name) in VERBS]
    print(f"{len(good)} of {len(every)} task names begin with a verb of the field ({100 * len(good) // len(every)} %)")
    assert len(good) >= 0.85 * len(every)
