"""See which app hosts are well, and have Nginx's slots lead to those.

    python3 slipway_balancer.py CONFIGURATION

Nginx shares requests out between a fixed number of slots. Each is a link to the socket of a host; a program of systemd's
carries what comes there to the host. A host is taken in and out by renaming links: Nginx is not told, so no connection of a
client is closed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Errors that mean there is no answer, or none that is HTTP.
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)


def shared_out(slots: Sequence[int], hosts: Sequence[str]) -> dict[int, str]:
    """Share slots out evenly between hosts, so that all balancers do it alike and few slots move when a host comes or goes.

    Args:
        slots: numbers of the slots.
        hosts: one at least.

    Returns:
        The host of each slot.
    """
    most, more = divmod(len(slots), len(hosts))
    room = {host: most + (place < more) for place, host in enumerate(sorted(hosts))}
    wishes = sorted((hashlib.sha256(f"{slot} {host}".encode()).digest(), slot, host) for slot in slots for host in hosts)
    found: dict[int, str] = {}
    for _, slot, host in wishes:
        if slot not in found and room[host]:
            found[slot] = host
            room[host] -= 1
    return found


def leading(slots: int, hosts: Sequence[str], usable: Sequence[str]) -> dict[int, str]:
    """Say where each slot leads: to its own host, or while that is not usable, to one that is.

    Args:
        slots: how many there are, from 1.
        hosts: all of the site.
        usable: those that may be used; one at least.
    """
    homes = shared_out(range(1, slots + 1), hosts)
    orphans = [slot for slot, host in homes.items() if host not in usable]
    return {**homes, **shared_out(orphans, usable)}


class Host:
    """What is known of one host.

    Args:
        name: what the inventory calls it.
        failures: how many times in a row it must fail to be taken out.
        successes: how many times in a row it must be well to be taken in.
        healthy: whether it was, when somebody last looked.
    """

    def __init__(self, name: str, failures: int, successes: int, healthy: bool) -> None:
        self.name = name
        self.needed = {False: failures, True: successes}
        self.healthy = healthy
        self.streak = 0
        self.reason = "" if healthy else "it has not answered yet"
        self.since = time.time()
        self.drained = False

    def hears(self, reason: str) -> bool:
        """Note an answer.

        Args:
            reason: why it was no good one; empty for a good one.

        Returns:
            Whether the host is taken for well, or unwell, from now on.
        """
        well = not reason
        if not well:
            self.reason = reason
        self.streak = 0 if well == self.healthy else self.streak + 1
        if self.streak < self.needed[well]:
            return False
        self.healthy, self.streak, self.since = well, 0, time.time()
        self.reason = reason
        return True

    @property
    def state(self) -> str:
        """What people are told."""
        return "drained" if self.drained else "in use" if self.healthy else "unhealthy"


def rename(link: Path, target: str) -> None:
    """Have a link lead to `target`, in one step."""
    if os.path.islink(link) and os.readlink(link) == target:
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def write(path: Path, text: str) -> None:
    """Write a file so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class Balancer:
    """The balancer of one site.

    Args:
        settings: C(hosts) (names to addresses with ports), C(ways) (other sockets to be had, likewise), C(slots); of the question
            whether a host is well, C(domain), C(scheme), C(path) and C(status), and C(authority), which must vouch for its
            certificate; C(seconds) between questions, C(timeout), C(failures), C(successes), C(runtime) and C(drained)
            (directories), and C(unit) of the sockets.
        sockets: the listing of this machine's Unix sockets.
    """

    def __init__(self, settings: Mapping[str, Any], sockets: Path = Path("/proc/net/unix")) -> None:
        self.settings = settings
        self.sockets = sockets
        self.runtime = Path(settings["runtime"])
        self.drained = Path(settings["drained"])
        known = self.remembered()
        self.hosts = [
            Host(name, settings["failures"], settings["successes"], bool(known.get(name, {}).get("healthy")))
            for name in settings["hosts"]
        ]

    def remembered(self) -> dict[str, Any]:
        """Return what was written down before this process began, so that a new one takes nobody out."""
        try:
            known: dict[str, Any] = json.loads((self.runtime / "state.json").read_text(encoding="utf-8"))["hosts"]
        except (OSError, ValueError, KeyError):
            return {}
        return known

    def have_ways(self) -> None:
        """Have a socket for each host.

        Raises:
            subprocess.CalledProcessError: when systemd refuses.
        """
        for name, address in {**self.settings["hosts"], **self.settings["ways"]}.items():
            file, text = self.runtime / f"{name}.env", f"ADDRESS={address}\n"
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                write(file, text)
                self.systemctl("stop", f"{self.settings['unit']}{name}.service")
            self.systemctl("start", f"{self.settings['unit']}{name}.socket")

    def leave_ways(self, used: Mapping[str, int]) -> None:
        """Do away with what is there of hosts that are no longer in the inventory, once nothing goes there any more."""
        known = {*self.settings["hosts"], *self.settings["ways"]}
        for note in self.drained.iterdir():
            if note.name not in known:
                note.unlink()
        for file in self.runtime.glob("*.env"):
            if file.stem not in known and not used.get(file.stem):
                unit = f"{self.settings['unit']}{file.stem}"
                self.systemctl("stop", f"{unit}.socket", f"{unit}.service")
                (self.runtime / f"{file.stem}.sock").unlink(missing_ok=True)
                file.unlink()

    def systemctl(self, *arguments: str) -> None:
        """Have systemd do something.

        Raises:
            subprocess.CalledProcessError: when it refuses.
        """
        subprocess.run(["systemctl", *arguments], check=True, timeout=60)

    def connections(self) -> Counter[str]:
        """Return how many connections lead to each host, kept ones included."""
        found: Counter[str] = Counter()
        for line in self.sockets.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split()
            # 03 is a connection; the one that listens has the same path.
            if len(fields) == 8 and fields[5] == "03" and fields[7].startswith(f"{self.runtime}/"):
                found[Path(fields[7]).stem] += 1
        return found

    def ask(self, name: str) -> str:
        """Ask a host how it is.

        Returns:
            What is wrong; nothing where all is well.
        """
        settings = self.settings
        try:
            context = ssl.create_default_context(cafile=settings["authority"])
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as raw:
                raw.settimeout(settings["timeout"])
                raw.connect(str(self.runtime / f"{name}.sock"))
                connection = http.client.HTTPConnection(settings["domain"])
                connection.sock = context.wrap_socket(raw, server_hostname=settings["domain"])
            with contextlib.closing(connection):
                headers = {"X-Forwarded-Proto": settings["scheme"], "Connection": "close"}
                connection.request("GET", settings["path"], headers=headers)
                answer = connection.getresponse()
                answer.read()
        except NO_ANSWER as error:
            return str(error) or type(error).__name__
        if answer.status != settings["status"]:
            return f"it answers {answer.status} instead of {settings['status']}"
        return ""

    def usable(self) -> list[str]:
        """Return the hosts that may be used: those that are well, or where none is, all that nobody took out, or simply all."""
        kept = [host for host in self.hosts if not host.drained]
        well = [host for host in kept if host.healthy]
        return [host.name for host in well or kept or [host for host in self.hosts if host.healthy] or self.hosts]

    def point(self) -> dict[int, str]:
        """Have the slots lead to the hosts that may be used, and return where each leads."""
        for host in self.hosts:
            host.drained = (self.drained / host.name).exists()
        slots = leading(self.settings["slots"], [host.name for host in self.hosts], self.usable())
        for slot, name in slots.items():
            rename(self.runtime / f"{slot}.slot", f"{name}.sock")
        return slots

    def tell(self, slots: Mapping[int, str], used: Mapping[str, int]) -> None:
        """Write down how it is."""
        shares = Counter(slots.values())
        hosts = {
            host.name: {
                "state": host.state,
                "healthy": host.healthy,
                "reason": host.reason,
                "since": round(host.since),
                "slots": shares[host.name],
                "connections": used.get(host.name, 0),
            }
            for host in self.hosts
        }
        write(self.runtime / "state.json", json.dumps({"when": time.time(), "hosts": hosts}))

    def round(self, pool: concurrent.futures.Executor) -> None:
        """Ask all hosts once, and do what follows."""
        used = self.connections()
        answers = {host: pool.submit(self.ask, host.name) for host in self.hosts}
        for host, answer in answers.items():
            reason = answer.result()
            if host.hears(reason):
                print(f"{host.name} is {host.state}{reason and f': {reason}'}", flush=True)
        self.tell(self.point(), used)
        self.leave_ways(used)

    def run(self) -> None:
        """Go on until told to stop."""
        self.drained.mkdir(parents=True, exist_ok=True)
        self.have_ways()
        self.tell(self.point(), {})
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(self.hosts)) as pool:
            while True:
                self.round(pool)
                # Of a host that answers otherwise than before, more is to be known soon.
                time.sleep(self.settings["seconds"] / (4 if any(host.streak for host in self.hosts) else 1))


if __name__ == "__main__":
    Balancer(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run()
