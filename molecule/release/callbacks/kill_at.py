"""Kill ansible-playbook after one of its tasks, or a moment into one, as a loss of power would."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_at
type: aggregate
short_description: Kill ansible-playbook after a task
description:
  - E(KILL_AT) is the number of the task before which it dies, 0 for none; E(KILL_AFTER) how many seconds later.
"""


class CallbackModule(CallbackBase):
    """Counts tasks as they begin."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_at"

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Kill this process where it was asked for."""
        self.begun += 1
        print(f"BEGUN {self.begun} {task.get_name()}", flush=True)
        if self.begun == int(os.environ["KILL_AT"]):
            seconds = float(os.environ.get("KILL_AFTER", "0"))
            if seconds:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)
