"""Refuse bad inventory variables before anything on a host is changed."""

from __future__ import annotations

from slipway.controller.variables.action import ValidateAction

DOCUMENTATION = """
action: validate_variables
short_description: Check the variables of roles
description:
  - Every variable that starts with a role's name must be declared in that role's C(meta/argument_specs.yml).
  - Every declared variable must have its declared type, and one of its declared choices.
  - The rules add what a specification cannot say, such as ranges, and that one variable needs another.
  - All problems are reported at once. Nothing is sent to the host.
options:
  roles:
    description:
      - The roles, by name. They are neighbours of the one that the task belongs to.
      - The rules of a role are its variable C(__<role>_rules), a list.
      - C(__<role>_renamed) is a mapping of old names of variables to new ones, and C(__<role>_renamed_values) has such mappings
        of values, by variable. What is old is refused with the new one.
      - A rule has C(variable), C(that) (one or more conditions) and C(expected) (what it may be, in words).
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Check the variables of the role app
  validate_variables:
    roles: [app]
"""

RETURN = """
msg: {type: list, returned: failure, description: "Each problem, with the file and the line to edit."}
"""


class ActionModule(ValidateAction):
    """The action under its name."""
