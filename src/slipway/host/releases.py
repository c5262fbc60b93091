"""List the releases of an app: those that are kept on the host, and those that its history remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from slipway.host.store import Store, version_of
from slipway.host.tables import text_table

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
}

COLUMNS = {
    "release": "RELEASE",
    "state": "STATE",
    "version": "VERSION",
    "when": "WHEN",
    "who": "WHO",
    "size": "SIZE",
    "migration": "SCHEMA",
    "reason": "REASON",
}
REASON_CHARACTERS = 60


def size(path: Path, seen: set[tuple[int, int]]) -> int:
    """Return the bytes on disk below `path`; a file that is in `seen` is not counted again."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            found = os.lstat(os.path.join(folder, name))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def image_bytes(build: Path) -> int:
    """Return the size of a build's image; 0 where it has none."""
    try:
        return int(json.loads((build / ".build.json").read_text(encoding="utf-8")).get("bytes", 0))
    except (OSError, ValueError):
        return 0


def releases(layout: Store) -> list[dict[str, Any]]:
    """Return what is known of each release, the newest first.

    `state` is `live`, `kept` (it can be gone back to), `rolled back`, `failed`, or one of these with `gone` where its files are
    not on the host any more. `bytes` counts its code, and its environment with the newest of those that share it.
    """
    live = layout.live()
    known: dict[int, dict[str, Any]] = {}
    for entry in layout.entries():
        if entry.get("outcome") != "failed" or entry["release"] not in known:  # a failed way back leaves it what it was
            known[entry["release"]] = entry
    for number in layout.numbers():
        known[number] = {**layout.record(number), "release": number, "kept": True}
    rows, seen = [], set[tuple[int, int]]()
    for number, entry in sorted(known.items(), reverse=True):
        outcome = str(entry.get("outcome", "?"))
        state = "live" if number == live else "kept" if outcome == "live" else outcome
        build = layout.release(number) / "build"
        parts = [layout.release(number), build.resolve(), (build / ".venv").resolve()] if build.exists() else []
        rows.append(
            {
                "release": number,
                "state": state if entry.get("kept") else f"{state.replace('kept', 'was live')}, gone",
                "version": version_of(entry) or "?",
                "when": str(entry.get("when", "?")),
                "who": str(entry.get("who", "?")),
                "bytes": sum(size(part, seen) for part in parts) + image_bytes(build),
                "migration": str(entry.get("migration") or ""),
                "reason": str(entry.get("reason") or ""),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of releases for people."""
    shown = []
    for row in rows:
        size_text = f"{row['bytes'] / 2**20:.1f} MiB" if row["bytes"] else "-"
        shown.append({**row, "size": size_text, "reason": row["reason"][:REASON_CHARACTERS]})
    return text_table(shown, COLUMNS)


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the `releases`, and a `table` of them for people."""
    rows = releases(Store(**given["layout"]))
    lines = table(rows) if rows else ["There is no release yet: playbooks/deploy.yml makes the first."]
    return {"changed": False, "releases": rows, "table": lines}
