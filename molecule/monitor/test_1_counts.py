"""Every request is counted once, by whatever serves the app, before and after a release; and nobody is told of anything."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from molecule.conftest import ROOT, Host, within
from molecule.monitor.conftest import LOGIN, WATCH, WATCHED, ask_for, look, number, query, site, summed, told
from molecule.release.program import deploy

COUNTED = 'http_requests_total{handler="/items/{item_id}",method="GET",status="200"}'


def by_log() -> float:
    """Return how many answers of the app were counted by Nginx's log until now."""
    now = float(WATCHED.run("date +%s.%N"))

    def gathered() -> float:
        return told("host")["slipway_gathered_timestamp_seconds"]

    # Nginx writes once in a second; what was gathered after that is whole with the next time.
    within(30, lambda: gathered() > now + 2, pause=0.2)
    whole = gathered()
    within(30, lambda: gathered() > whole, pause=0.2)
    return summed(told("host"), "slipway_http_requests_total{")


@pytest.mark.parametrize(
    ("server", "worker", "instances"),
    [
        ("gunicorn", "uvicorn", 1),
        ("gunicorn", "asgi", 1),
        ("uvicorn", "uvicorn", 1),
        ("hypercorn", "uvicorn", 1),
        ("uvicorn", "uvicorn", 2),
    ],
)
def test_every_request_is_counted_once(server: str, worker: str, instances: int) -> None:
    kind = {
        "app_server": server,
        "app_gunicorn_worker": worker,
        "app_instances": instances,
        "app_workers": 0 if instances > 1 else 3,
    }
    for turn, count in enumerate((60, 37)):
        variables = {"app_env": {"ENVIRONMENT": "staging", "TURN": f"{server} {worker} {turn}"}, **kind}
        # Nginx and Prometheus are told of another number of instances, once.
        run = site(**variables) if instances > 1 and turn == 0 else deploy(WATCHED, **variables)
        assert run.code == 0, run.output[-3000:]
        before = by_log()
        ask_for(count)
        asked = sum(told(f"app/{instance}").get(COUNTED, 0) for instance in range(instances))
        assert asked == count
        assert by_log() == before + count
        release = WATCHED.live()
        own = told("app/0")
        assert summed(own, f'app_release_info{{release="{release}"') == 1
        assert summed(own, "http_requests_inprogress") == 0
    if instances > 1:
        assert site().code == 0


def test_a_worker_that_dies_takes_no_count_with_it() -> None:
    ask_for(20)
    before = told("app/0")[COUNTED]
    victims = [pid for pid in WATCHED.pids("gunicorn") if pid != WATCHED.master()]
    WATCHED.run(f"kill -9 {victims[0]}")
    within(20, WATCHED.healthy)
    ask_for(20)
    assert told("app/0")[COUNTED] == before + 20
    assert summed(told("app/0"), "http_requests_inprogress") == 0


def test_prometheus_counts_the_same() -> None:
    ask_for(25)
    own = told("app/0")[COUNTED]
    within(20, lambda: number('sum(http_requests_total{job="app",handler="/items/{item_id}",status="200"})') == own, pause=0.5)
    counted = by_log()
    within(20, lambda: number("sum(slipway_http_requests_total)") == counted, pause=0.5)


PLAIN = """
from fastapi import FastAPI

app = FastAPI()


@app.get("/healthz")
@app.get("/items/{item}")
async def empty() -> dict[str, str]:
    return {}
"""


def test_an_app_of_somebody_else_is_counted_without_a_change_to_it(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PLAIN, encoding="utf-8")
    shutil.copy(ROOT / "molecule" / "release" / "shop" / "requirements.txt", tmp_path)
    assert deploy(WATCHED, app_source=str(tmp_path), app_module="main:app", app_static="").code == 0
    before = by_log()
    ask_for(30)
    assert by_log() == before + 30
    assert told("app/0") == {}  # it tells nothing, and that is no fault
    samples = told("host")
    assert samples["slipway_up"] == samples["slipway_endpoint_up"] == 1
    assert samples[f'slipway_workers{{release="{WATCHED.live()}"}}'] >= 1
    assert samples[f'slipway_memory_bytes{{release="{WATCHED.live()}"}}'] > 10e6
    assert samples["slipway_http_request_duration_seconds_count"] >= 30
    assert deploy(WATCHED).code == 0


def test_rotations_lose_no_count() -> None:
    before = by_log()
    for _ in range(3):
        ask_for(20)
        WATCHED.run("logrotate --force /etc/logrotate.d/nginx")
    ask_for(20)
    assert by_log() == before + 80


def test_nobody_was_told_of_anything() -> None:
    """All the releases until now have been quiet ones."""
    assert number("count(count by (release) (last_over_time(slipway_release_info[1h])))") >= 10
    firing = query('max_over_time(ALERTS{alertstate="firing"}[1h])')
    assert [alert["metric"] for alert in firing] == []


