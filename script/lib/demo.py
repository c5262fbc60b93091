"""Serve the example app in a container on this machine, as `ansible-playbook site.yml` would on a server."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "demo"
PORTS = {8080: 80, 8443: 443}
AUTHORITY = ROOT / ".demo" / "ca.pem"
CERTIFICATE = "/etc/nginx/slipway/demo/fullchain.pem"
URL = "https://localhost:8443/"
NEEDED_GB = 2

# What systemd, its sandboxes and a firewall need inside the container; far less than --privileged.
CAPABILITIES = "SYS_ADMIN,SYS_PTRACE,NET_ADMIN,NET_RAW"


class DemoError(Exception):
    """Something this machine lacks; the message says what, and the command that mends it."""


def podman(*arguments: str, check: bool = True) -> str:
    """Run podman and return what it prints.

    Raises:
        DemoError: when it fails and `check` is set.
    """
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise DemoError(f"podman {arguments[0]} failed: {done.stderr.strip()}\nTry script/image --prepare, then this again.")
    return done.stdout.strip()


def state() -> str:
    """Return the state of the demo's container, such as running; empty when there is none."""
    return podman("container", "inspect", "--format", "{{.State.Status}}", NAME, check=False)


def check_machine() -> None:
    """See that the container can be started here.

    Raises:
        DemoError: when a port is taken or the disk is too full.
    """
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise DemoError(
                    f"Port {port} of this machine is taken. By what: ss -ltnp 'sport = :{port}'. Stop it, then run this again."
                ) from error
    store = Path(podman("info", "--format", "{{.Store.GraphRoot}}"))
    while not store.exists():
        store = store.parent
    free = shutil.disk_usage(store).free / 1e9
    if free < NEEDED_GB:
        raise DemoError(
            f"{store} has {free:.1f} GB free; the demo needs {NEEDED_GB}. Make room, for instance with: podman system prune"
        )


def start() -> None:
    """Start the container, made anew where there is none, and wait for its systemd.

    Raises:
        DemoError: when it does not start.
    """
    if state() == "running":
        return
    if not state():
        check_machine()
        image = subprocess.run([ROOT / "script" / "image", "debian12"], stdout=subprocess.PIPE, text=True, check=False)
        if image.returncode:
            raise DemoError("The image of a bare server could not be made; what is missing stands above.")
        published = [f"--publish=127.0.0.1:{here}:{there}" for here, there in PORTS.items()]
        options = ["--detach", f"--name={NAME}", f"--hostname={NAME}", "--systemd=always", f"--cap-add={CAPABILITIES}"]
        podman("run", *options, *published, image.stdout.strip())
    else:
        podman("start", NAME)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if podman("exec", NAME, "systemctl", "is-system-running", check=False) in ("running", "degraded"):
            return
        time.sleep(0.3)
    raise DemoError("systemd does not come up in the container. See why with: podman logs demo. Then: script/demo --destroy")


def serve() -> None:
    """Run the playbook on the container, and say what is true then.

    Raises:
        DemoError: when the playbook fails or the app does not answer.
    """
    start()
    tools = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
    playbook = subprocess.run(["ansible-playbook", "site.yml"], cwd=ROOT, env=tools, check=False)
    if playbook.returncode:
        raise DemoError("The playbook failed; its last error stands above. When that is mended run script/demo again.")
    AUTHORITY.parent.mkdir(exist_ok=True)
    AUTHORITY.write_text(podman("exec", NAME, "cat", CERTIFICATE) + "\n", encoding="ascii")
    trust = ssl.create_default_context(cafile=AUTHORITY)
    try:
        with urllib.request.urlopen(f"{URL}version", timeout=10, context=trust) as answer:
            release = json.load(answer)["release"]
    except OSError as error:
        raise DemoError(
            f"{URL} does not answer: {error}. See the app's log: podman exec demo tail /var/log/demo/*.log"
        ) from error
    authority = AUTHORITY.relative_to(ROOT)
    print(f"""
The example app is served, release {release}, by the container "{NAME}".

  Ask it            curl --cacert {authority} {URL}items/5?q=somequery
  In a browser      {URL}docs (it warns, since only {authority} vouches for the demo)
  Watch it          {URL}.slipway/overview/ (monitor, only-for-the-demo)
  Change it         edit app/, then: source .venv/bin/activate && ansible-playbook playbooks/deploy.yml
  Take it away      script/demo --destroy

{URL}""")


def main() -> int:
    """Serve the demo or take it away."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--destroy", action="store_true", help="take the container away")
    arguments = parser.parse_args()
    try:
        if arguments.destroy:
            for _ in range(2):  # after a restart of the machine podman's first attempt fails
                if state():
                    podman("rm", "--force", "--time=2", NAME, check=False)
            if state():
                raise DemoError("The container could not be removed. Try: podman rm --force demo")
            shutil.rmtree(AUTHORITY.parent, ignore_errors=True)
            print("The demo is gone. Serve it again with: script/demo")
        else:
            serve()
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
