"""Ask a test host for things at a steady pace until standard input ends, and print as JSON what became of every request.

    python -m molecule.release.load ADDRESS NAME CERTIFICATE [PAUSE [STREAMS]]

PAUSE is how many times as long as usual a client waits between two requests. With 0 for STREAMS there are none.

Half of the requests are POSTs, each with a number of its own. Most come over kept connections, the others over new ones. Nothing
is ever sent twice. Beside them a WebSocket and an event stream stay open; when one ends, it is opened again.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

KEPT_CLIENTS, KEPT_PAUSE = 6, 0.018
NEW_CLIENTS, NEW_PAUSE = 2, 0.06


class Connection(http.client.HTTPConnection):
    """A connection through the front door of a host."""

    def __init__(self, load: Load) -> None:
        super().__init__(load.name, timeout=30)
        self.load = load

    def connect(self) -> None:
        """Connect, also once more after the server has said that it closes: it does so after some thousand requests."""
        self.sock = self.load.door()


class Load:
    """The clients of one host."""

    def __init__(self, address: str, name: str, certificate: str, pause: str = "1", streams: str = "1") -> None:
        self.pause = float(pause)
        self.long = [self.websocket, self.events] if int(streams) else []
        self.address = address
        self.name = name
        self.context = ssl.create_default_context(cafile=certificate)
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.requests = 0
        self.posted: list[str] = []
        self.failures: list[str] = []
        self.releases: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.last = ""

    def door(self) -> ssl.SSLSocket:
        raw = socket.create_connection((self.address, 443), timeout=30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(raw, server_hostname=self.name)

    def fail(self, text: str) -> None:
        with self.lock:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {text}")

    def client(self, number: int, kept: bool, pause: float) -> None:
        """Ask again and again, GET and POST in turn."""
        connection: http.client.HTTPConnection | None = None
        count = 0
        while not self.done.is_set():
            count += 1
            order = f"{number}-{count}"
            method, path = ("POST", f"/orders/{order}") if count % 2 else ("GET", f"/items/{count}")
            try:
                if connection is None:
                    connection = Connection(self)
                connection.request(method, path, headers={} if kept else {"Connection": "close"})
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.fail(f"{method} {path}: {answer.status} {body[:80]!r}")
                release = str(answer.getheader("X-Release"))
                with self.lock:
                    self.requests += 1
                    self.releases[release] += 1
                    self.last = release
                    if method == "POST" and answer.status == 200:
                        self.posted.append(order)
            except (OSError, http.client.HTTPException) as error:
                self.fail(f"{method} {path}: {error!r}")
                connection = None
            if not kept and connection is not None:
                connection.close()
                connection = None
            time.sleep(pause)

    def websocket(self) -> None:
        """Keep a WebSocket open and talk over it."""
        while not self.done.is_set():
            try:
                raw = socket.create_connection((self.address, 443), timeout=30)
                # What is cut off here may go on being read, from what then is somebody else's socket.
                with connect(f"wss://{self.name}/ws", sock=raw, ssl=self.context, open_timeout=30) as talk:
                    self.streams["websockets opened"] += 1
                    while not self.done.is_set():
                        talk.send("hello")
                        if talk.recv(timeout=20) == "hello":
                            self.streams["messages"] += 1
                        time.sleep(0.2)
            except ConnectionClosed:
                self.streams["websockets ended"] += 1
            except Exception as error:
                self.fail(f"WebSocket: {error!r}")

    def events(self) -> None:
        """Keep an event stream open."""
        while not self.done.is_set():
            connection = Connection(self)
            try:
                connection.request("GET", "/events")
                answer = connection.getresponse()
                if answer.status != 200:
                    self.fail(f"GET /events: {answer.status}")
                self.streams["event streams opened"] += 1
                while not self.done.is_set() and (line := answer.readline()):
                    self.streams["events"] += line.startswith(b"data:")
                self.streams["event streams ended"] += 1
            except http.client.IncompleteRead:
                self.streams["event streams ended"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.fail(f"GET /events: {error!r}")
            connection.close()

    def run(self) -> dict[str, Any]:
        """Ask until standard input ends."""
        threads = [threading.Thread(target=stream) for stream in self.long]
        for number in range(KEPT_CLIENTS + NEW_CLIENTS):
            kept = number < KEPT_CLIENTS
            pause = self.pause * (KEPT_PAUSE if kept else NEW_PAUSE)
            threads.append(threading.Thread(target=self.client, args=(number, kept, pause)))
        begin = time.monotonic()
        for thread in threads:
            thread.daemon = True
            thread.start()
        sys.stdin.read()
        self.done.set()
        for thread in threads:
            thread.join(timeout=40)
        return {
            "requests": self.requests,
            "seconds": round(time.monotonic() - begin),
            "failures": self.failures,
            "posted": self.posted,
            "releases": dict(self.releases),
            "streams": dict(self.streams),
            "last": self.last,
        }


if __name__ == "__main__":
    print(json.dumps(Load(*sys.argv[1:]).run()))
