"""HAProxy's runtime API: the state of each backend, how to change it, and the file that keeps it over a reload."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.host import files
from slipway.host.errors import ReleaseError

SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy-master.sock"
STATE_FILE = "/var/lib/slipway/haproxy/server-state"

# The backend whose servers are checked, and the one whose servers track those: a host has a server of its name in both.
CHECKED, TRACKING = "app", "app_once"

UP, DOWN, DRAIN, MAINT = "up", "down", "drain", "maint"

# Bits of srv_admin_state, and values of srv_op_state, in what `show servers state` prints.
ADMIN_MAINT, ADMIN_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
STOPPED, STOPPING = 0, 3

# How each of its two outputs begins.
STATISTICS_START, STATE_START = "# ", "1\n# be_id "


# Rows by backend and server: values by the names of columns.
Rows = Mapping[tuple[str, str], Mapping[str, str]]


class HAProxyError(ReleaseError):
    """HAProxy refused a command, or printed something else than expected."""


class Unreachable(HAProxyError):
    """HAProxy does not run, or does not answer."""


@dataclass(frozen=True)
class HealthCheck:
    """The last health check of a backend.

    Attributes:
        status: how it ended, as HAProxy abbreviates it (L7OK, L7STS, L4CON); empty if there was none, and in maintenance.
        code: the HTTP status of the answer, if there was one.
        output: what HAProxy adds, such as the reason of an error.
        description: the status in words.
        milliseconds: how long it took, if known.
    """

    status: str
    code: str
    output: str
    description: str
    milliseconds: str

    @property
    def passed(self) -> bool:
        """Whether the backend was healthy."""
        return self.status in ("L7OK", "L7OKC", "L6OK", "L4OK")

    def __str__(self) -> str:
        """Return it in words: `Layer7 wrong status: 503 Service Unavailable (L7STS, 3 ms)`."""
        if not self.status:
            return ""
        answer = " ".join(filter(None, (self.code, self.output)))
        details = ", ".join(filter(None, (self.status, self.milliseconds and f"{self.milliseconds} ms")))
        return f"{': '.join(filter(None, (self.description, answer)))} ({details})"


@dataclass(frozen=True)
class Backend:
    """An app host behind the load balancer.

    Attributes:
        name: its name in the inventory.
        state: `up`, `down`, `drain` or `maint`; `drain` whether or not it is healthy.
        is_healthy: whether HAProxy takes it for healthy; never in maintenance.
        check: its last health check.
        sessions: requests and connections in progress, those of processes from before a reload included; idle ones do not count.
        requests: how many it has had since HAProxy was started or reloaded.
        weight: its share of the requests.
        is_sticky: whether clients hold cookies for it, with which they come even while it is drained.
    """

    name: str
    state: str
    is_healthy: bool
    check: HealthCheck
    sessions: int
    requests: int
    weight: int
    is_sticky: bool


class HAProxy:
    """HAProxy as its runtime API shows it."""

    def __init__(self, path: Path, master: Path | None = None, timeout: float = 10.0) -> None:
        """Connect to nothing yet.

        Args:
            path: the stats socket.
            master: the socket of the master process, through which processes from before a reload are reached; it need not exist.
            timeout: seconds that an answer may take.
        """
        self.path, self.master, self.timeout = path, master, timeout

    def command(self, text: str) -> str:
        """Send a command on a connection of its own, and return the output.

        Raises:
            Unreachable: when there is no answer.
        """
        return self.send(self.path, text)

    def send(self, path: Path, text: str) -> str:
        """Send a command to a socket, and return the output.

        Raises:
            Unreachable: when there is no answer.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self.timeout)
                connection.connect(str(path))
                connection.sendall(f"{text}\n".encode())
                connection.shutdown(socket.SHUT_WR)  # the master would wait for the next command
                output = b"".join(iter(lambda: connection.recv(65536), b""))
        except (FileNotFoundError, ConnectionError) as error:
            raise Unreachable(f"HAProxy does not run ({path}: {error.strerror}): systemctl status haproxy") from error
        except OSError as error:
            reason = "it timed out" if isinstance(error, socket.timeout) else error.strerror
            raise Unreachable(f"HAProxy does not answer ({path}: {reason}): systemctl status haproxy") from error
        return output.decode("utf-8", "replace")

    def change(self, text: str) -> None:
        """Send a command that prints something only if it fails.

        Raises:
            HAProxyError: when it fails.
        """
        output = self.command(text).strip()
        if output:
            raise HAProxyError(f"HAProxy refused '{text}': {output}")

    def read(self, text: str, start: str) -> str:
        """Send a command and return its output, which must begin with `start`.

        Raises:
            HAProxyError: when it does not.
        """
        output = self.command(text)
        if not output.startswith(start):
            raise HAProxyError(f"HAProxy refused '{text}': {output.strip()[:200] or 'no output'}")
        return output

    def statistics(self) -> Rows:
        """Return the rows of `show stat` by backend and server."""
        return rows_of(self.read("show stat", STATISTICS_START))

    def ask_former(self, text: str) -> list[str]:
        """Send a command to each process that was replaced by a reload but still has connections, and return the outputs.

        They count their own requests, and refuse to change a state. A request that they send to a host that is stopped is
        retried on another one.
        """
        if not self.master or not self.master.exists():
            return []
        _, _, former = self.send(self.master, "show proc").partition("# old workers")
        return [self.send(self.master, f"@!{pid} {text}") for pid in re.findall(r"^(\d+)\s+worker\s", former, re.MULTILINE)]

    def server_states(self) -> Rows:
        """Return the rows of `show servers state` by backend and server."""
        lines = self.state_text()[len(STATE_START) - len("be_id ") :].splitlines()
        return {(row["be_name"], row["srv_name"]): row for row in csv.DictReader(filter(None, lines), delimiter=" ")}

    def state_text(self) -> str:
        """Return what `show servers state` prints: it is what HAProxy loads from its state file."""
        return self.read("show servers state", STATE_START)

    def backends(self) -> dict[str, Backend]:
        """Return the backends by name, in the order of the configuration."""
        former = [rows_of(text) for text in self.ask_former("show stat") if text.startswith(STATISTICS_START)]
        return {backend.name: backend for backend in parse(self.statistics(), self.server_states(), former)}

    def set_state(self, name: str, state: str) -> None:
        """Set the state of a backend: `ready`, `drain` or `maint`. The server that tracks it follows."""
        self.change(f"set server {CHECKED}/{name} state {state}")

    def set_down(self, name: str) -> None:
        """Take a backend for down until it has passed as many health checks as one needs that was unhealthy."""
        self.change(f"set server {CHECKED}/{name} health down")

    def save(self, file: Path) -> None:
        """Write the state of all backends to the file that HAProxy loads when it starts and when it is reloaded.

        Raises:
            HAProxyError: when there is no state to write; the file stays as it was.
            OSError: when it cannot be written.
        """
        text = self.state_text()
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, text)


