"""Requests that no browser sends: over HTTP/1.1 byte by byte, and over HTTP/2. Runs in a container, too, with nothing but Python.

As a program it asks ADDRESS, where NAME is a site, for names that are none, and prints as JSON what was answered to each.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import time
from collections.abc import Iterable

# Ways to write the path /metrics, which is closed.
SPELLINGS = [
    "/metrics",
    "/metrics/",
    "/metrics//",
    "//metrics",
    "///metrics",
    "/./metrics",
    "/metrics/.",
    "/x/../metrics",
    "/metrics/x/..",
    "/%2e/metrics",
    "/x/%2e%2e/metrics",
    "/x/..%2fmetrics",
    "/static/../metrics",
    "/static/..%2fmetrics",
    "/static/%2e%2e%2fmetrics",
    "/%2fmetrics",
    "/metrics%2f",
    "/%6detrics",
    "/metric%73",
    "/%6d%65%74%72%69%63%73",
    "/%256detrics",
    "/metrics%250a",
    "/metrics%0a",
    "/metrics%0A",
    "/metrics/%0a",
    "/%0ametrics",
    "/metrics%0d",
    "/metrics%0d%0a",
    "/metrics%00",
    "/metrics%00.css",
    "/metrics%09",
    "/metrics%0b",
    "/metrics%1f",
    "/metrics%7f",
    "/metrics%20",
    "/metrics%c2%85",
    "/metrics%e2%80%a8",
    "/metrics%c0%8a",
    "/%c0%afmetrics",
    "/metrics;",
    "/metrics;a=b",
    "/;/metrics",
    "/metrics?",
    "/metrics?x=%0a",
    "/metrics%3f",
    "/metrics%23",
    "/metrics#",
    "/metrics#x",
    "/#/metrics",
    "/?/metrics",
    "/metrics%5c",
    "/x%5c..%5cmetrics",
    "/METRICS",
    "/Metrics",
    "/metrics.",
    "/metrics*",
    "/metrics%",
    "/metrics%0",
]

# Targets with a scheme and a name, or none at all, which HTTP/2 does not have.
TARGETS = [
    "https://{0}/metrics",
    "http://{0}/metrics%0a",
    "https://{0}:443//metrics",
    "HTTPS://{0}/metrics",
    "metrics",
    "*/metrics",
]

# Names that no site has. The empty one is left out of the request.
FOREIGN = ["evil.example", "evil.example:443", "_", "localhost", "127.0.0.1", "[::1]", "{0}.evil.example", "x.{0}", "*.{0}", ""]


def connect(address: str, server_name: str, alpn: str = "http/1.1", port: int = 443) -> socket.socket:
    """Open a connection, over TLS where the port is 443; nobody's certificate is looked at."""
    raw = socket.create_connection((address, port), timeout=10)
    if port != 443:
        return raw
    context = ssl._create_unverified_context()
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(raw, server_hostname=server_name)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the other side closes, or goes on with another protocol."""
    received = b""
    with connection:
        try:
            connection.sendall(request)
            while b" 101 " not in received[:20]:
                part = connection.recv(65536)
                if not part:
                    break
                received += part
        except (ConnectionError, ssl.SSLError):
            pass
    return received


def plain(address: str, name: str, target: str, host: str, version: str = "1.1", port: int = 443, headers: str = "") -> bytes:
    """Ask over HTTP/1 on a connection whose TLS is for `name`; an empty `host` is left out."""
    lines = f"GET {target} HTTP/{version}\r\n" + (f"Host: {host}\r\n" if host else "") + headers
    ending = "" if "Connection:" in headers else "Connection: close\r\n"
    return exchange(connect(address, name, port=port), f"{lines}{ending}\r\n".encode("latin-1"))


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def field(name: str, value: str) -> bytes:
    """Return a header as HPACK has it where nothing is compressed; both texts are short."""
    return b"\0" + b"".join(bytes((len(text),)) + text.encode("latin-1") for text in (name, value))


def multiplexed(address: str, name: str, requests: Iterable[tuple[str, str]], seconds: float = 10) -> list[bytes | None]:
    """Ask over HTTP/2, all at once on one connection whose TLS is for `name`.

    Args:
        address: of the server.
        name: the site that TLS is for.
        requests: the path and the authority of each; an empty authority is left out.
        seconds: how long to wait for all of them.

    Returns:
        The body of each answer; None where there was none, also where the server does not speak HTTP/2 for that site.
    """
    streams = {2 * number + 1: request for number, request in enumerate(requests)}
    answers: dict[int, bytes] = {}
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    for stream, (path, authority) in streams.items():
        fields = [(":method", "GET"), (":scheme", "https"), (":path", path), *([(":authority", authority)] if authority else [])]
        sent += frame(1, 5, stream, b"".join(field(*each) for each in fields))
    over: set[int] = set()
    received = b""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError), connect(address, name, "h2") as connection:
        connection.sendall(sent)
        while len(over) < len(streams) and time.monotonic() < deadline:
            part = connection.recv(65536)
            if not part:
                break
            received += part
            while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
                kind, flags, stream = received[3], received[4], int.from_bytes(received[5:9], "big")
                body, received = received[9 : 9 + size], received[9 + size :]
                if kind in (0, 1):
                    answers[stream] = answers.get(stream, b"") + (body if kind == 0 else b"")
                    if kind == 0 and size:
                        window = size.to_bytes(4, "big")
                        connection.sendall(frame(8, 0, 0, window) + frame(8, 0, stream, window))
                if kind == 3 or (kind in (0, 1) and flags & 1):
                    over.add(stream)
    return [answers.get(stream) for stream in streams]


def foreign(address: str, name: str) -> dict[str, str]:
    """Ask for names that no site has in all ways; return what was answered, which is to be nothing."""
    answers = {}
    for pattern in FOREIGN:
        host = pattern.format(name)
        for version in ("1.0", "1.1"):
            for port in (80, 443):
                answers[f"HTTP/{version}, port {port}, {host}"] = plain(address, name, "/", host, version, port)
        if host.endswith("example"):
            answers[f"https://{host}/"] = plain(address, name, f"https://{host}/", name)
        answers[f"HTTP/2, {host}"] = multiplexed(address, name, [("/", host)])[0] or b""
    return {asked: answer.decode("latin-1") for asked, answer in answers.items()}


def metrics(address: str, name: str) -> dict[str, bytes]:
    """Ask a site for /metrics in all spellings; return what was answered."""
    answers = {f"{target} over HTTP/1.1": plain(address, name, target, name) for target in SPELLINGS}
    answers |= {f"{target} without TLS": plain(address, name, target, name, port=80) for target in SPELLINGS[:4]}
    for pattern in TARGETS:
        answers[pattern] = plain(address, name, pattern.format(name), name)
    asked = multiplexed(address, name, [(target, name) for target in SPELLINGS])
    return answers | {f"{target} over HTTP/2": answer or b"" for target, answer in zip(SPELLINGS, asked, strict=True)}


if __name__ == "__main__":
    print(json.dumps(foreign(*sys.argv[1:])))
