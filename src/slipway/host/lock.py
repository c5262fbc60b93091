"""One change of an app at a time: a run of Ansible locks the app from its first step on a host to its last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any, TextIO

from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout

# How long the app stays locked for the next step of the same run, unless the run is found to be dead.
LEASE_SECONDS = 120.0

# A lease that would last longer than this is ignored: the clock has been set back since.
LONGEST_SECONDS = 6 * 3600.0

# How long a step that is still under way may keep the run that takes over from a dead one waiting.
TAKE_OVER_SECONDS = 900.0

# How long a run waits for a step of its own that it has given up on, and that may still be under way.
OWN_SECONDS = 30.0

# How much longer one waits for somebody who has the app and has not said who that is.
SIGN_SECONDS = 1.0


def owner_name(owner: dict[str, Any]) -> str:
    """Return the name of a run that has locked an app, such as ann@laptop:4711: operator, controller and process.

    It is one word that no shell changes.
    """
    process = " ".join(str(owner.get("id", "")).split()[1:2])
    name = f"{owner.get('who', 'someone')}@{owner.get('where', 'somewhere')}" + (f":{process}" if process else "")
    return re.sub(r"[^A-Za-z0-9_.@:-]", "_", name)


class Locked(ReleaseError):
    """The app is locked by another run.

    Args:
        owner: the entry of that run.
        named: the run whose lock was to be taken over; empty if none was.
    """

    def __init__(self, owner: dict[str, Any], named: str = "") -> None:
        self.owner = owner
        lease_entry = "" if owner.get("until", 0) == 0 else f" If that run is dead, its lock expires at {_clock(owner['until'])}."
        super().__init__(
            f"This app is locked by another run: {owner.get('who', 'someone')} on {owner.get('where', 'some controller')}"
            f" since {_clock(owner.get('since', 0))}. Nothing was changed. Try again once that run has ended.{lease_entry}"
            + (f" app_take_over_lock is {named}, and the lock is that of {owner_name(owner)}." if named else "")
        )


class LockTakenOver(ReleaseError):
    """Another run has taken over the lock of this one. `entry` is what that run wrote."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(
            f"{entry.get('who', 'someone')} on {entry.get('where', 'some controller')} has taken over the deploy lock of this "
            "app from this run (app_take_over_lock). This run stops here."
        )


@contextlib.contextmanager
def lock(layout: Layout, run: dict[str, Any], lease: float = 0.0, patience: float = 1.0) -> Iterator[None]:
    """Lock the app during one step of a run, and after it for the run's next step.

    While a step is under way the kernel holds the lock for it, and drops it with the process. Between two steps it is the
    entry in the file that holds, until the lease ends or another run takes over because this one is dead.

    Args:
        layout: the app's paths; its home exists.
        run: the run of Ansible: `id`, `who`, `where`, in `dead` the id of a run that is known to be dead, and in `take_over`
            the name of a run that is to be taken for dead (see `owner_name`), or True for any.
        lease: seconds that the app stays locked after a step that succeeded; 0 after the last one.
        patience: seconds to wait for the step of another run.

    Raises:
        Locked: when another run has locked the app.
        LockTakenOver: when another run has taken the lock over, because this one was thought dead.
    """
    take_over = run.get("take_over") or ""
    named = take_over if isinstance(take_over, str) else ""

    def is_named(owner: dict[str, Any]) -> bool:
        return take_over is True or bool(named and owner.get("id") and owner_name(owner) == named)

    handle = os.open(layout.home / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(handle, 0o600)  # who may open it may lock it
    with os.fdopen(handle, "r+", encoding="utf-8") as file:
        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = _read(file)
                limit = {run["id"]: OWN_SECONDS, run.get("dead"): TAKE_OVER_SECONDS}.get(
                    owner.get("id"), TAKE_OVER_SECONDS if is_named(owner) else patience
                )
                # Who has just taken it may not have signed yet.
                if time.monotonic() - begin > limit + (0.0 if owner.get("id") else SIGN_SECONDS):
                    raise Locked(owner, "" if is_named(owner) else named) from None
                time.sleep(0.1)
        owner = _read(file)
        gone = list(owner.get("gone") or [])
        if run["id"] in gone:
            raise LockTakenOver(owner)
        if owner.get("id") not in (None, run["id"], run.get("dead")) and _lasts(owner):
            if not is_named(owner):
                raise Locked(owner, named)
            gone = [*gone, owner["id"]][-5:]
        names = {key: run.get(key) for key in ("id", "who", "where")}
        entry = {**names, "since": owner["since"] if owner.get("id") == run["id"] else time.time(), "gone": gone}
        # What was taken over stays so when this ends: it may not be as dead as it was thought to be.
        ended = {"gone": gone, "who": run.get("who"), "where": run.get("where")} if gone else {}
        _write(file, {**entry, "until": 0})
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            lease_entry = {"until": time.time() + lease, "boot": _boot(), "ticks": time.monotonic() + lease}
            _write(file, {**entry, **lease_entry} if succeeded and lease else ended)


def lock_owner(layout: Layout) -> dict[str, Any]:
    """Return what identifies the run that has locked the app; empty if none has."""
    try:
        with open(layout.home / ".lock", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(file) or {"who": "someone"}
            entry = _read(file)
    except FileNotFoundError:
        return {}
    return entry if entry.get("id") and _lasts(entry) else {}


def _lasts(owner: dict[str, Any]) -> bool:
    """Say whether a lease lasts: by the time since this machine started, which nobody sets; after a restart, by its clock."""
    if owner.get("boot") and owner["boot"] == _boot():
        return float(owner.get("ticks", 0)) > time.monotonic()
    return 0 < float(owner.get("until", 0)) - time.time() <= LONGEST_SECONDS


def _boot() -> str:
    """Return the id of this boot of the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(moment))


def _read(file: TextIO) -> dict[str, Any]:
    """Return the entry; empty where there is none, or half of one."""
    file.seek(0)
    try:
        entry = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _write(file: TextIO, entry: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    if entry:
        json.dump(entry, file)
    file.flush()
