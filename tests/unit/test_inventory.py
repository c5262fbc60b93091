"""What an inventory may say: bad values are refused before anything is changed, with a message that helps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = yaml.safe_load(Path(__file__).with_name("bad_inventory.yml").read_text(encoding="utf-8"))
# What check.yml would have asked the host.
FACTS = {
    "ansible_os_family": "Debian",
    "ansible_distribution": "Debian",
    "ansible_distribution_version": "13.1",
    "ansible_distribution_major_version": "13",
    "ansible_all_ipv6_addresses": [],
}

# In a group, so that a host's own file holds nothing but what its case is about.
USUAL = {"app_name": "shop", "certbot_email": "ops@example.com"}

PLAYBOOK = """\
---
- name: Check the variables
  # Worked out before Ansible forks, which loads its filters and tests once and not once more for each host.
  hosts: "{{ 'ALL' | lower if 'a' is match('a') }}"
  gather_facts: false
  tasks:
    - name: Check the variables of all roles
      ansible.builtin.import_role:
        name: preflight
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
    """Lines in a host's file, and what must be said of one of them."""

    id: str
    host: str
    lines: dict[str, str] = field(default_factory=dict)
    variable: str = ""
    says: str = ""
    alone: bool = True
    plain: bool = False


def host_name(case: str) -> str:
    """Return an inventory name for a case, which is a good domain."""
    return f"{case.replace('_', '-').lower()}.example.com"


def value_cases(*kinds: str) -> Iterator[Case]:
    """Yield what the table's `values` says of some kinds: bad, wrong or good."""
    for variable, group in TABLE["values"].items():
        shared = 0
        entries = [(kind, *item) for kind in kinds for item in group.get(kind, {}).items()]
        for kind, name, entry in entries:
            case = entry if isinstance(entry, dict) else {"value": entry}
            says = rf"is .+; it must be .*(?:{group['type' if kind == 'wrong' else 'says']})"
            identity = f"{variable}-{kind}-{name}"
            alone = bool(case.keys() & {"alone", "with", "plain"} or group.get("alone"))
            host = identity if alone else f"{variable.partition('_')[0]}-{kinds[0]}-{shared}"
            shared += not alone
            lines = {variable: str(case["value"])} if "value" in case else {}
            lines |= case.get("with", {})
            yield Case(identity, host_name(host), lines, variable, case.get("problem", says), alone, case.get("plain", False))


def bad_cases() -> Iterator[Case]:
    """Yield all that must be refused."""
    yield from value_cases("bad", "wrong")
    for name, near in TABLE["names"].items():
        hint = f"did you mean {near}\\?" if near else "ansible-doc -t role lists the variables that exist"
        host = f"names-{(near or name).partition('_')[0]}.example.com"
        yield Case(f"name-{name}", host, {name: "x"}, name, f"is not a Slipway variable: {hint}", alone=False)
    for old, new in TABLE["renamed"].items():
        yield Case(
            f"renamed-{old}",
            f"renamed-{old.partition('_')[0]}.example.com",
            {old: "x"},
            old,
            f"was renamed {new}\\.",
            alone=False,
        )
    old_value = {"app_builder": "first"}
    wanted = "first was renamed once: write app_build_strategy: once"
    yield Case("renamed-value", "renamed-value.example.com", old_value, "app_builder", wanted)
    says = {
        "app_name": "1 to 32 lower-case letters.*set app_name",
        "nginx_domains": "domain names in lower case.*name the host in the inventory after its domain, or set it",
        "certbot_mode": "no public CA certifies it",
    }
    for host, variable in TABLE["hosts"].items():
        yield Case(f"host-{host}", host, {"certbot_email": "ops@example.com"}, variable, says[variable], alone=False, plain=True)


def good_cases() -> Iterator[Case]:
    """Yield all that must be taken."""
    yield from value_cases("good")
    yield Case("own-names", "own-names.example.com", dict.fromkeys(TABLE["own_names"], "x"))
    yield Case("punycode-host", "xn--exmple-cua.com", {"certbot_email": "ops@example.com"}, plain=True)


