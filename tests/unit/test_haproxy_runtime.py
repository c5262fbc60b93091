"""A load balancer's backends by HAProxy's runtime API: how they are, drained, put back in use, and remembered over a reload."""

from __future__ import annotations

import copy
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certify, renewed_at_the_latest
from haproxy_runtime import REFUSED, Runtime, Server, running

from slipway.host import certificate, cli, files, haproxy, haproxy_drain, haproxy_status
from slipway.host.haproxy import HAProxy, HAProxyError, Unreachable

Answer = dict[str, Any]


@pytest.fixture(params=["2.6", "3.0"])
def runtime(request: pytest.FixtureRequest, short: Path) -> Iterator[Runtime]:
    """HAProxy with two backends that are up."""
    with running(short / "admin.sock", request.param, {"one.test": Server(), "two.test": Server()}) as found:
        yield found


@pytest.fixture
def admin(short: Path) -> HAProxy:
    """The runtime API."""
    return HAProxy(short / "admin.sock", short / "master.sock", timeout=5)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again soon."""
    monkeypatch.setattr(haproxy_drain, "PAUSE", 0.01)


# The client


def test_a_backend_has_the_sessions_of_both_its_servers(runtime: Runtime, admin: HAProxy) -> None:
    runtime.servers["one.test"] = Server(sessions=(2, 3))
    found = admin.backends()
    assert list(found) == ["one.test", "two.test"]
    assert (found["one.test"].sessions, found["one.test"].requests, found["one.test"].weight) == (5, 14, 1)
    assert str(found["one.test"].check) == "Layer7 check passed: 200 (L7OK, 3 ms)"


@pytest.mark.parametrize(
    ("server", "state", "is_healthy"),
    [
        (Server(), "up", True),
        (Server(passes=False, is_up=False), "down", False),
        (Server(is_up=False, checks=3), "down", False),
        (Server(admin="drain"), "drain", True),
        (Server(admin="drain", passes=False, is_up=False), "drain", False),
        (Server(admin="maint", is_up=False), "maint", False),
    ],
)
def test_a_backend_is_up_down_drained_or_in_maintenance(
    runtime: Runtime, admin: HAProxy, server: Server, state: str, is_healthy: bool
) -> None:
    runtime.servers["one.test"] = copy.deepcopy(server)
    found = admin.backends()["one.test"]
    assert (found.state, found.is_healthy) == (state, is_healthy)


def test_a_health_check_is_put_in_words(runtime: Runtime, admin: HAProxy) -> None:
    runtime.servers["one.test"] = Server(passes=False)
    check = admin.backends()["one.test"].check
    assert (str(check), check.passed) == ("Layer7 wrong status: 503 Service Unavailable (L7STS, 2 ms)", False)
    assert str(haproxy.HealthCheck("L4CON", "", "Connection refused", "Layer4 connection problem", "0")) == (
        "Layer4 connection problem: Connection refused (L4CON, 0 ms)"
    )
    assert str(haproxy.HealthCheck("INI", "", "", "Initializing", "")) == "Initializing (INI)"
    assert str(haproxy.HealthCheck("", "", "", "", "")) == ""


def test_a_check_in_progress_is_shown_by_the_one_before(
    runtime: Runtime, admin: HAProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.servers["one.test"].check["check_status"] = "* L7OK"
    monkeypatch.setattr(runtime, "check", lambda: None)
    assert admin.backends()["one.test"].check.status == "L7OK"


def test_a_command_that_is_refused_fails_with_the_answer(runtime: Runtime, admin: HAProxy) -> None:
    with pytest.raises(HAProxyError, match=r"HAProxy refused 'set server app/nope state drain': No such server\."):
        admin.set_state("nope", "drain")
    with pytest.raises(HAProxyError, match="refused 'show nothing': Unknown command"):
        admin.read("show nothing", "# ")


def test_of_haproxy_that_does_not_run_the_next_command_is_named(short: Path, admin: HAProxy) -> None:
    with pytest.raises(Unreachable, match=r"HAProxy does not run .*: systemctl status haproxy"):
        admin.backends()
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(short / "admin.sock"))
    with pytest.raises(Unreachable, match=r"HAProxy does not run .*Connection refused"):
        admin.backends()


def test_haproxy_that_does_not_answer_is_not_waited_for_without_end(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / "admin.sock"))
        listener.listen()
        with pytest.raises(Unreachable, match=r"HAProxy does not answer .*: it timed out"):
            HAProxy(short / "admin.sock", timeout=0.1).backends()


def test_sessions_of_processes_from_before_a_reload_count(runtime: Runtime, short: Path, admin: HAProxy) -> None:
    runtime.servers["one.test"].sessions = (1, 0)
    runtime.former = {3503: 2, 3504: 1}
    assert {name: backend.sessions for name, backend in admin.backends().items()} == {"one.test": 4, "two.test": 0}
    assert HAProxy(short / "admin.sock", short / "nothing.sock").backends()["one.test"].sessions == 1


def test_a_process_that_ends_meanwhile_has_no_sessions(runtime: Runtime, admin: HAProxy) -> None:
    runtime.former = {3503: 2}
    runtime.before_command = lambda command: runtime.former.clear() if command.startswith("@!") else None
    assert admin.backends()["one.test"].sessions == 0


# The state file


def test_the_state_is_written_as_haproxy_prints_it(runtime: Runtime, short: Path, admin: HAProxy) -> None:
    runtime.servers["two.test"].admin = "drain"
    admin.save(short / "made" / "server-state")
    text = (short / "made" / "server-state").read_text(encoding="ascii")
    assert text == runtime.states()
    assert "app 2 two.test 192.0.2.2 2 8 " in text


def test_what_is_no_state_does_not_replace_one(
    runtime: Runtime, short: Path, admin: HAProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = short / "server-state"
    admin.save(file)
    before = file.read_text(encoding="ascii")
    monkeypatch.setattr(runtime, "states", lambda: "Permission denied\n\n")
    with pytest.raises(HAProxyError, match="Permission denied"):
        admin.save(file)
    assert file.read_text(encoding="ascii") == before


@pytest.fixture
def command(short: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The command that HAProxy's unit runs before a reload."""
    defaults = (str(short / "admin.sock"), str(short / "server-state"))
    monkeypatch.setattr(haproxy.save_state, "__defaults__", defaults)
    monkeypatch.setattr(cli, "is_root", lambda: True)
    return lambda: cli.main(["haproxy-state"])


