"""What an operator does on a host without a controller: show status, roll back, run commands, and lock."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from slipway.host import configuration, doctor, read_logs, releases, status
from slipway.host.errors import ReleaseError
from slipway.host.lock import LONGEST_SECONDS, lock, lock_owner
from slipway.host.process import masked
from slipway.host.release import step as release
from slipway.host.release.context import Context
from slipway.host.store import Store
from slipway.host.tables import text_table
from slipway.host.values import arguments

# What the program ends with.
DONE, FAILED, USAGE, LOCKED = 0, 1, 2, 3

STATUS = {
    **{"app": "APP", "release": "RELEASE", "version": "VERSION", "since": "SINCE", "who": "BY", "python": "PYTHON"},
    **{
        "workers": "WORKERS",
        "processes_summary": "PROCESSES",
        "jobs_summary": "JOBS",
        "backup_summary": "BACKUP",
        "health": "HEALTH",
    },
    **{"certificate_days": "CERT DAYS", "disk_percent": "DISK %", "locked": "LOCKED BY"},
}
FOLLOW_SECONDS = 1.0


def me() -> dict[str, Any]:
    """Return who gives this command, for the lock and the history: the same for all commands of a person on this host."""
    who = os.environ.get("SUDO_USER") or getpass.getuser()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    name = hashlib.sha256(f"{boot} {socket.gethostname()} {who}".encode()).hexdigest()[:12]
    return {"id": f"{name} operator", "who": who, "where": socket.gethostname(), "dead": "", "at": str(int(time.time()))}


def show(result: Any, lines: list[str], as_json: bool) -> None:
    """Print a result, for programs or for people."""
    print(json.dumps(result, indent=2, sort_keys=True) if as_json else "\n".join(lines))


def locked_by(layout: Store) -> str:
    """Say who has locked an app, and until when; nothing if nobody has."""
    found = lock_owner(layout)
    if not found:
        return ""
    until = f", until {time.strftime('%H:%M UTC', time.gmtime(found['until']))}" if found.get("until") else ""
    return f"{found.get('who', 'someone')} on {found.get('where', 'some controller')}{until}"


def show_status(app: str | None, as_json: bool) -> int:
    """Show how one app is, or all of them.

    Returns:
        1 if one of them is not healthy.
    """
    names = [app] if app else configuration.apps()
    rows: list[dict[str, Any]] = []
    for name in names:
        settings = configuration.load(name)
        options = {key: settings[key] for key in status.PARAMETERS}
        rows.append({**status.status(options), "app": name, "locked": locked_by(Store(**settings["layout"]))})
    lines = text_table(rows, STATUS) if rows else ["No app has been deployed to this host yet."]
    show(rows, lines, as_json)
    return DONE if all(row["health"] == "ok" for row in rows) else FAILED


def show_releases(app: str, as_json: bool) -> int:
    """Show the releases that are kept, and those that the history remembers."""
    rows = releases.releases(Store(**configuration.load(app)["layout"]))
    show(rows, releases.table(rows) or ["There are no releases yet."], as_json)
    return DONE


def roll_back(app: str, to: str, settings: str | None, across: bool, dry: bool, as_json: bool) -> int:
    """Roll an app back to an earlier release, and say what is live then.

    Returns:
        1 if that failed, and 3 if another run changes the app; what was live still is.
    """
    configured = configuration.load(app)
    if settings:
        configured["rollback_settings"] = settings
    configured["across_migrations"] = across or configured["across_migrations"]
    if not as_json and not dry:
        print(f"Rolling back {app}. The live release serves until the other one is healthy.", file=sys.stderr)
    given = arguments(release.PARAMETERS, {"app": app, "step": "rollback", "to": to, "run": me()})
    context = Context.of({**configured, **given})
    locked = lock_owner(context.layout)
    result = release.change(context, given, dry, None)
    if locked.get("id") == me()["id"] and not dry:  # the operator who locked the app keeps the lock until it is unlocked
        with lock(context.layout, me(), lease=max(1.0, locked["until"] - time.time())):
            pass
    if result.get("failed"):
        show(result, [result["msg"]], as_json)
        return LOCKED if "locked_by" in result else FAILED
    live, before = result["release"], result["before"]
    if dry:
        line = (
            f"{app} would be rolled back from release {before} to {live}."
            if live != before
            else f"Nothing would change: {app} stays on its live release."
        )
    elif result["changed"]:
        line = (
            f"{app} now serves release {live}; it served {before}. The next deployment of {app} releases what the "
            "inventory says, so change the inventory first."
        )
    else:
        line = f"Nothing changed: {app} still serves release {live}."
    show(result, [line, *result.get("warnings", [])], as_json)
    return DONE


def show_logs(app: str, lines: int, grep: str, follow: bool, as_json: bool) -> int:
    """Show the last lines of an app's logs, and with `follow` those that come, until the command is interrupted."""
    settings = configuration.load(app)
    options: dict[str, Any] = {
        **{"layout": settings["layout"], "name": app, "others": settings["logs"], "masked": settings["masked"]},
        **{"lines": lines, "grep": grep, "positions": {}, "wait": 0.0},
    }
    while True:
        result = read_logs.step(options, check=True)
        if result["lines"]:
            show(result["lines"], result["lines"], as_json)
        elif not follow:
            show([], ["No matching log lines."], as_json)
        sys.stdout.flush()
        if not follow:
            return DONE
        options.update(positions=result["positions"], wait=FOLLOW_SECONDS)


