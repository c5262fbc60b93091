"""The backups of the app: what became of the last one and of the last drill, and whether there will be more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slipway.host.backup import report
from slipway.host.backup.settings import is_on
from slipway.host.doctor.subject import Subject, minute, output
from slipway.host.finding import Finding, error, warning

UNITS = Path("/etc/systemd/system")


def backup(subject: Subject) -> Iterator[Finding]:
    """Whether the last backup is good and new enough, the last drill was good, and the timer is active."""
    app = subject.arguments["name"]
    if not is_on(app):
        return
    found = report.row(app)
    now = f"slipway backup {app}"
    if report.has_failed(found):
        reason = found["error"] or f"It began at {minute(found['start'])} and did not end."
        yield error("The last backup failed", reason, f"Fix it, then: {now}")
    if found["overdue"]:
        last = f"The last good one is of {minute(found['success'])}." if found["success"] else "There is no good one yet."
        yield error("The last good backup is too old (backup_max_age_hours)", last, now)
    elif not found["success"]:
        yield warning("There is no backup yet", "The first one is made at the next time of backup_schedule.", now)
    if report.has_failed(tried := found["drill"]):
        reason = tried["error"] or f"It began at {minute(tried['start'])} and did not end."
        yield error("The last drill failed: the backup could not be restored", reason, f"Fix it, then: slipway drill {app}")
    for timer, text in (
        (f"slipway-backup-{app}.timer", "Backups will not be made"),
        (f"slipway-drill-{app}.timer", "Backups will not be tried"),
    ):
        if "drill" in timer and not (UNITS / timer).exists():  # backup_drill_schedule is empty
            continue
        if output("systemctl", "is-active", "--quiet", timer)[0] or output("systemctl", "is-enabled", "--quiet", timer)[0]:
            yield error(f"{text}: their timer is not active", timer, f"systemctl enable --now {timer}")


CHECKS = (backup,)
