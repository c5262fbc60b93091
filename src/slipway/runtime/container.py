"""Run a release in a container, by becoming the engine's client, which hands signals and output on.

With --process NAME it is the container of one of the app's processes. With --check or --shell COMMAND another container does
that, and ends; with --job NAME COMMAND likewise, for a job. --pids prints the first process of each that serves. --remove takes
away what is left of all but those of processes and jobs, --remove-tasks only of those that do not serve either, --end-job NAME
those of a job, and --remove-program PROGRAM those of what Supervisor calls so.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from slipway.runtime import journal
from slipway.runtime.agreement import repository
from slipway.runtime.release import HERE, Release, read

# Of one that takes nobody on any more the client ends within so many seconds.
DEAF_SECONDS = 2.0


class Container:
    """The containers of a release: those that serve, one for each instance, and those of its processes, tasks and jobs.

    Args:
        release: the release.
        directory: where it lies.
        process: the process that the container is for; empty for the web server and for tasks.
    """

    def __init__(self, release: Release, directory: Path, process: str = "") -> None:
        self.release = release
        self.directory = directory
        self.process = process
        self.engine: str = release.container["engine"]
        self.image = f"{repository(release.app)}:{release.build}"
        self.label = f"{release.app}-{release.number}"
        instance = os.environ.get("SLIPWAY_INSTANCE", "")
        # A process outlives its release, which may be activated again meanwhile: only what Supervisor calls it tells it apart.
        program = os.environ.get("SLIPWAY_PROGRAM", "") if process else self.label
        self.name = f"{program}{'.' if process else '-'}{instance}" if instance else program
        self.tag = f"slipway.program={program}" if process else f"slipway.release={self.label}"
        self.memory_mb: int = release.processes[process]["memory_mb"] if process else release.memory_mb

    def options(self) -> list[str]:
        """Return the options that all of them are run with."""
        settings, user = self.release.container, pwd.getpwnam(self.release.user)
        shared = f"{self.release.home}/shared"
        memory = f"{self.memory_mb}m"
        return [
            "--rm",
            "--pull=never",
            f"--label={self.tag}",
            f"--user={user.pw_uid}:{user.pw_gid}",
            "--read-only",
            "--tmpfs=/tmp",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            # With labels of their own, Nginx could not reach the socket.
            "--security-opt=label=disable",
            "--log-driver=none",
            f"--network={settings['network']}",
            *([f"--memory={memory}", f"--memory-swap={memory}"] if self.memory_mb else []),
            *([f"--cpus={settings['cpus']}"] if settings["cpus"] else []),
            f"--volume={self.release.sockets}:{self.release.sockets}",
            f"--volume={self.directory}:{self.directory}:ro",
            f"--volume={shared}:{shared}",
            *settings["options"],
            *(f"--env={name}" for name in os.environ if name.startswith("SLIPWAY_")),
            "--entrypoint=python3",
        ]

    def ask(self, *arguments: str) -> list[str]:
        """Return what the engine answers; nothing where it refuses."""
        done = subprocess.run([self.engine, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.stdout.split() if done.returncode == 0 else []

    def remove(self, *names: str) -> None:
        """Take containers away, also one that still runs."""
        for name in names:
            self.ask("kill", name)
            for _ in range(3):  # of one that nobody looked after, the first attempt only says so
                self.ask("rm", "--force", name)
                if not self.ask("container", "inspect", "--format", "there", name):
                    break
                time.sleep(0.5)

    def state(self) -> str:
        """Return what the container of this instance does; nothing where there is none."""
        return " ".join(self.ask("container", "inspect", "--format", "{{.State.Status}}", self.name))

    def found(self, *labels: str) -> list[str]:
        """Return the containers that have these labels."""
        filters = (f"--filter=label={label}" for label in labels)
        return self.ask("ps", "--all", "--quiet", *filters)

    def pids(self) -> list[str]:
        """Return the first process of each container that serves."""
        return [
            pid
            for name in self.found(self.tag, "slipway.serves=yes")
            for pid in self.ask("inspect", "--format", "{{.State.Pid}}", name)
        ]

    def run(self, *options: str, arguments: list[str]) -> NoReturn:
        """Become the client of a new container, which runs launch.py with `arguments`."""
        launch = [str(self.directory / "launch.py"), *arguments]
        os.execvpe(self.engine, [self.engine, "run", *self.options(), *options, self.image, *launch], os.environ)

    def attend(self) -> None:
        """Be the client of the container that has gone on serving where its client, or Supervisor, was killed.

        Raises:
            SystemExit: when that container ends.
        """
        begin = time.monotonic()
        client = subprocess.Popen([self.engine, "attach", "--no-stdin", self.name])

        def hand_on(number: int, frame: FrameType | None) -> None:
            client.terminate()

        signal.signal(signal.SIGTERM, hand_on)
        code = client.wait()
        # One that runs on, but takes nobody on any more, has lost what looks after it.
        if self.state() != "running" or time.monotonic() - begin > DEAF_SECONDS:
            sys.exit(code)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def serve(self) -> NoReturn:
        """Serve, or be a process of the app, in the container that is there or in a new one."""
        if self.release.log_target == "journald":
            journal.redirect_to_journal(self.release, self.process)
        if self.state() == "running":
            self.attend()
        while self.state():
            self.remove(self.name)
            time.sleep(0.1)
        serves = [] if self.process else ["--label=slipway.serves=yes"]
        self.run(*serves, f"--name={self.name}", arguments=["--process", self.process] if self.process else [])


def main(arguments: list[str]) -> None:
    """Do what `arguments` ask for; serve where there are none."""
    os.environ.setdefault("HOME", "/root")
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin:/bin"
    container = Container(read(), HERE, arguments[1] if arguments[:1] == ["--process"] else "")
    if not arguments or container.process:
        container.serve()
    elif arguments[0] == "--pids":
        print(*container.pids())
    elif arguments[0] == "--remove":
        container.remove(
            *container.found(container.tag, "slipway.serves=yes"), *container.found(container.tag, "slipway.serves=no")
        )
    elif arguments[0] == "--remove-tasks":
        container.remove(*container.found(container.tag, "slipway.serves=no"))
    elif arguments[0] == "--remove-program":
        container.remove(*container.found(f"slipway.program={arguments[1]}"))
    elif arguments[0] == "--end-job":
        container.remove(*container.found(container.tag, "slipway.serves=job", f"slipway.job={arguments[1]}"))
    elif arguments[0] == "--job":
        labels = ("--label=slipway.serves=job", f"--label=slipway.job={arguments[1]}")
        container.run(*labels, arguments=["--shell", *arguments[2:]])
    else:
        # Who types a command hands it input, and sits at a terminal for a shell.
        terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        container.run("--label=slipway.serves=no", "--interactive", *terminal, arguments=arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