def rows_of(text: str) -> Rows:
    """Return the rows of what `show stat` printed."""
    lines = text[len(STATISTICS_START) :].splitlines()
    return {(row["pxname"], row["svname"]): row for row in csv.DictReader(filter(None, lines))}


def parse(statistics: Rows, states: Rows, former: Sequence[Rows] = ()) -> Iterator[Backend]:
    """Yield the backends.

    Args:
        statistics: the rows of `show stat`.
        states: those of `show servers state`.
        former: the rows of `show stat` of processes from before a reload.
    """
    for (group, name), row in statistics.items():
        if group != CHECKED or (group, name) not in states:
            continue
        both = [row, statistics.get((TRACKING, name), {})]
        admin, operation = (int(states[group, name][field]) for field in ("srv_admin_state", "srv_op_state"))
        is_healthy = operation not in (STOPPED, STOPPING)
        yield Backend(
            name=name,
            state=MAINT if admin & ADMIN_MAINT else DRAIN if admin & ADMIN_DRAIN else UP if is_healthy else DOWN,
            is_healthy=is_healthy,
            # A star stands for a check in progress; the rest is of the one before.
            check=HealthCheck(
                row["check_status"].replace("* ", ""),
                *(row.get(field, "") for field in ("check_code", "last_chk", "check_desc", "check_duration")),
            ),
            sessions=sum(
                int(rows.get((each, name), {}).get("scur") or 0) for rows in (statistics, *former) for each in (CHECKED, TRACKING)
            ),
            requests=sum(int(each.get("stot") or 0) for each in both),
            weight=int(row["weight"] or 0),
            is_sticky=any(each.get("cookie") for each in both),
        )


def save_state(path: str = SOCKET, file: str = STATE_FILE) -> str:
    """Write the state of all backends to the state file before HAProxy is reloaded or stopped, which it must not prevent.

    Returns:
        Why that failed; empty if it did not.
    """
    try:
        HAProxy(Path(path)).save(Path(file))
    except (HAProxyError, OSError) as error:
        return f"The state of the backends was not saved to {file}: {error}"
    return ""
