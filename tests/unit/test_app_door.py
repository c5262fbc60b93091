"""The public door, asked as clients do: each thing that does not arrive is told with the setting to look at."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import released
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from rendering import Host

from slipway.host import watch as app_watch
from slipway.host.certificate import days_left
from slipway.host.endpoint import CLAIMED_CLIENT, LONGEST_ANSWER, NO_ANSWER, PublicEndpoint, UnixConnection, ask
from slipway.runtime import asgi, waiting
from slipway.runtime import counts as ended

TOKEN = "token-of-the-release"


class Server(ThreadingHTTPServer):
    """An app behind Nginx, as the door shows it; `fault` is what is wrong with it."""

    fault = ""
    scheme = "http"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def scheme(self) -> str:
        return str(self.server.scheme)  # type: ignore[attr-defined]

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.server.fault  # type: ignore[attr-defined]
        if self.headers["X-Slipway-Door"] != TOKEN or fault == "closed":
            self.answer(404)
        elif self.path.endswith("/"):
            scheme = {"redirect": "https", "plain redirect": "http"}.get(fault, self.scheme)
            self.answer(307, Location=f"{scheme}://shop.test/.slipway/door")
        elif self.headers["Upgrade"] == "websocket":
            self.answer(400 if fault == "websocket" else 101)
        elif self.headers["Accept"] == "text/event-stream":
            if fault == "events":
                time.sleep(1.6)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
            self.close_connection = True
        else:
            client = {"spoofed": CLAIMED_CLIENT, "appended": f"{CLAIMED_CLIENT}, 127.0.0.1", "nobody": None}.get(
                fault, "127.0.0.1"
            )
            scheme = {"scheme": "gopher", "plain scheme": "http"}.get(fault, self.scheme)
            self.answer(200, json.dumps({"scheme": scheme, "client": client}))

    def answer(self, status: int, body: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_door_where_all_arrives(server: Server) -> None:
    assert PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("scheme", ["the scheme gopher", "X-Forwarded-Proto", "forwarded_allow_ips"]),
        ("spoofed", ["can choose the address", "nginx_real_ip_from"]),
        ("appended", ["can choose the address", "nginx_real_ip_from"]),
        ("nobody", ["client address None", "X-Forwarded-For", "forwarded_allow_ips"]),
        ("redirect", ["leads to https://shop.test", "X-Forwarded-Proto"]),
        ("websocket", ["answered with 400 instead of 101", "Upgrade and Connection"]),
        ("events", ["is buffered", "proxy_buffering", "nginx_streaming_paths"]),
    ],
)
def test_each_fault_is_one_sentence_with_its_setting(server: Server, fault: str, words: list[str]) -> None:
    server.fault = fault
    (finding,) = PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN)
    for word in words:
        assert word in finding


@pytest.mark.parametrize("fault", ["websocket", "events", "redirect"])
def test_a_busy_host_that_answers_well_the_second_time_has_no_finding(
    server: Server, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    server.fault = fault
    answer = Handler.do_GET

    def once(handler: Handler) -> None:
        headers = {"websocket": "Upgrade", "events": "Accept"}
        asked = handler.path.endswith("/") if fault == "redirect" else headers[fault] in handler.headers
        # Before the answer: the next request may come as soon as that was sent.
        if asked and failed:
            server.fault = ""
        elif asked:
            failed.append(fault)
        answer(handler)

    failed: list[str] = []
    monkeypatch.setattr(Handler, "do_GET", once)
    assert PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN) == []
    assert failed == [fault]


def test_a_door_that_lets_no_question_through(server: Server) -> None:
    server.fault = "closed"
    findings = PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN)
    assert "was answered with 404 before it reached the release" in findings[0]


@pytest.mark.parametrize("body", ["[]", "{}", "null", '{"scheme": "http"}', "<html>", ""])
def test_a_door_behind_which_somebody_else_answers(server: Server, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Such as an app that has an answer for every path, where the token does not arrive."""
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.answer(200, body))
    findings = PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN)
    assert "/.slipway/door) was answered with 200 before it reached the release" in findings[0]
    assert len(findings) == 4


