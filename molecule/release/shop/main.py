"""An app in a single file, as a user might bring it: it counts what it was asked to do, and says what it was told."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if os.environ.get("FAIL_AT_START"):
        raise RuntimeError("told to fail")
    yield


app = FastAPI(lifespan=lifespan)
LEDGER = Path(os.environ["HOME"], "ledger")


@app.get("/")
async def root() -> dict[str, str]:
    return {"shop": "open"}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/metrics")
async def metrics() -> str:
    return "told to nobody"


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, str]:
    return {"client": request.client.host, "scheme": request.url.scheme, "url": str(request.base_url)}


@app.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@app.get("/items")
async def items() -> list[int]:
    return []


@app.get("/items/{item_id}")
async def item(item_id: int, q: str | None = None) -> dict[str, object]:
    return {"item": item_id, "q": q, "greeting": os.environ.get("GREETING")}


@app.post("/orders/{number}")
async def order(number: str) -> dict[str, str]:
    with open(LEDGER, "a", encoding="ascii") as ledger:
        ledger.write(f"{number}\n")
    return {"ordered": number}


@app.get("/slow")
async def slow(seconds: float) -> dict[str, str | None]:
    await asyncio.sleep(seconds)
    return {"release": os.environ["RELEASE_ID"]}


@app.get("/digests")
async def digests() -> dict[str, str]:
    return {name: hashlib.sha256(os.fsencode(value)).hexdigest() for name, value in os.environ.items()}


@app.get("/events")
async def events() -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.5)

    return StreamingResponse(ticks(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


@app.websocket("/ws/whoami")
async def whose(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"{websocket.url.scheme} {websocket.client.host}")
    await websocket.close()
