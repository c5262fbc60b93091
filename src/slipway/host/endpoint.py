"""Ask an app: at the socket of one release, or at the public endpoint as a client would."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from slipway.runtime.agreement import QUESTIONS_PATH, SECOND_EVENT_SECONDS

# How Slipway names itself, so that its own requests are told from those of clients: see access_log.py.
AGENT = "slipway"

# An address of nobody (RFC 5737), which a client claims to be.
CLAIMED_CLIENT = "203.0.113.7"

# How long an answer may be, in bytes: what asks for one keeps it in memory.
LONGEST_ANSWER = 2**20

# Errors that mean there is no answer, or none that is HTTP.
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)


class Answer:
    """An answer to a request; names of headers are lower-case."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def release(self) -> str | None:
        """The number of the release that answered, where it says so."""
        return self.headers.get("x-release")

    def json(self) -> Any:
        """Return what the body says.

        Raises:
            ValueError: when it is not JSON.
        """
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket.

        Raises:
            OSError: when nobody listens there.
        """
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class _Hurried(io.RawIOBase):
    """What comes from a connection until a moment; a time limit of the connection's own begins anew with each byte.

    Args:
        connection: the connection.
        deadline: the moment, in seconds of the monotonic clock.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.raw: socket.SocketIO = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come.

        Raises:
            TimeoutError: when the moment has passed.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.connection.settimeout(left)
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    host: str,
    headers: dict[str, str] | None = None,
    longest: int = LONGEST_ANSWER,
) -> Answer:
    """Send one GET request. The whole answer must have come within the connection's timeout.

    Args:
        connection: where to; it has a timeout.
        path: what is asked for.
        host: the name that is asked.
        headers: further headers.
        longest: how many bytes the body may have; with 0 none of it is read.

    Raises:
        TimeoutError: when there is no answer in time, or not the end of it.
        OSError: when there is none at all.
        http.client.HTTPException: when the answer is not HTTP, or too long.
    """
    seconds = float(connection.timeout or 5.0)
    deadline = time.monotonic() + seconds

    class Response(http.client.HTTPResponse):
        def __init__(self, connected: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(connected, *arguments, **options)
            hurried: Any = io.BufferedReader(_Hurried(connected, deadline))
            self.fp.close()
            self.fp = hurried

    connection.response_class = Response
    with contextlib.closing(connection):
        # With a cookie the answer does not come from Nginx's cache.
        usual = {"Host": host, "User-Agent": AGENT, "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"}
        usual |= {"Cookie": "slipway=probe", "Connection": "close"}
        own = {name.lower() for name in headers or {}}
        usual = {name: value for name, value in usual.items() if name.lower() not in own}
        try:
            connection.request("GET", path, headers={**usual, **(headers or {})})
            with connection.getresponse() as response:
                body = response.read(longest + 1) if longest else b""
        except UnicodeError as error:
            raise OSError(f"GET {path} for {host} cannot be sent: {error}") from error
        except (TimeoutError, socket.timeout) as error:  # noqa: UP041 - until Python 3.9 they are two
            raise TimeoutError(f"the answer to GET {path} was incomplete after {seconds:g} s") from error
        if longest and response.length and len(body) <= longest:
            raise http.client.IncompleteRead(body, response.length)
        if len(body) > longest:
            raise http.client.HTTPException(f"the answer to GET {path} is longer than {longest / 2**20:g} MiB")
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class PublicEndpoint:
    """The public endpoint of an app on this host.

    Args:
        host: the name under which clients ask for the app.
        port: its port on this host.
        tls: whether it speaks TLS.
    """

    def __init__(self, host: str, port: int, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls

    def open(self, timeout: float = 5.0) -> socket.socket:
        """Return a connection to it.

        Raises:
            OSError: when nobody listens there, or the handshake fails.
        """
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        if not self.tls:
            return raw
        context = ssl._create_unverified_context()  # whether the certificate is good is certbot's question, not ours
        return context.wrap_socket(raw, server_hostname=self.host)

    def ask(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Send one GET request, as a client would.

        Raises:
            OSError: when there is no answer.
            http.client.HTTPException: when the answer is not HTTP.
        """
        connection = http.client.HTTPConnection(self.host, timeout=5)
        connection.sock = self.open()
        return ask(connection, path, self.host, headers)

    def findings(self, token: str) -> list[str]:
        """Ask the live release what reaches it through the public endpoint; twice if it fails, for a host may be busy.

        Args:
            token: that of the release, without which it keeps these answers to itself.

        Returns:
            A sentence for each thing that does not arrive as it should, with the setting to look at. Empty when all is well.
        """
        questions = {
            "The client address that the app sees": self._addresses,
            "A redirect of the app": self._redirect,
            "A WebSocket": self._websocket,
            "An event stream": self._events,
        }
        found = []
        for what, question in questions.items():
            for _ in range(2):
                try:
                    finding = question({"X-Slipway-Door": token})
                except NO_ANSWER as error:
                    finding = f"{what} could not be checked at the public endpoint: {str(error) or type(error).__name__}."
                if not finding:
                    break
            else:
                found.append(finding)
        return found

    def _addresses(self, token: dict[str, str]) -> str:
        """Ask what the app sees of a client that lies about itself."""
        answer = self.ask(QUESTIONS_PATH, {**token, "X-Forwarded-For": CLAIMED_CLIENT, "X-Forwarded-Proto": "gopher"})
        seen = None
        with contextlib.suppress(ValueError):
            seen = answer.json()
        if answer.status != 200 or not isinstance(seen, dict) or not {"scheme", "client"} <= seen.keys():
            return f"A self-check request ({QUESTIONS_PATH}) was answered with {answer.status} before it reached the release."
        scheme = "https" if self.tls else "http"
        if seen["scheme"] != scheme:
            return (
                f"The app sees the scheme {seen['scheme']} where its clients use {scheme}, so its links and redirects are wrong: "
                "check X-Forwarded-Proto in Nginx's site, and forwarded_allow_ips of the server."
            )
        if CLAIMED_CLIENT in str(seen["client"]):
            return (
                "A client can choose the address that the app sees: Nginx must overwrite X-Forwarded-For with $remote_addr, and "
                "nginx_real_ip_from must list only your own proxies."
            )
        if seen["client"] != "127.0.0.1":
            return (
                f"The app sees the client address {seen['client']} for a request from 127.0.0.1: check X-Forwarded-For in "
                "Nginx's site, and forwarded_allow_ips of the server."
            )
        return ""

    def _redirect(self, token: dict[str, str]) -> str:
        """Ask where the app's own redirects lead."""
        target = self.ask(f"{QUESTIONS_PATH}/", token).headers.get("location", "")
        scheme = "https://" if self.tls else "http://"
        if target.startswith(scheme):
            return ""
        return (
            f"A redirect of the app, such as from a path with a trailing slash, leads to {target or 'nowhere'} instead of "
            f"{scheme}...: check X-Forwarded-Proto, Host and proxy_redirect in Nginx's site."
        )

    def _websocket(self, token: dict[str, str]) -> str:
        """Ask for a WebSocket."""
        headers = {
            **token,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode("ascii"),
        }
        status = self._first_bytes(headers, 3.0)[0].split(b" ")[1:2]
        if status == [b"101"]:
            return ""
        return (
            f"A WebSocket is answered with {b''.join(status).decode('ascii', 'replace') or 'nothing'} instead of 101: check "
            "the headers Upgrade and Connection, and at proxy_http_version, in Nginx's site."
        )

    def _events(self, token: dict[str, str]) -> str:
        """Ask when the first event of a stream arrives."""
        head, seconds = self._first_bytes({**token, "Accept": "text/event-stream"}, SECOND_EVENT_SECONDS + 3.0, b"data:")
        if b"data:" in head and seconds < SECOND_EVENT_SECONDS:
            return ""
        return (
            "An event stream is buffered on its way to the client: check proxy_buffering, gzip_types and proxy_ignore_headers "
            "in Nginx's site; nginx_streaming_paths turns buffering off for a path."
        )

    def _first_bytes(self, headers: dict[str, str], patience: float, until: bytes = b"\r\n") -> tuple[bytes, float]:
        """Return the beginning of an answer, up to `until` at least, and the seconds until that had come."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": self.host, "User-Agent": AGENT, **headers}.items())
        begin = time.monotonic()
        received = b""
        with contextlib.closing(self.open(patience)) as connection:
            connection.sendall(f"GET {QUESTIONS_PATH} HTTP/1.1\r\n{lines}\r\n".encode("ascii"))
            while until not in received and time.monotonic() < begin + patience:
                part = connection.recv(4096)
                if not part:
                    break
                received += part
        return received, time.monotonic() - begin