@pytest.fixture
def secure(server: Server, tmp_path: Path) -> Server:
    """The same with TLS."""
    files = [str(tmp_path / "key"), str(tmp_path / "certificate")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-subj", "/CN=x"]
    subprocess.run([*command, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    return server


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", []),
        ("plain scheme", ["the scheme http where its clients use https", "X-Forwarded-Proto", "forwarded_allow_ips"]),
        ("plain redirect", ["leads to http://shop.test/.slipway/door instead of https://", "X-Forwarded-Proto"]),
    ],
)
def test_behind_tls_the_app_must_know_of_it(secure: Server, fault: str, words: list[str]) -> None:
    secure.fault = fault
    findings = PublicEndpoint("shop.test", secure.server_address[1], True).findings(TOKEN)
    assert len(findings) == (1 if words else 0), findings
    for word in words:
        assert word in findings[0]


def test_the_days_of_a_certificate(secure: Server) -> None:
    door = PublicEndpoint("shop.test", secure.server_address[1], True)
    assert days_left(door) in (29, 30)  # what openssl gives where nobody asks for more
    assert days_left(PublicEndpoint("shop.test", secure.server_address[1], False)) is None
    secure.shutdown()
    secure.server_close()
    assert days_left(door) is None


def test_no_days_are_known_without_openssl(secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert days_left(PublicEndpoint("shop.test", secure.server_address[1], True)) is None


def test_a_door_that_nobody_keeps(server: Server) -> None:
    server.shutdown()
    server.server_close()
    findings = PublicEndpoint("shop.test", server.server_address[1], False).findings(TOKEN)
    assert [finding.split(" could not be checked")[0] for finding in findings] == [
        "The client address that the app sees",
        "A redirect of the app",
        "A WebSocket",
        "An event stream",
    ]


# What answers in the release


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def dripping(short: Path) -> Iterator[Callable[..., Any]]:
    """Answer at a socket in parts, with a pause after each, and return what who asks with a timeout of half a second gets."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short / "drip.sock"))
    listener.listen()
    over = threading.Event()

    def answer(parts: Iterable[bytes], pause: float) -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            for part in parts:
                try:
                    connection.sendall(part)
                except OSError:
                    return
                if over.wait(pause):
                    return

    def question(parts: Iterable[bytes], pause: float = 0.0, **options: Any) -> Any:
        threading.Thread(target=answer, args=(parts, pause), daemon=True).start()
        return ask(UnixConnection(short / "drip.sock", timeout=0.5), "/healthz", "shop.test", **options)

    yield question
    over.set()
    listener.close()


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"Content-Length: 60\r\n\r\n", *[b"x"] * 60],
        [HEAD + b"Content-Type: text/event-stream\r\n\r\n", *[b"data: 1\n\n"] * 60],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 60],
        [bytes([byte]) for byte in HEAD * 4],
    ],
    ids=["body", "events", "chunks", "head"],
)
def test_an_answer_that_drips_is_given_up_as_a_whole(dripping: Callable[..., Any], parts: list[bytes]) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the answer to GET /healthz was incomplete after 0\.5 s"):
        dripping(parts, 0.1)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("step", ["connect", "send", "getresponse"])
def test_no_answer_in_time_is_the_same_on_each_python(short: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Before 3.10 sockets raise an error of their own, which is no TimeoutError."""

    class SocketTimeout(OSError):
        pass

    def late(*_: Any, **__: Any) -> None:
        raise SocketTimeout("timed out")

    monkeypatch.setattr(socket, "timeout", SocketTimeout)
    connection = UnixConnection(short / "nobody.sock", timeout=0.5)
    for name in ("connect", "send", "getresponse")[: ("connect", "send", "getresponse").index(step) + 1]:
        monkeypatch.setattr(connection, name, late if name == step else lambda *_, **__: None)
    with pytest.raises(TimeoutError, match=r"the answer to GET /healthz was incomplete after 0\.5 s"):
        ask(connection, "/healthz", "shop.test")


def test_an_answer_without_end_is_not_kept(dripping: Callable[..., Any]) -> None:
    with pytest.raises(NO_ANSWER, match="longer than 1 MiB"):
        dripping(itertools.chain([HEAD + b"\r\n"], itertools.repeat(b"x" * 2**16)))
    assert len(dripping([HEAD + b"Content-Length: %d\r\n\r\n" % LONGEST_ANSWER, b"x" * LONGEST_ANSWER]).body) == LONGEST_ANSWER


def test_an_answer_that_is_cut_off_is_none(dripping: Callable[..., Any]) -> None:
    with pytest.raises(NO_ANSWER, match="IncompleteRead"):
        dripping([HEAD + b"Content-Length: 9\r\n\r\nshort"])


def test_of_an_answer_the_beginning_may_be_enough(dripping: Callable[..., Any]) -> None:
    assert dripping([HEAD + b"Content-Type: text/event-stream\r\n\r\n", *[b"x"] * 60], 0.1, longest=0).status == 200


class App:
    """The app itself, which notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["type"])


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is to be done when another serves; test_templates has the real guard."""
    calls: list[Any] = []
    monkeypatch.setattr(asgi, "exit_when_replaced", calls.append)
    return calls


@pytest.fixture
def serve() -> Callable[..., Any]:
    """Return the app as a server has it served, and the app."""

    def make(kind: Callable[..., Any] = asgi.Served) -> Any:
        app = App()
        return kind(app, TOKEN.encode()), app

    return make


@pytest.fixture
def served(serve: Callable[..., Any]) -> Any:
    """The app as a release serves it, and the app."""
    return serve()


def drive(served: Any, **scope: Any) -> list[dict[str, Any]]:
    """Ask and return what is sent."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    whole = {"type": "http", "path": "/", "headers": [], "scheme": "https", "client": ("192.0.2.1", 0), **scope}
    asyncio.run(served(whole, receive, send))
    return sent


def test_everything_else_is_the_apps(served: Any) -> None:
    wrapped, app = served
    drive(wrapped, type="lifespan")
    drive(wrapped, path="/items")
    drive(wrapped, path="/.slipway/door")
    drive(wrapped, path="/.slipway/door", headers=[(b"x-slipway-door", b"guess")])
    drive(wrapped, path="/ws", type="websocket")
    assert app.asked == ["lifespan", "http", "http", "http", "websocket"]


def test_who_knows_the_token_is_answered(served: Any) -> None:
    wrapped, app = served
    knows = [(b"x-slipway-door", TOKEN.encode()), (b"host", b"shop.test:8443")]
    start, body = drive(wrapped, path="/.slipway/door", headers=knows)
    assert (start["status"], json.loads(body["body"])) == (200, {"scheme": "https", "client": "192.0.2.1"})
    assert json.loads(drive(wrapped, path="/.slipway/door", headers=knows, client=None)[1]["body"])["client"] is None
    (start, _) = drive(wrapped, path="/.slipway/door/", headers=knows)
    assert (start["status"], dict(start["headers"])[b"location"]) == (307, b"https://shop.test:8443/.slipway/door")
    sent = drive(wrapped, path="/.slipway/door", type="websocket", headers=knows)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    sent = drive(wrapped, path="/.slipway/door", headers=[*knows, (b"accept", b"text/event-stream")])
    assert [message.get("body", b"") for message in sent] == [b"", b"data: 1\n\n", b"data: 2\n\n"]
    assert app.asked == []


class Followed:
    """An app whose requests are noted, and the notes."""

    def __init__(self, tmp_path: Path) -> None:
        self.runtime = tmp_path
        self.memory = waiting.shared_memory(tmp_path / "7.metrics")

    def serve(self, app: Any) -> Any:
        return asgi.Served(app, TOKEN.encode(), self.memory)

    def waits(self) -> list[tuple[float, int]]:
        """Return what whoever watches reads, as if the notes were another process's."""
        return app_watch.waiting(self.runtime, 7, 0.0)

    def drive(self, app: Any, receive: Any = None, **scope: Any) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.serve(app)({"type": "http", "method": "GET", "path": "/", "headers": [], **scope}, receive, send))
        return sent


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def test_a_request_waits_until_its_answer_begins(followed: Followed) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(followed.waits())
        await send({"type": "http.response.start"})
        seen.append(followed.waits())
        await send({"type": "http.response.body"})

    assert [message["type"] for message in followed.drive(app, method="POST", path="/items")] == [
        "http.response.start",
        "http.response.body",
    ]
    ((waited, path),) = seen[0]
    assert (0 <= waited < 5, path) == (True, app_watch.digest_of("POST", "/items"))
    assert seen[1] == followed.waits() == []


def test_a_request_that_fails_waits_no_longer(followed: Followed) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        followed.drive(app)
    assert followed.waits() == []


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_lasts_as_long_as_it_is_used_does_not_wait(followed: Followed, kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(followed.waits())

    followed.drive(app, type=kind)
    assert seen == [[]]


def test_a_request_that_its_client_still_sends_does_not_wait(followed: Followed) -> None:
    seen: list[int] = []
    parts: list[dict[str, Any]] = [{"more_body": True}, {"more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        seen.append(len(followed.waits()))
        return parts.pop(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await receive()
            seen.append(len(followed.waits()))

    followed.drive(app, receive)
    # Whoever waits for the client to leave, with the whole request there, is at it still.
    assert seen == [0, 1, 0, 1, 1, 1]


def test_requests_beyond_what_there_is_room_for_are_served_all_the_same(followed: Followed) -> None:
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])

    served_by = followed.serve(app)
    served_by.free.clear()
    nobody: Any = None
    asyncio.run(served_by({"type": "http", "path": "/x", "headers": []}, nobody, nobody))
    assert served == ["/x"]


def full(*_: Any) -> None:
    """Answer as a file system that has no room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_where_there_is_no_room_for_notes_there_are_none(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = (followed.runtime / "7.metrics").iterdir()
    assert file.stat().st_blocks * 512 >= file.stat().st_size == 512 * app_watch.WAITING.size, "a hole is filled, or kills, later"
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert waiting.shared_memory(followed.runtime / "7.metrics") is None


def test_the_notes_of_a_process_end_with_it_whatever_it_leaves_behind(followed: Followed) -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        notes: Any = waiting.shared_memory(followed.runtime / "7.metrics")
        app_watch.WAITING.pack_into(notes, 0, time.monotonic(), 7)
        if os.fork() == 0:
            os.close(theirs)
            os.read(ours, 1)  # until the test is over
        os._exit(0)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 2
    while (found := followed.waits()) and time.monotonic() < deadline:  # what it left behind begins by letting go
        time.sleep(0.01)
    os.close(theirs)
    os.close(ours)
    assert (followed.runtime / "7.metrics" / f"waiting.{child}").exists()
    assert found == []


def counts(directory: Path) -> dict[str, float]:
    """Return what a scrape finds in a directory, but for what belongs to one process alone."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))
    rows = [row.rpartition(" ") for row in generate_latest(registry).decode().splitlines() if row and row[0] != "#"]
    return {name: float(value) for name, _, value in rows if "pid=" not in name}


COUNTING = """
import sys
from prometheus_client import Counter, Gauge, Histogram, Summary
number = int(sys.argv[1])
Counter("asked", "x", ["path"]).labels("/items").inc(number)
seconds = Histogram("seconds", "x")
for value in range(number):
    seconds.observe(value)
Summary("size", "x").observe(number)
for mode in ("all", "liveall", "livesum", "sum", "min", "max", "mostrecent"):
    Gauge(f"g_{mode}", "x", multiprocess_mode=mode).set(number)
"""


def test_the_counts_of_processes_that_have_ended_become_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "7.metrics"
    place.mkdir()
    monkeypatch.setenv("SLIPWAY_SOCKET", str(tmp_path / "7.sock"))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(place))
    monkeypatch.setattr(MultiProcessCollector, "collect", MultiProcessCollector.collect)  # which is put back

    def work(*numbers: int) -> None:
        for number in numbers:
            subprocess.run([sys.executable, "-c", COUNTING, str(number)], check=True)

    work(3, 5)
    before = counts(place)
    assert before['asked_total{path="/items"}'] == 8
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        ended.forget_ended(place)
    assert counts(place)['asked_total{path="/items"}'] == 8, "where there is no room nothing is added up"
    assert not list(place.glob("*_ended.db"))
    ended.forget_ended(place)
    after = counts(place)
    assert after == {name: value for name, value in before.items() if not name.startswith("g_live")}
    assert sorted(file.stem for file in place.glob("*.db")) == [
        *("counter_ended", "gauge_max_ended", "gauge_min_ended", "gauge_mostrecent_ended", "gauge_sum_ended"),
        *("histogram_ended", "summary_ended"),
    ]
    work(7)
    ended.forget_ended(place)
    assert counts(place) == {
        **after,
        'asked_total{path="/items"}': 15,
        "seconds_count": 15,
        **{
            name: value
            for name, value in counts(place).items()
            if name.startswith(("seconds_bucket", "seconds_sum", "g_", "size_"))
        },
    }
    assert (counts(place)["g_sum"], counts(place)["g_min"], counts(place)["g_max"], counts(place)["g_mostrecent"]) == (
        15,
        3,
        7,
        7,
    )
    assert len(list(place.glob("*.db"))) == 7


def test_what_a_living_process_counts_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "7.metrics"
    place.mkdir()
    own = place / f"counter_{os.getpid()}.db"
    own.touch()
    monkeypatch.setenv("SLIPWAY_SOCKET", str(tmp_path / "7.sock"))
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(place))
    monkeypatch.setattr(MultiProcessCollector, "collect", MultiProcessCollector.collect)
    ended.forget_ended(place)
    assert [file.name for file in place.iterdir()] == [own.name]


@pytest.mark.parametrize("attribute", ["app", "factory.inner.app", "make"])
def test_what_is_served_is_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: list[Any], attribute: str) -> None:
    module = f"served_{attribute.replace('.', '_')}"
    text = "class factory:\n    class inner:\n        app = 'the app'\napp = factory.inner.app\ndef make():\n    return app\n"
    own, release = tmp_path / "own", tmp_path / "7"
    own.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(own)])
    (own / f"{module}.py").write_text(text, encoding="utf-8")
    released.write(release, released.told(Host({"app_module": f"{module}:{attribute}"})))
    (release / f"{module}.py").write_text("raise SystemExit('this is a file of the release')", encoding="utf-8")
    monkeypatch.syspath_prepend(release)  # as Hypercorn does
    served: Any = asgi.serve(release)
    assert (served.app, served.token) == ("the app", b"token")
    assert len(guarded) == 1


