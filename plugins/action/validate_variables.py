"""Refuse bad inventory variables before anything on a host is changed."""

from __future__ import annotations

import datetime
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import BOOLEANS
from ansible.plugins.action import ActionBase

DOCUMENTATION = """
action: validate_variables
short_description: Check the variables of roles
description:
  - Every variable that starts with a role's name must be declared in that role's C(meta/argument_specs.yml).
  - Every declared variable must have its declared type, and one of its declared choices.
  - The rules add what a specification cannot say, such as ranges, and that one variable needs another.
  - All problems are reported at once. Nothing is sent to the host.
options:
  rules:
    description:
      - For each role its rules, by its name. The roles are neighbours of the one that the task belongs to.
      - A rule has C(variable), C(that) (one or more conditions) and C(expected) (what it may be, in words).
    type: dict
    required: true
"""

EXAMPLES = """
- name: Check the variables of the role app
  validate_variables:
    rules: {app: [{variable: app_keep_releases, that: "app_keep_releases | int > 0", expected: at least 1}]}
"""

RETURN = """
msg: {type: list, returned: failure, description: "Each problem, with the file and the line to edit."}
"""

# What an operator reads where the specification says the word on the left.
TYPE_NAMES = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number such as 1.5",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping of names to values",
}

# What texts and numbers may look like. A number with a leading zero means something else to half of all programs.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LONGEST = 4096
PATH = re.compile(r"/[A-Za-z0-9._@+/-]+")
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(WHOLE.pattern + r"(\.[0-9]{1,9})?")

# Ansible's own, which share their beginning with the role `inventory`.
MAGIC = {"inventory_dir", "inventory_file", "inventory_hostname", "inventory_hostname_short"}

# How alike two names must be, from 0 to 1, for one to count as the other misspelt.
ALIKE = 0.88


def type_problem(value: Any, spec: Mapping[str, Any]) -> str | None:
    """Say what `value` must be, where it does not fit the option `spec` of an argument specification.

    Ansible's own check converts what it can, so that a list passes as text; this one takes a value as it stands.
    Text that holds a number or a truth value is taken for one, since `-e` hands over nothing but text.

    Returns:
        What the value must be, in words; None when it fits.
    """
    kind = spec.get("type", "str")
    expected = TYPE_NAMES.get(kind, kind)
    if value is None:
        return f"{expected}, and it is empty"
    if kind in ("str", "path") and isinstance(value, (bool, int, float, datetime.date)):
        return f"{expected}: put it in quotes"
    fits = {
        "str": lambda: isinstance(value, str),
        "path": lambda: isinstance(value, str),
        "int": lambda: not isinstance(value, bool) and WHOLE.fullmatch(str(value)) is not None,
        "float": lambda: not isinstance(value, bool) and DECIMAL.fullmatch(str(value)) is not None,
        "bool": lambda: (
            (value.lower() if isinstance(value, str) else value) in BOOLEANS if isinstance(value, (str, int)) else False
        ),
        "list": lambda: isinstance(value, list),
        "dict": lambda: isinstance(value, Mapping),
        "raw": lambda: True,
    }
    if not fits[kind]():
        return expected
    if kind == "path" and (not PATH.fullmatch(value) or ".." in value.split("/")):
        return "an absolute path of letters, digits and . _ @ + - /"
    choices = spec.get("choices")
    if choices and value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), n=1)
        return f"one of {', '.join(map(str, choices))}" + (f" (did you mean {near[0]}?)" if near else "")
    if kind == "list" and "elements" in spec:
        for element in value:
            problem = type_problem(element, {"type": spec["elements"]})
            if problem:
                return f"{expected}; each element must be {problem}"
    return None


def fits_one_line(value: Any) -> bool:
    """Say whether a text, and each text of a list, is short and free of control characters; other values always are."""
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    return all(len(text) <= LONGEST and not CONTROL.search(text) for text in texts)


