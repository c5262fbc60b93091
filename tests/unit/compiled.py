"""Templates that are compiled once: Ansible compiles each anew for each host, and tests work the same ones out for hundreds.

As a program it is ansible-playbook with that. Ansible forks for each host: the first task is worked out for its first host
before, and all others find what that has compiled.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

# First, since it prepares what the rest of Ansible is imported with.
import ansible.cli.playbook
from ansible._internal import _task
from ansible._internal._templating import _jinja_bits as bits
from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_executor import TaskExecutor
from jinja2 import nodes
from jinja2.environment import TemplateExpression

Environment = bits.AnsibleEnvironment
COMPILE, COMPILE_EXPRESSION, START = Environment.compile, Environment.compile_expression, WorkerProcess.start
CODE: dict[tuple[object, ...], CodeType] = {}


def place(environment: Any, kind: str, source: str) -> tuple[object, ...]:
    """Return by what the code of a text is known: all that makes a difference to it."""
    context = bits._TemplateCompileContext.current(optional=True)
    marks = (getattr(environment, name) for name in bits._TEMPLATE_OVERRIDE_FIELD_NAMES)
    return (kind, type(source), source, context and context.escape_backslashes, *marks)


def compiled(self: Any, source: str | nodes.Template, *arguments: Any) -> CodeType:
    """Compile a template, or return what was compiled of the same text; keep what is compiled of a parsed expression aside."""
    known = place(self, "template", source) if isinstance(source, str) and not arguments else ("the last expression",)
    if known not in CODE or not isinstance(source, str) or arguments:
        CODE[known] = COMPILE(self, source, *arguments)
    return CODE[known]


def compiled_expression(self: Any, source: str, undefined_to_none: bool = True) -> TemplateExpression:
    """Compile an expression, or make it of what was compiled of the same text."""
    known = place(self, "expression", source)
    if known not in CODE:
        expression = COMPILE_EXPRESSION(self, source, undefined_to_none)
        CODE[known] = CODE["the last expression",]
        return expression
    return TemplateExpression(self.template_class.from_code(self, CODE[known], self.make_globals(None), None), undefined_to_none)


def started(self: Any) -> None:
    """Start the process of a task for a host, the first one after it was worked out here."""
    WorkerProcess.start = START
    with _task.TaskContext.create(task=self._task.copy(), task_vars=self._task_vars, host_name=self._host.name):
        TaskExecutor(
            self._host, self._play_context, self._loader, self._shared_loader_obj, self._final_q, self._variable_manager
        ).run()
    START(self)


Environment.compile, Environment.compile_expression = compiled, compiled_expression

if __name__ == "__main__":
    WorkerProcess.start = started
    ansible.cli.playbook.main(sys.argv)
