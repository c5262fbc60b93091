"""Filters for what an operator reads."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from addresses import addresses
from ansible import context
from as_typed import as_typed
from text_table import text_table

COLUMNS = {"host": "HOST", "app": "APP", "note": "NOTE"}


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    rows = [{"host": "a.example.com", "app": None, "note": "ok"}, {"host": "b", "note": 3}]
    assert text_table(rows, COLUMNS) == ["HOST           NOTE", "a.example.com  ok", "b              3"]
    assert text_table([], COLUMNS) == [""]


def test_wide_letters_take_two_places() -> None:
    rows = [{"host": "主机", "note": "x"}, {"host": "host", "note": "y"}]
    assert text_table(rows, COLUMNS)[1:] == ["主机  x", "host  y"]


def test_names_lead_to_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses("127.0.0.1") == ["127.0.0.1"]
    assert addresses("no-such-name.invalid") == []

    def found(name: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("192.0.2.2", "192.0.2.1", "192.0.2.2")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    assert addresses("shop.example.com") == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize(
    ("given", "text", "typed"),
    [
        ({}, "Ask playbooks/doctor.yml.", "Ask ansible-playbook playbooks/doctor.yml."),
        (
            {"inventory": ["/srv/hosts"]},
            "To go back: playbooks/rollback.yml.",
            "To go back: ansible-playbook playbooks/rollback.yml -i /srv/hosts.",
        ),
        (
            {
                "inventory": ["/srv/my hosts", "/srv/more"],
                "subset": "a,b",
                "ask_vault_pass": True,
                "vault_password_files": ["/srv/key"],
            },
            "ansible-playbook site.yml --tags nginx",
            "ansible-playbook site.yml -i '/srv/my hosts' -i /srv/more --vault-password-file /srv/key --ask-vault-pass -l a,b "
            "--tags nginx",
        ),
        (
            {"inventory": ["/x"], "subset": "a"},
            "playbooks/doctor.yml -l b. See.",
            "ansible-playbook playbooks/doctor.yml -i /x -l b. See.",
        ),
        (
            {"inventory": ["/x"], "subset": "a"},
            "playbooks/deploy.yml -e app_version=1.2 -e to=a,b -l b, or playbooks/doctor.yml. See -l.",
            "ansible-playbook playbooks/deploy.yml -i /x -e app_version=1.2 -e to=a,b -l b, or "
            "ansible-playbook playbooks/doctor.yml -i /x -l a. See -l.",
        ),
        (
            {"vault_password_files": ["/srv/key.txt"], "become_ask_pass": True, "subset": "a"},
            "playbooks/doctor.yml -l b",
            "ansible-playbook playbooks/doctor.yml --vault-password-file /srv/key.txt --ask-become-pass -l b",
        ),
        (
            {"become_ask_pass": True, "subset": "a.example.com"},
            "Ask playbooks/doctor.yml.",
            "Ask ansible-playbook playbooks/doctor.yml --ask-become-pass -l a.example.com.",
        ),
        ({"inventory": ["/x"]}, "ansible -m ping a", "ansible -i /x -m ping a"),
        ({"inventory": ["/x"]}, "systemctl restart nginx; mysite.yml", "systemctl restart nginx; mysite.yml"),
    ],
)
def test_a_command_in_a_text_can_be_typed(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], text: str, typed: str) -> None:
    monkeypatch.setattr(context, "CLIARGS", given)
    monkeypatch.chdir(Path(__file__).parents[2])
    assert as_typed(text) == typed
    assert as_typed(typed) == typed, "and once is enough"
    assert as_typed([{"remedy": text, "count": 3}]) == [{"remedy": typed, "count": 3}]


def test_what_a_task_tells_to_run_can_be_typed() -> None:
    root = Path(__file__).parents[2]
    named = re.compile(r"(?:playbooks/\w+|run site)\.yml|\.table \|")
    # The name of a file of tasks is no command.
    lines = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in [*root.glob("roles/*/tasks/*.yml"), *root.glob("playbooks/**/*.yml")]
        for line in file.read_text(encoding="utf-8").splitlines()
        if named.search(line.partition(" #")[0].removeprefix("#"))
    ]
    assert lines, "there are some"
    assert [line for line in lines if "as_typed" not in line] == []
