"""What the inventory keeps secret reaches a host by ways alone that leave no trace there, whichever role it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT

from slipway.controller.secrets import SECRET, split
from slipway.host.values import merged

TASKS = sorted(path for path in ROOT.glob("roles/*/*/*.yml") if path.parent.name in ("tasks", "handlers"))

# Actions of ours that have a host take a step, and tell apart what may be shown of its arguments.
ACTIONS = ("slipway", "configuration")

# What is told of a secret, and is none: whether there is one, or what it is called.
HARMLESS = re.compile(r"\b(\w+) *(\.keys\(\)|\| *(list|length|bool|sort)\b|\| *combine\(\{\}\))")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def secret_variables() -> set[str]:
    """Return the variables of all roles that are marked secret."""
    options = [read(path)["argument_specs"]["main"]["options"] for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    return {name for each in options for name, option in each.items() if option.get("no_log")}


@cache
def made_from() -> dict[str, str]:
    """Return the text of all variables of roles, and by their names that of templates."""
    texts: dict[str, str] = {}
    for pattern in ("roles/*/defaults/main.yml", "roles/*/vars/main/main.yml", "roles/*/vars/main.yml"):
        for path in ROOT.glob(pattern):
            texts |= {name: str(value) for name, value in (read(path) or {}).items()}
    for path in ROOT.glob("roles/*/templates/*.j2"):
        texts[path.name] = path.read_text(encoding="utf-8")
    return texts


@cache
def tainted() -> frozenset[str]:
    """Return the names of all variables and templates that hold a secret."""
    found = secret_variables()
    while True:
        more = {name for name, text in made_from().items() if name not in found and holds(text, found)}
        if not more:
            return frozenset(found)
        found |= more


def holds(text: str, names: frozenset[str] | set[str]) -> bool:
    """Say whether a text names something that holds a secret, other than to ask about it."""
    text = HARMLESS.sub("", " ".join(re.findall(r"{{(.*?)}}", text, re.DOTALL)))
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text) for name in names)


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    pending = list(read(path) or [])
    while pending:
        task = pending.pop(0)
        yield task
        for key in ("block", "rescue", "always"):
            pending += task.get(key, [])


def leaks(path: Path) -> Iterator[str]:
    """Yield what of a task file would be in a host's journal."""
    for task in tasks(path):
        modules = [key for key in task if key.count(".") == 2 or key in ACTIONS]
        for module in modules:
            arguments = task[module] if isinstance(task[module], dict) else {"": task[module]}
            hidden: set[str] = set()
            if module in ACTIONS:
                arguments, hidden = arguments.get("arguments", arguments), SECRET | {"environment", "configuration"}
            for name, value in arguments.items():
                if holds(str(value), tainted()) and not task.get("no_log") and name not in hidden:
                    yield f"{path.relative_to(ROOT)}: {task['name']}: {module} {name}"


def test_what_is_made_from_a_secret_is_found() -> None:
    assert {"app_secrets", "metrics_password"} <= secret_variables()
    assert {"prometheus_password", "alertmanager.yml.j2", "private.htpasswd.j2", "web.yml.j2"} <= tainted()
    assert not {"app_name", "site.conf.j2", "prometheus.yml.j2", "program.conf.j2"} & tainted()


@pytest.mark.parametrize("path", TASKS, ids=lambda path: "/".join(path.parts[-3:]))
def test_no_task_tells_a_host_a_secret_aloud(path: Path) -> None:
    assert list(leaks(path)) == []


def test_hosts_log_no_arguments() -> None:
    assert re.search(r"^no_target_syslog = true$", (ROOT / "ansible.cfg").read_text(encoding="utf-8"), re.MULTILINE)


def test_a_header_of_the_health_check_is_hidden_where_it_is_a_secret() -> None:
    headers = {"Authorization": "Bearer canary", "X-Probe": "1", "X-Api-Key": "canary"}
    arguments = {"name": "shop", "health": {"path": "/healthz", "headers": headers}, "environment": {"PIP_PASSWORD": "canary"}}
    plain, secret = split(arguments)
    assert ("canary" in str(plain), "'1'" in str(secret)) == (False, False)
    assert merged(plain, secret) == arguments, "the host is told all of it"
    assert split({"health": {"path": "/healthz", "headers": {}}})[1] == {}
