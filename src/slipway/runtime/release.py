"""The configuration of a release: `runtime.json` in its directory, beside the settings of the app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

# The directory of the release that this file was copied into.
HERE = Path(__file__).resolve().parents[2]


class Release(NamedTuple):
    """What the programs of a release go by. Times are in seconds, sizes of memory in MiB; 0 stands for no limit.

    Attributes:
        app: the name of the app.
        number: the number of the release.
        revision: what the state of its source is called.
        build: the build that it runs.
        module: where the app is found, such as `app.main:app`.
        home: the directory of the app.
        sockets: the directory of its sockets.
        user: the user that runs it.
        server: gunicorn, uvicorn or hypercorn.
        worker: which worker of Gunicorn serves, uvicorn or asgi; empty for another server.
        modules: what the server needs of an image.
        workers: how many processes serve; 0 for as many as fit.
        worker_memory_mb: what one of them takes.
        memory_mb: what all of them may take.
        timeout: after which a worker that hangs is replaced.
        graceful_timeout: which requests under way have when the release is stopped.
        start_timeout: which it has to become healthy.
        max_requests: after how many requests a worker is replaced; 0 for never.
        no_new_privileges: whether the app is kept from new privileges.
        log_level: how much the server logs.
        log_format: json or text.
        log_target: files or journald.
        secrets: the names of the settings that are secret.
        masked: a pattern of parameters in addresses whose values are secret, which follow its first group.
        frontend: the folder of a front end of which Nginx serves all files; `auto` for those that the app has; empty for none.
        static: the folders that Nginx serves, by the paths that they are served below.
        closed_paths: the paths that Nginx hands on for nobody.
        container: `engine`, `network`, `cpus` and `options` of the container that it runs in; empty without one.
        processes: what runs beside the web server: by names, `command`, `hosts`, `instances`, `stop_seconds` and `memory_mb`.
    """

    app: str
    number: int
    revision: str
    build: str
    module: str
    home: str
    sockets: str
    user: str
    server: str
    worker: str
    modules: list[str]
    workers: int
    worker_memory_mb: int
    memory_mb: int
    timeout: int
    graceful_timeout: int
    start_timeout: int
    max_requests: int
    no_new_privileges: bool
    log_level: str
    log_format: str
    log_target: str
    secrets: list[str]
    masked: str
    frontend: str
    static: dict[str, str]
    closed_paths: list[str]
    container: dict[str, Any]
    processes: dict[str, dict[str, Any]]

    @property
    def close_timeout(self) -> int:
        """Seconds after which the server closes what does not end by itself, before others kill it."""
        return max(1, self.graceful_timeout - 1)


def read(directory: Path = HERE) -> Release:
    """Return the configuration of the release in `directory`.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no JSON.
        TypeError: when it is another version's.
    """
    return Release(**json.loads((directory / "runtime.json").read_text(encoding="utf-8")))
