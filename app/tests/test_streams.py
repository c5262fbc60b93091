import json
import time

import httpx2
import pytest
from fastapi import WebSocket
from fastapi.testclient import TestClient
from starlette.types import Message

from app import streams


def test_websocket_echoes_text_and_bytes(client: TestClient) -> None:
    with client.websocket_connect("/ws") as websocket:
        websocket.send_text("ahoy")
        assert websocket.receive_text() == "ahoy"
        websocket.send_bytes(b"\x00\xff")
        assert websocket.receive_bytes() == b"\x00\xff"


@pytest.mark.anyio
async def test_websocket_client_may_vanish() -> None:
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "ahoy"}])

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError

    await streams.echo(WebSocket({"type": "websocket"}, receive, send))


def test_first_event_is_sent_at_once(served: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TICK_SECONDS", 3600)
    with served.stream("GET", "/events") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache"
        assert next(response.iter_lines()) == 'data: {"tick":1}'


def test_a_tick_every_second_until_count(client: TestClient) -> None:
    start = time.monotonic()
    response = client.get("/events", params={"count": 2})
    assert response.text == 'data: {"tick":1}\n\ndata: {"tick":2}\n\n'
    assert time.monotonic() - start >= 1


def test_the_last_tick_ends_the_stream(served: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TICK_SECONDS", 3600)
    assert served.get("/events", params={"count": 1}).text == 'data: {"tick":1}\n\n'


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_count_must_be_a_positive_number(served: httpx2.Client, count: str) -> None:
    with served.stream("GET", "/events", params={"count": count}) as response:
        assert response.status_code == 422
        assert json.loads(response.read())["detail"][0]["loc"] == ["query", "count"]
