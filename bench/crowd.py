"""Be many clients of a site on this machine at once, or guess its password again and again. Runs in the container.

Says `ready` when all are there, and goes when its input ends; then prints as JSON what became of them.
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import resource
import selectors
import socket
import ssl
import sys
import threading
import time

TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE

# A guess is this long, by turns: as a person's, as one that costs the most, and one that no password is as long as.
GUESSES = ("wrong-password", "x" * 120, "x" * 511)


def connect(name: str) -> ssl.SSLSocket:
    """Open a connection to the site."""
    raw = socket.create_connection(("127.0.0.1", 443), timeout=30)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return TRUSTING.wrap_socket(raw, server_hostname=name)


def told(connection: ssl.SSLSocket, request: str) -> str:
    """Send a request and return the first line of the answer."""
    connection.sendall(request.encode("ascii"))
    return connection.recv(65536).decode("latin-1").partition("\r\n")[0]


class Crowd:
    """Clients of the site that hold connections: idle ones, WebSockets, and such as never finish their request."""

    def __init__(self, name: str, idle: int, websockets: int, slow: int) -> None:
        self.name = name
        self.answers: collections.Counter[str] = collections.Counter()
        self.kept: list[ssl.SSLSocket] = []
        self.slow: list[socket.socket] = []
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        for path, more, count in (("/ws", upgrade, websockets), ("/healthz", "", idle)):
            for _ in range(count):
                self.kept.append(connect(name))
                answer = told(self.kept[-1], f"GET {path} HTTP/1.1\r\nHost: {name}\r\n{more}\r\n")
                self.answers[f"{path} {answer}"] += 1
        self.wanted = slow

    def dribble(self, until: threading.Event) -> None:
        """Keep the slow ones coming: each sends a letter now and then, and is replaced when Nginx has had enough of it."""
        while not until.is_set():
            for connection in list(self.slow):
                try:
                    connection.send(b"x")
                except OSError:
                    connection.close()
                    self.slow.remove(connection)
                    self.answers["slow ones that were sent away"] += 1
            while len(self.slow) < self.wanted:
                self.slow.append(socket.create_connection(("127.0.0.1", 80), timeout=30))
                self.slow[-1].sendall(f"GET / HTTP/1.1\r\nHost: {self.name}\r\nX: ".encode("ascii"))
            until.wait(1)

    def open(self) -> int:
        """Return how many of the idle ones and of the WebSockets are still open."""
        closed = 0
        poll = selectors.DefaultSelector()
        for connection in self.kept:
            connection.setblocking(False)
            poll.register(connection, selectors.EVENT_READ)
        for key, _ in poll.select(0):
            try:
                closed += not key.fileobj.recv(4096)  # type: ignore[union-attr]
            except ssl.SSLWantReadError:
                pass
            except OSError:
                closed += 1
        return len(self.kept) - closed


def hold(name: str, idle: int, websockets: int, slow: int) -> dict[str, object]:
    """Be there until the input ends."""
    crowd, over = Crowd(name, idle, websockets, slow), threading.Event()
    thread = threading.Thread(target=crowd.dribble, args=(over,))
    thread.start()
    while len(crowd.slow) < slow:
        time.sleep(0.1)
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    thread.join()
    return {"answers": crowd.answers, "open": crowd.open()}


def guess(name: str, path: str, rate: int, seconds: float) -> dict[str, object]:
    """Guess the password so often a second, on 32 connections that are asked again before they have answered."""
    clients = [connect(name) for _ in range(32)]
    answers: collections.Counter[str] = collections.Counter()
    requests = []
    for length in GUESSES:
        credential = base64.b64encode(f"monitor:{length}".encode()).decode()
        requests.append(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nAuthorization: Basic {credential}\r\n\r\n".encode("ascii"))
    print("ready", flush=True)
    begin, sent = time.monotonic(), 0
    while (now := time.monotonic()) < begin + seconds:
        due = int((now - begin) * rate) - sent
        for _ in range(due):
            index = sent % len(clients)
            try:
                clients[index].setblocking(True)
                clients[index].sendall(requests[sent % len(requests)])
            except OSError:
                clients[index] = connect(name)
            sent += 1
        for index, client in enumerate(clients):
            client.setblocking(False)
            try:
                while part := client.recv(65536):
                    for line in part.decode("latin-1").split("\r\n"):
                        if line.startswith("HTTP/1.1 "):
                            answers[line[9:12]] += 1
                clients[index] = connect(name)
            except ssl.SSLWantReadError:
                pass
            except OSError:
                clients[index] = connect(name)
        time.sleep(0.002)
    return {"sent": sent, "answers": answers}


def main() -> None:
    """Do as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the site's")
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--websockets", type=int, default=0)
    parser.add_argument("--slow", type=int, default=0)
    parser.add_argument("--guess", metavar="PATH", help="guess the password of this path instead")
    parser.add_argument("--rate", type=int, default=1000, help="guesses a second")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.guess:
        print(json.dumps(guess(arguments.name, arguments.guess, arguments.rate, arguments.seconds)))
    else:
        print(json.dumps(hold(arguments.name, arguments.idle, arguments.websockets, arguments.slow)))


if __name__ == "__main__":
    main()
