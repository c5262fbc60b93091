"""Hypercorn for a release."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys

from hypercorn.config import Config
from hypercorn.run import run

from slipway.runtime import guard, log
from slipway.runtime.release import Release, read

# Its own form, which it gives to a logger that it makes itself.
USUAL = logging.Formatter("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]")


def settings(release: Release, listener: int) -> Config:
    """Return what Hypercorn is told.

    Args:
        release: the release.
        listener: the number of the socket that it listens on.
    """
    config = Config()
    config.application_path = "slipway.runtime.served:app"
    config.bind = [f"fd://{listener}"]
    # What launch.py works out.
    config.workers = int(os.environ["WEB_CONCURRENCY"])
    config.worker_class = "uvloop"
    config.include_server_header = False
    # Longer than Nginx keeps a connection, so that it is never the app that closes first.
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 10**9
    # Before Supervisor kills what does not end, such as an event stream that nobody closes.
    config.graceful_timeout = release.close_timeout
    config.shutdown_timeout = release.graceful_timeout
    config.startup_timeout = release.start_timeout
    if release.max_requests:
        config.max_requests = release.max_requests
        config.max_requests_jitter = release.max_requests // 10
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


def main() -> int:
    """Serve, until this process is told to stop, and return its exit code."""
    config = settings(release, guard.listen().detach())
    guard.exit_when_replaced()
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(write_fd)
    code = int(run(config))
    signal.set_wakeup_fd(-1)
    os.close(write_fd)
    if signal.SIGTERM not in os.read(read_fd, 64):
        # A worker was killed. The others cannot wait: all are replaced together.
        for worker in multiprocessing.active_children():
            worker.kill()
        code = code or 1
    return code


# Each worker reads this file, too.
release = read()
log.begin(release)
log.own("hypercorn.error", release, USUAL).setLevel(release.log_level.upper())
sys.path.insert(0, os.getcwd())

if __name__ == "__main__":
    sys.exit(main())
else:
    # A worker ends when it has answered: the first process asks for that by an event, but ends all by force when one of them has.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
