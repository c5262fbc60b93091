"""What Prometheus is told at /metrics, over all processes of the release."""

from time import perf_counter

from fastapi import FastAPI
from prometheus_client import Counter, Gauge, Histogram
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Upper bounds in seconds. Each of them costs a little at each request.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Not what people ask for.
UNCOUNTED = {"/metrics", "/healthz"}

# Clients may make up others, which count as one.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

RELEASE = Gauge("app_release_info", "The release that runs.", ["release", "revision"], multiprocess_mode="livemax")
REQUESTS = Counter("http_requests", "Answers.", ["method", "handler", "status"])
SECONDS = Histogram("http_request_duration_seconds", "How long they took.", ["method", "handler"], buckets=BUCKETS)
IN_PROGRESS = Gauge("http_requests_inprogress", "Requests without an answer yet.", multiprocess_mode="livesum")


def template(scope: Scope, root: str) -> str:
    """Return the template of the route that a request took below `root`; of what is mounted the prefix, else "none"."""
    # What an included router has a prefix for, only the context knows.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    prefix: str = scope.get("root_path", "")[len(root) :]
    return prefix + getattr(route, "path", "") or "none"


class Counted:
    """Middleware that counts requests and how long they take.

    The instrumentator has one, which looks for the route of each request once more: that costs four times as much.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Count the requests of `app`."""
        self.app = app
        self.known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        root = scope.get("root_path", "")
        if scope["type"] != "http" or scope["path"].removeprefix(root) in UNCOUNTED:
            await self.app(scope, receive, send)
            return
        status = 500  # of an error that nobody caught

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begin = perf_counter()
        IN_PROGRESS.inc()
        try:
            await self.app(scope, receive, send_noted)
        finally:
            IN_PROGRESS.dec()
            method = scope["method"] if scope["method"] in METHODS else "other"
            labels = method, template(scope, root), status
            if labels not in self.known:
                self.known[labels] = REQUESTS.labels(*labels), SECONDS.labels(*labels[:2])
            requests, seconds = self.known[labels]
            requests.inc()
            seconds.observe(perf_counter() - begin)


def add_metrics(app: FastAPI, release: str, revision: str | None) -> None:
    """Count the requests of `app`, by the template of their route, and how long they take.

    Where PROMETHEUS_MULTIPROC_DIR names a directory, as it does in a release, all processes count together.
    """
    RELEASE.labels(release, revision or "").set(1)
    app.add_middleware(Counted)
    Instrumentator().expose(app, include_in_schema=False)
