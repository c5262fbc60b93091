"""What a job prints, in the log of its app: each line a record with the run that it belongs to, and no secret."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.host.process import masked

# As Supervisor rotates the log of a release.
LOG_BYTES, OLDER_LOGS = 10_000_000, 5


class Output:
    """The log of one run of a job.

    Args:
        settings: those of the release (runtime.json), which say in which form it logs, and where.
        job: the job's name.
        run: the run's id.
        file: where it logs, if its release logs to files; else it goes to standard output, which is the journal.
        secrets: what is masked.
    """

    def __init__(self, settings: dict[str, Any], job: str, run: str, file: Path, secrets: Sequence[str]) -> None:
        self.names = {"release": str(settings["number"]), "job": job, "run": run}
        self.json = settings["log_format"] == "json"
        self.parameter = re.compile(settings["masked"])
        self.secrets = list(secrets)
        self.handler: logging.Handler
        if settings["log_target"] == "files":
            self.handler = logging.handlers.RotatingFileHandler(
                file, maxBytes=LOG_BYTES, backupCount=OLDER_LOGS, encoding="utf-8", errors="backslashreplace", delay=True
            )
        else:
            self.handler = logging.StreamHandler(sys.stdout)

    def line(self, text: str) -> None:
        """Log a line that the job printed. One that is JSON already stays so, and gets the names that it lacks."""
        if self.json and text.startswith("{"):
            try:
                record = json.loads(text)
            except ValueError:
                record = None
            if isinstance(record, dict):
                self._write(json.dumps({**record, **{name: self.names[name] for name in self.names.keys() - record.keys()}}))
                return
        self.record("INFO", text)

    def record(self, level: str, message: str, **facts: Any) -> None:
        """Log a message, with further facts by name."""
        moment = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment))}.{int(moment % 1 * 1000):03d}Z"
        if not self.json:
            self._write(f"{stamp} {level} job {self.names['job']} {self.names['run']}: {message}")
            return
        head = {"time": stamp, "level": level, "logger": "slipway.job", "message": message}
        self._write(json.dumps({**head, **self.names, **facts}, ensure_ascii=False))

    def _write(self, text: str) -> None:
        text = self.parameter.sub(r"\1********", masked(text, self.secrets))
        self.handler.handle(logging.LogRecord("job", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the log."""
        self.handler.close()
