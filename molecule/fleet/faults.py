"""Listens at port 443 of an app host as soon as its Nginx does not, and serves as badly as it is told.

    python3 -c faults.py mute
    python3 -c faults.py dripping CERTIFICATE KEY

mute accepts connections and never reads from them; dripping takes requests and answers one byte a second.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}'


def drip(raw: socket.socket, context: ssl.SSLContext) -> None:
    """Answer one request, byte by byte."""
    with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as connection:
        connection.recv(65536)
        for byte in ANSWER:
            connection.sendall(bytes([byte]))
            time.sleep(1)


def listening() -> socket.socket:
    """Return a socket that listens, as soon as nobody else does."""
    while True:
        try:
            return socket.create_server(("", 443), backlog=512)
        except OSError:
            time.sleep(0.01)


def main(kind: str, *pair: str) -> None:
    """Listen until somebody ends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if pair:
        context.load_cert_chain(*pair)
    kept: list[socket.socket] = []
    with listening() as listener:
        while True:
            raw, _ = listener.accept()
            if kind == "mute":
                kept.append(raw)
            else:
                threading.Thread(target=drip, args=(raw, context), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
