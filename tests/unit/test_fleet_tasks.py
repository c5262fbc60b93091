"""The tasks that release and roll back over hosts, run by ansible-playbook on hosts that only record their steps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

# In place of the module that runs the host's program. A host is a file with what it serves and who has locked it.
MODULE = '''\
#!/usr/bin/python3
"""Stand in for a host."""

import json
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def main():
    options = {name: {"type": "dict", "default": {}} for name in ("arguments", "run")}
    options.update(secrets={"type": "dict", "default": {}, "no_log": True}, step={"type": "str"}, program={"type": "str"})
    module = AnsibleModule({**options, "file": {"type": "path"}}, supports_check_mode=True)
    given, name = module.params["arguments"], os.environ["HOST"]
    directory, step = Path(os.environ["HOSTS"]), given["step"]
    file = directory / (name + ".json")
    state = json.loads(file.read_text())
    wanted = state["fails"].get(step, "")
    with (directory / "log").open("a") as log:
        brings = "configuration" if given["configuration"] else ""
        log.write(" ".join([name, step + ("?" if module.check_mode else ""), str(given["number"]), brings]).strip() + chr(10))
    live = before = state["live"]
    if wanted == "die":
        (directory / (name + ".gone")).touch()
        os._exit(137)
    if wanted == "locked":
        module.fail_json(msg="This app is locked by another run: eve.", locked_by={"id": "other 1 1"}, locked=False)
    if step in ("activate", "rollback") and wanted != "fail" and not module.check_mode:
        live = given["number"]
    if step == "revert" and live == given["number"]:
        live = given["before"] or None
    lasts = bool(given["lease"]) and wanted != "fail" and not module.check_mode
    state.update(live=live, locked=lasts if step != "measure" else state["locked"])
    file.write_text(json.dumps(state))
    if wanted == "fail":
        module.fail_json(msg="it is ill. And more.", live=live, locked=False)
    result = {"changed": live != before, "release": live, "before": before, "locked": state["locked"]}
    result.update(version="v", record={}, reason="it changed" if live != before else None)
    if step == "plan":
        result.update(reason=state["reason"], next=state["next"], prepared=None, again=None)
    if step == "inspect":
        result.update(newest=live, choices=[live - 1, live], rejections={}, next=live + 1)
    if step == "measure":
        errors = state["errors"] if live != state["first"] else 0
        result.update(total=900, errors=errors, seconds={"0.02": 900}, restarts=0)
    module.exit_json(**result)


main()
'''

PLAY = """\
- name: Change the app
  hosts: web
  gather_facts: false
  environment: {HOST: "{{ inventory_hostname }}"}
  tasks:
    - name: Set what was gathered and built
      ansible.builtin.set_fact: {os_family: Debian, distribution: Debian, distribution_major_version: "13", cacheable: true}
    - name: Load the variables of the roles
      ansible.builtin.import_role: {name: preflight, tasks_from: load}
    - name: Require all hosts
      ansible.builtin.import_role: {name: app, tasks_from: require_all_hosts}
    - name: Change
      ansible.builtin.import_role: {name: app, tasks_from: "{{ entry }}"}
