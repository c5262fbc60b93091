"""Gunicorn's configuration for a release."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Any, ClassVar

from gunicorn.glogging import Logger

# Gunicorn reads this file from no path of its own. Last, so that no name in here hides one of the app's.
sys.path.append(os.path.dirname(__file__))

from slipway.runtime import guard, log
from slipway.runtime.release import Release, read

SOCKET = os.environ["SLIPWAY_SOCKET"]
PR_SET_PDEATHSIG = 1


def uvicorn_worker(release: Release) -> type:
    """Return a worker that says in each answer which release gave it."""
    from uvicorn_worker import UvicornWorker

    class ReleaseWorker(UvicornWorker):
        CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
            **UvicornWorker.CONFIG_KWARGS,
            "headers": [("X-Release", str(release.number))],
            "server_header": False,
            # asgi.py heeds them at less cost.
            "proxy_headers": False,
            # Before Gunicorn kills what does not end, such as an event stream that nobody closes.
            "timeout_graceful_shutdown": release.close_timeout,
        }

    return ReleaseWorker


def asgi_worker() -> type:
    """Return a worker that does not leave as soon as its master is gone: asgi.py sees to that, when there is another."""
    from gunicorn.workers.gasgi import ASGIWorker

    class ReleaseWorker(ASGIWorker):
        @property
        def ppid(self) -> int:
            return os.getppid()

        @ppid.setter
        def ppid(self, pid: int) -> None:
            pass

    return ReleaseWorker


class Log(Logger):
    """Gunicorn's log in the form of the release."""

    def setup(self, cfg: Any) -> None:
        """Set up the handlers as Gunicorn does, and give them that form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(log.Lines(_release, handler.formatter))


_release = read()
log.begin(_release)

worker_class = uvicorn_worker(_release) if _release.worker == "uvicorn" else asgi_worker()
logger_class = Log
bind = f"unix:{SOCKET}"
# The number of workers is what launch.py works out: WEB_CONCURRENCY.
timeout = _release.timeout
graceful_timeout = _release.graceful_timeout
# Longer than Nginx keeps a connection, so that it is never the app that closes first.
keepalive = 75
max_requests = _release.max_requests
max_requests_jitter = _release.max_requests // 10
# Nobody but Nginx reaches the socket, and it overwrites what a client says of itself.
forwarded_allow_ips = "*"
control_socket_disable = True
reload = False
accesslog = None
errorlog = "-"
loglevel = _release.log_level
worker_tmp_dir = "/dev/shm"


def when_ready(server: Any) -> None:
    """Have the kernel tell this process when supervisord dies."""
    own, parent = guard.inode(SOCKET), os.getppid()

    def exit_when_replaced(signum: int, frame: FrameType | None) -> None:
        # Serve until supervisord is back and has started the next Gunicorn. The workers then leave by themselves (asgi.py);
        # a regular stop would remove the socket file, which is the other's by now.
        if os.getppid() != parent and guard.inode(SOCKET) != own:
            os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    signal.signal(signal.SIGALRM, exit_when_replaced)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGALRM)
