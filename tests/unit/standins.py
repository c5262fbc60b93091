"""What stands in for the parts of a host that a test cannot have: Supervisor, an app's server, and Nginx."""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import xmlrpc.client
import xmlrpc.server
from pathlib import Path
from typing import Any

# An app's server. Its mode is a status, or what is wrong with it.
SERVER = """
import os, signal, socket, sys, time
path, release, mode = sys.argv[1:]
instance = os.environ.get("SLIPWAY_INSTANCE", "0")
if instance != "0":
    path = path.replace(".sock", f".{instance}.sock")
if mode == "lame":
    mode = "crash" if instance == "1" else "200"
print(f"release {release} starts", flush=True)
if mode == "crash":
    sys.exit("ModuleNotFoundError: No module named 'shop'")
if mode == "deaf":
    time.sleep(600)
if mode in ("slow", "workers"):
    time.sleep(0.3)
for _ in range(4 if mode == "workers" else 0):
    if os.fork() == 0:
        import ctypes
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        time.sleep(600)
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(path):
    os.unlink(path)
listener.bind(path)
listener.listen(128)
busy, leaving, slept = False, False, []

def leave():
    os.unlink(path)
    os._exit(0)

def stop(signum, frame):
    global leaving
    leaving = True
    if not busy:
        leave()

signal.signal(signal.SIGTERM, stop)
while not leaving:
    connection = listener.accept()[0]
    busy = True
    request = b""
    while b"\\r\\n\\r\\n" not in request:
        part = connection.recv(65536)
        if not part:
            break
        request += part
    root = request.startswith(b"GET / ")
    if mode == "asleep" or (root and (mode == "hangs" or (mode == "cold" and not slept))):
        slept.append(connection)  # and open
        busy = False
        continue
    lines = request.decode().lower().split("\\r\\n")
    status = mode if mode.isdigit() else "200"
    if "host: api.example.com" not in lines or "x-forwarded-proto: https" not in lines:
        status = "421"
    body, document = "ok", os.path.join(os.path.dirname(path), f"{release}.openapi.json")
    if lines[0].startswith("get /openapi.json ") and os.path.exists(document):
        status, body = "200", open(document).read()
    elif mode == "reserved" and "x-probe: yes" not in lines:
        status = "403"
    elif lines[0].startswith("get /ready "):
        body = "ready"
    elif root and mode in ("rootless", "rootbroken"):
        status = "404" if mode == "rootless" else "500"
    elif not root and not lines[0].startswith("get /healthz "):
        status = "404"
    says = f"X-Release: {release}\\r\\n" if mode != "nameless" else ""
    if status == "307":
        says += "Location: /login\\r\\n"
    answer = f"HTTP/1.1 {status} So\\r\\n{says}Content-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n{body}"
    connection.sendall(b"hello\\n" if mode == "noise" else answer.encode())
    connection.close()
    busy = False
    if mode == "brief":
        leave()
leave()
"""


