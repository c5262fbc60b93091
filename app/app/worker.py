"""A small worker beside the web server: `python -m app.worker`.

It takes orders from a directory, each a file with a name in it, and leaves a greeting for each. A real one asks a
queue. What it shows holds for both: an order is taken once, and one that was begun is ended before the worker stops.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from app.settings import Settings

IDLE_SECONDS = 1.0

logger = logging.getLogger("app.worker")


def orders(directory: Path) -> Iterator[Path]:
    """Take one order after the other: the rename fails for all workers but one."""
    for order in sorted(directory.glob("*.order")):
        taken = order.with_suffix(".taken")
        try:
            order.rename(taken)
        except FileNotFoundError:
            continue
        yield taken


def fill(order: Path) -> None:
    """Write the greeting that was ordered."""
    name = order.read_text(encoding="utf-8").strip() or "World"
    order.with_suffix(".greeting").write_text(f"Hello, {name}!\n", encoding="utf-8")
    order.unlink()
    logger.info("greeted %s", name)


def run(directory: Path, stop: threading.Event) -> None:
    """Fill orders until `stop` is set; one that was taken is filled."""
    directory.mkdir(parents=True, exist_ok=True)
    while not stop.is_set():
        for order in orders(directory):
            fill(order)
            if stop.is_set():
                return
        stop.wait(IDLE_SECONDS)


def main() -> None:
    """Work until SIGTERM."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    logger.info("the worker of release %s starts", settings.release_id)
    run(Path(os.environ.get("HOME", ".")) / "greetings", stop)
    logger.info("the worker of release %s has stopped", settings.release_id)


if __name__ == "__main__":
    main()
