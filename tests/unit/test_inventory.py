"""What an inventory may say: bad values are refused before anything is changed, with a message that helps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = yaml.safe_load(Path(__file__).with_name("bad_inventory.yml").read_text(encoding="utf-8"))
ROLES = ("python", "supervisor", "app", "nginx", "certbot")

# What check.yml would have asked the host.
FACTS = {
    "ansible_os_family": "Debian",
    "ansible_distribution": "Debian",
    "ansible_distribution_version": "13.1",
    "ansible_distribution_major_version": "13",
    "ansible_memtotal_mb": 2048,
    "ansible_processor_vcpus": 2,
    "ansible_all_ipv6_addresses": [],
}

# In a group, so that a host's own file holds nothing but what its case is about.
USUAL = {"app_name": "shop", "certbot_email": "ops@example.com"}

PLAYBOOK = """\
---
- name: Check the variables
  hosts: all
  gather_facts: false
  tasks:
    - name: Check the variables of all roles
      ansible.builtin.import_role:
        name: inventory
        tasks_from: variables
"""

LARGE = {
    "<1 MiB>": "a" * 2**20,
    "<63 letters>": "a" * 63,
    "<64 letters>": "a" * 64,
    "<254 letters>": ".".join(["a" * 49] * 5) + ".abcd",
    "<100 names>": f"[{', '.join(f'a{number}.example.com' for number in range(100))}]",
    "<101 names>": f"[{', '.join(f'a{number}.example.com' for number in range(101))}]",
}


@dataclass(frozen=True)
class Case:
    """One host: what its file says, and what must be said of it."""

    id: str
    host: str
    lines: dict[str, str] = field(default_factory=dict)
    variable: str = ""
    says: str = ""
    plain: bool = False

    def text(self) -> str:
        """Return the host's file. It starts with a remark, so that no line number is right by chance."""
        text = "---\n# A host\n" + "".join(f"{name}: {value}\n" for name, value in self.lines.items())
        for short, long in LARGE.items():
            text = text.replace(short, long)
        return text

    def edits(self) -> set[str]:
        """Return the places in which an operator would change the variable: its lines, or else the host's file."""
        file = f"inventory/host_vars/{self.host}.yml"
        if self.variable not in self.lines:
            return {file}
        mine = False
        found = set()
        for number, line in enumerate(self.text().splitlines(), start=1):
            if not line.startswith(" "):
                mine = line.startswith(f"{self.variable}:")
            if mine:
                found.add(f"{file}:{number}")
        return found


def host_name(case: str) -> str:
    """Return an inventory name for a case, which is a good domain."""
    return f"{case.replace('_', '-').lower()}.example.com"


def value_case(variable: str, name: str, entry: Any, says: str, kind: str) -> Case:
    """Return the case that a line of the table's `values` stands for."""
    entry = entry if isinstance(entry, dict) else {"value": entry}
    lines = {variable: str(entry["value"])} if "value" in entry else {}
    if kind != "good":
        says = entry.get("problem", rf"is .+; it must be .*(?:{says})")
    identity = f"{variable}-{kind}-{name}"
    return Case(identity, host_name(identity), lines | entry.get("with", {}), variable, says, entry.get("plain", False))


def bad_cases() -> Iterator[Case]:
    """Yield all hosts that must be refused."""
    for variable, group in TABLE["values"].items():
        for name, entry in group["bad"].items():
            yield value_case(variable, name, entry, group["says"], "bad")
        for name, entry in group["wrong"].items():
            yield value_case(variable, name, entry, group["type"], "wrong")
    for name, near in TABLE["names"].items():
        says = rf"is not a variable of Slipway: did you mean {near}\?" if near else "is not a variable of Slipway: ansible-doc"
        identity = f"name-{name}"
        yield Case(identity, f"case-{host_name(name)}" if name != name.lower() else host_name(name), {name: "x"}, name, says)
    says = {
        "app_name": "1 to 32 lower-case letters.*set app_name",
        "nginx_domains": "domain names in lower case.*name the host in the inventory after its domain, or set it",
        "certbot_mode": "no public authority certifies it",
    }
    for host, variable in TABLE["hosts"].items():
        yield Case(f"host-{host}", host, {"certbot_email": "ops@example.com"}, variable, says[variable], plain=True)
    for name, pair in TABLE["machines"].items():
        for own, other in (("one", "two"), ("two", "one")):
            lines = {"ansible_host": "192.0.2.7", **pair[own]}
            says_so = rf"{pair['says']}.*{host_name(f'{name}-{other}')}"
            yield Case(f"machine-{name}-{own}", host_name(f"{name}-{own}"), lines, pair["variable"], says_so)