def follows(raw: Any, names: Iterable[str]) -> bool:
    """Say whether `raw` is a default that is made from the variables `names`, whose own faults are told where they are."""
    return isinstance(raw, (str, Mapping)) and "{{" in str(raw) and _in_a_role(raw) and mentions(raw, names)


def mentions(expression: Any, names: Iterable[str]) -> bool:
    """Say whether an expression holds one of some names."""
    return any(re.search(rf"\b{name}\b", str(expression)) for name in names)


def misspelt(names: Iterable[str], prefix: str, declared: Iterable[str]) -> dict[str, str | None]:
    """Find variables that no role declares but that were meant for the role `prefix`.

    Args:
        names: the names of all variables of a host.
        prefix: the role's name.
        declared: the names that the role declares.

    Returns:
        Each such name with the declared name that it resembles most, or None where it resembles none.
    """
    known = sorted(declared)
    found: dict[str, str | None] = {}
    for name in sorted(set(names) - set(known) - MAGIC):
        if name.startswith(f"{prefix}_"):
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.77)
            found[name] = near[0] if near else None
        elif not name.startswith(("ansible_", "_", "inventory_", "group", "hostvars", "playbook_", "role_")):
            near = [each for each in known if _swapped(name.lower(), each)]
            near = near or difflib.get_close_matches(name.lower(), known, n=1, cutoff=ALIKE)
            # python_minimum is no slip of the pen for app_python_minimum.
            if near and not (near[0].endswith(f"_{name}") or name.endswith(f"_{near[0]}")):
                found[name] = near[0]
    return found


