"""Roles' variables, tasks and templates worked out for one host by Ansible's own engine, without a host."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

from slipway.controller.configuration import contents
from tests.unit import compiled  # noqa: F401  for what it does

init_plugin_loader()

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.name for path in ROOT.glob("roles/*/tasks"))

NGINX = "nginx version: nginx/{nginx}\nbuilt with OpenSSL {built} 30 Jan 2024{running}\nTLS SNI support enabled\n"


@cache
def load(path: Path) -> Any:
    """Return what a YAML file of a role holds, its templates included; nothing where there is no such file."""
    return DataLoader().load_from_file(str(path), trusted_as_template=True) if path.exists() else {}


class Host:
    """One host of an inventory.

    Args:
        inventory: what the inventory says of it.
        name: what it is called there.
        facts: facts that differ from those of a Debian 13 with 2 processors and 2 GB.
        nginx: the version that `nginx -V` prints; None for a host that has no Nginx yet.
        openssl: the version that Nginx was built with, and the one it runs with where that is another.
    """

    def __init__(
        self,
        inventory: dict[str, Any] | None = None,
        name: str = "api.example.com",
        facts: dict[str, Any] | None = None,
        nginx: str | None = "1.26.3",
        openssl: tuple[str, ...] = ("3.5.1",),
    ) -> None:
        running = f" (running with OpenSSL {openssl[-1]} 1 Jul 2025)" if len(openssl) > 1 else ""
        answer = NGINX.format(nginx=nginx, built=openssl[0], running=running) if nginx else ""
        usual = {
            "os_family": "Debian",
            "distribution": "Debian",
            "distribution_major_version": "13",
            "all_ipv6_addresses": [],
            "slipway_program": "1",
        }
        self.variables: dict[str, Any] = {
            "inventory_hostname": name,
            "playbook_dir": str(ROOT / "playbooks"),
            "group_names": ["web"],
            "groups": {"web": [name]},
            "hostvars": {},
            "ansible_facts": {**usual, **(facts or {})},
            "ansible_check_mode": False,
            "__nginx_placeholder": {"version": answer},
        }
        # As Ansible ranks them: defaults, the inventory, and the roles' own variables.
        for role in ROLES:
            self.variables |= load(ROOT / "roles" / role / "defaults" / "main.yml")
        self.variables |= inventory or {}
        for role in ROLES:
            for file in sorted((ROOT / "roles" / role / "vars").rglob("*.yml")):
                # Rules are in no template, and each template copies all that there is.
                if file.name != "rules.yml":
                    self.variables |= load(file)

    def work_out(self, value: Any, role: str = "") -> Any:
        """Return `value` with its templates worked out, as in a task of `role`."""
        place = str(ROOT / "roles" / role)
        variables = {**self.variables, "role_path": place, "ansible_search_path": [place]}
        return Templar(loader=DataLoader(), variables=variables).template(value)

    @cache  # noqa: B019  the hosts live as long as the tests do
    def __getitem__(self, name: str) -> Any:
        return self.work_out(trust_as_template(f"{{{{ {name} }}}}"))

    @cache  # noqa: B019  the same
    def render(self, role: str, template: str) -> str:
        """Return a template of a role as the host would get it."""
        return str(self.work_out(trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{template}') }}}}"), role))

    def arguments(self, role: str, module: str, file: str = "main.yml", **registered: Any) -> list[dict[str, Any]]:
        """Return the worked out arguments of each task of a role's task file that uses `module`."""
        self.variables |= registered
        tasks = load(ROOT / "roles" / role / "tasks" / file)
        found = [self.work_out(task[module], role) for task in tasks if module in task]
        return [self.rendered(role, one) for one in found] if module == "configuration" else found

    def rendered(self, role: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `configuration` with the content of its files, as its action hands them on."""

        def read(name: str) -> str:
            # What several roles copy lies beside the playbooks.
            folders = (ROOT / "roles" / role / "files", ROOT / "playbooks" / "files")
            return next(folder / name for folder in folders if (folder / name).exists()).read_text(encoding="utf-8")

        files, secrets = contents(arguments["files"], lambda name: self.render(role, name), read)
        return {**arguments, "files": files, "secrets": secrets}


class Block(list[Any]):
    """Directives of Nginx: each a list of words, the last of which may be a block."""

    def find(self, name: str) -> list[Any]:
        """Return what follows the name in each directive of that name."""
        return [directive[1:] for directive in self if directive[0] == name]

    def one(self, name: str) -> Any:
        """Return what follows the name in the only directive of that name: a word, or a list of words."""
        (found,) = self.find(name)
        return found[0] if len(found) == 1 else found

    def pairs(self, name: str) -> dict[str, list[str]]:
        """Return the directives of that name that set something: what, and to what."""
        return {words[0]: words[1:] for words in self.find(name)}

    def locations(self) -> dict[str, Block]:
        """Return the locations by what they match."""
        return {" ".join(words[:-1]): words[-1] for words in self.find("location")}

    def everywhere(self, name: str) -> list[Any]:
        """Return what follows the name in each directive of that name, here and in blocks within."""
        inner = [found for directive in self if isinstance(directive[-1], Block) for found in directive[-1].everywhere(name)]
        return self.find(name) + inner


def parse_nginx(text: str) -> Block:
    """Read a configuration of Nginx.

    Raises:
        ValueError: when a brace or a semicolon is missing.
    """
    position = 0

    def words() -> Any:
        nonlocal position
        while position < len(text):
            letter = text[position]
            if letter.isspace():
                position += 1
            elif letter == "#":
                position = text.index("\n", position)
            elif letter in "{};":
                position += 1
                yield letter
            elif letter in "\"'":
                end = text.index(letter, position + 1)
                word = text[position + 1 : end]
                position = end + 1
                # Marked, so that a quoted brace is a word.
                yield "=" + word
            else:
                start = position
                while not text[position].isspace() and text[position] not in "{};":
                    position += 1
                yield "=" + text[start:position]

    def block(inner: bool) -> Block:
        directives = Block()
        directive: list[Any] = []
        for word in stream:
            if word == ";":
                if not directive:
                    raise ValueError("a semicolon ends nothing")
                directives.append(directive)
                directive = []
            elif word == "{":
                directives.append([*directive, block(True)])
                directive = []
            elif word == "}":
                if not inner or directive:
                    raise ValueError(f"a brace closes {' '.join(directive) or 'nothing'}")
                return directives
            else:
                directive.append(word[1:])
        if inner or directive:
            raise ValueError(f"the text ends within {' '.join(directive) or 'a block'}")
        return directives

    stream = words()
    return block(False)