"""

HOSTS = ("a", "b", "c")
GONE = "{{ 'ssh' if (directory ~ '/' ~ inventory_hostname ~ '.gone') is file else 'local' }}"


class Fleet:
    """Hosts of one app or more, and runs on them."""

    def __init__(self, directory: Path, compiled: Path) -> None:
        self.directory, self.compiled = directory, compiled
        (directory / "library").mkdir()
        (directory / "library" / "slipway.py").write_text(MODULE, encoding="utf-8")
        (directory / "play.yml").write_text(PLAY, encoding="utf-8")
        self.apps: dict[str, str] = {}
        for name in HOSTS:
            self.add(name)

    def add(self, name: str, app: str = "shop", **state: Any) -> None:
        """Add a host, or change one."""
        self.apps[name] = app
        usual = {"live": 7, "first": 7, "next": 8, "reason": "it changed", "locked": False, "errors": 0, "fails": {}}
        (self.directory / f"{name}.json").write_text(json.dumps({**usual, **state}), encoding="utf-8")

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / f"{name}.json").read_text(encoding="utf-8"))
        return found

    @property
    def live(self) -> dict[str, int | None]:
        return {name: self.state(name)["live"] for name in self.apps}

    @property
    def locked(self) -> list[str]:
        return [name for name in self.apps if self.state(name)["locked"]]

    def run(self, *options: str, entry: str = "release", **variables: Any) -> tuple[int, str, list[str]]:
        """Run the play; return its exit code, what it printed in one line, and the steps that were asked for."""
        hosts = {name: {"app_name": app} for name, app in self.apps.items()}
        known = {
            **{"nginx_domains": ["shop.test"], "certbot_email": "a@shop.test", "directory": str(self.directory), "entry": entry},
            **{"ansible_connection": GONE, "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_timeout": 2},
            **{"ansible_python_interpreter": sys.executable, "app_release_batch": "1"},
        }
        inventory = {"web": {"hosts": hosts, "vars": known}}
        (self.directory / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        (self.directory / "log").write_text("", encoding="utf-8")
        settings = {
            **{"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LIBRARY": str(self.directory / "library")},
            **{"HOSTS": str(self.directory), "ANSIBLE_NOCOLOR": "1", "SLIPWAY_RESULT_FILE": ""},
            **{"ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "COMPILED": str(self.compiled)},
        }
        command = [sys.executable, str(Path(__file__).with_name("compiled.py")), "-i", "hosts.yml", "play.yml", *options]
        done = subprocess.run(
            [*command, "--extra-vars", json.dumps({**variables, "entry": entry})],
            cwd=self.directory,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        steps = (self.directory / "log").read_text(encoding="utf-8").splitlines()
        return done.returncode, re.sub(r"\s+", " ", done.stdout), steps


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs find the templates that one of them has compiled."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def fleet(tmp_path: Path, compiled: Path) -> Fleet:
    return Fleet(tmp_path, compiled)


def grouped(steps: list[str], *sizes: int) -> list[list[str]]:
    """Return steps in groups of these sizes, each sorted: hosts take them at the same time."""
    found = []
    for size in sizes:
        found.append(sorted(steps[:size]))
        steps = steps[size:]
    assert steps == []
    return found


def each(step: str, hosts: str = "abc") -> list[str]:
    return [f"{host} {step}" for host in hosts]


def test_a_release_locks_the_first_host_prepares_all_migrates_once_and_activates_in_batches(fleet: Fleet) -> None:
    code, output, steps = fleet.run(app_migrate_command="true", app_release_batch="2", app_canary_hosts=1, app_canary_seconds=1)
    assert code == 0, output
    assert grouped(steps, 3, 1, 2, 1, 1, 3, 2, 3) == [
        each("plan 0 configuration"),
        ["a prepare 8 configuration"],
        each("prepare 8 configuration", "bc"),
        ["a migrate 8"],
        ["a activate 8"],
        each("measure 8"),
        each("activate 8", "bc"),
        each("unlock 8"),
    ]
    assert (fleet.live, fleet.locked) == (dict.fromkeys("abc", 8), [])
    assert "promoted: 5xx 0.0% (others 0.0%)" in output
    assert "serves release 8 of shop, from v. It was released in this run: it changed." in output
    # Nothing is to be done the second time, and so nothing is locked.
    for name in HOSTS:
        fleet.add(name, live=8, reason=None, next=9)
    code, output, steps = fleet.run()
    assert (code, sorted(steps)) == (0, each("plan 0 configuration")), output
    assert "Nothing has changed." in output


def test_what_would_be_released_is_shown_and_nothing_is_locked_in_check_mode(fleet: Fleet) -> None:
    code, output, steps = fleet.run("--check")
    assert code == 0, output
    assert grouped(steps, 3, 3) == [each("plan? 0 configuration"), each("activate? 8 configuration")]
    assert (fleet.live, fleet.locked) == (dict.fromkeys("abc", 7), [])


@pytest.mark.parametrize("step", ["prepare", "activate"])
def test_all_hosts_serve_what_they_served_if_one_fails(fleet: Fleet, step: str) -> None:
    fleet.add("b", fails={step: "fail"})
    code, output, steps = fleet.run()
    assert code == 2, output
    assert (fleet.live, fleet.locked) == (dict.fromkeys("abc", 7), [])
    assert [each for each in steps if each.startswith("c activate")] == []
    assert ("a revert 8" in steps) is (step == "activate")
    assert "Release 8 of shop failed on b: it is ill. And more." in output
    assert "Now serving: a 7, b 7, c 7." in output
    assert "Every host serves what it served before; nothing is left half done." in output
    assert output.count("- See the message of a, which reports for all hosts of shop.") == 2
    assert re.search(
        r"playbooks/doctor\.yml -i hosts\.yml -l b\. Fix it and run ansible-playbook \S+playbooks/deploy\.yml", output
    )


def test_the_others_are_reverted_if_a_host_dies(fleet: Fleet) -> None:
    fleet.add("b", fails={"activate": "die"})
    code, output, steps = fleet.run()
    assert code == 2, output
    assert (fleet.live, [name for name in fleet.locked if name != "b"]) == (dict.fromkeys("abc", 7), [])
    assert {"a revert 8", "c unlock 8"} < set(steps)
    assert "Now serving: a 7, c 7." in output
    assert "b is unreachable; it last served 7 and may come back on 8." in output
    # It stays away: a run without it is refused.
    code, output, steps = fleet.run()
    assert code == 2, output
    assert {step for step in steps if "plan" not in step and "unlock" not in step} == set()
    assert "The release of shop failed on b: host is unreachable: " in output


def test_of_two_runs_the_one_that_has_locked_the_first_host_goes_on(fleet: Fleet) -> None:
    fleet.add("a", fails={"prepare": "locked"})
    code, output, steps = fleet.run()
    assert code == 2, output
    assert {step for step in steps if "plan" not in step} == {"a prepare 8 configuration", *each("unlock 8")}
    assert "Release 8 of shop failed on a: This app is locked by another run: eve." in output
    assert "-e app_take_over_lock=someone@somewhere:1" in output
    assert fleet.live == dict.fromkeys("abc", 7)


def test_a_canary_that_is_worse_is_reverted(fleet: Fleet) -> None:
    fleet.add("a", errors=90)
    code, output, steps = fleet.run(app_canary_hosts=1, app_canary_seconds=1)
    assert (code, fleet.live, fleet.locked) == (2, dict.fromkeys("abc", 7), []), output
    assert [step for step in steps if "activate" in step] == ["a activate 8"]
    assert re.search(r"HOST ROLE RELEASE REQUESTS 5XX P95.* a canary 8 900 .* b other 7 900 .* c other 7 900", output)
    assert "Release 8 of shop failed on a: reverted: 10.0% of its responses are 5xx" in output


def test_a_rollback_takes_the_same_path(fleet: Fleet) -> None:
    code, output, steps = fleet.run(entry="rollback", release="4")
    assert code == 0, output
    assert grouped(steps, 3, 1, 2, 1, 1, 1, 3) == [
        each("inspect 0 configuration"),
        ["a lock 4 configuration"],
        each("lock 4 configuration", "bc"),
        *([f"{host} rollback 4"] for host in HOSTS),
        each("unlock 4"),
    ]
    assert (fleet.live, fleet.locked) == (dict.fromkeys("abc", 4), [])


@pytest.fixture
def blog(fleet: Fleet) -> Callable[..., None]:
    """Add hosts of another app, one of which fails, and a host that is alone with its app."""

    def add() -> None:
        fleet.add("a", reason=None)
        fleet.add("d", "blog")
        fleet.add("e", "blog", fails={"activate": "fail"})
        fleet.add("f", "alone")

    return add


def test_apps_of_one_run_do_not_depend_on_each_other(fleet: Fleet, blog: Callable[..., None]) -> None:
    blog()
    code, output, _ = fleet.run()
    assert code == 2, output
    # A host that needs nothing follows the others of its app; the host that is alone numbers its releases itself.
    assert {name: fleet.live[name] for name in "abcde"} == {**dict.fromkeys("abc", 8), **dict.fromkeys("de", 7)}
    assert fleet.locked == []
    assert "Release 8 of blog failed on e: it is ill. And more." in output
    assert "Now serving: d 7, e 7." in output
    assert {name: f"{name} : ok=" in output and "failed=1" in output.split(f"{name} : ok=")[1][:90] for name in fleet.apps} == {
        **dict.fromkeys("abcf", False),
        **dict.fromkeys("de", True),
    }
