"""Connections that stay open: a WebSocket and server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count as count_from
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from fastapi.sse import EventSourceResponse

TICK_SECONDS = 1.0

router = APIRouter()


@router.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    """Send every message back, text as text and bytes as bytes."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while (message := await websocket.receive())["type"] == "websocket.receive":
            await websocket.send({**message, "type": "websocket.send"})


@router.get("/events", response_class=EventSourceResponse)
async def events(count: Annotated[int | None, Query(ge=1)] = None) -> AsyncIterator[dict[str, int]]:
    """Send a tick at once and then one every second, until there were `count` or the client leaves."""
    for tick in count_from(1):
        yield {"tick": tick}
        if tick == count:
            return
        await asyncio.sleep(TICK_SECONDS)
