"""The steps of a play, which are its roles."""

from __future__ import annotations

from typing import Any


def role_of(task: Any) -> str:
    """Return the role of an Ansible task; empty if it is the playbook's own."""
    return str(task._role.get_name()) if task._role else ""


class Steps:
    """The roles of a play, in order, and which of them have begun."""

    def __init__(self) -> None:
        self.roles: list[str] = []
        self.begun: set[str] = set()

    def begin_play(self, play: Any) -> None:
        """Take the roles of another play, as far as its tags let them run."""
        variables = play.get_variable_manager().get_vars(play=play)
        blocks = [block.filter_tagged_tasks(variables) for block in play.compile()]
        tasks = [task for block in blocks for task in block.get_tasks() if not task.implicit]
        self.roles = list(dict.fromkeys(role_of(task) for task in tasks if role_of(task)))
        self.begun = set()

    def begin(self, role: str) -> str:
        """Return a role with its number among those of the play; empty if it began before, or is the only one."""
        if not role or role in self.begun:
            return ""
        self.begun.add(role)
        if role not in self.roles:  # included on the way
            self.roles.append(role)
        return f"[{self.roles.index(role) + 1}/{len(self.roles)}] {role}" if len(self.roles) > 1 else ""
