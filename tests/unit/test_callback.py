"""What a run of ansible-playbook says beside what Ansible says by itself."""

from __future__ import annotations

import datetime
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible import constants as C
from ansible.plugins.loader import connection_loader

from slipway.controller.display import RunCallback

ROOT = Path(__file__).resolve().parents[2]
CLEAR = "\r\x1b[2K"

# In place of the modules of the roles: it does what its arguments say, and they are its result.
ACTION = """
import time
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        time.sleep(self._task.args.get("seconds", 0))
        return {"msg": "So it is.", **self._task.args}
"""

SUMMARY = {"url": "https://{{ inventory_hostname }}/", "release": "8, new", "certificate_days": 89}
ROLES: dict[str, list[dict[str, Any]]] = {
    "nginx": [{"name": "Write", "tell": {"changed": True}}, {"name": "Write more", "tell": {"changed": "{{ host == 'a' }}"}}],
    "app": [{"name": "Release {{ 'it' }}", "tell": {"changed": "{{ host == 'a' }}", "summary": SUMMARY}}],
}
FAILING = {"name": "Fail", "tell": {"failed": True}}

Play = Callable[..., "Run"]


class Run:
    """What a run printed, and what it ended with.

    Attributes:
        lines: as they stand on a terminal in the end, without their colours.
        result: the file with its result; None if there is none.
    """

    result: Any = None

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output
        plain = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r\n", "\n")
        self.lines = [line.rpartition(CLEAR)[2] for line in plain.split("\n")]

    def recap(self) -> list[str]:
        return [line for line in self.lines if " : ok=" in line]

    def summary(self) -> list[str]:
        """Return the lines that follow the recap."""
        return [line for line in self.lines[self.lines.index(self.recap()[-1]) + 1 :] if line]

    def steps(self) -> list[str]:
        return [line.partition(", after ")[0] for line in self.lines if re.match(r"\[\d+/\d+\] \w+, after \d+ s$", line)]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run roles on the hosts a.example.com and b.example.com, which nobody asks, with the project's own configuration."""

    def run(
        *arguments: str,
        roles: dict[str, list[dict[str, Any]]] = ROLES,
        tasks: list[dict[str, Any]] | None = None,
        keywords: dict[str, Any] | None = None,
        terminal: bool = False,
        given: str = "",
        **settings: str,
    ) -> Run:
        for role, content in roles.items():
            write(f"roles/{role}/tasks/main.yml", yaml.safe_dump(content))
        for action in ("tell", "pause"):
            write(f"actions/{action}.py", ACTION)
        imports = [{"import_role": {"name": role}, "tags": [role]} for role in roles]
        plays = [{"hosts": "all", "gather_facts": False, "tasks": imports + (tasks or []), **(keywords or {})}]
        write("site.yml", yaml.safe_dump(plays))
        hosts = {f"{letter}.example.com": {"host": letter, "ansible_connection": "local"} for letter in "ab"}
        write("hosts.yml", yaml.safe_dump({"all": {"hosts": hosts}}))
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "ANSIBLE_NOCOLOR")},
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ACTION_PLUGINS": "actions",
            "ANSIBLE_ROLES_PATH": "roles",
            "ANSIBLE_FORKS": "1",  # so that hosts come in order
            "TERM": "xterm-256color",
            "SLIPWAY_RESULT_FILE": str(tmp_path / "results" / "run.json"),
            **settings,
        }
        ansible = Path(sys.executable).with_name("ansible-playbook")
        command = [str(ansible), "-i", "hosts.yml", "site.yml", *arguments]
        done = at_terminal(command, environment) if terminal else in_pipe(command, environment, given)
        result = tmp_path / "results" / "run.json"
        done.result = json.loads(result.read_text(encoding="utf-8")) if result.exists() else None
        return done

    def write(file: str, content: str) -> None:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def in_pipe(command: list[str], environment: dict[str, str], given: str) -> Run:
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "encoding": "utf-8", "start_new_session": True}
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, **options)
        return Run(done.returncode, done.stdout)

    def at_terminal(command: list[str], environment: dict[str, str]) -> Run:
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            output = b""
            while part := read(ours):
                output += part
        os.close(ours)
        return Run(process.returncode, output.decode("utf-8"))

    return run


def read(handle: int) -> bytes:
    """Return what comes next out of a terminal; nothing once nobody has it open any more."""
    try:
        return os.read(handle, 65536)
    except OSError:
        return b""


