"""Ask one door of this machine for the same path over kept connections; print as JSON what that took and cost.

Runs inside the container with nothing but Python. The same client asks every door, so its own ways cancel out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)
WARM_UP_SECONDS = 0.5


class Client:
    """One kept connection to a door: `unix:PATH`, `http:PORT` or `https:PORT`; another machine's is `https:ADDRESS:PORT`."""

    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    def __init__(self, door: str, host: str, path: str) -> None:
        self.kind, _, self.place = door.partition(":")
        self.host = host
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
        self.due = 0.0
        self.connect()

    def connect(self) -> None:
        """Open the connection, TLS included."""
        self.socket: socket.socket
        if self.kind == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(self.place)
        else:
            address, _, port = self.place.rpartition(":")
            self.socket = socket.create_connection((address or "127.0.0.1", int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.kind == "https":
            self.socket = self.trusting.wrap_socket(self.socket, server_hostname=self.host)
        self.socket.setblocking(False)
        self.received = b""

    def ask(self, due: float) -> None:
        """Send the request; `due` (monotonic seconds) is when it should have left."""
        self.due = due
        self.socket.send(self.request)

    def answered(self) -> bool:
        """Take in what has come and say whether the answer is complete.

        Raises:
            ConnectionError: when it is cut short or not a 200.
        """
        while True:
            try:
                part = self.socket.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            if not part:
                raise ConnectionError(f"closed amid an answer: {self.received!r}")
            self.received += part
            head, end, body = self.received.partition(b"\r\n\r\n")
            length = LENGTH.search(head + b"\r\n")
            if end and length and len(body) >= int(length[1]):
                break
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.decode("latin-1"))
        self.received = b""
        self.closing = CLOSES.search(head + b"\r\n") is not None
        return True


class Load:
    """Some clients of one door."""

    def __init__(self, door: str, host: str, path: str, connections: int) -> None:
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.idle: deque[Client] = deque()
        self.opened = 0
        for _ in range(connections):
            self.admit(Client(door, host, path))

    def admit(self, client: Client) -> None:
        """Take a freshly connected client in."""
        self.clients[client.socket.fileno()] = client
        self.poll.register(client.socket, select.EPOLLIN)
        self.idle.append(client)
        self.opened += 1

    def take(self, client: Client) -> None:
        """Take a client back that has its answer; connect it anew where the server closes."""
        if not client.closing:
            self.idle.append(client)
            return
        self.poll.unregister(client.socket)
        del self.clients[client.socket.fileno()]
        client.socket.close()
        client.connect()
        self.admit(client)

    def run(self, seconds: float, rate: float = 0) -> list[float]:
        """Ask for so long and return what each answer took, in seconds.

        Each client asks again as soon as it has its answer or, with a `rate` in requests per second, when the next one is
        due; waiting for a free client then counts, so that a slow door cannot hide behind being asked less.
        """
        took: list[float] = []
        begin = time.monotonic()
        end, step, due = begin + seconds, 1 / rate if rate else 0, begin
        while True:
            now = time.monotonic()
            while self.idle and due <= now < end:
                self.idle.popleft().ask(due if rate else now)
                due += step
            if now >= end and len(self.idle) == len(self.clients):
                return took
            for number, _ in self.poll.poll(max(0.0, min(due, end) - now) if rate and self.idle else 0.1):
                client = self.clients[number]
                if client.answered():
                    took.append(time.monotonic() - client.due)
                    self.take(client)


def tree(master: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        parents[int(stat.parent.name)] = int(fields[1])
    found = [master]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def cpu(processes: list[int]) -> float:
    """Return the CPU seconds that the processes have used, in user and system mode."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def costed(trees: dict[str, list[int]], ask: Callable[[], list[float]]) -> tuple[list[float], dict[str, float]]:
    """Run `ask`; return what its answers took, and the CPU microseconds per answer of each process tree."""
    before = {name: cpu(processes) for name, processes in trees.items()}
    took = ask()
    return took, {name: (cpu(processes) - before[name]) / len(took) * 1e6 for name, processes in trees.items()}


def main() -> None:
    """Ask, first to see what a request costs, then at a fixed rate to see how long it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("door", help="unix:PATH, http:PORT or https:PORT; with ADDRESS: before the port on another machine")
    parser.add_argument("host", help="the name to ask for")
    parser.add_argument("--path", default="/")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4, help="of each of the two parts")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second of the second part")
    parser.add_argument("--process", action="append", default=[], metavar="NAME=PID", help="a process tree to measure")
    arguments = parser.parse_args()
    trees = {name: tree(int(pid)) for name, _, pid in (pair.partition("=") for pair in arguments.process)}
    load = Load(arguments.door, arguments.host, arguments.path, arguments.connections)
    load.run(WARM_UP_SECONDS)
    begin = time.monotonic()
    took, microseconds = costed(trees, lambda: load.run(arguments.seconds))
    per_second = len(took) / (time.monotonic() - begin)
    paced, paced_microseconds = costed(trees, lambda: load.run(arguments.seconds, arguments.rate))
    paced.sort()
    result = {
        "microseconds": microseconds,
        "paced_microseconds": paced_microseconds,
        "per_second": per_second,
        "p50_ms": paced[len(paced) // 2] * 1e3,
        "p99_ms": paced[len(paced) * 99 // 100] * 1e3,
        "connections": load.opened,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
