"""What stands in for systemd where jobs are scheduled: its tools, which remember what they were asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

SYSTEMCTL = """#!{python} -IS
import json, pathlib, sys
place, units = pathlib.Path({place!r}), pathlib.Path({units!r})
states = json.loads((place / "states.json").read_text())
verb, *words = sys.argv[1:]
names = [word for word in words if word[0] != "-"]
with (place / "asked").open("a") as file:
    file.write(" ".join([verb, *words]) + "\\n")
refused = (place / "refused").read_text().split() if (place / "refused").exists() else ["none"]
if verb != "show" and verb in (refused or [verb]):
    sys.exit("Failed to do that")
for name in names:
    link = units / "timers.target.wants" / name
    if verb == "enable":
        link.parent.mkdir(exist_ok=True)
        link.is_symlink() or link.symlink_to(units / name)
        states[name] = "active"
    elif verb == "disable":
        link.unlink(missing_ok=True)
        states[name] = "inactive"
    elif verb == "stop":
        states[name] = "inactive"
    elif verb == "show":
        state = states.get(name, "inactive")
        elapses = "Fri 2027-01-15 08:00:00 UTC" if state == "active" and name.endswith(".timer") else ""
        print(f"Id={{name}}\\nActiveState={{state}}\\nNeedDaemonReload=no\\nNextElapseUSecRealtime={{elapses}}\\n")
(place / "states.json").write_text(json.dumps(states))
"""

ANALYZE = """#!/bin/sh
case "$2" in
    *2020*) echo "    Next elapse: never";;
    *-02-*) echo "Failed to parse calendar specification" >&2; exit 1;;
    *) echo "    Next elapse: Mon 2026-11-30 03:00:00 UTC";;
esac
"""


class Systemd:
    """A systemd of one's own.

    Args:
        place: a directory of PATH, for its tools and its state.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.units = place / "units"
        self.stamps = place / "timers"
        self.units.mkdir()
        (place / "states.json").write_text("{}", encoding="ascii")
        self.install("systemctl", SYSTEMCTL.format(python=sys.executable, place=str(place), units=str(self.units)))
        self.install("systemd-analyze", ANALYZE)

    def install(self, name: str, text: str) -> None:
        """Put a tool into PATH."""
        (self.place / name).write_text(text, encoding="utf-8")
        (self.place / name).chmod(0o755)

    def asked(self) -> list[str]:
        """Return what it was asked to do since the last time, in order; questions left aside."""
        file = self.place / "asked"
        found = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in found if not line.startswith("show ")]

    def set_state(self, unit: str, state: str) -> None:
        """Have a unit be in a state."""
        states = json.loads((self.place / "states.json").read_text(encoding="ascii"))
        (self.place / "states.json").write_text(json.dumps({**states, unit: state}), encoding="ascii")

    def names(self) -> list[str]:
        """Return the units that are there."""
        return sorted(path.name for path in self.units.iterdir() if path.is_file())

    def text(self, unit: str) -> str:
        """Return the text of a unit."""
        return (self.units / unit).read_text(encoding="utf-8")