def test_in_a_pipe_it_adds_plain_lines_and_takes_none_away(play: Play) -> None:
    run = play()
    assert (run.code, "\x1b" in run.output, "\r" in run.output) == (0, False, False)
    assert run.steps() == ["[1/2] nginx", "[2/2] app"]
    *table, took = run.summary()
    assert table == [
        "HOST           CHANGED         URL                     RELEASE  CERT DAYS",
        "a.example.com  nginx 2, app 1  https://a.example.com/  8, new   89",
        "b.example.com  nginx 1         https://b.example.com/  8, new   89",
    ]
    assert re.fullmatch(r"Took \d+ s\.", took)
    kept = [line for line in run.lines if line not in {*table, took, ""} and ", after " not in line]
    without = play(ANSIBLE_CALLBACKS_ENABLED="default")
    assert kept == [line for line in without.lines if line]
    assert without.summary() == []


def test_who_is_late_stands_in_the_last_line_of_a_terminal_for_a_while(play: Play) -> None:
    slow = {"name": "Wait", "tell": {"seconds": "{{ 3.6 if host == 'b' else 0 }}", "changed": True}}
    run = play(roles={"nginx": [], "app": [slow]}, terminal=True, SLIPWAY_PATIENCE="1")
    shown = re.findall(r"\r\x1b\[2K(\d) s at \[app : Wait\]: b\.example\.com(?=\r)", run.output)
    assert (run.code, len(shown) > 1, shown) == (0, True, sorted(set(shown)))
    # It is gone in the end, and nothing else is.
    assert " s at [" not in "\n".join(run.lines)
    assert [line for line in run.lines if line.startswith("changed")] == [f"changed: [{host}.example.com]" for host in "ab"]
    assert (len(run.recap()), run.summary()[1]) == (2, "a.example.com  app 1")
    assert "\x1b[0;33ma.example.com  app 1\x1b[0m" in run.output


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_without_colours_gets_plain_lines(play: Play, settings: dict[str, str]) -> None:
    slow = {"name": "Wait", "tell": {"seconds": 2.3, "changed": True}}
    run = play("-l", "a.example.com", roles={"app": [slow]}, terminal=True, SLIPWAY_PATIENCE="1", **settings)
    assert (run.code, "\x1b" in run.output, run.summary()[1]) == (0, False, "a.example.com  app 1")


def test_nobody_who_is_asked_something_is_called_late(play: Play) -> None:
    ask = {"name": "Ask", "pause": {"seconds": 2.3}}
    run = play("-l", "a.example.com", roles={"app": [ask]}, terminal=True, SLIPWAY_PATIENCE="1")
    assert (run.code, CLEAR in run.output) == (0, False)


