"""Each request is in Nginx's log and in the app's by the name of its answer; rotations lose no line; no log has a secret."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molecule.conftest import SECRET, Host, within
from molecule.release import program
from molecule.release.conftest import deploy, flat, serves
from molecule.release.logs import ACCESS, SAYS, TOKEN, accesses, files, journal, leaks

SNAPSHOT = "twin.test"
CLIENTS = 6
# What Supervisor is to rotate at here, and requests, each with a line of 3 kB: more than two of such files take.
SIZE, REQUESTS = "2MB", 1500
# Supervisor keeps six files: after so many requests a client slows down.
QUICK = REQUESTS // CLIENTS
# Seconds between two rotations, in which Nginx writes what it has kept back.
APART = 1.2

SERVERS: dict[str, dict[str, Any]] = {
    "gunicorn": {"app_server": "gunicorn"},
    "asgi": {"app_server": "gunicorn", "app_gunicorn_worker": "asgi"},
    "uvicorn": {"app_server": "uvicorn"},
    "hypercorn": {"app_server": "hypercorn"},
}
# Who logs what an app raises.
LOGS_ERRORS = {"gunicorn": "uvicorn.error", "asgi": "gunicorn.error", "uvicorn": "uvicorn.error", "hypercorn": "hypercorn.error"}
JOURNAL: dict[str, Any] = {"app_log_target": "journald"}


class Client(threading.Thread):
    """Asks again and again, on one connection while Nginx keeps it; `names` is what its requests were called, by number."""

    def __init__(self, host: Host, prefix: str, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.prefix = prefix
        self.done = done
        self.names: dict[str, str] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host.name, timeout=30)
        while not self.done.is_set():
            number = f"{self.prefix}-{len(self.names)}"
            try:
                connection.sock = connection.sock or self.host.connect()
                connection.request("GET", f"/say/{number}?token={TOKEN}")
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
            if answer.status != 200:
                self.failures.append(str(answer.status))
            self.names[number] = str(answer.getheader("X-Request-ID"))
            time.sleep(0.01 if len(self.names) < QUICK else 0.4)
        connection.close()


def rotate_early(host: Host, release: int) -> None:
    """Have Supervisor rotate what a release logs at less than it is told to."""
    file = f"/etc/supervisor/conf.d/shop-{release}.conf"
    host.run(f"grep '^stdout_logfile_maxbytes=10MB$' {file} && sed -i 's/maxbytes=10MB/maxbytes={SIZE}/' {file}")
    master = host.master()
    host.run("supervisorctl update")
    within(30, lambda: host.healthy() and host.master() != master)


@pytest.mark.parametrize("server", SERVERS)
def test_rotations_under_load_lose_no_line_and_hide_no_request(host: Host, changed: Callable[[str], Path], server: str) -> None:
    run = program.deploy(host, app_source=str(changed(SAYS)), app_watch_seconds=0, **SERVERS[server])
    assert run.code == 0, run.output[-3000:]
    release, done = str(serves(host)), threading.Event()
    rotate_early(host, int(release))
    clients = [Client(host, f"{server}{release}-{number}", done) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    begin = time.monotonic()
    for _ in range(4):
        time.sleep(APART)
        host.run("logrotate --force /etc/logrotate.d/nginx")
    while sum(len(client.names) for client in clients) < REQUESTS:
        assert time.monotonic() - begin < 300
        time.sleep(0.2)
    done.set()
    for client in clients:
        client.join()
    assert [failure for client in clients for failure in client.failures] == []
    names = {number: name for client in clients for number, name in client.names.items()}
    assert len(set(names.values())) == len(names) >= REQUESTS

    # Nginx writes its last ones within a second.
    prefix = f"/say/{server}{release}-"
    within(10, lambda: len(accesses(host, prefix)) >= len(names), pause=0.3)
    answers = accesses(host, prefix)
    assert Counter((line["path"], line["id"]) for line in answers) == Counter(
        (f"/say/{number}", name) for number, name in names.items()
    )
    for line in answers:
        assert (line["release"], line["status"], line["host"]) == (release, 200, host.name)
        assert line["seconds"] >= 0 and float(line["upstream_seconds"]) >= 0
        assert line["client"].count(".") == 3
    holding = host.run(f"for log in {ACCESS}*; do zcat -f $log | grep -qF '{prefix}' && echo $log; done", check=False).split()
    assert len(holding) > 3, "it was not rotated meanwhile"

    torn = host.run(f"cat $(ls -vr /var/log/shop/{release}.log*) | grep -v '^{{.*}}$' | cut -c1-200", check=False)
    assert torn == ""
    said = [line for line in files(host) if line["logger"] == "shop"]
    assert Counter((line["message"], line["request_id"]) for line in said) == Counter(names.items())
    assert {(line["level"], line["release"]) for line in said} == {("INFO", release)}
    assert len(host.run(f"ls /var/log/shop/{release}.log*").split()) >= 3, "it was not rotated meanwhile"
    assert_found(host, server, files)


@pytest.mark.parametrize("server", SERVERS)
def test_in_the_journal_a_request_is_found_by_its_name_and_no_secret_is(
    host: Host, changed: Callable[[str], Path], server: str
) -> None:
    run = program.deploy(host, app_source=str(changed(SAYS)), app_watch_seconds=0, **JOURNAL, **SERVERS[server])
    assert run.code == 0, run.output[-3000:]
    assert_found(host, server, journal)
    assert host.run(f"cat /var/log/shop/{host.live()}.log") == ""


def assert_found(host: Host, server: str, read: Callable[[Host], list[dict[str, Any]]]) -> None:
    """See that what the live release says of a request has its name, and that no log has a secret.

    Args:
        host: the host.
        server: what runs the app there.
        read: what returns the lines of that release.
    """
    release, name = str(serves(host)), f"of-a-client.{server}.{read.__name__}"
    for path, status in (("/say/one", 200), ("/leak", 500)):
        answer = host.ask(f"{path}?token={TOKEN}", headers={"X-Request-ID": name})
        assert (answer.status, answer.headers["x-request-id"]) == (status, name)
    made = host.ask("/say/two").headers["x-request-id"]
    within(10, lambda: [line["path"] for line in accesses(host, name)] == ["/say/one", "/leak"])

    def said() -> list[dict[str, Any]]:
        return [line for line in read(host) if line.get("request_id") in (name, made)]

    within(10, lambda: len(said()) >= 4)
    lines = said()
    assert "one" in [line["message"] for line in lines if line["request_id"] == name]
    assert [line["message"] for line in lines if line["request_id"] == made] == ["two"]
    failed = [line for line in lines if "exception" in line]
    assert [line["logger"] for line in failed] == [LOGS_ERRORS[server]]
    assert "RuntimeError" in failed[0]["exception"]
    assert {line["release"] for line in read(host)} == {release}
    # What the server says of itself is there, too.
    assert any(
        line["logger"].startswith(("gunicorn", "uvicorn", "hypercorn")) and "request_id" not in line for line in read(host)
    )
    assert "user=1&token=********" in str(lines)
    assert leaks(host, SECRET, TOKEN) == []


def test_logs_are_read_and_followed_wherever_they_are(host: Host, changed: Callable[[str], Path]) -> None:
    run = program.deploy(host, app_source=str(changed(SAYS)), app_watch_seconds=0, **JOURNAL)
    assert run.code == 0, run.output[-3000:]
    release, name = serves(host), "found-in-the-journal.1"
    host.ask("/say/three", headers={"X-Request-ID": name})
    host.ask("/own/of-the-app-itself")
    within(10, lambda: name in host.run(f"cat {ACCESS}") and name in str(journal(host)))
    within(10, lambda: "of-the-app-itself" in host.run(f"journalctl --all --output=cat --identifier=shop-{release}"))
    assert '"path":"/say/three"' in host.run(f"slipway logs shop --grep {name}")
    # What was rotated is found as well.
    for _ in range(2):
        host.run("logrotate --force /etc/logrotate.d/nginx")
        time.sleep(1)
    assert name not in host.run(f"cat {ACCESS}")
    run = deploy(host, playbook="playbooks/logs.yml", grep=f"{name}|app-itself")
    assert (run.code, run.changed) == (0, {host.name: 0}), run.output[-3000:]
    assert f"== {ACCESS}" in run.output
    assert '"path":"/say/three"' in run.output
    assert name in run.output.partition("== the journal")[2]
    # So is what the app formats itself, as it is.
    assert '{"event": "of-the-app-itself", "part": "own"}' in run.output

    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.5):
            host.ask("/say/followed")

    asking = threading.Thread(target=ask)
    asking.start()
    run = deploy(host, playbook="playbooks/logs.yml", grep="followed", follow=4)
    done.set()
    asking.join()
    assert run.code == 0, run.output[-3000:]
    assert run.output.count("== the journal") >= 2
    assert run.output.count(f"== {ACCESS}") >= 2

    # Supervisor stops and starts the server itself, whose output is not its own any more.
    before = host.master()
    host.run(f"supervisorctl restart shop-{release}")
    within(10, host.healthy)
    assert host.master() != before
    assert host.pids(f"releases/{release}/gunicor[n]")
    assert before not in host.pids(f"releases/{release}/gunicor[n]")


def test_the_message_of_a_failed_release_has_what_it_said_to_the_journal(host: Host, changed: Callable[[str], Path]) -> None:
    live = serves(host)
    run = program.deploy(host, app_source=str(changed(SAYS)), app_env={"FAIL_AT_START": "yes"}, **JOURNAL)
    assert run.code != 0
    assert "Last lines of journalctl --identifier=shop-" in flat(run)
    assert "RuntimeError: told to fail" in run.output
    assert '"exception"' not in run.output
    assert serves(host) == live


def test_what_is_shown_of_nginxs_errors_has_no_token(host: Host) -> None:
    """Nginx's error log has the whole address of a request that it could not hand on; the playbook does not show it."""
    server, token = f"shop-{host.live()}", "token-of-an-error"
    host.run(f"supervisorctl stop {server}")
    try:
        assert host.ask(f"/items/5?access_token={token}&x=1").status == 502
        within(10, lambda: token in host.run("cat /var/log/nginx/shop.error.log"))
        run = deploy(host, playbook="playbooks/logs.yml", grep="items/5.*access_token")
    finally:
        host.run(f"supervisorctl start {server}")
    within(30, host.healthy)
    assert run.code == 0, run.output[-3000:]
    assert "== /var/log/nginx/shop.error.log" in run.output
    assert "access_token=********&x=1" in run.output
    assert token not in run.output
