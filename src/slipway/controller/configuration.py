"""Render the configuration files of a role and hand them to the host's program as one change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.template import trust_as_template

from slipway.controller.step import StepAction

# Where the content of a file may come from; an edit has none.
SOURCES = ("content", "template", "copy", "edit")


def contents(
    files: Iterable[Mapping[str, Any]], render: Callable[[str], str], read: Callable[[str], str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the files with their content, and apart from them the content of those that hold a secret, by path.

    Args:
        files: each with one of `SOURCES`.
        render: renders a template of the role.
        read: reads a file of the role.

    Raises:
        AnsibleActionFail: when a file has no source, or more than one.
    """
    found, secrets = [], {}
    for file in files:
        given = [source for source in SOURCES if source in file]
        if len(given) != 1:
            raise AnsibleActionFail(
                f"{file.get('path')} has {' and '.join(given) or 'none'} of {', '.join(SOURCES)}: it needs one."
            )
        entry = {name: value for name, value in file.items() if name not in ("template", "copy")}
        if "template" in file:
            entry["content"] = render(file["template"])
        elif "copy" in file:
            entry["content"] = read(file["copy"])
        if entry.get("group"):
            secrets[entry["path"]] = entry.pop("content")
        found.append(entry)
    return found, secrets


class ConfigurationAction(StepAction):
    """Has the program take the step `configuration`."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the step.

        Raises:
            AnsibleActionFail: when a file has no source, or more than one.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}

        def text(folder: str, name: str) -> str:
            return str(self._loader.get_text_file_contents(self._find_needle(folder, name)))

        def render(name: str) -> str:
            folders = [str(Path(path, "templates")) for path in variables.get("ansible_search_path", [])]
            # A lookup would copy all variables for each template.
            known = {"ansible_managed": "Ansible managed", **variables}
            templar = self._templar.copy_with_new_env(searchpath=folders, available_variables=known)
            rendered = templar.template(trust_as_template(text("templates", name)), escape_backslashes=False)
            return "" if rendered is None else str(rendered)

        arguments = dict(self._task.args)
        files, secrets = contents(arguments["files"], render, lambda name: text("files", name))
        result.update(self.step("configuration", {**arguments, "files": files, "secrets": secrets}, task_vars))
        return result