def neighbours(number: int, name: str, pair: dict[str, Any]) -> Iterator[Case]:
    """Yield two hosts on one machine."""
    for each in ("one", "two"):
        lines = {"ansible_host": f"192.0.2.{number}", **pair[each]}
        yield Case(f"{name}-{each}", f"{name}-{each}.example.com", lines, pair.get("variable", ""), pair.get("says", ""))


BAD = list(bad_cases())
GOOD = list(good_cases())
SEVERAL = Case(
    "several",
    "several.example.com",
    {
        "nginx_timeout": "0",
        "nginx_gzip": "maybe",
        "nginx_max_body_size": "ten",
        "nginx_streaming_paths": "/events",
        "nginx_colour": "red",
        "ngnix_domains": "[a.example.com]",
        "app_workers": "-1",
        "python_installer": "conda",
    },
)
FROM_GROUP = Case("group", "from-group.example.com", variable="nginx_timeout", says="from 1 to 3600 seconds")
FROM_HOSTS = Case("hosts", "from-hosts.example.com", variable="nginx_timeout", says="from 1 to 3600 seconds")
ALL = [*BAD, *GOOD, SEVERAL, FROM_GROUP, FROM_HOSTS]
RIVALS = [case for number, name in enumerate(TABLE["machines"]) for case in neighbours(number, name, TABLE["machines"][name])]
PEACEFUL = list(neighbours(99, "peace", {"one": {"app_name": "uno"}, "two": {"app_name": "dos"}}))
BELOW = Case("below", "below.example.com", {"nginx_max_body_size": "ten"})
TWICE = Case("twice", "twice.example.com", {"nginx_timeout": "60\nnginx_timeout: 6"})

LINES: dict[str, dict[str, str]] = {}
for each in (*ALL, *RIVALS, *PEACEFUL, BELOW, TWICE):
    LINES.setdefault(each.host, {}).update(each.lines)


def text(host: str) -> str:
    """Return the file of a host. It starts with a remark, so that no line number is right by chance."""
    content = "---\n# A host\n" + "".join(f"{name}: {value}\n" for name, value in LINES[host].items())
    for short, long in LARGE.items():
        content = content.replace(short, long)
    return content


def edits(case: Case) -> set[str]:
    """Return the places in which an operator would change the variable: its lines, or else the host's file."""
    file = f"inventory/host_vars/{case.host}.yml"
    if case.variable not in case.lines:
        return {file}
    mine = False
    found = set()
    for number, line in enumerate(text(case.host).splitlines(), start=1):
        if not line.startswith(" "):
            mine = line.startswith(f"{case.variable}:")
        if mine:
            found.add(f"{file}:{number}")
    return found


@dataclass(frozen=True)
class Problem:
    text: str
    edit: str


@dataclass(frozen=True)
class Verdict:
    """What a run said of one host: whether it took its variables, and if not, its message."""

    taken: bool
    message: str

    def problems(self) -> dict[str, Problem]:
        """Return the problems by variable."""
        found = re.findall(r"((\S+) .*?)\n  Edit ([^\n]+)(?:\n|\Z)", self.message.partition("\n")[2], flags=re.DOTALL)
        return {name: Problem(text, edit) for text, name, edit in found}