def good_cases() -> Iterator[Case]:
    """Yield all hosts that must be taken."""
    for variable, group in TABLE["values"].items():
        for name, entry in group.get("good", {}).items():
            yield value_case(variable, name, entry, "", "good")
    yield Case("own-names", "own-names.example.com", dict.fromkeys(TABLE["own_names"], "x"))
    yield Case("machine-two-apps-one", "uno.example.com", {"ansible_host": "192.0.2.8", "app_name": "uno"})
    yield Case("machine-two-apps-two", "dos.example.com", {"ansible_host": "192.0.2.8", "app_name": "dos"})
    yield Case("punycode-host", "xn--exmple-cua.com", {"certbot_email": "ops@example.com"}, plain=True)


BAD = list(bad_cases())
GOOD = list(good_cases())
SEVERAL = Case(
    "several",
    "several.example.com",
    {
        "nginx_domains": "[a b]",
        "nginx_timeout": "0",
        "nginx_gzip": "maybe",
        "nginx_max_body_size": "ten",
        "nginx_colour": "red",
        "ngnix_ipv6": "true",
    },
)
FROM_GROUP = Case("group", "from-group.example.com", variable="nginx_timeout", says="from 1 to 3600 seconds")
FROM_HOSTS = Case("hosts", "from-hosts.example.com", variable="nginx_timeout", says="from 1 to 3600 seconds")
ALL = [*BAD, *GOOD, SEVERAL, FROM_GROUP, FROM_HOSTS]


@dataclass(frozen=True)
class Problem:
    text: str
    edit: str


@dataclass(frozen=True)
class Verdict:
    """What a run said of one host."""

    passed: tuple[str, ...]
    message: str

    def problems(self) -> list[Problem]:
        found = re.findall(r"(\S.*?)\n  Edit ([^\n]+)(?:\n|\Z)", self.message.partition("\n")[2], flags=re.DOTALL)
        return [Problem(*each) for each in found]