def unit(*names: str) -> str:
    """Return the first of some units of systemd that this host has; the first of all if it has none."""
    for name in names:
        if not subprocess.call(["systemctl", "cat", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return name
    return names[0]


def examine(app: str | None, as_json: bool) -> int:
    """Show the findings of the doctor for this host and its apps.

    Returns:
        1 if something is broken.
    """
    found: list[dict[str, Any]] = []
    for name in [app] if app else configuration.apps():
        settings = configuration.load(name)
        services = {
            **{"nginx": "nginx", "supervisor": unit("supervisor", "supervisord")},
            "certbot": unit("certbot.timer", "certbot-renew.timer") if settings["doctor"]["authority"] else "",
        }
        options = {key: settings[key] for key in doctor.PARAMETERS if key in settings}
        options.update(settings["doctor"], services=services, resolved={}, addresses=[], now=time.time())
        result = doctor.step(arguments(doctor.PARAMETERS, options), check=True)
        found += [{"app": name, **finding} for finding in result["findings"]]
    lines = []
    for each in found:
        evidence = f"\n    {each['evidence']}".replace("\n", "\n    ") if each["evidence"] else ""
        lines.append(f"{each['severity'].upper()} {each['app']}: {each['what']}{evidence}\n    Fix: {each['remedy']}")
    show(found, lines or ["No findings on this host. To check it from outside as well: playbooks/doctor.yml"], as_json)
    return FAILED if any(each["severity"] == "error" for each in found) else DONE


def live_release(app: str, run: dict[str, Any]) -> tuple[Context, int]:
    """Return what knows an app, and the number of its live release.

    Args:
        app: its name.
        run: who asks.

    Raises:
        ReleaseError: when nothing is live.
    """
    context = Context.of({**configuration.load(app), "run": run, "limit": 0.0})
    live = context.layout.live()
    if live is None:
        raise ReleaseError(f"No release of {app} is live on this host. To deploy one: playbooks/deploy.yml")
    context.keep_secrets_of(live)
    return context, live


def note(context: Context, live: int, command: str, code: int) -> None:
    """Note in the app's history that a command was run."""
    entry = {"release": live, "command": masked(command, context.secrets), "code": code, "who": context.who}
    context.layout.note(entry)


def run_command(app: str, arguments: list[str]) -> int:
    """Run a command with the code, the settings and the user of an app's live release.

    Secrets are masked in what it prints. Its exit code is the program's.
    """
    context, live = live_release(app, me())
    command = shlex.join(arguments)
    with (
        context.launching(live) as launch,
        subprocess.Popen(
            [*launch["through"], command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **as_user(launch)
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(masked(line.decode("utf-8", "replace"), context.secrets))
            sys.stdout.flush()
    note(context, live, command, process.returncode)
    return process.returncode


def open_shell(app: str) -> int:
    """Open a shell with the code, the settings and the user of an app's live release. Nothing is masked in it."""
    context, live = live_release(app, me())
    print(f"Shell in {app}, release {live}. Its environment contains the app's secrets. Leave it with: exit", file=sys.stderr)
    with context.launching(live) as launch:
        code = subprocess.call([*launch["through"], "exec /bin/sh -i"], **as_user(launch))
    note(context, live, "a shell", code)
    return code


def as_user(launch: dict[str, Any]) -> dict[str, Any]:
    """Return how `subprocess` starts what is launched."""
    user = launch["user"]
    return {"cwd": launch["directory"], **({"user": user, "group": user, "extra_groups": []} if user else {})}


def lock_app(app: str, minutes: int, as_json: bool) -> int:
    """Lock an app: until it is unlocked, or the lock expires, nobody else changes it.

    Raises:
        Locked: when another run changes it.
        ReleaseError: when that is too long.
    """
    if not 0 < minutes * 60 <= LONGEST_SECONDS:
        raise ReleaseError(f"A lock lasts 1 to {LONGEST_SECONDS / 60:.0f} minutes, not for {minutes}.")
    layout = Store(**configuration.load(app)["layout"])
    with lock(layout, me(), lease=minutes * 60.0):
        pass
    until = time.strftime("%H:%M UTC", time.gmtime(time.time() + minutes * 60))
    show({"locked": app, "until": until}, [f"{app} is locked until {until}. To unlock it: slipway unlock {app}"], as_json)
    return DONE


def unlock_app(app: str, as_json: bool) -> int:
    """Unlock an app, whoever locked it; a running step ends first."""
    layout = Store(**configuration.load(app)["layout"])
    before = locked_by(layout)
    with lock(layout, {**me(), "take_over": True}):
        pass
    line = f"{app} is unlocked. It was locked by {before}." if before else f"{app} was not locked."
    show({"unlocked": app, "before": before}, [line], as_json)
    return DONE
