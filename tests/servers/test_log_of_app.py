"""What a release logs: the real servers, with apps that set logging up in every way."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import released
from rendering import Host

from slipway.host import logs as app_log

WORKERS = 2

ROOT = Path(__file__).resolve().parents[2]
SERVERS: dict[str, dict[str, Any]] = {
    "gunicorn": {},
    "asgi": {"app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}
# Who logs what an app raises.
LOGS_ERRORS = {"gunicorn": "uvicorn.error", "asgi": "gunicorn.error", "uvicorn": "uvicorn.error", "hypercorn": "hypercorn.error"}
# What its first process says of itself; Hypercorn's says nothing.
FIRST_SAYS = {"gunicorn": "Starting gunicorn", "asgi": "Starting gunicorn", "uvicorn": "Started parent process"}
each_server = pytest.mark.parametrize("server", SERVERS)

SECRETS = {
    "API_KEY": "canary-of-the-log",
    "SHORT": "abc",
    "LINES": 'first "canary" of Zoë\'s\nsecond \\canary\\ line',
    "DATABASE_URL": "postgresql://shop:can%40ary-of-the-database@db/shop",
}

APP = """
import asyncio, json, logging, os, sys, threading, warnings
from contextlib import asynccontextmanager
from fastapi import FastAPI

{setup}
if "LEVEL" in os.environ:
    logging.getLogger("shop").setLevel(os.environ["LEVEL"])

@asynccontextmanager
async def lifespan(app):
    {later}
    logging.getLogger("shop").warning("opens")
    yield
    logging.getLogger("shop").warning("closes")

app = FastAPI(lifespan=lifespan)
logger = logging.getLogger("shop.orders")

def speak():
    {speak}

@app.get("/speak")
async def spoken():
    speak()
    return {{}}

@app.get("/say")
async def say():
    logger.warning("order %d of %s", 7, "Zoë", extra={{"order": 7, "message_of": None}})
    logger.warning("GET https://api.test/v1?user=1&access_token=letmein&x=2#y")
    logger.warning("two\\nlines")
    return {{}}

@app.get("/later")
async def later():
    await asyncio.sleep(0.3)
    logger.warning("later")
    return {{}}

@app.get("/long")
async def long():
    await asyncio.sleep(1.5)
    return {{}}

@app.get("/hours")
async def hours():
    await asyncio.sleep(7200)

@app.get("/thread")
def thread():
    logger.warning("in a thread")
    return {{}}

@app.get("/fail")
async def fail():
    raise RuntimeError("boom")

@app.get("/secrets")
async def secrets():
    logger.warning("all of them: %s", dict(os.environ))
    for value in os.environ.values():
        logger.warning(value)
    logger.warning("pass%%word: %s", "can@ary-of-the-database")
    raise RuntimeError(dict(os.environ))

@app.get("/uncaught")
async def uncaught():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return {{}}

@app.get("/print")
async def printed():
    print("a plain line")
    return {{}}

@app.get("/own")
async def own():
    logger.warning(json.dumps({{"event": "mine", "level": "notice"}}))
    logger.warning(json.dumps({{"event": "whole", "release": "mine", "request_id": "mine"}}))
    logger.warning(json.dumps({{"event": "pretty"}}, indent=2))
    logger.warning("{{ no JSON }}")
    return {{}}

@app.get("/quiet")
async def quiet():
    logger.info("not so important")
    return {{}}

@app.get("/halves")
async def halves():
    logger.warning("half a pair: \\ud83d")
    return {{}}
"""

# How an app sets logging up, when it is imported or when it starts, and what it logs then: the same each time.
SPEAK = 'logger.warning("order %d of %s", 7, "Zoë", extra={"order": 7})'
BASIC = "logging.basicConfig(level='INFO', format='%(levelname)s %(message)s')"
DICTIONARY = """logging.config.dictConfig({"version": 1, "disable_existing_loggers": False,
        "formatters": {"long": {"format": "%(levelname)s %(name)s: %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "long", "stream": "ext://sys.stdout"}},
        "root": {"level": "INFO", "handlers": ["out"]}})"""
STRUCTLOG = """import structlog
shared = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name]
structlog.configure(processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger)
out = logging.StreamHandler(sys.stdout)
out.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[
    structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.@RENDERER@]))
