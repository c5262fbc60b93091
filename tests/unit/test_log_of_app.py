"""What a release logs: the real servers, with apps that set logging up in every way."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from rendering import Host

WORKERS = 2

ROOT = Path(__file__).resolve().parents[2]
SERVERS: dict[str, dict[str, Any]] = {
    "gunicorn": {},
    "asgi": {"app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}
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

@asynccontextmanager
async def lifespan(app):
    {later}
    logging.getLogger("shop").warning("opens")
    yield
    logging.getLogger("shop").warning("closes")

app = FastAPI(lifespan=lifespan)
logger = logging.getLogger("shop.orders")

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

@app.get("/halves")
async def halves():
    logger.warning("half a pair: \\ud83d")
    return {{}}
"""

# How an app sets logging up, when it is imported or when it starts.
DICTIONARY = """logging.config.dictConfig({"version": 1, "disable_existing_loggers": False,
    "formatters": {"long": {"format": "[%(asctime)s] %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "long", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["out"]}})"""
SETUPS = {
    "nothing": ("", ""),
    "basicConfig": ("logging.basicConfig(level='INFO', format='%(asctime)s %(levelname)s %(message)s')", ""),
    "a dictionary": (f"import logging.config\n{DICTIONARY}", ""),
    "at its start": ("import logging.config", DICTIONARY),
    "a queue": (
        "import logging.handlers, queue\n"
        "inbox = queue.SimpleQueue()\n"
        "logging.basicConfig(level='INFO', handlers=[logging.handlers.QueueHandler(inbox)])\n"
        "out = logging.StreamHandler()",
        "logging.handlers.QueueListener(inbox, out).start()",
    ),
    "bare messages": ("logging.basicConfig(level='INFO', format='%(message)s')", ""),
}


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the example app's packages and all servers."""
    venv = tmp_path_factory.mktemp("servers") / "venv"
    uv = Path(sys.executable).parent / "uv"
    servers = {name for way in Host()["__app_servers"].values() for name in way["requirements"]}
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", venv]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([*install, "--require-hashes", "--requirement", ROOT / "app" / "requirements.txt"], check=True)
    subprocess.run([*install, *sorted(servers)], check=True)
    return venv