class Inventory:
    """The table as an inventory, and Ansible's answers to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for folder in ("app", "facts", "playbooks", "inventory/host_vars", "inventory/group_vars"):
            (directory / folder).mkdir(parents=True)
        (directory / "playbooks/check.yml").write_text(PLAYBOOK, encoding="utf-8")
        (directory / "inventory/own.pem").write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
        self.write("inventory/group_vars/usual.yml", USUAL)
        (directory / "inventory/group_vars/hasty.yml").write_text("---\n# A group\nnginx_timeout: 0\n", encoding="utf-8")
        groups: dict[str, Any] = {"usual": {"hosts": {}}, "plain": {"hosts": {}}, "hasty": {"hosts": {FROM_GROUP.host: None}}}
        for case in ALL:
            groups["plain" if case.plain else "usual"]["hosts"][case.host] = None
            if case.lines:
                file = directory / "inventory/host_vars" / f"{case.host}.yml"
                file.write_text(case.text(), encoding="utf-8")
            # The names and the wrapping are the core's, since 2.19.
            payload = json.dumps({"__payload__": json.dumps(FACTS)})
            (directory / "facts" / f"s1_{case.host}").write_text(payload, encoding="utf-8")
        groups["usual"]["hosts"][FROM_HOSTS.host] = {"nginx_timeout": 0}
        self.write("inventory/hosts.yml", groups)

    def write(self, file: str, content: Any) -> None:
        (self.directory / file).write_text(yaml.safe_dump(content, allow_unicode=True, width=10**6), encoding="utf-8")

    def play(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Check the inventory with the project's own configuration, and without a connection."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            ANSIBLE_CACHE_PLUGIN="jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(self.directory / "facts"),
            ANSIBLE_FORKS="4",
            ANSIBLE_NOCOLOR="1",
            **settings,
        )
        ansible = Path(sys.executable).with_name("ansible-playbook")
        command = [str(ansible), "-i", "inventory/hosts.yml", "playbooks/check.yml", *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )


@pytest.fixture(scope="session")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"))


@pytest.fixture(scope="session")
def run(inventory: Inventory) -> subprocess.CompletedProcess[str]:
    return inventory.play(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")


@pytest.fixture(scope="session")
def verdicts(run: subprocess.CompletedProcess[str]) -> dict[str, Verdict]:
    try:
        tasks = json.loads(run.stdout)["plays"][0]["tasks"]
    except (ValueError, LookupError):
        pytest.fail(f"Ansible did not come to judge the hosts:\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}")
    passed: dict[str, list[str]] = {case.host: [] for case in ALL}
    messages: dict[str, str] = {}
    for task in tasks:
        for host, result in task["hosts"].items():
            if result.get("failed"):
                messages[host] = str(result["msg"])
            else:
                passed[host].append(task["task"]["name"])
    return {host: Verdict(tuple(names), messages.get(host, "")) for host, names in passed.items()}


def assert_refused(case: Case, verdict: Verdict, edits: set[str]) -> None:
    """Assert that the message of a refusal names the host, the variable, what it may be, and where to edit it."""
    assert verdict.message, "it was taken"
    assert len(verdict.message) < 4000
    assert verdict.message.startswith(f"{case.host}: 1 problem in the inventory. Nothing was changed.\n"), verdict.message
    problem = verdict.problems()[0]
    assert re.match(rf"{re.escape(case.variable)} .*(?:{case.says})", problem.text, flags=re.DOTALL), problem.text
    assert problem.edit in edits


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_a_bad_value_is_refused_with_a_message_that_helps(case: Case, verdicts: dict[str, Verdict]) -> None:
    assert_refused(case, verdicts[case.host], case.edits())


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_a_good_value_is_taken(case: Case, verdicts: dict[str, Verdict]) -> None:
    assert not verdicts[case.host].message
    assert len(verdicts[case.host].passed) >= len(ROLES)


def test_a_value_of_a_group_is_edited_in_the_file_of_the_group(verdicts: dict[str, Verdict]) -> None:
    assert_refused(FROM_GROUP, verdicts[FROM_GROUP.host], {"inventory/group_vars/hasty.yml:3"})


def test_a_value_beside_a_host_is_edited_there(inventory: Inventory, verdicts: dict[str, Verdict]) -> None:
    lines = (inventory.directory / "inventory/hosts.yml").read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, start=1) if "nginx_timeout" in line)
    assert_refused(FROM_HOSTS, verdicts[FROM_HOSTS.host], {f"inventory/hosts.yml:{number}"})


def test_all_problems_of_a_role_are_told_at_once(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[SEVERAL.host]
    assert verdict.message.startswith(f"{SEVERAL.host}: {len(SEVERAL.lines)} problems in the inventory. Nothing was changed.\n")
    edits = {problem.text.split()[0]: problem.edit for problem in verdict.problems()}
    file = f"inventory/host_vars/{SEVERAL.host}.yml"
    assert edits == {name: f"{file}:{number}" for number, name in enumerate(SEVERAL.lines, start=3)}


def test_a_refusal_fails_the_run_and_reaches_no_host(run: subprocess.CompletedProcess[str], verdicts: dict[str, Verdict]) -> None:
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr
    stats = json.loads(run.stdout)["stats"]
    assert stats.keys() == verdicts.keys()
    assert not any(each["changed"] or each["unreachable"] or each["ignored"] for each in stats.values())


def test_a_value_from_the_command_line_is_said_to_be_from_there(inventory: Inventory) -> None:
    done = inventory.play("--limit", "uno.example.com", "-e", "nginx_timeout=0")
    assert done.returncode == 2
    assert re.search(r"nginx_timeout is '?0'?; it must be from 1 to 3600 seconds\.\n +Edit .*'-e'", done.stdout), done.stdout


def test_a_variable_that_is_set_twice_is_refused(inventory: Inventory, tmp_path: Path) -> None:
    other = Inventory(tmp_path / "twice")
    file = other.directory / "inventory/host_vars/uno.example.com.yml"
    file.write_text("---\nnginx_timeout: 60\nnginx_timeout: 6\n", encoding="utf-8")
    done = other.play("--limit", "uno.example.com")
    assert done.returncode != 0
    assert "nginx_timeout" in done.stdout + done.stderr
    assert "uno.example.com.yml" in done.stdout + done.stderr


def test_no_secret_is_in_the_output(run: subprocess.CompletedProcess[str], verdicts: dict[str, Verdict]) -> None:
    leaks = [host for host, verdict in verdicts.items() if "CANARY" in verdict.message]
    assert not leaks
    assert "CANARY" not in run.stdout + run.stderr


def test_no_secret_is_in_the_output_of_a_run_that_tells_all(inventory: Inventory) -> None:
    secretive = [case.host for case in ALL if "CANARY" in case.text()]
    done = inventory.play("--limit", ",".join(secretive), "-vvv", "--diff")
    assert len(re.findall(r"Nothing was changed", done.stdout)) >= 10
    leaks = [line for line in (done.stdout + done.stderr).splitlines() if "CANARY" in line]
    assert not leaks


def test_every_variable_of_every_role_is_in_the_table() -> None:
    declared = set()
    for file in ROOT.glob("roles/*/meta/argument_specs.yml"):
        declared |= yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"].keys()
    assert TABLE["values"].keys() == declared


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(BAD) >= 200
    assert len({case.host for case in ALL}) == len(ALL)
    assert len({case.id for case in ALL}) == len(ALL)
