"""What is remembered of releases, and which numbers they have."""

from __future__ import annotations

import json
import time
from typing import Any

from slipway.host.files import write
from slipway.host.paths import digest
from slipway.host.release.context import Context
from slipway.host.runtime_files import files_of

# A release that is live, or was, without having been reverted: what a rollback may choose by itself.
GOOD = "live"


def fingerprint(context: Context) -> str:
    """Return the digest of all that makes this release what it is."""
    keys = ("settings", "program", "process_programs")
    jobs = context.arguments.get("jobs")
    return digest(
        files(context), runtime_settings(context, 0), *(context.arguments[key] for key in keys), *([jobs] if jobs else [])
    )


def files(context: Context) -> dict[str, str]:
    """Return the files of the runtime that a release has, by their paths in its directory."""
    return files_of(context.arguments["runtime"])


def runtime_settings(context: Context, number: int) -> dict[str, Any]:
    """Return what release `number` goes by, for the programs that run it."""
    names = ("build", "revision", "user")
    facts = {"app": context.arguments["name"], "number": number, **{name: context.arguments[name] for name in names}}
    return {**context.arguments["runtime"], **facts, "home": str(context.layout.home), "sockets": str(context.layout.runtime)}


def remember(context: Context, number: int, **facts: Any) -> None:
    """Add `facts` to what is remembered of release `number`, and its outcome to the app's history."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"release": number, "build": context.arguments["build"], **context.layout.record(number), **facts}
    record = {name: value for name, value in record.items() if value is not None}
    record.update(who=context.who, when=stamp)
    if facts.get("outcome") == GOOD:
        record.pop("reason", None)
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    # Not for everyone: who knows all else that went into the digest could try secrets against it.
    write(context.layout.release(number) / "release.json", text, mode=0o640, group=context.group)
    if facts.get("outcome") not in ("started", "prepared", None):
        context.layout.note({key: value for key, value in record.items() if key not in ("digest", "health")})


def next_number(context: Context) -> int:
    """Return a number that no release ever had."""
    return max([*context.layout.numbers(), *context.supervisor.installed(), last_number(context)], default=0) + 1


def last_number(context: Context) -> int:
    """Return the highest number that the history names; a number is never given twice."""
    return max((entry["release"] for entry in context.layout.entries()), default=0)


def image_of(context: Context, build: str) -> dict[str, Any]:
    """Return what is remembered of the image of a build; empty where it has none."""
    try:
        record: dict[str, Any] = json.loads((context.layout.builds / build / ".build.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if record.get("image") else {}