logging.getLogger().addHandler(out)
logging.getLogger().setLevel("INFO")"""
STRUCTLOG_SPEAK = f'structlog.get_logger("shop.items").info("item", order=7, name="Zoë"); {SPEAK}'
LOGURU = """from loguru import logger as loguru
class Loguru(logging.Handler):
    def emit(self, record):
        loguru.opt(exception=record.exc_info).log(record.levelname, record.getMessage())
logging.basicConfig(handlers=[Loguru()], level=0)
logging.getLogger("asyncio").setLevel("INFO")
loguru.remove()
loguru.add(sys.stderr, format="{level} {message} {extra}", colorize=False)"""
SETUPS: dict[str, tuple[str, str, str]] = {
    "nothing": ("", "", SPEAK),
    "basicConfig": (BASIC, "", SPEAK),
    "a dictionary": (f"import logging.config\n{DICTIONARY}", "", SPEAK),
    "structlog": (STRUCTLOG.replace("@RENDERER@", "JSONRenderer(sort_keys=True)"), "", STRUCTLOG_SPEAK),
    "loguru": (LOGURU, "", f'loguru.bind(order=7).info("item of Zoë"); {SPEAK}'),
}
# What makes no difference to the server.
MORE_SETUPS: dict[str, tuple[str, str, str]] = {
    "at its start": ("import logging.config", DICTIONARY, SPEAK),
    "a queue": (
        "import logging.handlers, queue\n"
        "inbox = queue.SimpleQueue()\n"
        "logging.basicConfig(level='INFO', handlers=[logging.handlers.QueueHandler(inbox)])\n"
        "listener = logging.handlers.QueueListener(inbox, logging.StreamHandler())",
        "listener.start()",
        f"{SPEAK}; listener.stop(); listener.start()",
    ),
    "structlog for people": (STRUCTLOG.replace("@RENDERER@", "KeyValueRenderer()"), "", STRUCTLOG_SPEAK),
    "structlog that prints": (f"import structlog\nstructlog.configure(processors=[structlog.processors.JSONRenderer()])\n{BASIC}",
                              "", 'structlog.get_logger().info("item", order=7)'),
    "loguru in JSON": (f"{LOGURU.split('loguru.add')[0]}loguru.add(lambda text: print(json.loads(text)['record']['message']), "
                       "serialize=True)", "", 'loguru.info("item of Zoë")'),
    "a handler of one logger": ("own = logging.StreamHandler()\nlogging.getLogger('shop').addHandler(own)", "", SPEAK),
}  # fmt: skip
BOTH = {**SETUPS, **MORE_SETUPS}

# The app without a server, and so without anything of ours.
ALONE = """
import asyncio, main
async def alone():
    async with main.lifespan(main.app):
        main.speak()
asyncio.run(alone())
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the example app's packages and all servers."""
    venv = tmp_path_factory.mktemp("servers") / "venv"
    uv = Path(sys.executable).parent / "uv"
    servers = {name for way in Host()["__app_servers"].values() for name in way["requirements"]}
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", venv]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([*install, "--require-hashes", "--requirement", ROOT / "app" / "requirements.txt"], check=True)
    subprocess.run([*install, *sorted(servers), "structlog", "loguru"], check=True)
    return venv


@dataclass
class Release:
    """A release that runs, with its socket; `lines` is what it has printed, once it has ended, `strange` what is no record."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path
    lines: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    def ask(self, path: str, name: str = "") -> int:
        """Ask once, as Nginx would, and return the status."""
        connection = http.client.HTTPConnection("shop.test", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.socket))
            connection.request("GET", path, headers={"X-Request-ID": name} if name else {})
            return connection.getresponse().status

    def opened(self) -> None:
        """Wait until all workers serve: one that is about to would say so in between, and close nothing."""
        self.says("opens", WORKERS)
        time.sleep(0.5)

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has logged a text so many times.

        Raises:
            AssertionError: when it has not within 30 s.
        """
        deadline = time.monotonic() + 30
        while (log := self.log.read_text(encoding="utf-8")).count(text) < times:
            assert time.monotonic() < deadline, log
            time.sleep(0.1)

    def end(self) -> list[dict[str, Any]]:
        """Stop it as Supervisor would, and return its records."""
        self.process.terminate()
        self.process.wait(20)
        self.lines = self.log.read_text(encoding="utf-8").split("\n")
        assert self.lines.pop() == ""
        records = [line for line in self.lines if '"logger":' in line and '"release":' in line]
        self.strange = [line for line in self.lines if line not in records]
        return [json.loads(line) for line in records]