def test_all_is_asked() -> None:
    asked = {(found["metric"]["job"], found["metric"]["instance"]) for found in query("up == 1")}
    jobs = {(job, WATCHED.name) for job in ("app", "host", "node", "nginx")}
    assert asked == jobs | {("prometheus", WATCH.name), ("alertmanager", WATCH.name)}
    assert number("nginx_up") == 1
    assert number("node_memory_MemTotal_bytes") > 0


@pytest.mark.parametrize("path", ["host", "node", "nginx", "app/0"])
def test_who_does_not_know_the_password_learns_nothing(path: str) -> None:
    for headers in ({}, {"Authorization": "Basic bW9uaXRvcjp3cm9uZw=="}):
        answer = WATCHED.ask(f"/.slipway/metrics/{path}", headers=headers)
        assert (answer.status, "slipway_up" in answer.body) == (401, False)
    assert WATCHED.ask("/metrics").status == 404


def test_who_guesses_passwords_is_held_off_and_who_knows_it_is_not_for_long() -> None:
    def ask(credential: str, count: int) -> list[int]:
        def one(_: int) -> int:
            return WATCHED.ask("/.slipway/metrics/host", headers={"Authorization": f"Basic {credential}"}).status

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, range(count)))

    answers = ask("bW9uaXRvcjp3cm9uZw==", 200)
    assert set(answers[:50]) == {401}
    assert set(answers[50:]) == {401, 429}
    # What no password of ours can be is neither looked at nor counted.
    assert set(ask("x" * 200, 50)) == {401}
    within(15, lambda: look(WATCHED, "/.slipway/metrics/host").status == 200, pause=0.2)


@pytest.mark.parametrize(("path", "status"), [("prometheus/", 302), ("prometheus/metrics", 200), ("alertmanager/", 200)])
def test_the_watch_itself_is_behind_the_password(path: str, status: int) -> None:
    assert WATCH.ask(f"/.slipway/{path}").status == 401
    assert look(WATCH, f"/.slipway/{path}").status == status


ASK = """
import sys, urllib.error, urllib.request
headers = {"Authorization": sys.argv[2]} if sys.argv[2] else {}
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9090/.slipway/prometheus/api/v1/query?query=up",
        "http://127.0.0.1:9093/.slipway/alertmanager/api/v2/silences",
    ],
)
def test_a_user_of_the_host_itself_needs_the_password_too(url: str) -> None:
    def ask(login: str) -> str:
        return WATCH.run(f"setpriv --reuid=nobody --clear-groups python3 -c {shlex.quote(ASK)} '{url}' '{login}'").strip()

    assert [ask(login) for login in ("", "Basic bW9uaXRvcjp3cm9uZw==", LOGIN["Authorization"])] == ["401", "401", "200"]


def test_no_journal_has_a_secret() -> None:
    # They are there.
    WATCH.run("grep canary-of-the-monitoring /etc/prometheus/slipway.password")
    WATCH.run("grep canary-of-the-mail-server /etc/prometheus/alertmanager.yml")
    for host in (WATCHED, WATCH):
        assert "Started nginx.service" in host.run("journalctl --no-pager --unit=nginx"), host.name
        assert host.run("journalctl --no-pager --all | grep -F -e canary-of || :") == "", host.name


def test_our_own_service_is_confined() -> None:
    rights = "cap_dac_override cap_dac_read_search"
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes", "CapabilityBoundingSet": rights}
    properties = " ".join(f"--property={name}" for name in wanted)
    shown = WATCHED.run(f"systemctl show slipway-metrics-watched-test {properties}").splitlines()
    assert dict(line.split("=", 1) for line in shown) == wanted


@pytest.mark.parametrize("machine", [WATCHED, WATCH], ids=lambda machine: machine.name)
def test_nothing_else_listens_to_the_world(machine: Host) -> None:
    assert open_ports(machine) == {80, 443}


def open_ports(host: Host) -> set[int]:
    """Return the ports at which the host answers this machine, of those that something on it listens at."""
    listening = {int(port) for port in re.findall(r":(\d+)\s", host.run("ss -Hltn | awk '{print $4\" \"}'"))}
    found = set()
    for port in listening:
        try:
            socket.create_connection((host.address, port), timeout=3).close()
            found.add(port)
        except OSError:
            continue
    return found


def test_the_password_is_in_no_file_that_others_read() -> None:
    for host in (WATCHED, WATCH):
        readable = host.run("grep -rl canary-of-the-monitoring /etc /opt /run /var/lib/slipway /var/log 2>/dev/null || :").split()
        assert all(host.run(f"stat -c %a {path}").strip()[-1] == "0" for path in readable), readable
