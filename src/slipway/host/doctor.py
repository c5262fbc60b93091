"""Find what is wrong with a host that serves an app, or soon will be, and what mends it. Nothing is changed."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slipway.host.endpoint import NO_ANSWER, Door, UnixConnection, ask
from slipway.host.errors import ReleaseError
from slipway.host.logs import ends
from slipway.host.process import tail
from slipway.host.state import facts_of, overdue, served
from slipway.host.store import Store
from slipway.host.supervisor import Supervisor

# What it is told: a type stands for what must be given, and anything else is the default.
PARAMETERS: dict[str, Any] = {
    # The app's paths `home`, `runtime` and `logs`.
    "layout": dict,
    # The app's name.
    "name": str,
    # The user that runs the app.
    "user": str,
    # The group that may reach its sockets, which is Nginx's.
    "group": str,
    # Where Supervisor looks for sections.
    "program_directory": str,
    # What the names of those files end with.
    "program_suffix": str,
    # Units of `nginx`, `supervisor`, `certbot`; empty for none.
    "services": dict,
    # `path`, `status` and `host` of the question whether it is healthy.
    "health": dict,
    # `host`, `port` and `tls` of the public door on this host.
    "door": dict,
    # The file of the certificate that Nginx serves.
    "certificate": str,
    # Whether it is to be one of a certificate authority.
    "authority": bool,
    # The app's names.
    "domains": list,
    # Names to the addresses that the controller finds them at.
    "resolved": dict,
    # The addresses of this host.
    "addresses": list,
    # The controller's time, in seconds since 1970.
    "now": float,
    # Files that differ from what the roles would write.
    "drift": [],
}

# From where on a disk is called full, in percent.
FULL, NEARLY_FULL = 95, 85
SKEW_SECONDS = 60
RECENT = "-3 days"

Finding = dict[str, str]


def finding(severity: str, what: str, evidence: str, remedy: str) -> Finding:
    """Return a finding."""
    return {"severity": severity, "what": what, "evidence": evidence.strip(), "remedy": remedy}


def say(*words: str, text: str | None = None) -> tuple[int, str]:
    """Return the exit code of a command and what it prints; 127 where there is no such command."""
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, f"{done.stdout}{done.stderr}".strip()


class Doctor:
    """Looks at one app and its host.

    Args:
        arguments: those of the module.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.layout = Store(**arguments["layout"])
        self.door = Door(**arguments["door"])
        self.supervisor = Supervisor(arguments["name"], arguments["program_directory"], arguments["program_suffix"], 0)
        self.live = self.layout.live()

    def findings(self) -> list[Finding]:
        """Return all that is found, the worst first."""
        looks = (
            self.names,
            self.services,
            self.ports,
            self.programs,
            self.sockets,
            self.health,
            self.rights,
            self.releases,
            self.certificate,
            self.disks,
            self.memory,
            self.clock,
            self.guards,
            self.reboot,
            self.drift,
        )
        found: list[Finding] = []
        for look in looks:
            try:
                found.extend(look())
            except (OSError, ReleaseError, ValueError, KeyError) as error:
                found.append(finding("warning", f"{look.__name__} could not be looked at", str(error), "Look by hand."))
        return sorted(found, key=lambda each: each["severity"] != "error")

    def said(self, number: int) -> tuple[str, str]:
        """Return where release `number` logs, and the last of it."""
        found = ends(self.layout, self.arguments["name"], number, 5)
        return found[0] if found else (str(self.layout.log(number)), "")

    def names(self) -> Iterator[Finding]:
        """Where the app's names lead."""
        for name, addresses in self.arguments["resolved"].items():
            if not addresses:
                yield finding(
                    "error", f"{name} has no address", "The controller cannot resolve it.", f"Add an A record for {name}."
                )
            strange = [address for address in addresses if address not in self.arguments["addresses"]]
            if strange:
                own = ", ".join(self.arguments["addresses"]) or "unknown"
                yield finding(
                    "warning",
                    f"{name} leads elsewhere",
                    f"It leads to {', '.join(strange)}; this host has {own}.",
                    f"Point the A and AAAA records of {name} at this host, unless something in front of it hands requests on.",
                )

    def services(self) -> Iterator[Finding]:
        """Whether the services run, and will after a reboot."""
        for role, service in self.arguments["services"].items():
            if not service:
                continue
            active = say("systemctl", "is-active", service)[1]
            if active != "active":
                log = say("journalctl", "--unit", service, "--lines=3", "--no-pager", "--output=cat")[1]
                yield finding("error", f"{service} does not run", f"{active}\n{log}", f"systemctl restart {service}")
            if say("systemctl", "is-enabled", service)[1].splitlines()[-1:] not in (["enabled"], ["static"], ["enabled-runtime"]):
                yield finding(
                    "warning", f"{service} will not start after a reboot", "It is not enabled.", f"systemctl enable {service}"
                )
            if role == "nginx" and shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin"):
                code, text = say("nginx", "-t")
                if code:
                    yield finding(
                        "error",
                        "Nginx would refuse its configuration",
                        tail(text, 3),
                        "ansible-playbook site.yml --tags nginx",
                    )

    def ports(self) -> Iterator[Finding]:
        """Who listens."""
        for port in sorted({80, self.door.port}):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except OSError as error:
                yield finding("error", f"Nobody listens on port {port}", str(error), "systemctl restart nginx")
                continue
            listeners = say("ss", "-Hltnp", f"sport = :{port}")[1]
            if listeners and "users:" in listeners and "nginx" not in listeners:
                yield finding(
                    "error",
                    f"Port {port} belongs to another program than Nginx",
                    listeners,
                    "Stop it, then: systemctl restart nginx",
                )

    def programs(self) -> Iterator[Finding]:
        """What Supervisor runs."""
        running = self.supervisor.processes()
        yield from self.stale(running)
        for number, processes in sorted(running.items()):
            if number != self.live:
                yield finding(
                    "warning",
                    f"Release {number} runs, but {self.live} is live",
                    "A run was interrupted.",
                    "ansible-playbook playbooks/deploy.yml",
                )
            for process in processes:
                if process["statename"] not in ("RUNNING", "STARTING"):
                    said = self.said(number)[1]
                    name = f"{process['group']}:{process['name']}"
                    yield finding(
                        "error",
                        f"The program {process['name']} is {process['statename']}",
                        f"{process.get('description', '')}\n{said}",
                        f"supervisorctl start {name}",
                    )
        if self.live is not None and self.live not in running:
            yield finding(
                "error",
                f"Supervisor does not know release {self.live}, which is live",
                f"It knows {', '.join(map(str, running)) or 'none'}.",
                "ansible-playbook playbooks/deploy.yml",
            )
        if self.live is not None and self.live not in self.supervisor.installed():
            yield finding(
                "error",
                f"Release {self.live} will not start after a reboot",
                f"There is no {self.supervisor.section(self.live)}.",
                "ansible-playbook playbooks/deploy.yml",
            )

    def stale(self, running: dict[int, list[dict[str, Any]]]) -> Iterator[Finding]:
        """Whether what runs read its files as they are now."""
        if self.live is None:
            return
        started = min(
            (each["start"] for each in running.get(self.live, []) if each["statename"] == "RUNNING"), default=time.time()
        )
        for file in (self.layout.release(self.live) / name for name in ("launch.py", "settings.json")):
            if file.exists() and file.stat().st_mtime > started + 1:
                yield finding(
                    "warning",
                    f"Release {self.live} runs with older files than it has",
                    f"{file} is of {minute(file.stat().st_mtime)}, its program of {minute(started)}.",
                    f"supervisorctl restart {self.supervisor.program(self.live)}:*",
                )
                return

    def sockets(self) -> Iterator[Finding]:
        """Whether Nginx finds and reaches the sockets."""
        if self.live is None:
            yield finding(
                "error", "Nothing is live", f"{self.layout.live_socket} leads nowhere.", "ansible-playbook playbooks/deploy.yml"
            )
            return
        for place in self.layout.sockets(self.live):
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(5)
                    client.connect(str(place))
                mode = place.stat().st_mode & 0o777
                if mode & 0o006 != 0o006:
                    yield finding(
                        "error",
                        "Nginx may not use the app's socket",
                        f"{place} has mode {mode:04o}.",
                        f"supervisorctl restart {self.supervisor.program(self.live)}:*",
                    )
            except OSError as error:
                yield finding(
                    "error",
                    "Nobody listens at the live release's socket",
                    f"{place}: {error.strerror}",
                    f"supervisorctl restart {self.supervisor.program(self.live)}:*",
                )
        lags = not self.layout.current.is_symlink() or os.readlink(self.layout.current) != f"releases/{self.live}"
        if lags:
            yield finding(
                "warning",
                "The link `current` does not lead to the live release",
                str(self.layout.current),
                "ansible-playbook playbooks/deploy.yml",
            )

    def health(self) -> Iterator[Finding]:
        """What the app answers, at its socket and at the door."""
        if self.live is None:
            return
        question, wanted = self.arguments["health"], int(self.arguments["health"]["status"])
        log, said = self.said(self.live)
        for place in self.layout.sockets(self.live):
            try:
                answer = ask(UnixConnection(place, timeout=5), question["path"], question["host"])
            except NO_ANSWER:
                continue  # told already
            if answer.status != wanted:
                yield finding(
                    "error", f"The app answers {answer.status} to {question['path']}, not {wanted}", said, f"Read {log}."
                )
        try:
            answer = self.door.ask(question["path"])
        except NO_ANSWER as error:
            yield finding("error", "The public door does not answer", str(error), "systemctl restart nginx")
            return
        if answer.release != str(self.live):
            got = f"{answer.status}, from release {answer.release}" if answer.release else f"{answer.status}, from no release"
            yield finding(
                "error", "The public door does not answer from the live release", got, "ansible-playbook site.yml --tags nginx"
            )

    def rights(self) -> Iterator[Finding]:
        """Who may read and write what."""
        user, group = self.arguments["user"], self.arguments["group"]
        runtime = self.layout.runtime.stat() if self.layout.runtime.exists() else None
        if runtime is None or stat.S_IMODE(runtime.st_mode) & 0o717 != 0o710 or name_of_group(runtime.st_gid) != group:
            found = f"mode {stat.S_IMODE(runtime.st_mode):04o}, group {name_of_group(runtime.st_gid)}" if runtime else "not there"
            yield finding(
                "error",
                "Nginx may not look into the directory of sockets",
                f"{self.layout.runtime} is {found}.",
                f"systemd-tmpfiles --create slipway-{self.arguments['name']}.conf",
            )
        shared = self.layout.home / "shared"
        owner = name_of_user(shared.stat().st_uid) if shared.exists() else "not there"
        if owner != user:
            yield finding(
                "error", "The app may not write to its shared directory", f"{shared}: {owner}", f"chown {user}:{user} {shared}"
            )
        for number in self.layout.numbers():
            file = self.layout.release(number) / "settings.json"
            if file.exists() and (file.stat().st_mode & 0o007 or file.stat().st_uid):
                mode = stat.S_IMODE(file.stat().st_mode)
                yield finding(
                    "error",
                    f"Others may read or change the secrets of release {number}",
                    f"{file} has mode {mode:04o}, owner {name_of_user(file.stat().st_uid)}.",
                    f"chown root:{user} {file} && chmod 0640 {file}",
                )

    def releases(self) -> Iterator[Finding]:
        """What became of the last release, and whether what runs is what was built."""
        entries = self.layout.entries()
        if entries and entries[-1].get("outcome") == "failed":
            last = entries[-1]
            yield finding(
                "warning",
                f"The last release, {last['release']}, failed",
                str(last.get("reason", "")),
                "Mend that, then: ansible-playbook playbooks/deploy.yml",
            )
        if self.live is None:
            return
        owed = (self.layout.record(self.live).get("owed") or {}).get("hook")
        if owed:
            again, detail = "deploy.yml", "It is run again by the next run (app_hooks)."
            if owed == "after_rollback":  # a deploy would release again what was rolled back
                again = f"rollback.yml -e release={self.live}"
                detail = "It is run again where the app has one host; where it has several, run it by hand (app_hooks)."
            yield finding(
                "warning",
                f"The hook {owed} of release {self.live} failed, or was cut off",
                detail,
                f"Mend it, then: ansible-playbook playbooks/{again}",
            )
        build = (self.layout.release(self.live) / "build").resolve()
        mark = build / ".build.json"
        if not mark.exists():
            yield finding(
                "error",
                f"The build of release {self.live} is gone or half there",
                str(build),
                "ansible-playbook playbooks/deploy.yml",
            )
            return
        built = mark.stat().st_mtime
        for folder, _, files in os.walk(build):
            for name in files:
                path = Path(folder, name)
                if path.suffix == ".py" and path.lstat().st_mtime > built + 1:
                    yield finding(
                        "warning",
                        "Code was changed on the host since it was built",
                        f"{path} is of {minute(path.lstat().st_mtime)}.",
                        "Bring the change into app_source, then: ansible-playbook playbooks/deploy.yml",
                    )
                    return

    def certificate(self) -> Iterator[Finding]:
        """The certificate that is served, and the one in the file."""
        if not self.door.tls:
            return
        mend = "ansible-playbook site.yml --tags certbot"
        stored = Path(self.arguments["certificate"])
        if not stored.exists():
            yield finding("error", "There is no certificate", str(stored), "ansible-playbook site.yml")
            return
        facts = facts_of(served(self.door))
        if facts["fingerprint"] != facts_of(stored.read_text(encoding="ascii"))["fingerprint"]:
            yield finding(
                "error", "Nginx serves another certificate than the one in its file", str(stored), "systemctl reload nginx"
            )
        for severity, what, evidence in overdue(facts):
            yield finding(severity, what, evidence, mend if self.arguments["authority"] else self.newer(facts["issuer"]))
        if self.arguments["authority"] and facts["issuer"] == facts["subject"]:
            yield finding(
                "error", "The certificate is a placeholder, which browsers refuse", f"Its issuer is {facts['issuer']}.", mend
            )
        lacking = [name for name in self.arguments["domains"] if name not in facts["names"]]
        if lacking:
            yield finding(
                "error", f"The certificate is not for {', '.join(lacking)}", f"It is for {', '.join(facts['names'])}.", mend
            )

    @staticmethod
    def newer(issuer: str) -> str:
        """Say how a certificate is renewed that no authority is asked for, by who issued it."""
        if "Slipway placeholder" in issuer:
            return "ansible-playbook site.yml --tags nginx"
        return "Put a newer one where certbot_own_certificate says, and its key, then: ansible-playbook site.yml --tags certbot"

    def disks(self) -> Iterator[Finding]:
        """Room, and inodes."""
        seen = set()
        for place in (self.layout.home, self.layout.logs, Path("/var/log"), Path("/var/lib"), Path("/tmp"), Path("/")):
            if not place.exists() or place.stat().st_dev in seen:
                continue
            seen.add(place.stat().st_dev)
            system = os.statvfs(place)
            usable = system.f_blocks - system.f_bfree + system.f_bavail
            for what, part, whole in (("disk", system.f_bavail, usable), ("inodes", system.f_favail, system.f_files)):
                used = 100 * (1 - part / whole) if whole else 0
                if used >= NEARLY_FULL:
                    yield finding(
                        "error" if used >= FULL else "warning",
                        f"The {what} of {place} {'are' if what == 'inodes' else 'is'} {used:.0f} % full",
                        f"{part} of {whole} {'blocks' if what == 'disk' else 'inodes'} are free.",
                        "Lower app_keep_releases and deploy, or: journalctl --vacuum-size=200M",
                    )

    def memory(self) -> Iterator[Finding]:
        """What is free, and who was killed for want of it."""
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
        if sizes.get("MemAvailable", sizes["MemTotal"]) < sizes["MemTotal"] * 0.05:
            yield finding(
                "warning",
                "Memory is nearly used up",
                f"{sizes['MemAvailable'] // 1024} of {sizes['MemTotal'] // 1024} MiB are available.",
                "Lower app_workers, and deploy.",
            )
        lines = say("journalctl", "--dmesg", f"--since={RECENT}", "--no-pager", "--output=short-iso")[1].splitlines()
        lines += say("journalctl", f"--since={RECENT}", "--no-pager", "--output=short-iso", "_PID=1")[1].splitlines()
        killed = [line for line in lines if re.search(r"Out of memory|oom-kill|OOM killer", line)]
        if killed:
            yield finding("warning", "Processes were killed for want of memory", killed[-1], "Lower app_workers, or add memory.")

    def clock(self) -> Iterator[Finding]:
        """The time."""
        skew = time.time() - self.arguments["now"]
        if abs(skew) > SKEW_SECONDS:
            yield finding("error", "The clock is wrong", f"It is {skew:+.0f} s off the controller's.", "timedatectl set-ntp true")

    def guards(self) -> Iterator[Finding]:
        """What SELinux refused."""
        if say("getenforce")[1] != "Enforcing":
            return
        code, text = say("ausearch", "--message", "AVC", "--start", "yesterday")
        if code == 127:
            text = say("journalctl", "_TRANSPORT=audit", f"--since={RECENT}", "--no-pager", "--output=cat")[1]
        ours = ('comm="nginx"', str(self.layout.home), str(self.layout.runtime), str(self.layout.logs))
        denied = [line for line in text.splitlines() if "denied" in line and any(word in line for word in ours)]
        if denied:
            yield finding(
                "error", "SELinux refuses something to Nginx or the app", denied[-1], "ansible-playbook site.yml --tags nginx"
            )

    def reboot(self) -> Iterator[Finding]:
        """Whether updates wait for a reboot."""
        if Path("/run/reboot-required").exists() or say("needs-restarting", "-r")[0] == 1:
            names = Path("/run/reboot-required.pkgs")
            text = names.read_text(encoding="utf-8").split() if names.exists() else []
            yield finding("warning", "Updates wait for a reboot", ", ".join(sorted(set(text))), "systemctl reboot")

    def drift(self) -> Iterator[Finding]:
        """What somebody changed by hand."""
        if self.arguments["drift"]:
            files = ", ".join(self.arguments["drift"])
            yield finding(
                "warning", "Files are not what the roles would write", files, "ansible-playbook site.yml --check --diff"
            )


def minute(seconds: float) -> str:
    """Return a time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


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


def step(given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Return the `findings`."""
    os.environ["LC_ALL"] = "C.UTF-8"
    return {"changed": False, "findings": Doctor(given).findings()}
