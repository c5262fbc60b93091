"""Commands of Ansible in what an operator reads, as they are typed for the inventory at hand."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context

# The project, whose configuration this run has.
ROOT = Path(C.CONFIG_FILE).parent if C.CONFIG_FILE else Path(__file__).resolve().parents[3]
COMMAND = re.compile(
    r"\bansible(?= -m )|(?:\bansible-playbook )?(?<![\w/.-])((?:playbooks/\w+|site)\.yml)(?! -i | --(?:vault|ask)-)"
)
LIMIT = re.compile(r"(?:[^\n.;,]|[.,](?=\S))* (?:-l|--limit)[ =]")

# Nothing that may hold a secret is among these.
PROMPTS = {"ask_pass": "--ask-pass", "become_ask_pass": "--ask-become-pass", "ask_vault_pass": "--ask-vault-pass"}


def near(path: str | Path) -> str:
    """Return a path as it is typed here."""
    return min(str(path), os.path.relpath(path), key=len)


def given_options(_: Any = None) -> list[str]:
    """Return the options of this run that the next command needs, too: where its hosts are, and their vault."""
    given = list(context.CLIARGS.get("inventory") or C.DEFAULT_HOST_LIST)
    options = [] if given == list(C.DEFAULT_HOST_LIST) else [option for path in given for option in ("-i", near(path))]
    for path in context.CLIARGS.get("vault_password_files") or ():
        options += ["--vault-password-file", near(path)]
    for name in context.CLIARGS.get("vault_ids") or ():
        options += ["--vault-id", str(name)]
    return options + [option for name, option in PROMPTS.items() if context.CLIARGS.get(name)]


def as_typed(text: Any) -> Any:
    """Return `text` with each command of Ansible in it as it is to be typed; of a list or a dict each text in it."""
    if isinstance(text, Mapping):
        return {key: as_typed(value) for key, value in text.items()}
    if isinstance(text, Sequence) and not isinstance(text, str):
        return [as_typed(each) for each in text]
    if not isinstance(text, str):
        return text
    options = given_options()
    subset = context.CLIARGS.get("subset")

    def command(found: re.Match[str]) -> str:
        if not found[1]:
            return shlex.join(["ansible", *options])
        limited = LIMIT.match(text, found.end())
        command = ["ansible-playbook", near(ROOT / found[1]), *options, *(["-l", str(subset)] if subset and not limited else [])]
        return shlex.join(command)

    return COMMAND.sub(command, text)


def as_given(value: str, name: str) -> str:
    """Return the value of an extra variable as it was typed: of `-e command="ls -l"` the shell leaves Ansible no quotes to see.

    Args:
        value: what Ansible takes it for.
        name: the variable.
    """
    for text in map(str, context.CLIARGS.get("extra_vars") or ()):
        typed = text.partition("=")[2].strip()
        if text.startswith(f"{name}=") and typed[:1] not in ("'", '"'):
            return typed
    return value


def taking_over(owner: str) -> str:
    """Return the command that does what this run does, though another one has locked the app.

    Args:
        owner: the name of that run.
    """
    given = context.CLIARGS
    playbook = next(iter(given.get("args") or ()), "site.yml")
    limit = ["-l", str(given["subset"])] if given.get("subset") else []
    command = shlex.join(["ansible-playbook", playbook, *given_options(), *limit, "-e", f"app_take_over_lock={owner}"])
    return f"{command}{', with what else was given as -e' if given.get('extra_vars') else ''}"
