"""One change of an app at a time: a run of Ansible holds the app from its first step on a host to its last."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any, TextIO

from ansible.module_utils.app_layout import Layout, ReleaseError

# How long the app stays held for the next step of the same run, if nobody sees that the run is dead.
LEASE_SECONDS = 120.0

# How long a step that is still under way may keep the run that takes over from a dead one waiting.
TAKE_OVER_SECONDS = 900.0

# How long a run waits for a step of its own that it has given up on, and that may still be under way.
OWN_SECONDS = 30.0

# How much longer one waits for somebody who has the app and has not said who that is.
SIGN_SECONDS = 1.0


class Busy(ReleaseError):
    """Somebody else holds the app. `holder` is what that run says of itself."""

    def __init__(self, holder: dict[str, Any]) -> None:
        self.holder = holder
        claim = "" if holder.get("until", 0) == 0 else f" If that run is dead, its claim ends at {_clock(holder['until'])}."
        super().__init__(
            f"Another change of this app is under way: {holder.get('who', 'someone')} on {holder.get('where', 'some controller')}"
            f" since {_clock(holder.get('since', 0))}. Nothing was changed; try again when it ended.{claim}"
        )


@contextlib.contextmanager
def lock(layout: Layout, run: dict[str, Any], lease: float = 0.0, patience: float = 1.0) -> Iterator[None]:
    """Hold the app during one step of a run, and after it for the run's next step.

    While a step is under way the kernel holds the lock for it, and drops it with the process. Between two steps it is the
    entry in the file that holds, until the lease ends or another run takes over because this one is dead.

    Args:
        layout: the app's paths; its home exists.
        run: the run of Ansible: `id`, `who`, `where`, and in `dead` the id of a run that is known to be dead.
        lease: seconds that the app stays held after a step that ended well; 0 after the last one.
        patience: seconds to wait for the step of another run.

    Raises:
        Busy: when another run holds the app.
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
                holder = _read(file)
                limit = {run["id"]: OWN_SECONDS, run.get("dead"): TAKE_OVER_SECONDS}.get(holder.get("id"), patience)
                # Who has just taken it may not have signed yet.
                if time.monotonic() - begin > limit + (0.0 if holder else SIGN_SECONDS):
                    raise Busy(holder) from None
                time.sleep(0.1)
        holder = _read(file)
        if holder and holder.get("id") not in (run["id"], run.get("dead")) and holder.get("until", 0) > time.time():
            raise Busy(holder)
        entry = {key: run.get(key) for key in ("id", "who", "where")}
        entry["since"] = holder["since"] if holder.get("id") == run["id"] else time.time()
        _write(file, {**entry, "until": 0})
        ended_well = False
        try:
            yield
            ended_well = True
        finally:
            _write(file, {**entry, "until": time.time() + lease} if ended_well and lease else {})


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