def test_what_programs_read_stays_as_it_is(play: Play) -> None:
    run = play(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
    assert json.loads(run.output)["stats"]["a.example.com"]["changed"] == 3
    run = play(ANSIBLE_STDOUT_CALLBACK="minimal")
    assert (run.code, run.steps(), "Took " in run.output, "a.example.com | CHANGED" in run.output) == (0, [], False, True)


def test_beside_one_that_is_made_from_the_default_it_speaks(play: Play) -> None:
    run = play("-v", ANSIBLE_STDOUT_CALLBACK="ansible.posix.debug")
    assert (run.steps(), run.summary()[0][:4]) == (["[1/2] nginx", "[2/2] app"], "HOST")


def test_a_failure_is_told_with_the_command_to_run_next(play: Play) -> None:
    broken = {"name": "Release {{ 'it' }}", "tell": {"failed": "{{ host == 'b' }}", "summary": {"release": "7, unchanged"}}}
    run = play("-e", "app_git_token=canary", "--ask-become-pass", given="canary\n", roles={**ROLES, "app": [broken]})
    assert run.code == 2
    _, mine, other, where, command, _ = run.summary()
    assert mine.split() == ["a.example.com", "nginx", "2", "7,", "unchanged"]
    assert other.split() == ["b.example.com", "nginx", "1", "7,", "unchanged"]
    assert where == "b.example.com failed at [app : Release it]. Next:"
    doctor = os.path.relpath(ROOT / "playbooks" / "doctor.yml", "/").lstrip("./")
    assert command.endswith(f"{doctor} -i hosts.yml --ask-become-pass -l b.example.com")
    assert "canary" not in run.output


def test_hosts_that_fail_alike_are_told_at_once(play: Play) -> None:
    run = play(roles={"preflight": [FAILING]})
    assert run.summary()[-3:-1] == [
        "a.example.com, b.example.com failed at [preflight : Fail]. Fix what it reports, then:",
        "    ansible-playbook site.yml -i hosts.yml -l a.example.com,b.example.com",
    ]


def test_who_cannot_be_reached_is_told(play: Play) -> None:
    away = {"name": "Look", "tell": {"unreachable": "{{ host == 'b' }}"}}
    run = play(roles={"preflight": [away]})
    assert run.summary()[1:-1] == [
        "b.example.com  nothing",
        "b.example.com unreachable at [preflight : Look]. Try the connection with:",
        "    ansible -i hosts.yml -m ping b.example.com",
    ]


def test_a_sudo_that_ansible_cannot_speak_to_is_told_with_the_setting_that_helps(play: Play) -> None:
    """As Ansible 2.20 and 2.21 say it of sudo-rs, where a password is needed."""
    words = "Task failed: Timeout (12s) waiting for privilege escalation prompt:"
    mute = {"name": "Look", "tell": {"unreachable": "{{ host == 'b' }}", "msg": words}}
    done = play(roles={"preflight": [mute]})
    assert done.code != 0
    summary = done.summary()
    (told,) = [
        number for number, line in enumerate(summary) if line.startswith("b.example.com failed at [preflight : Look]: sudo ")
    ]
    assert "sudo-rs" in summary[told]
    assert summary[told + 1] == "    ansible_become_exe: sudo.ws"
    assert "cannot be reached" not in done.output


def test_a_failure_that_was_not_the_end_is_none(play: Play) -> None:
    block = {"name": "Try", "block": [FAILING], "rescue": [{"name": "Go on", "tell": {"changed": True}}]}
    run = play(roles={"certbot": [block, {**FAILING, "ignore_errors": True}]})
    assert (run.code, len(run.summary())) == (0, 4)
    assert "failed at" not in run.output


def test_nothing_is_told_of_what_is_not_to_be_seen(play: Play) -> None:
    hidden = {"name": "Hide", "no_log": True, "tell": {"changed": True, "summary": {"url": "https://canary/"}}}
    odd = {"name": "Speak", "tell": {"summary": {"release": "\x1b[31m8\n9", "host": "x", "changed": "x", "secret": "canary"}}}
    run = play(roles={"nginx": [hidden], "app": [odd]})
    assert run.summary()[1] == "a.example.com  nginx 1  [31m89"
    assert "canary" not in run.output


def test_a_dry_run_says_what_would_change(play: Play) -> None:
    run = play("--check")
    assert run.summary()[0].startswith("HOST           WOULD CHANGE    URL")
    assert run.summary()[1].startswith("a.example.com  nginx 2, app 1")


def test_a_playbook_that_only_looks_has_no_summary(play: Play) -> None:
    # As the doctor does: it tries what it would change, and fails with a message of its own.
    rescued = {"name": "Try", "block": [FAILING], "rescue": [{"name": "Go on", "tell": {}}]}
    run = play(roles={"nginx": [*ROLES["nginx"], rescued]}, tasks=[FAILING], keywords={"check_mode": True})
    assert (run.code, run.steps(), run.summary()) == (2, [], [])


def test_the_steps_are_the_roles_that_run(play: Play) -> None:
    included = {"name": "Include it", "include_role": {"name": "app"}, "tags": ["always"]}
    again = {"name": "Come back", "import_role": {"name": "python"}}
    roles = {role: [{"name": "Look", "tell": {}}] for role in ("python", "nginx", "certbot", "app")}
    run = play("-t", "python,certbot", roles=roles, tasks=[included, again])
    assert run.steps() == ["[1/2] python", "[2/2] certbot"]
    run = play(roles={role: roles[role] for role in ("python", "nginx")}, tasks=[included, again])
    assert run.steps() == ["[1/2] python", "[2/2] nginx", "[3/3] app"]


def test_its_own_fault_breaks_no_run(play: Play, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("from slipway.host import tables\n\ntables.text_table = None\n", encoding="utf-8")
    run = play(PYTHONPATH=str(tmp_path))
    assert (run.code, len(run.recap()), run.summary()) == (0, 2, [])


def test_an_inventory_that_is_not_there_is_said_and_is_a_failure(play: Play) -> None:
    run = play("-i", "nowhere.yml")
    assert run.code == 2
    assert "There is no inventory nowhere.yml; nothing was done. Pass an existing one with -i." in run.lines
    assert run.recap() == []


@pytest.mark.parametrize("printer", ["ansible.posix.json", "minimal"])
def test_an_inventory_that_is_not_there_is_a_failure_beside_what_programs_read(play: Play, printer: str) -> None:
    run = play("-i", "nowhere.yml", ANSIBLE_STDOUT_CALLBACK=printer)
    assert (run.code, run.output) == (2, "")


def test_a_playbook_of_which_nothing_was_chosen_is_no_failure(play: Play) -> None:
    """Ansible counts no host there, though it found some."""
    run = play("--tags", "nosuch")
    assert (run.code, "No host" in run.output) == (0, False)


@pytest.mark.parametrize(
    ("hosts", "code"), [("web", 2), ("web:&db", 2), ("{{ groups['balancer'] | default([]) }}", 0), ("a.example.com", 0)]
)
def test_a_playbook_for_which_there_is_no_host_is_a_failure(play: Play, hosts: str, code: int) -> None:
    run = play(keywords={"hosts": hosts})
    assert run.code == code
    words = f"No host of hosts.yml is in {hosts}, which site.yml is for: nothing was done."
    assert (words in run.output) is (code == 2)


def test_a_limit_that_leaves_no_host_of_a_playbook_is_a_failure(play: Play) -> None:
    run = play("-l", "b.example.com", keywords={"hosts": "a.example.com"})
    assert run.code == 2
    words = "No host that -l b.example.com leaves is in a.example.com, which site.yml is for: nothing was done."
    assert f"{words} The hosts there are: ansible-inventory -i hosts.yml --graph" in run.lines
    assert play("-l", "typo").code != 0


def test_the_result_of_a_run_is_written_as_json(play: Play, tmp_path: Path) -> None:
    run = play()
    file = tmp_path / "results" / "run.json"
    assert (stat.filemode(file.stat().st_mode), [path.name for path in file.parent.iterdir()]) == ("-rw-------", ["run.json"])
    times = {key: run.result.pop(key) for key in ("start", "end", "seconds")}
    begun, ended = (datetime.datetime.fromisoformat(times[key]) for key in ("start", "end"))
    assert (begun.utcoffset(), 0 <= (ended - begun).total_seconds() < 60) == (datetime.timedelta(0), True)
    assert 0 <= times["seconds"] < 60
    noted = {"release": "8, new", "version": None, "canary": None, "certificate_days": 89, "certificate": None}
    tasks = ["nginx : Write", "nginx : Write more", "app : Release it"]
    assert run.result == {
        "format": 1,
        "playbook": "site.yml",
        "inventories": ["hosts.yml"],
        "check": False,
        "exit": 0,
        "error": None,
        "hosts": {
            f"{host}.example.com": {
                "state": "changed",
                "changed_tasks": tasks if host == "a" else tasks[:1],
                "url": f"https://{host}.example.com/",
                **noted,
                "failure": None,
            }
            for host in "ab"
        },
    }


@pytest.mark.parametrize("printer", ["ansible.posix.json", "minimal"])
def test_the_result_is_written_beside_what_programs_read(play: Play, printer: str) -> None:
    run = play(ANSIBLE_STDOUT_CALLBACK=printer)
    assert [host["state"] for host in run.result["hosts"].values()] == ["changed", "changed"]


BROKEN = {"name": "Break", "tell": {"failed": "{{ host == 'b' }}", "msg": "It is broken."}}
AWAY = {"name": "Go away", "tell": {"unreachable": "{{ host == 'a' }}", "msg": "No route."}}
RESCUED = {"name": "Try", "block": [BROKEN], "rescue": [{"name": "Go on", "tell": {}}]}


@pytest.mark.parametrize(
    ("tasks", "states", "code"),
    [
        ([], ["ok", "ok"], 0),
        ([BROKEN], ["ok", "failed"], 2),
        ([AWAY], ["unreachable", "ok"], 4),
        ([AWAY, BROKEN], ["unreachable", "failed"], 4),
        ([{**BROKEN, "ignore_errors": True}], ["ok", "ok"], 0),
        ([RESCUED], ["ok", "ok"], 0),
    ],
    ids=["good", "failed", "unreachable", "both", "ignored", "rescued"],
)
def test_the_result_has_the_exit_code_and_each_hosts_state(
    play: Play, tasks: list[dict[str, Any]], states: list[str], code: int
) -> None:
    run = play(roles={"app": tasks or [{"name": "Look", "tell": {}}]})
    assert (run.code, run.result["exit"]) == (code, code)
    assert [host["state"] for host in run.result["hosts"].values()] == states
    for host in run.result["hosts"].values():
        assert (host["failure"] is None) == (host["state"] == "ok")


def test_the_result_of_a_host_that_failed_has_the_message_and_the_next_command(play: Play) -> None:
    run = play(roles={"preflight": [AWAY, BROKEN]})
    away, broken = (host["failure"] for host in run.result["hosts"].values())
    assert away == {"task": "preflight : Go away", "message": "No route.", "next": "ansible -i hosts.yml -m ping a.example.com"}
    command = "ansible-playbook site.yml -i hosts.yml -l b.example.com"
    assert broken == {"task": "preflight : Break", "message": "It is broken.", "next": command}


def test_a_failure_of_the_playbooks_own_has_no_next_command(play: Play) -> None:
    run = play(roles={}, tasks=[BROKEN])
    failure = run.result["hosts"]["b.example.com"]["failure"]
    assert failure == {"task": "Break", "message": "It is broken.", "next": None}


def test_the_result_holds_nothing_that_is_not_to_be_seen(play: Play, tmp_path: Path) -> None:
    secret = {"changed": True, "failed": "{{ host == 'b' }}", "msg": "kestrel", "summary": {"url": "https://kestrel/"}}
    odd = {"name": "Speak", "tell": {"summary": {"secret": "kestrel", "host": "x", "certificate_days": "soon"}}}
    run = play("-e", "password=kestrel", roles={"nginx": [odd, {"name": "Hide", "no_log": True, "tell": secret}]})
    assert run.code == 2
    assert "kestrel" not in (tmp_path / "results" / "run.json").read_text(encoding="utf-8")
    assert run.result["hosts"]["a.example.com"]["certificate_days"] is None
    assert run.result["hosts"]["b.example.com"]["failure"]["message"] == ""


def test_a_run_that_did_nothing_has_its_reason_in_the_result(play: Play) -> None:
    run = play("-i", "nowhere.yml")
    assert (run.result["exit"], run.result["hosts"]) == (2, {})
    assert run.result["error"].startswith("There is no inventory nowhere.yml")
    run = play("-l", "b.example.com", keywords={"hosts": "a.example.com"})
    assert (run.result["exit"], run.result["error"][:31]) == (2, "No host that -l b.example.com l")


def test_a_run_that_has_not_ended_has_no_exit_code(play: Play, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    read = {"name": "Read", "command": {"argv": ["cp", str(tmp_path / "results" / "run.json"), str(copy)]}}
    assert play("-l", "a.example.com", roles={"app": [read]}).result["exit"] == 0
    during = json.loads(copy.read_text(encoding="utf-8"))
    assert (during["playbook"], during["end"], during["exit"], during["hosts"]) == ("site.yml", None, None, {})


def test_a_run_goes_on_if_its_result_cannot_be_written_or_is_not_wanted(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = play(SLIPWAY_RESULT_FILE=str(tmp_path / "file" / "run.json"))
    assert (run.code, run.result, len(run.summary())) == (0, None, 4)
    run = play(SLIPWAY_RESULT_FILE="")
    assert (run.code, run.result, len(run.summary())) == (0, None, 4)


def test_the_ways_to_hosts_are_loaded_before_the_first_task_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = SimpleNamespace(
        groups={"all": SimpleNamespace(vars={"ansible_connection": "local"}), "web": SimpleNamespace(vars={})},
        hosts={
            "a": SimpleNamespace(vars={"ansible_connection": "psrp"}),
            "b": SimpleNamespace(vars={"ansible_connection": "{{ way }}"}),
            "c": SimpleNamespace(vars={"ansible_connection": "nowhere.such.plugin"}),
        },
    )
    found = {}
    get = connection_loader.get

    def note(name: str, **options: Any) -> Any:
        found[name] = get(name, **options)
        return found[name]

    monkeypatch.setattr(connection_loader, "get", note)
    callback = RunCallback()
    monkeypatch.setattr(callback.steps, "begin_play", lambda play: None)
    callback.v2_playbook_on_play_start(
        SimpleNamespace(hosts="all", get_variable_manager=lambda: SimpleNamespace(_inventory=inventory))
    )
    assert found.keys() == {"ssh", "local", "psrp", "nowhere.such.plugin"}
    assert found["nowhere.such.plugin"] is None
    assert C.config.has_configuration_definition("connection", found["psrp"]._load_name)