class Inventory:
    """Cases as an inventory, and Ansible's answers to it."""

    def __init__(self, directory: Path, cases: Sequence[Case]) -> None:
        self.directory = directory
        self.hosts = dict.fromkeys(case.host for case in cases)
        for folder in ("app", "compiled", "facts", "playbooks", "inventory/host_vars", "inventory/group_vars"):
            (directory / folder).mkdir(parents=True)
        (directory / "playbooks/check.yml").write_text(PLAYBOOK, encoding="utf-8")
        (directory / "inventory/own.pem").write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
        self.write("inventory/group_vars/usual.yml", USUAL)
        (directory / "inventory/group_vars/hasty.yml").write_text("---\n# A group\nnginx_timeout: 0\n", encoding="utf-8")
        groups: dict[str, Any] = {name: {"hosts": {}} for name in ("usual", "plain", "hasty")}
        for case in cases:
            beside = {"nginx_timeout": 0} if case is FROM_HOSTS else None
            groups["plain" if case.plain else "usual"]["hosts"][case.host] = beside
            if case is FROM_GROUP:
                groups["hasty"]["hosts"][case.host] = None
            if LINES[case.host]:
                file = directory / "inventory/host_vars" / f"{case.host}.yml"
                file.write_text(text(case.host), encoding="utf-8")
            # The names and the wrapping are the core's, since 2.19.
            payload = json.dumps({"__payload__": json.dumps(FACTS)})
            (directory / "facts" / f"s1_{case.host}").write_text(payload, encoding="utf-8")
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
            COMPILED=str(self.directory / "compiled"),
            SLIPWAY_RESULT_FILE="",
            **settings,
        )
        ansible = Path(__file__).with_name("compiled.py")
        command = [sys.executable, str(ansible), "-i", "inventory/hosts.yml", "playbooks/check.yml", *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
        )

    def judge(self) -> tuple[subprocess.CompletedProcess[str], dict[str, Verdict]]:
        """Check the inventory, and return the run and what it said of each host."""
        done = self.play(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        try:
            tasks = json.loads(done.stdout)["plays"][0]["tasks"]
        except (ValueError, LookupError):
            pytest.fail(f"Ansible did not come to judge the hosts:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        results = tasks[-1]["hosts"]
        verdicts = {}
        for host in self.hosts:
            failed = bool(results[host].get("failed"))
            verdicts[host] = Verdict(not failed, str(results[host]["msg"]) if failed else "")
        return done, verdicts


@pytest.fixture(scope="session")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"), ALL)


@pytest.fixture(scope="session")
def judged(inventory: Inventory) -> tuple[subprocess.CompletedProcess[str], dict[str, Verdict]]:
    return inventory.judge()


@pytest.fixture(scope="session")
def run(judged: tuple[subprocess.CompletedProcess[str], dict[str, Verdict]]) -> subprocess.CompletedProcess[str]:
    return judged[0]


@pytest.fixture(scope="session")
def verdicts(judged: tuple[subprocess.CompletedProcess[str], dict[str, Verdict]]) -> dict[str, Verdict]:
    return judged[1]


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    return Inventory(tmp_path_factory.mktemp("machines"), [*RIVALS, *PEACEFUL]).judge()[1]


@pytest.fixture(scope="session")
def below(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return Inventory(tmp_path_factory.mktemp("below") / "roles" / "x", [BELOW]).play("-e", "nginx_timeout=0")


def assert_refused(case: Case, verdict: Verdict, places: set[str]) -> None:
    """Assert that a host's message names the host, the variable, what it may be, and where to edit it."""
    problems = verdict.problems()
    problem = problems.get(case.variable)
    assert problem, verdict.message or f"{case.variable} was taken"
    count = f"{len(problems)} error{'s' if len(problems) > 1 else ''}"
    assert verdict.message.startswith(f"{case.host}: {count} in the inventory. Nothing was changed.\n")
    assert re.match(rf"{case.variable} .*(?:{case.says})", problem.text, flags=re.DOTALL), problem.text
    assert problem.edit in places
    assert len(problem.text) < 800
    assert "CANARY" not in problem.text
    if case.alone:
        assert problems.keys() == {case.variable}, "one fault is told as several"


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_a_bad_value_is_refused_with_a_message_that_helps(case: Case, verdicts: dict[str, Verdict]) -> None:
    assert_refused(case, verdicts[case.host], edits(case))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_a_good_value_is_taken(case: Case, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[case.host]
    if case.alone:
        assert verdict.taken, verdict.message
    else:
        assert case.variable not in verdict.problems(), verdict.message


def test_a_value_of_a_group_is_edited_in_the_file_of_the_group(verdicts: dict[str, Verdict]) -> None:
    assert_refused(FROM_GROUP, verdicts[FROM_GROUP.host], {"inventory/group_vars/hasty.yml:3"})


def test_a_value_beside_a_host_is_edited_there(inventory: Inventory, verdicts: dict[str, Verdict]) -> None:
    lines = (inventory.directory / "inventory/hosts.yml").read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, start=1) if "nginx_timeout" in line)
    assert_refused(FROM_HOSTS, verdicts[FROM_HOSTS.host], {f"inventory/hosts.yml:{number}"})


def test_all_problems_of_a_host_are_told_at_once(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[SEVERAL.host]
    assert verdict.message.startswith(f"{SEVERAL.host}: {len(SEVERAL.lines)} errors in the inventory. Nothing was changed.\n")
    file = f"inventory/host_vars/{SEVERAL.host}.yml"
    places = {name: f"{file}:{number}" for number, name in enumerate(SEVERAL.lines, start=3)}
    assert {name: problem.edit for name, problem in verdict.problems().items()} == places


def test_a_refusal_fails_the_run_and_reaches_no_host(run: subprocess.CompletedProcess[str], verdicts: dict[str, Verdict]) -> None:
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr
    stats = json.loads(run.stdout)["stats"]
    assert stats.keys() == verdicts.keys()
    assert not any(each["changed"] or each["unreachable"] or each["ignored"] for each in stats.values())


@pytest.mark.parametrize("case", RIVALS, ids=lambda case: case.id)
def test_what_two_apps_on_one_machine_cannot_share_is_refused(case: Case, machines: dict[str, Verdict]) -> None:
    assert_refused(case, machines[case.host], edits(case))


@pytest.mark.parametrize("case", PEACEFUL, ids=lambda case: case.id)
def test_two_apps_on_one_machine_are_taken(case: Case, machines: dict[str, Verdict]) -> None:
    assert machines[case.host].taken, machines[case.host].message


def test_a_value_from_the_command_line_is_said_to_be_from_there(below: subprocess.CompletedProcess[str]) -> None:
    assert below.returncode == 2
    assert re.search(r"nginx_timeout is '?0'?; it must be from 1 to 3600 seconds\.\n +Edit .*'-e'", below.stdout), below.stdout


def test_a_folder_called_roles_above_the_inventory_hides_no_file(below: subprocess.CompletedProcess[str]) -> None:
    assert re.search(rf"nginx_max_body_size is .+\n +Edit inventory/host_vars/{BELOW.host}\.yml:3\n", below.stdout), below.stdout


def test_a_variable_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    done = Inventory(tmp_path / "twice", [TWICE]).play()
    assert done.returncode != 0
    assert re.search("ERROR.*duplicate.*nginx_timeout", done.stderr, flags=re.DOTALL), done.stderr


def test_no_secret_is_in_the_output(run: subprocess.CompletedProcess[str], verdicts: dict[str, Verdict]) -> None:
    assert "CANARY" not in run.stderr
    assert not [host for host, verdict in verdicts.items() if "CANARY" in verdict.message]
    assert "CANARY" not in run.stdout


def test_no_secret_is_in_the_output_of_a_run_that_tells_all(inventory: Inventory) -> None:
    secretive = [host for host in inventory.hosts if "CANARY" in text(host)][:12]
    done = inventory.play("--limit", ",".join(secretive), "-vvv", "--diff")
    assert len(re.findall(r"Nothing was changed", done.stdout)) >= 10
    leaks = [line for line in (done.stdout + done.stderr).splitlines() if "CANARY" in line]
    assert not leaks


def test_every_variable_of_every_role_is_in_the_table() -> None:
    declared = set()
    for file in ROOT.glob("roles/*/meta/argument_specs.yml"):
        declared |= yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"].keys()
    assert TABLE["values"].keys() == declared


def test_every_renamed_variable_is_in_the_table() -> None:
    renamed: dict[str, str] = {}
    for file in ROOT.glob("roles/*/vars/main/renamed.yml"):
        renamed |= yaml.safe_load(file.read_text(encoding="utf-8"))[f"__{file.parents[2].name}_renamed"]
    assert TABLE["renamed"] == renamed
    assert not TABLE["renamed"].keys() & TABLE["values"].keys()
    assert set(TABLE["renamed"].values()) <= TABLE["values"].keys()


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len(BAD) >= 500
    for case in ALL:
        assert LINES[case.host].items() >= case.lines.items(), "two cases of one host set the same variable"
        assert not case.alone or LINES[case.host] == case.lines
    assert len({case.id for case in ALL}) == len(ALL)
