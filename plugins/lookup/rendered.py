"""The text of a template, at a fraction of what ansible.builtin.template's lookup costs the controller."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup.template import LookupModule as Template

DOCUMENTATION = """
name: rendered
short_description: The text that a template gives
description:
  - What P(ansible.builtin.template#lookup) gives. That one copies each variable of the host first, with all that is in it,
    which takes most of its time. Here the names alone are copied.
options:
  _terms: {type: list, elements: str, required: true, description: Files in the folder templates.}
  template_vars: {type: dict, default: {}, description: More variables.}
  variable_start_string: {type: str, default: "{{", description: What begins an expression.}
  variable_end_string: {type: str, default: "}}", description: What ends it.}
  comment_start_string: {type: str, default: "{#", description: What begins a comment.}
  comment_end_string: {type: str, default: "#}", description: What ends it.}
  trim_blocks: {type: bool, default: true, description: Whether the end of line after a block is left out.}
"""


class Variables(dict[str, Any]):
    """Variables that are there to be read: a copy of them has the same values."""

    def __deepcopy__(self, _memo: dict[int, Any]) -> dict[str, Any]:
        """Return a copy to which names can be added."""
        return dict(self)


class LookupModule(Template):
    """The lookup of a template with variables that are not copied."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Return the text of each template."""
        texts: list[str] = super().run(terms, Variables(variables or {}), **options)
        return texts
