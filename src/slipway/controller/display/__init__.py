"""What a run of ansible-playbook shows beside Ansible's own output: steps, late hosts, a table, and the command to run next."""

from __future__ import annotations

from slipway.controller.display.callback import RunCallback

__all__ = ["RunCallback"]
