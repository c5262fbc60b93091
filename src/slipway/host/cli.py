"""The command `slipway` on a host."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from slipway.host import steps
from slipway.host.configuration import UnknownApp
from slipway.host.errors import ReleaseError
from slipway.host.lock import Locked

MANUAL = """\
Only one change of an app runs at a time: commands and playbooks take the same lock.

exit codes:
  0  success; status, doctor: everything is healthy
  1  failure, and the live release is unchanged; status: an app is unhealthy; doctor: there is an error
  2  unknown command or app, or not run as root
  3  the app is locked
  run, shell: the exit code of the command
"""

COMPLETION = """\
_slipway() {
    local commands="COMMANDS"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "$commands" -- "${COMP_WORDS[1]}"))
    elif [ "${COMP_WORDS[COMP_CWORD]:0:1}" = - ]; then
        COMPREPLY=($(compgen -W "--help --json" -- "${COMP_WORDS[COMP_CWORD]}"))
    else
        COMPREPLY=($(compgen -W "$(cd /opt && ls -d */releases 2>/dev/null | cut -d/ -f1)" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _slipway slipway
"""


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(
        prog="slipway", description="Manage the apps that Slipway serves on this host.", epilog=MANUAL, formatter_class=raw
    )
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, app: str = "", as_json: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=MANUAL, formatter_class=raw
        )
        if app:
            made.add_argument("app", metavar="APP", nargs=app if app == "?" else None, help="the app's name")
        if as_json:
            made.add_argument("--json", action="store_true", help="print JSON")
        return made

    command("status", "show the live release of each app and its health", "?")
    command("releases", "list the releases of an app", "one")
    back = command("rollback", "roll an app back to an earlier release", "one")
    back.add_argument("--to", default="", metavar="N", help="release number (default: the last good release before the live one)")
    back.add_argument(
        "--settings", choices=["original", "current"], help="run it with its original settings, or with the current ones"
    )
    back.add_argument("--across-migrations", action="store_true", help="allow a release made for another database schema")
    back.add_argument("--check", action="store_true", help="dry run: report what would be done, change nothing")
    logs = command("logs", "show the logs of an app, its server and Nginx", "one")
    logs.add_argument("-n", "--lines", type=int, default=20, help="lines per log (default: 20)")
    logs.add_argument("--grep", default="", metavar="REGEX", help="only lines that match this regular expression")
    logs.add_argument("-f", "--follow", action="store_true", help="follow the logs")
    run = command("run", "run a command in the environment and as the user of an app's live release", "one", as_json=False)
    run.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command; secrets are masked in its output"
    )
    run.add_argument("--job", default="", metavar="NAME", help="run a job of app_jobs now instead, and follow its log")
    command("jobs", "list the jobs of an app, with the last result and the next time of each", "one")
    command("backup", "back up an app now", "one")
    command("drill", "restore the newest backup of an app beside what is live, try it, and remove it again", "one")
    command("backups", "list the backups of an app; to restore one: playbooks/restore.yml", "one")
    command("shell", "open a shell in the environment and as the user of an app's live release", "one", as_json=False)
    command("doctor", "diagnose this host and its apps, and show how to fix each finding", "?")
    lock = command("lock", "lock an app, so that nobody else can change it", "one")
    lock.add_argument("--minutes", type=int, default=60, help="duration of the lock in minutes (default: 60)")
    command("unlock", "unlock an app, whoever locked it", "one")
    command("completion", "print the bash completion: source <(slipway completion)", as_json=False)
    step = command("step", "run a step of a playbook; reads its arguments as JSON from standard input", as_json=False)
    step.add_argument("name", choices=sorted(steps.STEPS), metavar="STEP", help=", ".join(sorted(steps.STEPS)))
    step.add_argument("--check", action="store_true", help="dry run: report what it would do, change nothing")
    text = "first install this program to FILE, whose directory is named after its version, and link LINK to it"
    step.add_argument("--install", nargs=2, metavar=("FILE", "LINK"), help=text)
    job = command(
        "job", "run a job, as its service of systemd does; to run one now: slipway run APP --job NAME", "one", as_json=False
    )
    job.add_argument("name", metavar="NAME", help="the job's name")
    job.add_argument("--ended", action="store_true", help="write down what became of it, from the environment of ExecStopPost=")
    command("haproxy-state", "save the state of HAProxy's backends, before HAProxy is reloaded or stopped", as_json=False)
    exporter = command("exporter", "write a Prometheus metrics file periodically", as_json=False)
    exporter.add_argument("settings", help="settings file (JSON)")
    return found


def job_and_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the job that the arguments of `run` name after the app, empty for none, and the rest of them."""
    if arguments[:1] == ["--job"] and len(arguments) > 1:
        return arguments[1], arguments[2:]
    if arguments and arguments[0].startswith("--job="):
        return arguments[0].partition("=")[2], arguments[1:]
    return "", arguments


def is_root() -> bool:
    """Say whether this has root's rights, which all that is looked at needs."""
    return os.geteuid() == 0


def do(given: argparse.Namespace) -> int:
    """Do what the command line says, and return the exit code.

    Raises:
        ReleaseError: when it cannot be done.
        OSError: when a file cannot be read or written.
    """
    if given.command == "step":
        return steps.main(given.name, given.check, given.install)
    if given.command == "exporter":
        from slipway.host import exporter  # needs a package that only hosts with monitoring have

        exporter.main(given.settings)
        return 0
    if given.command == "haproxy-state":
        from slipway.host import haproxy

        print(haproxy.save_state() or f"The state of the backends was saved to {haproxy.STATE_FILE}.")
        return 0  # else systemd would not reload HAProxy
    if given.command == "job":
        from slipway.host.jobs import runner

        if "INVOCATION_ID" not in os.environ:  # only systemd keeps it from running twice at once
            raise ReleaseError(f"This is for systemd. To run the job now: slipway run {given.app} --job {given.name}")
        return runner.end_job(given.app, given.name, os.environ) if given.ended else runner.run_job(given.app, given.name)
    if given.command in ("backup", "backups", "drill"):
        from slipway.host.backup import by_hand as backups

        actions = {"backup": backups.back_up_now, "backups": backups.show_backups, "drill": backups.drill_now}
        return actions[given.command](given.app, given.json)
    from slipway.host import operator  # most of the program, which a step need not read
    from slipway.host.jobs import by_hand

    settings = getattr(given, "settings", None)
    arguments = (
        given.arguments[1:] if given.command == "run" and given.arguments[:1] == ["--"] else getattr(given, "arguments", [])
    )
    return {
        "status": lambda: operator.show_status(given.app, given.json),
        "releases": lambda: operator.show_releases(given.app, given.json),
        "rollback": lambda: operator.roll_back(given.app, given.to, settings, given.across_migrations, given.check, given.json),
        "logs": lambda: operator.show_logs(given.app, given.lines, given.grep, given.follow, given.json),
        "run": lambda: (
            by_hand.run_now(given.app, given.job, operator.me(), lambda line: print(line, flush=True))
            if given.job
            else operator.run_command(given.app, arguments)
        ),
        "jobs": lambda: by_hand.show_jobs(given.app, given.json),
        "shell": lambda: operator.open_shell(given.app),
        "doctor": lambda: operator.examine(given.app, given.json),
        "lock": lambda: operator.lock_app(given.app, given.minutes, given.json),
        "unlock": lambda: operator.unlock_app(given.app, given.json),
    }[given.command]()


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    reader = parser()
    given = reader.parse_args(arguments)
    if given.command == "completion":
        names = next(action.choices for action in reader._actions if action.choices)
        print(COMPLETION.replace("COMMANDS", " ".join(names)), end="")
        return 0
    if given.command == "run" and not given.job:  # what follows the app's name is the command, for argparse
        given.job, given.arguments = job_and_command(given.arguments)
    if given.command == "run" and bool(given.job) == bool([argument for argument in given.arguments if argument != "--"]):
        reader.error("run needs a command, such as: slipway run APP -- python -m app.tasks; or a job: slipway run APP --job NAME")
    if given.command not in ("step", "exporter") and not is_root():
        print(f"This must be run as root: sudo slipway {' '.join(arguments or sys.argv[1:])}", file=sys.stderr)
        return 2
    try:
        return do(given)
    except Locked as error:
        print(error, file=sys.stderr)
        return 3
    except (ReleaseError, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UnknownApp) else 1
    except KeyboardInterrupt:
        return 130
