"""A small job: `python -m app.cleanup` removes the worker's greetings that are older than a day."""

import logging
import os
import time
from pathlib import Path

from app.settings import Settings

KEPT_SECONDS = 86_400.0

logger = logging.getLogger("app.cleanup")


def clean(directory: Path, before: float) -> int:
    """Remove greetings written before a time, in seconds since 1970, and return how many there were."""
    old = [greeting for greeting in directory.glob("*.greeting") if greeting.stat().st_mtime < before]
    for greeting in old:
        greeting.unlink()
    return len(old)


def main() -> None:
    """Clean up once."""
    logging.basicConfig(level=Settings().log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    count = clean(Path(os.environ.get("HOME", ".")) / "greetings", time.time() - KEPT_SECONDS)
    logger.info("removed %d old greetings", count)


if __name__ == "__main__":
    main()