class _Requests(xmlrpc.server.SimpleXMLRPCRequestHandler):
    """What Supervisor's own handler does with a request."""

    rpc_paths = ("/RPC2",)
    disable_nagle_algorithm = False  # no such thing at a Unix socket

    def address_string(self) -> str:
        return "unix"

    def do_POST(self) -> None:
        self.server.instance.credentials.add(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        super().do_POST()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class _Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer, xmlrpc.server.SimpleXMLRPCDispatcher):
    """XML-RPC at a Unix socket."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        xmlrpc.server.SimpleXMLRPCDispatcher.__init__(self)
        socketserver.UnixStreamServer.__init__(self, path, _Requests)


class Supervisor:
    """A Supervisor of one's own: what the modules ask of its XML-RPC interface, with one process for each section,
    or `numprocs`.

    Args:
        directory: where it keeps its state.
        sections: where it looks for the sections of programs.
    """

    def __init__(self, directory: Path, sections: Path) -> None:
        self.state = directory / "supervisor"
        self.sections = sections
        self.stopping = directory / "stopping"
        self.state.mkdir()
        self.stopping.mkdir()
        sections.mkdir()
        # Accepts every section; test_app_release has one with a parser.
        (directory / "supervisord").write_text("#!/bin/true\n", encoding="utf-8")
        (directory / "supervisord").chmod(0o755)
        self.socket = directory / "supervisor.sock"
        self.configuration = directory / "supervisord.conf"
        self.configuration.write_text(f"[unix_http_server]\nfile={self.socket}   ; (the socket)\n", encoding="utf-8")
        self.said: list[str] = []
        self.credentials: set[str] = set()
        self.read: set[str] = set()
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.server = _Listener(str(self.socket))
        self.server.register_instance(self)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _dispatch(self, method: str, arguments: tuple[str, ...]) -> Any:
        """Do what a client asks for."""
        name = method.removeprefix("supervisor.")
        self.said.append(" ".join([name, *map(str, arguments)]))
        return getattr(self, f"_{name}")(*arguments)

    def _reloadConfig(self) -> list[list[list[str]]]:
        files = list(self.sections.glob("*.conf"))
        if any("unparsable" in path.read_text(encoding="utf-8") for path in files):
            raise xmlrpc.client.Fault(92, "CANT_REREAD: ...")
        self.read = {path.stem for path in files}
        return [[[], [], []]]

    def _addProcessGroup(self, name: str) -> bool:
        if name not in self.read or name in self.programs():
            raise xmlrpc.client.Fault(10 if name not in self.read else 90, f"BAD_NAME: {name}")
        section = configparser.RawConfigParser()
        section.read(self.sections / f"{name}.conf")
        program = section[f"program:{name}"]
        pids = []
        for instance in map(str, range(int(program.get("numprocs", "1")))):
            with Path(program["stdout_logfile"].replace("%(process_num)d", instance)).open("ab") as log:
                child = subprocess.Popen(
                    shlex.split(program["command"]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "SLIPWAY_INSTANCE": instance},
                )
            self.children[child.pid] = child
            pids.append(child.pid)
        (self.state / name).write_text(" ".join(map(str, pids)), encoding="utf-8")
        return True

    def _stopProcessGroup(self, name: str, wait: bool = True) -> list[dict[str, Any]]:
        if (self.stopping / name).exists():  # what is stopping already counts as running no longer, and is not waited for
            return []
        (self.stopping / name).touch()
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        while wait and any(map(self._alive, self.pids(name))):
            time.sleep(0.01)
        return []

    def _removeProcessGroup(self, name: str) -> bool:
        if any(map(self._alive, self.pids(name))):
            raise xmlrpc.client.Fault(91, "STILL_RUNNING")
        (self.stopping / name).unlink(missing_ok=True)
        (self.state / name).unlink()
        return True

    def _getAllProcessInfo(self) -> list[dict[str, Any]]:
        found = []
        for name in self.programs():
            for pid in self.pids(name):
                alive = self._alive(pid)
                # What runs beside a web server stays from soon on.
                settled = (
                    time.time() - (self.state / name).stat().st_mtime > 0.5 if "." in name else (self.state / "settled").exists()
                )
                state = ("RUNNING" if settled else "STARTING") if alive else "BACKOFF"
                if (self.stopping / name).exists():
                    state = "STOPPING" if alive else "STOPPED"
                facts = {"pid": pid if state in ("RUNNING", "STOPPING") else 0, "start": 0.0}
                found.append({"group": name, "name": name, "statename": state, **facts})
        return found

    def _alive(self, pid: int) -> bool:
        if pid in self.children:
            return self.children[pid].poll() is None
        try:
            return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return False

    def programs(self) -> dict[str, int]:
        """Return the programs that it knows, with the id of the first process of each."""
        return {path.name: self.pids(path.name)[0] for path in self.state.glob("*-[0-9]*")}

    def pids(self, name: str) -> list[int]:
        """Return the process ids of a program."""
        return list(map(int, (self.state / name).read_text(encoding="utf-8").split()))

    def settle(self) -> None:
        """Have what runs be past its start: Supervisor names its process."""
        (self.state / "settled").touch()

    def running(self) -> list[int]:
        """Return the numbers of the releases whose process lives."""
        numbers = {name: name.rsplit("-", 1)[1] for name, pid in self.programs().items() if self._alive(pid)}
        return sorted(int(number) for number in numbers.values() if number.isdigit())

    def beside(self) -> list[str]:
        """Return what runs beside web servers, but for what was told to stop."""
        return sorted(
            each["name"] for each in self._getAllProcessInfo() if "." in each["name"] and each["statename"] == "RUNNING"
        )

    def calls(self) -> list[str]:
        """Return what it was asked to do, in order."""
        return list(self.said)

    def updates(self) -> list[str]:
        """Return those of its calls that change something."""
        return [call for call in self.said if call.split()[0] not in ("getAllProcessInfo", "reloadConfig")]

    def kill(self, name: str) -> None:
        """Kill a program and forget it."""
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self.state / name).unlink()

    def close(self) -> None:
        """Stop listening, and kill all that it started."""
        self.server.shutdown()
        self.server.server_close()
        for name in self.programs():
            self.kill(name)
        for child in self.children.values():
            child.wait()


class PublicEndpoint:
    """What Nginx is to the modules: each connection is handed to the socket that a link leads to at that moment.

    Args:
        link: the link.
        context: for TLS; None for plain HTTP.
    """

    def __init__(self, link: Path, context: ssl.SSLContext | None = None) -> None:
        self.link = link
        self.requests: list[str] = []
        self.names: list[str | None] = []
        self.answer: bytes | None = None
        door = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                client = self.request
                if context is not None:
                    try:
                        client = context.wrap_socket(client, server_side=True)
                    except OSError:
                        return
                with contextlib.suppress(OSError), client:
                    door.serve(client)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        if context is not None:
            context.sni_callback = lambda connection, name, context: self.names.append(name)
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        """Hand one request on."""
        request = b""
        while b"\r\n\r\n" not in request:
            part = client.recv(65536)
            if not part:
                return
            request += part
        self.requests.append(request.decode())
        if self.answer is not None:
            client.sendall(self.answer)
            return
        with socket.socket(socket.AF_UNIX) as app:
            try:
                app.connect(str(self.link))
                app.sendall(request)
                while part := app.recv(65536):
                    client.sendall(part)
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