def test_the_state_is_saved_before_a_reload(runtime: Runtime, short: Path, command: Callable[[], int]) -> None:
    assert command() == 0
    assert (short / "server-state").read_text(encoding="ascii") == runtime.states()


def test_a_reload_is_not_prevented_by_a_state_that_cannot_be_saved(
    short: Path, command: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    assert "was not saved" in capsys.readouterr().out
    with running(short / "admin.sock", "3.0", {"one.test": Server()}):
        (short / "server-state").mkdir()
        assert command() == 0
    assert "was not saved" in capsys.readouterr().out


# Draining


@pytest.fixture
def drain(short: Path, run_step: Callable[..., Answer]) -> Callable[..., Answer]:
    def run(check: bool = False, **arguments: Any) -> Answer:
        places = {name: str(short / f"{name}.sock") for name in ("admin", "master")}
        places = {"socket": places["admin"], "master_socket": places["master"], "state_file": str(short / "server-state")}
        return run_step("haproxy_drain", check=check, **{"host": "one.test", "drain": True, "seconds": 20, **places, **arguments})

    return run


def kept(short: Path) -> dict[str, int]:
    """Return what the state file says that an operator has set for each server of app."""
    lines = (short / "server-state").read_text(encoding="ascii").splitlines()[2:]
    rows = [line.split() for line in lines if line.split()[1:2] == ["app"]]
    return {row[3]: int(row[6]) for row in rows}


def test_a_host_is_drained_and_then_in_maintenance(short: Path, runtime: Runtime, drain: Callable[..., Answer]) -> None:
    result = drain()
    assert (result["changed"], result["settled"], result["state"], result["connections"]) == (True, True, "maint", 0)
    assert runtime.commands == ["one.test state drain", "one.test state maint"]
    assert kept(short) == {"one.test": 1, "two.test": 0}


def test_a_host_is_in_maintenance_only_if_nothing_is_in_flight_there(runtime: Runtime, drain: Callable[..., Answer]) -> None:
    runtime.servers["one.test"].sessions = (1, 1)
    left = iter([(1, 1), (0, 1), (0, 1), (0, 0)])
    seen: list[tuple[tuple[int, int], str]] = []

    def pass_time(command: str) -> None:
        server = runtime.servers["one.test"]
        if command == "show stat" and server.admin == "drain":
            server.sessions = next(left, (0, 0))
        if command.endswith("maint"):
            seen.append((server.sessions, server.admin))

    runtime.before_command = pass_time
    assert drain()["settled"]
    assert seen == [((0, 0), "drain")]


def test_a_host_with_connections_left_stays_drained(short: Path, runtime: Runtime, drain: Callable[..., Answer]) -> None:
    runtime.servers["one.test"].sessions = (2, 1)
    result = drain(seconds=0)
    assert (result["changed"], result["settled"], result["state"], result["connections"]) == (True, False, "drain", 3)
    assert kept(short)["one.test"] == 8
    again = drain(seconds=0)
    assert (again["changed"], again["settled"]) == (False, False)
    runtime.servers["one.test"].sessions = (0, 0)
    last = drain()
    assert (last["changed"], last["settled"], last["state"]) == (True, True, "maint")
    assert runtime.commands == ["one.test state drain", "one.test state maint"]


def test_requests_from_before_a_reload_are_waited_for(runtime: Runtime, drain: Callable[..., Answer]) -> None:
    runtime.former = {3503: 1}
    result = drain(seconds=0)
    assert (result["settled"], result["state"], result["connections"]) == (False, "drain", 1)
    runtime.former.clear()
    assert drain()["settled"]


def test_clients_with_a_cookie_for_a_host_get_another_one_at_once(runtime: Runtime, drain: Callable[..., Answer]) -> None:
    runtime.servers["one.test"] = Server(cookie="b1", sessions=(1, 0))
    result = drain(seconds=0)
    assert (result["settled"], result["state"], result["connections"]) == (False, "maint", 1)
    assert runtime.commands == ["one.test state maint"]


@pytest.mark.parametrize(
    ("other", "host", "message"),
    [
        (Server(passes=False, is_up=False), "one.test", "Nothing was changed: one.test is the last host in use there"),
        (Server(admin="drain"), "one.test", "is the last host in use there"),
        (Server(admin="maint", is_up=False), "one.test", "is the last host in use there"),
        (Server(), "nope.test", "The load balancer has no backend nope.test: run site.yml"),
    ],
)
def test_a_host_is_not_drained_if_that_does_harm(
    short: Path, runtime: Runtime, drain: Callable[..., Answer], other: Server, host: str, message: str
) -> None:
    runtime.servers["two.test"] = copy.deepcopy(other)
    result = drain(host=host)
    assert result["failed"] and message in result["msg"]
    assert runtime.commands == [] and not (short / "server-state").exists()


def test_a_host_that_is_drained_already_may_be_the_last(runtime: Runtime, drain: Callable[..., Answer]) -> None:
    assert drain()["changed"]
    runtime.servers["two.test"].passes = False
    result = drain()
    assert (result["changed"], result["settled"]) == (False, True)


@pytest.mark.parametrize(("state", "to_drain"), [("ready", True), ("maint", False)])
def test_a_dry_run_changes_no_state(
    short: Path, runtime: Runtime, drain: Callable[..., Answer], state: str, to_drain: bool
) -> None:
    runtime.servers["one.test"].admin = state
    assert drain(check=True, drain=to_drain) == {"changed": True}
    assert drain(check=True, drain=not to_drain) == {"changed": False}
    assert runtime.commands == [] and not (short / "server-state").exists()


def test_of_haproxy_that_does_not_run_nobody_is_drained(drain: Callable[..., Answer]) -> None:
    result = drain()
    assert result["failed"] and "HAProxy does not run" in result["msg"] and "systemctl status haproxy" in result["msg"]


def test_a_state_that_cannot_be_kept_is_an_error(
    runtime: Runtime, drain: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", write)
    result = drain()
    assert result["failed"] and "would forget it at its next start" in result["msg"] and "No space left" in result["msg"]


# Putting a host back in use


def test_a_host_gets_no_request_before_it_has_passed_its_checks(
    short: Path, runtime: Runtime, drain: Callable[..., Answer]
) -> None:
    assert drain()["settled"]
    runtime.commands.clear()
    result = drain(drain=False)
    assert (result["changed"], result["settled"], result["state"]) == (True, True, "up")
    assert runtime.commands == ["one.test state drain", "one.test health down", "one.test state ready"]
    assert runtime.unchecked == []
    assert kept(short) == {"one.test": 0, "two.test": 0}
    assert drain(drain=False)["changed"] is False


def test_a_host_that_is_unhealthy_comes_in_by_itself_once_it_is_healthy(
    short: Path, runtime: Runtime, admin: HAProxy, drain: Callable[..., Answer]
) -> None:
    assert drain()["settled"]
    runtime.servers["one.test"].passes = False
    result = drain(drain=False, seconds=0)
    assert (result["changed"], result["settled"], result["state"]) == (True, False, "down")
    assert result["reason"] == "Layer7 wrong status: 503 Service Unavailable (L7STS, 2 ms)"
    assert kept(short)["one.test"] == 0
    runtime.servers["one.test"].passes = True
    assert [admin.backends()["one.test"].state for _ in range(3)][-1] == "up"


@pytest.mark.parametrize(
    ("server", "commands"),
    [
        (Server(admin="drain"), ["one.test state ready"]),
        (Server(admin="drain", passes=False, check=dict(REFUSED)), ["one.test health down", "one.test state ready"]),
    ],
)
def test_of_a_host_that_is_drained_but_checked_the_last_check_counts(
    runtime: Runtime, drain: Callable[..., Answer], server: Server, commands: list[str]
) -> None:
    runtime.servers["one.test"] = copy.deepcopy(server)
    drain(drain=False, seconds=0)
    assert runtime.commands == commands


def test_a_host_is_waited_for_until_it_is_up(runtime: Runtime, drain: Callable[..., Answer]) -> None:
    runtime.servers["one.test"] = Server(passes=False, is_up=False)
    timer = threading.Timer(0.3, lambda: setattr(runtime.servers["one.test"], "passes", True))
    timer.start()
    result = drain(drain=False)
    timer.join()
    assert (result["changed"], result["settled"], result["state"]) == (False, True, "up")


# Status


@pytest.fixture
def status(short: Path, run_step: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The status of a load balancer whose certificate of 90 days is valid for so many more."""

    def run(days: float = 60.5, is_active: bool = True, **arguments: Any) -> Answer:
        certify(short / "c.pem", short / "c.key", ["shop.test"], days=days)
        monkeypatch.setattr(certificate, "served", lambda _: certificate.read((short / "c.pem").read_text(encoding="ascii")))
        monkeypatch.setattr(haproxy_status, "runs", lambda unit: is_active)
        endpoint = {"host": "shop.test", "port": 443, "tls": True}
        places = {"socket": str(short / "admin.sock"), "master_socket": str(short / "master.sock")}
        return run_step("haproxy_status", **{**places, "endpoint": endpoint, **arguments})

    return run


def test_a_healthy_load_balancer_has_no_findings(runtime: Runtime, status: Callable[..., Answer]) -> None:
    runtime.servers["two.test"].sessions = (1, 1)
    result = status()
    assert (result["changed"], result["findings"]) == (False, [])
    assert result["hosts"] == {"one.test": "up", "two.test": "up"}
    row = result["status"]
    assert (row["health"], row["certificate_days"], row["server"]) == ("ok", 60, "haproxy")
    assert row["backends"][1] == {
        **{"backend": "two.test", "state": "up", "sessions": 2, "requests": 14},
        "check": "Layer7 check passed: 200 (L7OK, 3 ms)",
    }


def test_findings_have_the_worst_first(runtime: Runtime, status: Callable[..., Answer]) -> None:
    runtime.servers.update({"one.test": Server(admin="maint", is_up=False), "two.test": Server(passes=False, is_up=False)})
    result = status(days=12.5, drift=["/etc/haproxy/haproxy.cfg"])
    found = [(finding["severity"], finding["what"]) for finding in result["findings"]]
    assert found == [
        ("error", "two.test is down"),
        ("warning", "one.test is drained"),
        ("warning", "The certificate expires in 12 days"),
        ("warning", "Files are not what the roles would write"),
    ]
    down, drained, _, drift = result["findings"]
    assert "503 Service Unavailable" in down["evidence"] and "/etc/haproxy/haproxy.cfg" in drift["evidence"]
    assert drained["remedy"] == "ansible-playbook playbooks/drain.yml -e drain=false -l one.test"
    assert "maint" in drained["evidence"]
    assert result["status"]["health"] == "two.test is down"


@pytest.mark.parametrize(("days", "severity"), [(renewed_at_the_latest(90), None), (22, "warning"), (8, "error"), (-1, "error")])
def test_the_certificate_of_a_load_balancer_is_overdue_by_its_own_lifetime(
    runtime: Runtime, status: Callable[..., Answer], days: float, severity: str | None
) -> None:
    assert [finding["severity"] for finding in status(days=days)["findings"]] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("is_active", "what", "remedy"),
    [
        (False, "HAProxy does not run", "systemctl status haproxy"),
        (True, "HAProxy does not answer", "systemctl restart haproxy"),
    ],
)
def test_of_haproxy_without_a_socket_it_is_found_whether_it_runs(
    status: Callable[..., Answer], is_active: bool, what: str, remedy: str
) -> None:
    result = status(is_active=is_active)
    assert [(each["severity"], each["what"], each["remedy"]) for each in result["findings"]] == [("error", what, remedy)]
    assert (result["status"]["health"], result["status"]["backends"], result["hosts"]) == (what, [], {})


def test_a_load_balancer_without_backends_is_not_healthy(runtime: Runtime, status: Callable[..., Answer]) -> None:
    runtime.servers.clear()
    assert re.search("has no backends", status()["status"]["health"])
