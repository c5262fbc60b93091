"""The app as a release serves it: with an answer to what the release asks at the public door, and notes of what waits."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from slipway.runtime import counts, waiting
from slipway.runtime.agreement import CACHED_CONNECTION_SECONDS, QUESTIONS_PATH, SECOND_EVENT_SECONDS
from slipway.runtime.application import load
from slipway.runtime.guard import exit_when_replaced
from slipway.runtime.log import request
from slipway.runtime.release import HERE, Release, read

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Looked up for each request.
note, monotonic = waiting.NOTE.pack_into, time.monotonic


class Served:
    """Passes everything on to the app, but for the questions of whoever knows the token, and tells it of the client.

    It notes in memory that others can read which requests wait for their answers, and since when. What a client is still sending
    is waited for by the app, and not noted. All of this is done for each request: it is in one piece, since each call counts.

    Args:
        app: the app.
        token: what the release's own questions have.
        notes: memory for the notes; None where there is none.
    """

    def __init__(self, app: App, token: bytes, notes: Any = None) -> None:
        self.app = app
        self.token = token
        self.notes = notes
        self.free = [] if notes is None else waiting.PLACES[:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app do so."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, send)
            return
        request.set(scope)  # and not reset: what goes wrong with it is logged by the server, afterwards
        # Nobody but Nginx reaches the socket, and it overwrites what a client says of itself.
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                scope["client"] = (value.decode("latin-1"), 0)
            elif name == b"x-forwarded-proto":
                scope["scheme"] = ("http" if kind == "http" else "ws") + ("s" if value == b"https" else "")
        path = scope["path"]
        if path.startswith(QUESTIONS_PATH) and self.knows(scope):
            await answer(scope, receive, send)
            return
        free = self.free
        if kind != "http" or not free:
            await self.app(scope, receive, send)
            return
        notes, place, digest = self.notes, free.pop(), waiting.digest(scope["method"], path)
        waits, whole = True, False

        async def receive_noted() -> Message:
            nonlocal whole
            if whole or not waits:
                return await receive()
            note(notes, place, 0.0, digest)
            message = await receive()
            whole = not message.get("more_body")
            if waits:
                note(notes, place, monotonic(), digest)
            return message

        def send_noted(message: Message) -> Awaitable[None]:  # only passes on what is to be awaited, which costs less
            nonlocal waits
            if waits:
                waits = False
                note(notes, place, 0.0, digest)
                free.append(place)
            return send(message)

        note(notes, place, monotonic(), digest)
        try:
            await self.app(scope, receive_noted, send_noted)
        finally:
            if waits:
                note(notes, place, 0.0, digest)
                free.append(place)

    def knows(self, scope: Scope) -> bool:
        """Say whether whoever asks knows the token."""
        return dict(scope["headers"]).get(b"x-slipway-door") == self.token


class Named(Served):
    """The same for a server that cannot name the release in its answers.

    Args:
        number: the number of the release.
        further: those of `Served`.
    """

    def __init__(self, number: int, *further: Any) -> None:
        super().__init__(*further)
        self.name = (b"x-release", str(number).encode())
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app do so."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        def send_named(message: Message) -> Awaitable[None]:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": [*message.get("headers", ()), self.name]}
            return send(message)

        self.in_flight += 1
        try:
            await super().__call__(scope, receive, send_named)
        finally:
            self.in_flight -= 1


class ErrorLogging(Named):
    """The same for a server that says nothing of what is raised after an answer: FastAPI has given one by then."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app do so."""
        try:
            await super().__call__(scope, receive, send)
        except Exception:
            if scope["type"] != "lifespan":
                logging.getLogger("gunicorn.error").exception("Exception in ASGI application")
            raise


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the release asks of itself: what comes of a connection, a redirect, a stream or a plain question."""
    headers = dict(scope["headers"])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    elif scope["path"] != QUESTIONS_PATH:
        address = f"{scope['scheme']}://{headers[b'host'].decode()}{QUESTIONS_PATH}"
        await respond(send, 307, [(b"location", address.encode())])
    elif headers.get(b"accept") == b"text/event-stream":
        kind = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        await respond(send, 200, kind, b"data: 1\n\n", more=True)
        await asyncio.sleep(SECOND_EVENT_SECONDS)
        await send({"type": "http.response.body", "body": b"data: 2\n\n"})
    else:
        client = scope.get("client")
        seen = {"scheme": scope["scheme"], "client": client[0] if client else None}
        await respond(send, 200, [(b"content-type", b"application/json")], json.dumps(seen).encode())


async def respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"", more: bool = False) -> None:
    """Send an answer, or the beginning of one that has `more`."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def finish(release: Release, served: Served) -> None:
    """Finish what is under way, and end this process."""
    time.sleep(CACHED_CONNECTION_SECONDS)  # Nginx may still use its connections
    if release.server == "hypercorn" and isinstance(served, Named):  # its workers heed no signal
        deadline = time.monotonic() + release.graceful_timeout
        while served.in_flight and time.monotonic() < deadline:
            time.sleep(0.1)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(release.graceful_timeout)
    os._exit(1)


def serve(directory: Path = HERE) -> Served:
    """Return the app of the release in `directory`, ready to be served by this process.

    Raises:
        Exception: whatever the app raises when it is imported.
    """
    release = read(directory)
    # An app may have a launch.py of its own, say: what is ours comes last.
    sys.path.sort(key=lambda place: Path(place).resolve() == directory)
    app = load(release.module)
    place = waiting.place()
    counts.forget_ended(place)
    arguments = (app, (directory / "door.token").read_bytes(), waiting.shared_memory(place))
    if release.server == "hypercorn":
        served: Served = Named(release.number, *arguments)
    elif release.worker == "asgi":
        served = ErrorLogging(release.number, *arguments)
    else:
        served = Served(*arguments)
    exit_when_replaced(lambda: finish(release, served))
    return served