def _swapped(one: str, other: str) -> bool:
    """Say whether two names differ by nothing but two neighbouring letters in each other's place."""
    places = [place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    return (
        len(one) == len(other)
        and len(places) == 2
        and places[1] == places[0] + 1
        and one[places[0]] == other[places[1]]
        and one[places[1]] == other[places[0]]
    )


def shown(value: Any, spec: Mapping[str, Any]) -> str:
    """Quote `value` for a message, or hide it where `spec` marks it as secret. At most 80 characters."""
    if spec.get("no_log"):
        return "not shown, since it is secret"
    text = re.sub(r"//[^/@\s]+@", "//***@", repr(str(value)) if isinstance(value, str) else str(value))
    text = text.split("\\n")[0]  # no more of what may be a key
    return text if len(text) <= 80 else f"{text[:77]}..."


def where(name: str, value: Any, variables: Mapping[str, Any]) -> str:
    """Name the file, and where it is known the line, in which an operator changes the variable `name`."""
    origin = _origin(value)
    if origin is not None and origin.path and not _in_a_role(value):
        line = f":{origin.line_num}" if origin.line_num else ""
        return f"{os.path.relpath(origin.path)}{line}"
    if origin is not None and origin.description:
        return str(origin.description)
    inventory = Path(variables.get("inventory_dir") or ".")
    host = variables["inventory_hostname"]
    places = [f"host_vars/{host}", *(f"group_vars/{group}" for group in (*variables.get("group_names", ()), "all"))]
    for place in places:
        for file in (*inventory.glob(f"{place}.y*ml"), *inventory.glob(f"{place}/*")):
            for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                if re.match(rf"\s*{re.escape(name)}\s*:", text):
                    return f"{os.path.relpath(file)}:{number}"
    return f"{os.path.relpath(inventory / 'host_vars' / f'{host}.yml')}"


def _origin(value: Any) -> Any:
    """Return what ansible-core remembers of where a value was written; None where it does not."""
    try:
        from ansible._internal._datatag._tags import Origin  # not public: a later core may move it
    except ImportError:
        return None
    return Origin.get_tag(value)


def _in_a_role(value: Any) -> bool:
    """Say whether a value is a role's own default."""
    origin = _origin(value)
    return origin is not None and re.search(r"/roles/[^/]+/(defaults|vars)/", origin.path or "") is not None


class ActionModule(ActionBase):
    """Check the variables of roles, on the controller."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("rules",))

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
        declared = _declared(roles)
        problems: list[str] = []
        wrong: set[str] = set()
        for role, rules in self._task.args["rules"].items():
            specs = _options(roles / role / "meta" / "argument_specs.yml")
            problems += self._problems(role, specs, rules, variables, known, declared, wrong)
        if problems:
            host = variables["inventory_hostname"]
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            result.update(
                failed=True,
                msg="\n".join([f"{host}: {count} in the inventory. Nothing was changed.", *problems]),
            )
        return result

    def _problems(
        self,
        role: str,
        specs: Mapping[str, Any],
        rules: list[dict[str, Any]],
        variables: Mapping[str, Any],
        known: dict[str, Any],
        declared: set[str],
        wrong: set[str],
    ) -> list[str]:
        """Return what is wrong with the variables of one role, and where to edit each.

        Args:
            role: its name.
            specs: its options.
            rules: what they must be besides.
            variables: all variables of the host, as they stand in files.
            known: the same for templates; this puts there what it has worked out.
            declared: the names of the options of all roles.
            wrong: the names of variables that were found to be wrong, or are made from one; this adds to it.
        """
        problems: list[str] = []
        faulty: set[str] = set()
        unsound = set(wrong)

        def report(name: str, text: str, value: Any = None) -> None:
            faulty.add(name)
            wrong.add(name)
            problems.append(f"{text}\n  Edit {where(name, value, variables)}")

        # What another role declares is no slip of the pen, and alike names are looked for at length.
        for name, near in misspelt(variables.keys() - (declared - specs.keys()), role, specs).items():
            hint = f"did you mean {near}?" if near else "ansible-doc -t role lists the variables that exist"
            report(name, f"{name} is not a variable of Slipway: {hint}", variables[name])

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
            try:
                values[name] = known[name] = self._templar.template(raw)
            except Exception as error:
                why = "it is secret, so the reason is not shown" if spec.get("no_log") else str(error)
                if name not in faulty:
                    report(name, f"{name} cannot be worked out: {why}", raw)
                continue
            problem = type_problem(values[name], spec)
            if problem and name not in faulty:
                report(name, f"{name} is {shown(values[name], spec)}; it must be {problem}.", raw)

        ruled = set()
        for rule in rules:
            name = rule["variable"]
            ruled.add(name)
            conditions = rule["that"] if isinstance(rule["that"], list) else [rule["that"]]
            # What needs a variable of another role that is wrong cannot be judged.
            if name in faulty or any(mentions(condition, unsound) for condition in conditions):
                continue
            if not fits_one_line(values.get(name)) or not all(self._holds(condition) for condition in conditions):
                text = f"{name} is {shown(values.get(name), specs.get(name, {}))}; it must be {rule['expected']}."
                report(name, f"{text}{self._reason(rule.get('because'))}", variables.get(name))
        for name in sorted(values.keys() - ruled - faulty):
            if not fits_one_line(values[name]):
                text = f"on one line, without control characters, of at most {LONGEST} characters"
                report(name, f"{name} is {shown(values[name], specs[name])}; it must be {text}.", variables.get(name))
        wrong |= unsound
        return problems

    def _reason(self, expression: Any) -> str:
        """Work out what else there is to say of a value that breaks a rule; nothing where there is no such expression."""
        said = self._templar.evaluate_expression(expression) if expression else ""
        return f" {said}." if said else ""

    def _holds(self, condition: Any) -> bool:
        """Evaluate one condition; one that cannot be evaluated does not hold."""
        try:
            return bool(self._templar.evaluate_conditional(conditional=condition))
        except Exception:
            return False


def _declared(roles: Path) -> set[str]:
    """Return the names of all variables that the roles in a directory declare."""
    names: set[str] = set()
    for file in roles.glob("*/meta/argument_specs.yml"):
        names |= set(_options(file))
    return names


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
