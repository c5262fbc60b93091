"""The application: `app.main:app`."""

import hmac
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from app import __version__, streams
from app.docs import add_docs
from app.metrics import add_metrics
from app.settings import Settings

GREETING = "Hello, World!"

settings = Settings()
logger = logging.getLogger(__name__)
logging.getLogger().setLevel(settings.log_level.upper())
# Released by Slipway, the lines of an app that sets up no handler are JSON, and name the request that they are about.
if "SLIPWAY_SOCKET" not in os.environ:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open before the yield what every request needs, such as a database pool, and close it after."""
    logger.info("release %s starts", settings.release_id)
    yield
    logger.info("release %s has stopped", settings.release_id)


app = FastAPI(
    title=settings.app_title,
    version=__version__,
    lifespan=lifespan,
    openapi_url="/openapi.json" if settings.docs_enabled else None,
    docs_url=None,
    redoc_url=None,
)
app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static", html=True), name="static")
if settings.docs_enabled:
    add_docs(app)


@app.get("/")
async def root() -> dict[str, str]:
    """Greet."""
    return {"message": GREETING}


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """Return the item's number and the query."""
    return {"item_id": item_id, "q": q}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that requests are answered; look at nothing else, so that it stays cheap."""
    return {"status": "ok"}


@app.get("/version")
async def version() -> dict[str, str | None]:
    """Tell which release answers."""
    return {"version": __version__, "release": settings.release_id, "revision": settings.release_revision}


@app.get("/whoami")
async def whoami(request: Request, response: Response) -> dict[str, str | None]:
    """Tell callers how the app sees them, and nothing about anybody else."""
    response.headers["Cache-Control"] = "no-store"
    return {
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "host": request.headers.get("host"),
        "url": str(request.url_for("root")),
    }


@app.get("/signed")
async def signed() -> dict[str, str]:
    """Sign the greeting with HMAC-SHA256: releases with the same SECRET_KEY give the same signature."""
    logger.info("the greeting is signed")
    key = settings.secret_key.get_secret_value().encode()
    return {"message": GREETING, "signature": hmac.new(key, GREETING.encode(), "sha256").hexdigest()}


app.include_router(streams.router)
if settings.metrics_enabled:
    add_metrics(app, settings.release_id, settings.release_revision)
