"""One change of an app at a time: a run of Ansible holds the app from its first step on a host to its last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any, TextIO

from slipway.host.errors import ReleaseError
from slipway.host.paths import Layout

# How long the app stays held for the next step of the same run, if nobody sees that the run is dead.
LEASE_SECONDS = 120.0

# A claim that would last longer than this is none: the clock was set back since.
LONGEST_SECONDS = 6 * 3600.0

# How long a step that is still under way may keep the run that takes over from a dead one waiting.
TAKE_OVER_SECONDS = 900.0

# How long a run waits for a step of its own that it has given up on, and that may still be under way.
OWN_SECONDS = 30.0

# How much longer one waits for somebody who has the app and has not said who that is.
SIGN_SECONDS = 1.0


class Locked(ReleaseError):
    """Somebody else holds the app. `owner` is what that run says of itself."""

    def __init__(self, owner: dict[str, Any]) -> None:
        self.owner = owner
        lease_entry = "" if owner.get("until", 0) == 0 else f" If that run is dead, its claim ends at {_clock(owner['until'])}."
        super().__init__(
            f"Another change of this app is under way: {owner.get('who', 'someone')} on {owner.get('where', 'some controller')}"
            f" since {_clock(owner.get('since', 0))}. Nothing was changed; try again when it ended.{lease_entry}"
        )


class LockTakenOver(ReleaseError):
    """Another run has taken the app over from this one. `entry` is what that run left."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(
            f"{entry.get('who', 'someone')} on {entry.get('where', 'some controller')} has taken this app over from this run "
            "(app_break_lock). Nothing more is done in its name."
        )


@contextlib.contextmanager
def lock(layout: Layout, run: dict[str, Any], lease: float = 0.0, patience: float = 1.0) -> Iterator[None]:
    """Hold the app during one step of a run, and after it for the run's next step.

    While a step is under way the kernel holds the lock for it, and drops it with the process. Between two steps it is the
    entry in the file that holds, until the lease ends or another run takes over because this one is dead.

    Args:
        layout: the app's paths; its home exists.
        run: the run of Ansible: `id`, `who`, `where`, in `dead` the id of a run that is known to be dead, and in `take_over`
            whether any other run is to be taken for dead.
        lease: seconds that the app stays held after a step that ended well; 0 after the last one.
        patience: seconds to wait for the step of another run.

    Raises:
        Busy: when another run holds the app.
        TakenOver: when another run was told that this one is dead.
    """
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
                    owner.get("id"), TAKE_OVER_SECONDS if run.get("take_over") else patience
                )
                # Who has just taken it may not have signed yet.
                if time.monotonic() - begin > limit + (0.0 if owner.get("id") else SIGN_SECONDS):
                    raise Locked(owner) from None
                time.sleep(0.1)
        owner = _read(file)
        gone = list(owner.get("gone") or [])
        if run["id"] in gone:
            raise LockTakenOver(owner)
        if owner.get("id") not in (None, run["id"], run.get("dead")) and _lasts(owner):
            if not run.get("take_over"):
                raise Locked(owner)
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
    """Return what the run that holds the app says of itself; empty if none does."""
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
    """Say whether a claim lasts: by the time since this machine started, which nobody sets; after a restart, by its clock."""
    if owner.get("boot") and owner["boot"] == _boot():
        return float(owner.get("ticks", 0)) > time.monotonic()
    return 0 < float(owner.get("until", 0)) - time.time() <= LONGEST_SECONDS


def _boot() -> str:
    """Return what tells this start of the machine from all others."""
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
