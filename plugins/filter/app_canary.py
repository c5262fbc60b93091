"""Judge a canary: compare what clients got from it with what they got from the other hosts in the same time."""

from __future__ import annotations

from typing import Any

from slipway.controller.canary import verdict

DOCUMENTATION = """
name: app_verdict
short_description: Compare a release on the canaries with the release of the other hosts
options:
  _input: {type: dict, required: true, description: "What the step canary measured, by host."}
  canaries: {type: list, elements: str, required: true, description: "The hosts that have the new release."}
  errors_percent: {type: float, required: true, description: "Percentage points by which its 5xx share may exceed the others'."}
  slower_percent: {type: float, required: true, description: "Percent by which its p95 may exceed the others'."}
"""

EXAMPLES = """
verdict: "{{ measured | app_verdict(['one.example.com'], 1, 50) }}"
"""

RETURN = """
_value: {type: dict, description: "C(promoted), the reason in C(words), and in C(rows) the measurements of each host."}
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"app_verdict": verdict}