Start = Callable[..., Release]


@pytest.fixture
def start(tmp_path: Path, short: Path, environment: Path) -> Iterator[Start]:
    """Start a release of the app above."""
    running: list[Release] = []

    def begin(server: str, setup: str = "nothing", wait: bool = True, **variables: Any) -> Release:
        host = Host({"app_name": "shop", "app_home": str(tmp_path), "app_module": "main:app", "app_workers": WORKERS,
                     "app_graceful_timeout": 3, "app_secrets": SECRETS, **SERVERS[server], **variables})  # fmt: skip
        release, build = tmp_path / "releases" / "7", tmp_path / "builds" / "1"
        for directory in (release, build, tmp_path / "shared"):
            directory.mkdir(parents=True)
        (release / "build").symlink_to(build)
        (build / ".venv").symlink_to(environment)
        first, later, speak = BOTH[setup]
        (build / "main.py").write_text(APP.format(setup=first, later=later or "pass", speak=speak), encoding="utf-8")
        released.write(release, released.told(host, sockets=str(short)), host["app_env"] | host["app_secrets"])
        journal = release / "slipway" / "runtime" / "journal.py"
        journal.write_text(released.text("journal.py").replace("/run/systemd", str(short)), encoding="utf-8")
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [environment / "bin" / "python", release / "launch.py"],
                cwd=build,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        begun = Release(process, short / "7.sock", log)
        running.append(begun)
        deadline = time.monotonic() + 30
        while wait:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if begun.ask("/openapi.json") == 200:
                    break
            assert time.monotonic() < deadline and process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        return begun

    yield begin
    for release in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(release.process.pid, signal.SIGKILL)
        release.process.wait()


def of_request(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("request_id") == name]


@each_server
def test_all_that_is_logged_is_json_and_names_its_request(start: Start, server: str) -> None:
    release = start(server)
    release.opened()
    for path in ("say", "thread", "later", "fail", "uncaught", "print"):
        release.ask(f"/{path}", f"request-{path}")
    release.ask("/say")
    lines = release.end()
    assert release.strange == ["a plain line"]
    for line in lines:
        assert list(line)[:5] == ["time", "level", "logger", "message", "release"]
        assert line["release"] == "7"
        time.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
    said, token, two = of_request(lines, "request-say")
    assert (said["level"], said["logger"], said["message"], said["order"]) == ("WARNING", "shop.orders", "order 7 of Zoë", 7)
    assert "Zoë" in str(release.lines)
    assert token["message"] == "GET https://api.test/v1?user=1&access_token=********&x=2#y"
    assert two["message"] == "two\nlines"
    assert [line["message"] for line in of_request(lines, "request-thread")] == ["in a thread"]
    assert [line["message"] for line in of_request(lines, "request-later")] == ["later"]
    # What the app raised is logged by its server.
    (failed,) = of_request(lines, "request-fail")
    assert failed["level"] == "ERROR"
    assert failed["logger"] == LOGS_ERRORS[server]
    assert "Traceback (most recent call last):" in failed["exception"]
    assert "RuntimeError: boom" in failed["exception"]
    (uncaught,) = [line for line in lines if line["logger"] == "uncaught"]
    assert uncaught["exception"].endswith("ZeroDivisionError: division by zero")
    # Neither a request without a name nor what the server says of itself has that of another.
    assert len([line for line in lines if line["message"] == "two\nlines" and "request_id" not in line]) == 1
    servers = [line for line in lines if line["logger"].startswith(("uvicorn", "gunicorn", "hypercorn"))]
    assert len(servers) > 2
    assert [line for line in servers if "request_id" in line] == [failed]
    times = Counter(line["message"] for line in servers)
    assert max(times.values()) <= WORKERS, "something is said twice"
    if server in FIRST_SAYS:
        assert [count for text, count in times.items() if text.startswith(FIRST_SAYS[server])] == [1]
    # Both workers open and close.
    assert sorted(line["message"] for line in lines if line["logger"] == "shop") == ["closes"] * WORKERS + ["opens"] * WORKERS


