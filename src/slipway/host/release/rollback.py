"""Roll back to an earlier release for the operator, or revert to it because the new one failed on another host."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from slipway.host.errors import ReleaseError
from slipway.host.health import DEFINITION
from slipway.host.release.activate import activate, switch_back
from slipway.host.release.advice import migrated_by, migrating_back
from slipway.host.release.context import Context
from slipway.host.release.failure import stop
from slipway.host.release.jobs import apply_jobs
from slipway.host.release.prepare import prepare
from slipway.host.release.record import GOOD, image_of, remember


def find_target(context: Context, requested: str, across: bool) -> int:
    """Return the release to roll back to.

    Args:
        context: the step, and its host.
        requested: its number as the operator gave it; empty for the last good one before the live one.
        across: whether the database's schema may be another one than it was then.

    Raises:
        ReleaseError: when there is none, it is not here any more, or it may not be chosen.
    """
    live = context.layout.live()
    kept = {number: context.layout.record(number) for number in context.layout.numbers()}
    listed = ", ".join(str(number) for number, record in kept.items() if record.get("outcome") == GOOD and number != live)
    there = f"Available: {listed}." if listed else "No other release is available."
    if live is None:
        raise ReleaseError(f"No release of {context.arguments['name']} is live on this host, so there is nothing to roll back.")
    if requested:
        if not requested.isdigit() or int(requested) not in kept:
            raise ReleaseError(f"There is no release {requested} of {context.arguments['name']} on this host. {there}")
        number = int(requested)
        outcome = kept[number].get("outcome")
        if outcome not in (GOOD, "rolled back"):
            reason = kept[number].get("reason", "it was never live")
            raise ReleaseError(f"Release {number} of {context.arguments['name']} was never good: {reason}. {there}")
    elif kept.get(live, {}).get("back_from"):
        return live
    else:
        earlier = [number for number, record in kept.items() if number < live and record.get("outcome") == GOOD]
        if not earlier:
            raise ReleaseError(
                f"No good release of {context.arguments['name']} before release {live} is kept on this host. {there}"
            )
        number = max(earlier)
    if not (context.layout.release(number) / "build").exists():
        raise ReleaseError(f"The build of release {number} is missing on this host. {there}")
    schema = schema_now(context, live, kept)
    other = str(kept[number].get("migration") or "")
    if number != live and schema != other and not across:
        raise ReleaseError(
            f"Release {number} was made for another database schema: its migrations end at {other or 'none'}, and the "
            f"database was migrated to {schema or 'none'} since. Slipway never downgrades a database. If its code works "
            f"with the current schema, or you have downgraded: playbooks/rollback.yml -e release={number} "
            "-e app_rollback_across_migrations=true\n"
            f"{migrating_back(context, migrated_by(context, schema, number) or live, other.split(', ')[0])}"
        )
    return number


def schema_now(context: Context, live: int, kept: dict[int, dict[str, Any]]) -> str:
    """Return the revision of the schema that the database was brought to last."""
    latest = max([live, *(number for number, record in kept.items() if record.get("migrated") and number > live)])
    return str(kept.get(latest, {}).get("migration") or "")


def roll_back(context: Context, target: int, settings: str, agreed: int | None = None, back: str = "rolled back") -> int:
    """Roll back to release `target`.

    Args:
        context: the step, and its host.
        target: the release; it is on this host.
        settings: `original` for those that it ran with, `current` for today's, which make it a new release of its build.
        agreed: the number that such a new release has on all hosts of the app; None where the host is alone.
        back: what becomes of the live release by this.

    Returns:
        The number of the release that is live now.

    Raises:
        ReleaseError: when that failed; what was live still is.
    """
    live = context.layout.live()
    record = context.layout.record(target)
    for release in {target, target if live is None else live}:  # what these print may hold secrets that have been changed since
        with contextlib.suppress(OSError, ValueError):
            context.keep_secrets_of(release)
    number = target
    if settings == "current":
        if bool(image_of(context, record["build"])) != bool(context.arguments["runtime"]["container"]):
            raise ReleaseError(
                f"Release {target} was built for another app_runtime: it can be rolled back to only with its "
                "original settings (app_rollback_settings: original)."
            )
        again = {"build": record["build"], "revision": record["revision"], "origin": record["source"]}
        context = replace(context, arguments={**context.arguments, **again, "version": record.get("version", "")})
        number = prepare(context, agreed)
    else:
        then = record.get("health", {})
        kept = {key: then[key] for key in DEFINITION if key in then}
        context = replace(context, health={**context.health, **kept})
    try:
        # With the code that is about to go: only that knows how to undo what it did to the database.
        if live is not None:
            context.hook("before_rollback", live, live, number)
    except ReleaseError as error:
        raise ReleaseError(f"Nothing was rolled back: {error}") from error
    activate(context, number, ("", "after_rollback"), back=back if live is not None and target < live else "")
    return number


def revert(context: Context, number: int, before: int | None) -> None:
    """Revert to what was live before release `number`, because it failed on another host.

    Args:
        context: the step, and its host.
        number: the release that goes; it is live.
        before: the release that was live before it; None where there was none.

    Raises:
        ReleaseError: when that failed; `number` still is live.
    """
    if before is not None:
        roll_back(context, before, "original", back="reverted")
        return
    switch_back(context, None, {})
    remember(context, number, outcome="rolled back", reason="reverted: nothing was live before it")
    stop(context, number)
    apply_jobs(context, None)
