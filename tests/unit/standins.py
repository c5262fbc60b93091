"""What stands in for the parts of a host that a test cannot have: Supervisor, an app's server, and Nginx."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import ssl
import threading
from pathlib import Path

# supervisorctl 4.2.5, as far as the modules use it: its words and exit codes, and one process for each section.
SUPERVISORCTL = """#!/bin/sh
echo "$*" >>"$STATE/calls"
if [ -e "$STATE/down" ]; then
    echo "unix:///run/supervisor.sock no such file"
    exit 4
fi
name=$2
section="$SECTIONS/$name.conf"
alive() { [ -e "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat"; }
show() {
    pid=$(cat "$STATE/$1")
    if alive "$pid" && [ -e "$STATE/settled" ]; then
        printf '%-32s RUNNING   pid %s, uptime 0:00:04\\n' "$1" "$pid"
    elif alive "$pid"; then
        printf '%-32s STARTING  \\n' "$1"
    else
        printf '%-32s BACKOFF   Exited too quickly (process log may have details)\\n' "$1"
    fi
}
case $1 in
update)
    if grep -ls unparsable "$SECTIONS"/*.conf; then
        echo "error: <class 'xmlrpc.client.Fault'>, <Fault 92: 'CANT_REREAD: ...'>"
        exit 1
    elif [ -e "$section" ] && [ ! -e "$STATE/$name" ]; then
        log=$(sed -n 's/^stdout_logfile=//p' "$section")
        setsid $(sed -n 's/^command=//p' "$section") >>"$log" 2>&1 </dev/null &
        echo $! >"$STATE/$name"
        echo "$name: added process group"
    elif [ ! -e "$section" ] && [ -e "$STATE/$name" ]; then
        pid=$(cat "$STATE/$name")
        kill -TERM "$pid" 2>/dev/null
        while alive "$pid"; do sleep 0.01; done
        rm "$STATE/$name"
        echo "$name: stopped"
        echo "$name: removed process group"
    elif [ ! -e "$STATE/$name" ]; then
        echo "ERROR: no such group: $name"
        exit 1
    fi
    ;;
status)
    if [ $# -lt 2 ]; then
        for file in "$STATE"/*-[0-9]*; do
            [ ! -e "$file" ] || show "${file##*/}"
        done
    elif [ -e "$STATE/$name" ]; then
        show "$name"
    else
        echo "$name: ERROR (no such process)"
        exit 4
    fi
    ;;
*)
    echo "*** Unknown syntax: $*"
    exit 1
    ;;
esac
"""

# An app's server. Its mode is a status, or what is wrong with it.
SERVER = """
import os, signal, socket, sys, time
path, release, mode = sys.argv[1:]
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
busy = leaving = False

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
    lines = request.decode().lower().split("\\r\\n")
    status = mode if mode.isdigit() else "200"
    if "host: api.example.com" not in lines or "x-forwarded-proto: https" not in lines:
        status = "421"
    body, document = "ok", os.path.join(os.path.dirname(path), f"{release}.openapi.json")
    if lines[0].startswith("get /openapi.json ") and os.path.exists(document):
        status, body = "200", open(document).read()
    elif lines[0].startswith("get /ready "):
        body = "ready"
    elif not lines[0].startswith("get /healthz "):
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


class Supervisor:
    """A Supervisor of one's own: a program on PATH, and the processes it started.

    Args:
        directory: where it keeps its state.
        sections: where it looks for the sections of programs.
    """

    def __init__(self, directory: Path, sections: Path) -> None:
        self.state = directory / "supervisor"
        self.sections = sections
        self.state.mkdir()
        sections.mkdir()
        (self.state / "calls").touch()
        head = f"#!/bin/sh\nSTATE={self.state}\nSECTIONS={sections}\n"
        self.control = directory / "supervisorctl"
        self.control.write_text(SUPERVISORCTL.replace("#!/bin/sh\n", head), encoding="utf-8")
        # Accepts every section; test_app_release has one with a parser.
        (directory / "supervisord").write_text("#!/bin/true\n", encoding="utf-8")
        for program in (self.control, directory / "supervisord"):
            program.chmod(0o755)

    def programs(self) -> dict[str, int]:
        """Return the programs that it knows, with their process ids."""
        return {path.name: int(path.read_text(encoding="utf-8")) for path in self.state.glob("*-[0-9]*")}

    def settle(self) -> None:
        """Have what runs be past its start: Supervisor names its process."""
        (self.state / "settled").touch()

    def running(self) -> list[int]:
        """Return the numbers of the releases whose process lives."""
        numbers = []
        for name, pid in self.programs().items():
            with contextlib.suppress(FileNotFoundError):
                if ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"):
                    numbers.append(int(name.rsplit("-", 1)[1]))
        return sorted(numbers)

    def calls(self) -> list[str]:
        """Return what it was asked to do, in order."""
        return (self.state / "calls").read_text(encoding="utf-8").splitlines()

    def updates(self) -> list[str]:
        """Return those of its calls that change something."""
        return [call for call in self.calls() if not call.startswith("status")]

    def kill(self, name: str) -> None:
        """Kill a program and forget it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.programs()[name], signal.SIGKILL)
        (self.state / name).unlink()

    def close(self) -> None:
        """Kill all that it started."""
        for name in self.programs():
            self.kill(name)


class Door:
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