@dataclass
class Release:
    """A release that runs, with its socket; `lines` is what it has printed, once it has ended."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path
    lines: list[str] = field(default_factory=list)

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
        """Stop it as Supervisor would, and return its lines, all of which are JSON."""
        self.process.terminate()
        self.process.wait(20)
        self.lines = self.log.read_text(encoding="utf-8").split("\n")
        assert self.lines.pop() == ""
        return [json.loads(line) for line in self.lines if line != "a plain line"]


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
        first, later = SETUPS[setup]
        (build / "main.py").write_text(APP.format(setup=first, later=later or "pass"), encoding="utf-8")
        for name, text in host.work_out(trust_as_template("{{ __app_files }}"), "app").items():
            text = text.replace("@RELEASE@", "7").replace("/run/shop", str(short)).replace("/run/systemd", str(short))
            (release / name).write_text(text, encoding="utf-8")
        (release / "settings.json").write_text(json.dumps(host["app_env"] | host["app_secrets"]), encoding="utf-8")
        (release / "door.token").write_text("token", encoding="ascii")
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
    release = start(server, "basicConfig")
    release.opened()
    for path in ("say", "thread", "later", "fail", "uncaught", "print"):
        release.ask(f"/{path}", f"request-{path}")
    release.ask("/say")
    lines = release.end()
    assert "a plain line" in release.lines
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
    assert failed["logger"].split(".")[0] in ("uvicorn", "gunicorn", "hypercorn")
    assert failed["exception"].startswith("Traceback") or "Exception Group Traceback" in failed["exception"]
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
        found = subprocess.run(
            ["pgrep", "-P", str(release.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        os.kill(max(int(pid) for pid in found), signal.SIGKILL)
        assert release.process.wait(10) != 0
        assert isinstance(busy.exception(10), (OSError, http.client.HTTPException))


@pytest.mark.parametrize("setup", SETUPS)
def test_however_an_app_sets_logging_up(start: Start, setup: str) -> None:
    release = start("uvicorn", setup)
    release.opened()
    release.ask("/say", "request-1")
    release.ask("/own", "request-2")
    release.ask("/halves", "request-3")
    time.sleep(0.2)
    lines = release.end()
    # A handler with a queue gives each message the form of the app before anybody else sees it.
    ends = zip(of_request(lines, "request-1"), ("order 7 of Zoë", "x=2#y", "two\nlines"), strict=True)
    assert all(line["message"].endswith(end) for line, end in ends)
    (halves,) = of_request(lines, "request-3")
    assert halves["message"].endswith("half a pair: \ud83d")
    own = lines[[line.get("request_id") for line in lines].index("request-2") :][:4]
    assert own[3]["message"].endswith("{ no JSON }")
    if setup == "bare messages":
        assert own[0] == {"event": "mine", "level": "notice", "release": "7", "request_id": "request-2"}
        assert own[1] == {"event": "whole", "release": "mine", "request_id": "mine"}
        assert own[2] == {"event": "pretty", "release": "7", "request_id": "request-2"}


@pytest.mark.parametrize(("server", "form"), [*((server, "json") for server in SERVERS), ("gunicorn", "text")])
def test_no_secret_is_logged(start: Start, server: str, form: str) -> None:
    release = start(server, "basicConfig", app_log_format=form)
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
    release = start("uvicorn", "basicConfig", app_log_format="text")
    release.ask("/say", "request-1")
    release.process.terminate()
    release.process.wait(20)
    lines = release.log.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("INFO: ") and "Application startup complete" in line for line in lines)
    assert any(line.endswith(" WARNING order 7 of Zoë") for line in lines)
    assert any(line.endswith("access_token=********&x=2#y") for line in lines)


def test_a_line_is_whole_while_others_write(tmp_path: Path) -> None:
    (tmp_path / "slipway_log.py").write_text(Host().render("app", "slipway_log.py.j2"), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", "import slipway_log; input()"], cwd=tmp_path, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(100):
            size = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
            if size == 2**20:
                break
            time.sleep(0.1)
        process.communicate(b"\n")
    # What Supervisor makes has room for 16 lines of a traceback's length; where it is full, a further one is torn.
    assert size == 2**20


@contextlib.contextmanager
def journal(directory: Path) -> Iterator[list[str]]:
    """A journal; what is said to it is in the list afterwards, each program's own."""
    (directory / "journal").mkdir()
    said: list[str] = []
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "journal" / "stdout"))
        listener.listen()

        def read(connection: socket.socket) -> None:
            with connection, connection.makefile(encoding="utf-8") as stream:
                said.append(stream.read())

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=read, args=(listener.accept()[0],), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield said
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(10)


@pytest.mark.parametrize("server", ["gunicorn", "hypercorn"])
def test_a_release_can_log_to_the_journal(start: Start, short: Path, server: str) -> None:
    with journal(short) as said:
        release = start(server, app_log_target="journald")
        release.ask("/say", "request-1")
        release.ask("/print")
        # What Supervisor watches is the server itself.
        assert server in Path(f"/proc/{release.process.pid}/cmdline").read_text(encoding="utf-8").replace("server.py", server)
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
    with journal(short) as said:
        release = start("uvicorn", app_log_target="journald")
        launch = [environment / "bin" / "python", release.log.parent / "releases" / "7" / "launch.py"]
        command: list[str | Path] = [*launch, "--shell", "echo migrated"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "migrated\n"
        release.end()
    assert len(said) == 1


def test_in_a_container_the_engines_client_says_it() -> None:
    for target, says in (("files", []), ("journald", ["container.py"])):
        host = Host({"app_runtime": "container", "app_log_target": target})
        texts = {name: host.render("app", f"{name}.j2") for name in ("container.py", "launch.py")}
        assert [name for name, text in texts.items() if "slipway_journal.say_it_there()" in text] == says
    text = texts["container.py"]
    # Not where it only does something beside the server, and before it becomes, or starts, the client.
    assert text.index("elif task:") < text.index("say_it_there") < text.index('"attach"')


@each_server
def test_a_release_that_cannot_start_says_why(start: Start, server: str) -> None:
    release = start(server, "nothing", wait=False)
    (release.log.parent / "builds" / "1" / "main.py").write_text("raise RuntimeError('no database today')", encoding="utf-8")
    release.says("RuntimeError: no database today")
