"""What the server of a release logs: a line of JSON each, with the request that it is about, and no secret.

So is what the app logs, as long as it sets up no logging of its own. What it formats itself, or prints, goes to the log as it is.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from slipway.runtime.release import Release

# A shorter secret could be a word of the language.
LEAST_LETTERS = 8
MASK = "********"

# Several processes write into one pipe: a line is torn only where it is long and the pipe is full.
PIPE_BYTES = 2**20

# The request under way, as the server describes it.
request: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("slipway_request", default=None)

# What every record has; all else was given by whoever logs.
USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def spellings(names: Iterable[str]) -> list[str]:
    """Return secrets as they are, and as Python and JSON write them, the longest first. Of several lines each is one.

    Args:
        names: the variables of the environment that have them.
    """
    parts: set[str] = set()
    for value in (os.environ.get(name, "") for name in names):
        parts |= {value, *value.splitlines()}
        with contextlib.suppress(ValueError):  # the password in an address
            password = urlsplit(value).password or ""
            parts |= {password, unquote(password)}
    parts = {part.strip() for part in parts if len(part.strip()) >= LEAST_LETTERS}
    parts |= {repr(part)[1:-1] for part in parts}
    for ascii_only in (False, True):
        parts |= {json.dumps(part, ensure_ascii=ascii_only)[1:-1] for part in parts}
    return sorted(parts, key=len, reverse=True)


def request_id() -> str | None:
    """Return what Nginx calls the request under way; None outside of one."""
    for name, value in (request.get() or {}).get("headers", ()):
        if name == b"x-request-id":
            return str(value.decode("latin-1"))
    return None


class Lines(logging.Formatter):
    """What a handler of ours writes.

    Args:
        release: whose log it is, which says in which form, and what is secret.
        usual: what makes the text where that is the form.
    """

    def __init__(self, release: Release, usual: logging.Formatter | None = None) -> None:
        super().__init__()
        self.release = str(release.number)
        self.json = release.log_format == "json"
        self.usual = usual or logging.Formatter()
        self.secrets = spellings(release.secrets)
        self.parameter = re.compile(release.masked)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as it is written."""
        text = (self.with_names(record) or self.as_json(record)) if self.json else self.usual.format(record)
        if not text.isascii():  # half a surrogate pair cannot be written otherwise
            text = text.encode("utf-8", "backslashreplace").decode()
        return self.masked(text)

    def masked(self, text: str) -> str:
        """Return `text` without secrets, and without the values of parameters of addresses that are called like one."""
        for secret in self.secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return self.parameter.sub(rf"\1{MASK}", text) if "=" in text else text

    def as_json(self, record: logging.LogRecord) -> str:
        """Return a record as one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "release": self.release,
        }
        name = request_id()
        if name:
            line["request_id"] = name
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        for key, value in vars(record).items():
            if key not in USUAL:
                line.setdefault(key, value)
        return json.dumps(line, ensure_ascii=False, default=str)

    def with_names(self, record: logging.LogRecord) -> str | None:
        """Return a message that is JSON already with the release and the request where it lacks them; None where it is none."""
        text = record.getMessage()
        if not text.startswith("{") or record.exc_info:
            return None
        try:
            line = json.loads(text)
        except ValueError:
            return None
        names = {"release": self.release, "request_id": request_id()}
        lacking = {name: value for name, value in names.items() if value and name not in line}
        return json.dumps({**line, **lacking}, ensure_ascii=False) if lacking or "\n" in text else text


def handler(release: Release, usual: logging.Formatter | None = None) -> logging.Handler:
    """Return a handler that writes lines to standard error, as `Lines` makes them."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(Lines(release, usual))
    return made


def own(name: str, release: Release, usual: logging.Formatter | None = None) -> logging.Logger:
    """Return the logger of a server, which has a handler of its own, and none that the app sets up for everything."""
    logger = logging.getLogger(name)
    logger.handlers = [handler(release, usual)]
    logger.propagate = False
    return logger


def begin(release: Release) -> None:
    """Give a form to what nobody else gives one: records that no handler takes, and exceptions that nobody catches."""
    logging.lastResort = handler(release)  # of an app that sets levels, and nothing else, all that these let through
    uncaught = own("uncaught", release)

    def log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        uncaught.critical("%s", kind.__name__, exc_info=(kind, error or kind(), trace))

    def log_uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_type is not SystemExit:
            log_uncaught(what.exc_type, what.exc_value, what.exc_traceback)

    sys.excepthook = log_uncaught
    threading.excepthook = log_uncaught_in_thread
    with contextlib.suppress(OSError):
        fcntl.fcntl(1, 1031, PIPE_BYTES)  # F_SETPIPE_SZ, which Python knows since 3.10