def children(release: Release) -> list[int]:
    """Return the processes below its first."""
    found = subprocess.run(["pgrep", "-P", str(release.process.pid)], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid in found.split()]


def arguments(pid: int) -> str:
    """Return the arguments of a process, as ps shows them."""
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")


@each_server
def test_arguments_name_the_server_and_its_release(start: Start, server: str) -> None:
    release = start(server)
    first = arguments(release.process.pid)
    assert server.replace("asgi", "gunicorn") in first
    assert " shop release 7 " in first
    assert ["/releases/7/" in arguments(pid) for pid in children(release)].count(True) >= WORKERS


@each_server
def test_a_worker_that_still_answers_is_not_ended_with_the_others(start: Start, server: str) -> None:
    release = start(server)
    release.opened()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(release.ask, "/long")
        time.sleep(0.5)
        lines = release.end()
    assert answer.result() == 200
    assert [line["message"] for line in lines if line["logger"] == "shop"].count("closes") == WORKERS


@each_server
def test_workers_serve_on_when_their_first_process_is_gone(start: Start, server: str) -> None:
    """Until another has taken the socket's path over, however long that takes."""
    release = start(server)
    release.opened()
    release.process.kill()
    release.process.wait()
    for _ in range(40):
        assert release.ask("/print") == 200
        time.sleep(0.1)


def test_workers_of_hypercorn_do_not_keep_its_replacement_waiting(start: Start) -> None:
    """Its first process ends with a worker that is killed, and Supervisor starts it anew: soon, whatever the others are at."""
    release = start("hypercorn", app_graceful_timeout=30)
    release.opened()
    with ThreadPoolExecutor() as pool:
        busy = pool.submit(release.ask, "/hours")
        time.sleep(0.5)
        os.kill(max(children(release)), signal.SIGKILL)
        assert release.process.wait(10) != 0
        assert isinstance(busy.exception(10), (OSError, http.client.HTTPException))


