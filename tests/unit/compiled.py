"""Templates that are compiled once: Ansible compiles each anew for each host, and tests work the same ones out for hundreds.

As a program it is ansible-playbook with that. Ansible forks for each host and task: what one process has compiled the others find
in the directory COMPILED.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

# First, since it prepares what the rest of Ansible is imported with.
import ansible.cli.playbook
from ansible._internal._templating import _jinja_bits as bits
from jinja2 import nodes
from jinja2.environment import TemplateExpression

Environment = bits.AnsibleEnvironment
COMPILE, COMPILE_EXPRESSION = Environment.compile, Environment.compile_expression
CODE: dict[tuple[object, ...], CodeType] = {}


def place(environment: Any, kind: str, source: str) -> tuple[object, ...]:
    """Return by what the code of a text is known: all that makes a difference to it."""
    context = bits._TemplateCompileContext.current(optional=True)
    marks = (getattr(environment, name) for name in bits._TEMPLATE_OVERRIDE_FIELD_NAMES)
    return (kind, type(source), source, context and context.escape_backslashes, *marks)


def kept(known: tuple[object, ...], make: Callable[[], CodeType]) -> CodeType:
    """Return what was compiled by this process or another one, or compile it."""
    if known not in CODE:
        folder = os.environ.get("COMPILED")
        file = Path(folder or ".") / hashlib.sha256(repr(known).encode()).hexdigest()
        if folder and file.exists():
            CODE[known] = marshal.loads(file.read_bytes())
        else:
            CODE[known] = make()
            if folder:
                whole = file.with_suffix(f".{os.getpid()}")
                whole.write_bytes(marshal.dumps(CODE[known]))
                whole.rename(file)
    return CODE[known]


def compiled(self: Any, source: str | nodes.Template, *arguments: Any) -> CodeType:
    """Compile a template, or return what was compiled of the same text; keep what is compiled of a parsed expression aside."""
    if isinstance(source, str) and not arguments:
        return kept(place(self, "template", source), lambda: COMPILE(self, source))
    CODE["the last expression",] = COMPILE(self, source, *arguments)
    return CODE["the last expression",]


def compiled_expression(self: Any, source: str, undefined_to_none: bool = True) -> TemplateExpression:
    """Compile an expression, or make it of what was compiled of the same text."""

    def make() -> CodeType:
        COMPILE_EXPRESSION(self, source, undefined_to_none)
        return CODE["the last expression",]

    code = kept(place(self, "expression", source), make)
    return TemplateExpression(self.template_class.from_code(self, code, self.make_globals(None), None), undefined_to_none)


Environment.compile, Environment.compile_expression = compiled, compiled_expression

if __name__ == "__main__":
    ansible.cli.playbook.main(sys.argv)
