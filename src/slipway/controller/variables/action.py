"""Refuse bad variables before anything on a host is changed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import is_trusted_as_template, trust_as_template

from slipway.controller.variables.names import mentions, misspelt, renamed_error, words
from slipway.controller.variables.origin import follows, in_a_role, where
from slipway.controller.variables.types import LONGEST, fits_one_line, type_error


def shown(value: Any, spec: Mapping[str, Any]) -> str:
    """Quote `value` for a message, or hide it where `spec` marks it as secret. At most 80 characters."""
    if spec.get("no_log"):
        return "not shown because it is secret"
    text = re.sub(r"//[^/@\s]+@", "//***@", repr(str(value)) if isinstance(value, str) else str(value))
    text = text.split("\\n")[0]  # no more of what may be a key
    return text if len(text) <= 80 else f"{text[:77]}..."


class ValidateAction(ActionBase):
    """Check the variables of roles, on the controller."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("roles",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a failed result that lists every problem, or an unchanged one.

        Raises:
            AnsibleError: when the task does not belong to a role.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task._role is None:
            raise AnsibleError("validate_variables finds roles beside the one that its task belongs to: use it in a role's tasks")
        # What is worked out once stays so: Ansible works a variable out anew each time that another one names it.
        self._templar.available_variables = known = dict(variables)
        roles = Path(self._task._role._role_path).parent
        self.prepared: set[str] = set()
        # An old name is refused below, and is no misspelling.
        renamed = {old for role in self._task.args["roles"] for old in variables.get(f"__{role}_renamed", {})}
        declared = _declared(roles) | renamed
        errors: list[str] = []
        invalid: set[str] = set()
        for role in self._task.args["roles"]:
            specs = _options(roles / role / "meta" / "argument_specs.yml")
            # As they stand in their file: to work them all out would take longer than to apply them.
            rules = variables[f"__{role}_rules"]
            errors += self._errors(role, specs, rules, variables, known, declared, invalid)
        if errors:
            host = variables["inventory_hostname"]
            count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
            result.update(
                failed=True,
                msg="\n".join([f"{host}: {count} in the inventory. Nothing was changed.", *errors]),
            )
        return result

    def _errors(
        self,
        role: str,
        specs: Mapping[str, Any],
        rules: list[dict[str, Any]],
        variables: Mapping[str, Any],
        known: dict[str, Any],
        declared: set[str],
        invalid: set[str],
    ) -> list[str]:
        """Return what is wrong with the variables of one role, and where to edit each.

        Args:
            role: its name.
            specs: its options.
            rules: what they must be besides.
            variables: all variables of the host, as they stand in files.
            known: the same for templates; this puts there what it has worked out.
            declared: the names of the options of all roles, old ones included.
            invalid: the names of variables that were found to be wrong, or are made from one; this adds to it.
        """
        errors: list[str] = []
        faulty: set[str] = set()
        unsound = set(invalid)

        def report(name: str, text: str, value: Any = None) -> None:
            faulty.add(name)
            invalid.add(name)
            errors.append(f"{text}\n  Edit {where(name, value, variables)}")

        # What another role declares is no slip of the pen, and alike names are looked for at length.
        for name, near in misspelt(variables.keys() - (declared - specs.keys()), role, specs).items():
            hint = f"did you mean {near}?" if near else "ansible-doc -t role lists the variables that exist"
            report(name, f"{name} is not a Slipway variable: {hint}", variables[name])

        old_values = variables.get(f"__{role}_renamed_values", {})
        for name, new in variables.get(f"__{role}_renamed", {}).items():
            if name in variables:
                report(name, renamed_error(name, new, variables[name], old_values.get(new, {})), variables[name])

        values: dict[str, Any] = {}
        for name, spec in specs.items():
            raw = variables.get(name)
            if follows(raw, declared - {name}):
                faulty.add(name)  # judged is what it is made from
                if mentions(raw, unsound):
                    unsound.add(name)
            if name not in variables:
                if spec.get("required"):
                    report(name, f"{name} is missing. It is {_sentence(spec)}")
                continue
            self._prepare(raw, variables, known)
            try:
                # No template stands for itself once it is worked out.
                values[name] = known[name] if name in self.prepared and known[name] is not raw else self._templar.template(raw)
                known[name] = values[name]
            except Exception as error:
                why = "it is secret, so the reason is not shown" if spec.get("no_log") else str(error)
                if name not in faulty:
                    report(name, f"{name} cannot be evaluated: {why}", raw)
                continue
            mismatch = type_error(values[name], spec, old_values.get(name, {}))
            if mismatch and name not in faulty:
                report(name, f"{name} is {shown(values[name], spec)}; it must be {mismatch}.", raw)

        ruled = {rule["variable"] for rule in rules}
        # What needs a variable of another role that is wrong cannot be judged.
        judged = [
            rule
            for rule in rules
            if rule["variable"] not in faulty and not any(mentions(condition, unsound) for condition in _conditions(rule))
        ]
        # Which of them is broken is asked where one is.
        good = self._all_satisfied(judged)
        for rule in judged:
            name = rule["variable"]
            if name in faulty:
                continue
            if not fits_one_line(values.get(name)) or not (good or all(map(self._satisfied, _conditions(rule)))):
                expected = self._templar.template(rule["expected"])
                text = f"{name} is {shown(values.get(name), specs.get(name, {}))}; it must be {expected}."
                report(name, f"{text}{self._reason(rule.get('because'))}", variables.get(name))
        for name in sorted(values.keys() - ruled - faulty):
            if not fits_one_line(values[name]):
                text = f"on one line, without control characters, of at most {LONGEST} characters"
                report(name, f"{name} is {shown(values[name], specs[name])}; it must be {text}.", variables.get(name))
        invalid |= unsound
        return errors

    def _prepare(self, value: Any, variables: Mapping[str, Any], known: dict[str, Any]) -> None:
        """Work out once what roles say that a value is made from, and not anew for each value that names it.

        Args:
            value: the value, as it stands in its file.
            variables: all variables of the host, as they stand in files.
            known: the same for templates; this puts there what it has worked out.
        """
        if not isinstance(value, (str, Mapping)) or "{{" not in str(value):
            return
        for name in sorted((words(value) & variables.keys()) - self.prepared):
            self.prepared.add(name)
            raw = variables[name]
            if isinstance(raw, str) and "{{" in raw and in_a_role(raw):
                self._prepare(raw, variables, known)
                with contextlib.suppress(Exception):  # what needs it says why
                    known[name] = self._templar.template(raw)

    def _reason(self, expression: Any) -> str:
        """Work out what else there is to say of a value that breaks a rule; nothing where there is no such expression."""
        try:
            text = self._templar.evaluate_expression(expression) if expression else ""
        except Exception:  # of what it is worked out from, something is wrong itself
            text = ""
        return f" {text}." if text else ""

    def _all_satisfied(self, rules: list[dict[str, Any]]) -> bool:
        """Evaluate the conditions of rules as one expression, in much less time; False where that cannot be done."""
        conditions = [condition for rule in rules for condition in _conditions(rule)]
        if not all(isinstance(condition, str) and is_trusted_as_template(condition) for condition in conditions):
            return False
        # A rule's later conditions rest on the earlier ones. As conditions of their own they have to be true or false.
        each = [" and ".join(f"({condition}) is true" for condition in _conditions(rule)) for rule in rules]
        try:
            return all(self._templar.evaluate_expression(trust_as_template(f"[{', '.join(each)}]"), escape_backslashes=False))
        except Exception:
            return False

    def _satisfied(self, condition: Any) -> bool:
        """Evaluate one condition; one that cannot be evaluated does not hold."""
        try:
            return bool(self._templar.evaluate_conditional(conditional=condition))
        except Exception:
            return False


def _conditions(rule: Mapping[str, Any]) -> list[Any]:
    """Return what must hold for a rule."""
    return rule["that"] if isinstance(rule["that"], list) else [rule["that"]]


def _declared(roles: Path) -> set[str]:
    """Return the names of all variables that the roles in a directory declare."""
    names: set[str] = set()
    for file in roles.glob("*/meta/argument_specs.yml"):
        names |= set(_options(file))
    return names


@cache
def _options(file: Path) -> dict[str, Any]:
    """Return the options in a file of argument specifications."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is
    options: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)["argument_specs"]["main"]["options"]
    return options


def _sentence(spec: Mapping[str, Any]) -> str:
    """Return the first sentence of an option's description, to stand after 'It is'."""
    description = spec["description"]
    first = str(description[0] if isinstance(description, list) else description)
    return first[0].lower() + first[1:]