def alone(release: Release, environment: Path) -> list[str]:
    """Return the lines of the app without a server."""
    run: list[str | Path] = [environment / "bin" / "python", "-c", ALONE]
    done = subprocess.run(
        run, cwd=release.log.parent / "builds" / "1", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize(
    ("server", "setup"),
    [
        *((server, setup) for server in SERVERS for setup in SETUPS if setup != "nothing"),
        *(("uvicorn", setup) for setup in MORE_SETUPS),
    ],
)
def test_what_an_app_formats_itself_comes_out_as_it_would_alone(start: Start, environment: Path, server: str, setup: str) -> None:
    release = start(server, setup)
    release.opened()
    assert release.ask("/speak", "request-1") == 200
    assert release.ask("/fail", "request-2") == 500
    lines = release.end()
    # Each of the workers opens and closes, and the last words of a queue may be lost.
    wanted = Counter(line for line in alone(release, environment) if not re.search("opens|closes", line))
    assert wanted
    found = Counter(release.strange)
    assert {line: found[line] for line in wanted} == dict(wanted)
    # The server's own lines have its form, and what it says of a request names it.
    assert {line["logger"].split(".")[0] for line in lines} - {"asyncio"} == {server.replace("asgi", "gunicorn")} | (
        {"uvicorn"} if server == "gunicorn" else set()
    )
    (failed,) = of_request(lines, "request-2")
    assert failed["exception"].rstrip().endswith("RuntimeError: boom")
    assert not of_request(lines, "request-1")
    # Whoever reads the log is shown them.
    assert app_log.readable("\n".join(release.strange)).splitlines() == release.strange


def test_an_app_that_sets_levels_alone_has_its_records_in_the_form_of_the_release(start: Start) -> None:
    release = start("uvicorn", "nothing", app_env={"LEVEL": "INFO"})
    release.ask("/own", "request-1")
    release.ask("/halves", "request-2")
    release.ask("/quiet", "request-3")
    release.end()
    lines = [json.loads(line) for line in release.lines]
    (halves,) = of_request(lines, "request-2")
    assert halves["message"] == "half a pair: \ud83d"
    assert [line["message"] for line in of_request(lines, "request-3")] == ["not so important"]
    # What is JSON already stays so.
    own = lines[[line.get("request_id") for line in lines].index("request-1") :][:4]
    assert own[0] == {"event": "mine", "level": "notice", "release": "7", "request_id": "request-1"}
    assert own[1] == {"event": "whole", "release": "mine", "request_id": "mine"}
    assert own[2] == {"event": "pretty", "release": "7", "request_id": "request-1"}
    assert own[3]["message"] == "{ no JSON }"


@pytest.mark.parametrize(("server", "form"), [*((server, "json") for server in SERVERS), ("gunicorn", "text")])
def test_no_secret_is_logged(start: Start, server: str, form: str) -> None:
    release = start(server, app_log_format=form)
    release.ask("/secrets", "request-1")
    release.process.terminate()
    release.process.wait(20)
    text = release.log.read_text(encoding="utf-8")
    assert text.count("********") >= 7
    assert "canary" not in text
    assert "can%40ary" not in text
    assert "can@ary" not in text
    assert "'SHORT': 'abc'" in text
    assert "LINES" in text


def test_text_is_what_the_app_and_its_server_make_of_it(start: Start) -> None:
    release = start("uvicorn", app_log_format="text")
    release.ask("/say", "request-1")
    release.process.terminate()
    release.process.wait(20)
    lines = release.log.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("INFO: ") and "Application startup complete" in line for line in lines)
    assert "order 7 of Zoë" in lines
    assert any(line.endswith("access_token=********&x=2#y") for line in lines)


def test_a_line_is_whole_while_others_write(tmp_path: Path) -> None:
    released.write(tmp_path, released.told(Host()))
    code = "from slipway.runtime import log, release; log.begin(release.read()); input()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(100):
            size = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
            if size == 2**20:
                break
            time.sleep(0.1)
        process.communicate(b"\n")
    # What Supervisor makes has room for 16 lines of a traceback's length; where it is full, a further one is torn.
    assert size == 2**20


@pytest.mark.parametrize("server", ["gunicorn", "hypercorn"])
def test_a_release_can_log_to_the_journal(start: Start, short: Path, server: str) -> None:
    with released.journal(short) as said:
        release = start(server, app_log_target="journald")
        release.ask("/say", "request-1")
        release.ask("/print")
        # What Supervisor watches is the server itself.
        assert server in arguments(release.process.pid)
        assert release.end() == []
    (stream,) = said
    *header, rest = stream.split("\n", 7)
    assert header == ["shop-7", "", "6", "1", "0", "0", "0"]
    lines = rest.splitlines()
    assert "a plain line" in lines
    assert len(of_request([json.loads(line) for line in lines if line != "a plain line"], "request-1")) == 3


def test_where_there_is_no_journal_there_are_files(start: Start) -> None:
    release = start("uvicorn", app_log_target="journald")
    assert release.ask("/print") == 200
    release.process.terminate()
    release.process.wait(20)
    first, *lines = release.log.read_text(encoding="utf-8").splitlines()
    assert "The journal cannot be reached" in first
    assert "a plain line" in lines


def test_what_is_run_beside_the_server_says_it_to_who_runs_it(start: Start, short: Path, environment: Path) -> None:
    with released.journal(short) as said:
        release = start("uvicorn", app_log_target="journald")
        launch = [environment / "bin" / "python", release.log.parent / "releases" / "7" / "launch.py"]
        command: list[str | Path] = [*launch, "--shell", "echo migrated"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "migrated\n"
        release.end()
    assert len(said) == 1


@each_server
def test_a_release_that_cannot_start_says_why(start: Start, server: str) -> None:
    release = start(server, "nothing", wait=False)
    (release.log.parent / "builds" / "1" / "main.py").write_text("raise RuntimeError('no database today')", encoding="utf-8")
    release.says("RuntimeError: no database today")