@pytest.mark.parametrize("kept", [asgi.Served, partial(asgi.Named, 7), partial(asgi.ErrorLogging, 7)])
@pytest.mark.parametrize(
    ("kind", "proto", "scheme"), [("http", "https", "https"), ("http", "http", "http"), ("websocket", "https", "wss")]
)
def test_the_app_is_told_what_nginx_says_of_the_client(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kept: Any, kind: str, proto: str, scheme: str
) -> None:
    wrapped, _ = serve(kept)
    seen: list[Any] = []

    async def answer(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": f"{kind}.response.start" if kind == "http" else "websocket.accept", "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(App, "__call__", answer)
    headers = [(b"x-forwarded-for", b"192.0.2.9"), (b"x-forwarded-proto", proto.encode())]
    sent = drive(wrapped, type=kind, headers=headers, scheme="http", client=None)
    assert (seen[0]["scheme"], seen[0]["client"]) == (scheme, ("192.0.2.9", 0))
    assert sent[0]["headers"] == [(b"a", b"b"), *([] if kept is asgi.Served else [(b"x-release", b"7")])]
    assert "headers" not in sent[1]


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "http", "path": "/", "headers": []}])
def test_the_app_gets_what_the_server_gives(served: Any, monkeypatch: pytest.MonkeyPatch, scope: dict[str, Any]) -> None:
    wrapped, _ = served
    seen: list[Any] = []

    async def note(self: Any, *arguments: Any) -> None:
        seen.extend(arguments)

    monkeypatch.setattr(App, "__call__", note)
    given = (scope, object(), object())
    before = dict(scope)
    asyncio.run(wrapped(*given))
    assert [id(each) for each in seen] == [id(each) for each in given]
    assert scope == before
