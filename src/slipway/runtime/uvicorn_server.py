"""Uvicorn for a release."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

import uvicorn
from uvicorn.logging import DefaultFormatter

from slipway.runtime import guard, log
from slipway.runtime.release import Release, read


def settings(release: Release) -> dict[str, Any]:
    """Return what Uvicorn is told."""
    options: dict[str, Any] = {
        # What launch.py works out.
        "workers": int(os.environ["WEB_CONCURRENCY"]),
        "headers": [("X-Release", str(release.number))],
        "server_header": False,
        # asgi.py heeds them at less cost.
        "proxy_headers": False,
        # Longer than Nginx keeps a connection, so that it is never the app that closes first.
        "timeout_keep_alive": 75,
        # Before Supervisor kills what does not end, such as an event stream that nobody closes.
        "timeout_graceful_shutdown": release.close_timeout,
        "timeout_worker_healthcheck": release.timeout,
        "access_log": False,
        "log_config": None,
        "log_level": release.log_level,
    }
    if release.max_requests and options["workers"] > 1:  # nobody would start a single one again while it is away
        options.update(limit_max_requests=release.max_requests, limit_max_requests_jitter=release.max_requests // 10)
    known = inspect.signature(uvicorn.run).parameters  # older ones have fewer
    return {name: value for name, value in options.items() if name in known}


def main() -> None:
    """Serve, until this process is told to stop."""
    listener = guard.listen()
    options = settings(release)
    if options["workers"] > 1:
        guard.exit_when_replaced()
    uvicorn.run("slipway.runtime.served:app", fd=listener.fileno(), **options)


# Each worker reads this file, too.
release = read()
log.begin(release)
log.own("uvicorn", release, DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False))
sys.path.insert(0, os.getcwd())

if __name__ == "__main__":
    main()
