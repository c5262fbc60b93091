"""The releases of the app: what runs, whether it answers, who may read and write what, and what became of the last one."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.doctor.subject import Subject, minute
from slipway.host.endpoint import NO_ANSWER
from slipway.host.finding import Finding, error, warning
from slipway.host.release.shared import shared_by


def programs(subject: Subject) -> Iterator[Finding]:
    """What Supervisor runs."""
    running = subject.supervisor.processes()
    yield from stale(subject, running)
    for number, processes in sorted(running.items()):
        if number != subject.live:
            yield warning(
                f"Release {number} still runs, but {subject.live} is live",
                "A run was interrupted.",
                "ansible-playbook playbooks/deploy.yml",
            )
        for process in processes:
            if process["statename"] not in ("RUNNING", "STARTING"):
                log_end = subject.end_of_log(number)[1]
                name = f"{process['group']}:{process['name']}"
                yield error(
                    f"The program {process['name']} is {process['statename']}",
                    f"{process.get('description', '')}\n{log_end}",
                    f"supervisorctl start {name}",
                )
    if subject.live is not None and subject.live not in running:
        yield error(
            f"Supervisor has no program for the live release {subject.live}",
            f"It knows {', '.join(map(str, running)) or 'none'}.",
            "ansible-playbook playbooks/deploy.yml",
        )
    if subject.live is not None and subject.live not in subject.supervisor.installed():
        yield error(
            f"Release {subject.live} will not start after a reboot",
            f"There is no {subject.supervisor.section(subject.live)}.",
            "ansible-playbook playbooks/deploy.yml",
        )


def stale(subject: Subject, running: dict[int, list[dict[str, Any]]]) -> Iterator[Finding]:
    """Whether what runs read its files as they are now."""
    if subject.live is None:
        return
    started = min(
        (each["start"] for each in running.get(subject.live, []) if each["statename"] == "RUNNING"), default=time.time()
    )
    for file in (subject.layout.release(subject.live) / name for name in ("launch.py", "runtime.json", "settings.json")):
        if file.exists() and file.stat().st_mtime > started + 1:
            yield warning(
                f"Release {subject.live} runs with older files than it has",
                f"{file} is of {minute(file.stat().st_mtime)}, its program of {minute(started)}.",
                f"supervisorctl restart {subject.supervisor.program(subject.live)}:*",
            )
            return


def sockets(subject: Subject) -> Iterator[Finding]:
    """Whether Nginx finds and reaches the sockets."""
    if subject.live is None:
        yield error("Nothing is live", f"{subject.layout.live_socket} leads nowhere.", "ansible-playbook playbooks/deploy.yml")
        return
    for place in subject.layout.sockets(subject.live):
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(place))
            mode = place.stat().st_mode & 0o777
            if mode & 0o006 != 0o006:
                yield error(
                    "Nginx cannot access the app's socket",
                    f"{place} has mode {mode:04o}.",
                    f"supervisorctl restart {subject.supervisor.program(subject.live)}:*",
                )
        except OSError as failure:
            yield error(
                "Nothing listens on the live release's socket",
                f"{place}: {failure.strerror}",
                f"supervisorctl restart {subject.supervisor.program(subject.live)}:*",
            )
    lags = not subject.layout.current.is_symlink() or os.readlink(subject.layout.current) != f"releases/{subject.live}"
    if lags:
        yield warning(
            "The link `current` does not point to the live release",
            str(subject.layout.current),
            "ansible-playbook playbooks/deploy.yml",
        )


def health(subject: Subject) -> Iterator[Finding]:
    """What the app answers, at its socket and at the public endpoint."""
    if subject.live is None:
        return
    check = subject.health_check
    log, log_end = subject.end_of_log(subject.live)
    for place in subject.layout.sockets(subject.live):
        try:
            answer = check.ask(place)
        except NO_ANSWER:
            continue  # told already
        if check.flaw(answer):
            yield error(f"The app is unhealthy: {check.unhealthy(answer)}", log_end, f"Read {log}.")
    try:
        answer = check.ask_endpoint(subject.endpoint)
    except NO_ANSWER as failure:
        yield error("The public endpoint does not answer", str(failure), "systemctl restart nginx")
        return
    if answer.release != str(subject.live):
        got = f"{answer.status}, from release {answer.release}" if answer.release else f"{answer.status}, no release named"
        yield error("The public endpoint does not answer from the live release", got, "ansible-playbook site.yml --tags nginx")
    elif check.flaw(answer):
        yield error(f"The app is unhealthy at the public endpoint: {check.unhealthy(answer)}", log_end, f"Read {log}.")


def rights(subject: Subject) -> Iterator[Finding]:
    """Who may read and write what."""
    user, group = subject.arguments["user"], subject.arguments["group"]
    runtime = subject.layout.runtime.stat() if subject.layout.runtime.exists() else None
    if runtime is None or stat.S_IMODE(runtime.st_mode) & 0o717 != 0o710 or name_of_group(runtime.st_gid) != group:
        found = f"mode {stat.S_IMODE(runtime.st_mode):04o}, group {name_of_group(runtime.st_gid)}" if runtime else "not there"
        yield error(
            "Nginx cannot access the socket directory",
            f"{subject.layout.runtime} is {found}.",
            f"systemd-tmpfiles --create slipway-{subject.arguments['name']}.conf",
        )
    shared = subject.layout.home / "shared"
    owner = name_of_user(shared.stat().st_uid) if shared.exists() else "not there"
    if owner != user:
        yield error("The app cannot write to its shared directory", f"{shared}: {owner}", f"chown {user}:{user} {shared}")
    for entry in shared_by(subject.layout, subject.live) if subject.live is not None else []:
        path = shared / entry.name
        owner = name_of_user(path.stat().st_uid) if path.exists() else "not there"
        if owner != user and (entry.folder or path.exists()):
            fix = f"chown -R {user}:{user} {path}" if path.exists() else f"install -d -m 0750 -o {user} -g {user} {path}"
            yield error(f"The app cannot write to {entry.path} (app_shared)", f"{path}: {owner}", fix)
    for number in subject.layout.numbers():
        file = subject.layout.release(number) / "settings.json"
        if file.exists() and (file.stat().st_mode & 0o007 or file.stat().st_uid):
            mode = stat.S_IMODE(file.stat().st_mode)
            yield error(
                f"The secrets of release {number} are accessible to others",
                f"{file} has mode {mode:04o}, owner {name_of_user(file.stat().st_uid)}.",
                f"chown root:{user} {file} && chmod 0640 {file}",
            )


def releases(subject: Subject) -> Iterator[Finding]:
    """What became of the last release, and whether what runs is what was built."""
    entries = subject.layout.entries()
    if entries and entries[-1].get("outcome") == "failed":
        last = entries[-1]
        yield warning(
            f"The last release, {last['release']}, failed",
            str(last.get("reason", "")),
            "Fix that, then: ansible-playbook playbooks/deploy.yml",
        )
    if subject.live is None:
        return
    pending = (subject.layout.record(subject.live).get("owed") or {}).get("hook")
    if pending:
        again, detail = "deploy.yml", "The next run runs it again (app_hooks)."
        if pending == "after_rollback":  # a deploy would release again what was rolled back
            again = f"rollback.yml -e release={subject.live}"
            detail = "If the app has one host, the next run runs it again; if it has several, run it manually (app_hooks)."
        yield warning(
            f"The hook {pending} of release {subject.live} failed or was interrupted",
            detail,
            f"Fix it, then: ansible-playbook playbooks/{again}",
        )
    build = (subject.layout.release(subject.live) / "build").resolve()
    mark = build / ".build.json"
    if not mark.exists():
        yield error(
            f"The build of release {subject.live} is missing or incomplete",
            str(build),
            "ansible-playbook playbooks/deploy.yml",
        )
        return
    built = mark.stat().st_mtime
    for folder, _, files in os.walk(build):
        for name in files:
            path = Path(folder, name)
            if path.suffix == ".py" and path.lstat().st_mtime > built + 1:
                yield warning(
                    "Code was changed on the host since it was built",
                    f"{path} is of {minute(path.lstat().st_mtime)}.",
                    "Apply the change to app_source, then: ansible-playbook playbooks/deploy.yml",
                )
                return


def name_of_user(number: int) -> str:
    """Return a user's name; the number where there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def name_of_group(number: int) -> str:
    """Return a group's name; the number where there is none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


CHECKS = (programs, sockets, health, rights, releases)
