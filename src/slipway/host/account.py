"""See that an app takes over no account and no directory that somebody else made."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re

from slipway.host.errors import ReleaseError

# What systemd makes accounts and directories from, of all apps of this host.
ACCOUNTS = "/etc/sysusers.d/slipway-*.conf"
DIRECTORIES = "/etc/tmpfiles.d/slipway-{}.conf"
PLACES = ("/run", "/var/log")
SHELLS = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")


def made(user: str) -> set[str]:
    """Return the descriptions and homes with which Slipway made an account, for any app; nothing where it made none."""
    found: set[str] = set()
    for file in glob.glob(ACCOUNTS):
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                entry = re.match(rf'u!?\s+{re.escape(user)}\s+\S+\s+"([^"]*)"\s+(\S+)', line)
                found |= set(entry.groups()) if entry else set()
    return found


def stranger(user: str) -> str:
    """Say what an account is that Slipway did not make; nothing where it made it, or where there is none."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return ""
    if {account.pw_gecos, account.pw_dir} & made(user) and account.pw_shell in SHELLS and account.pw_uid:
        return ""
    groups = sorted({grp.getgrgid(number).gr_name for number in os.getgrouplist(user, account.pw_gid) if _is_group(number)})
    return f"home {account.pw_dir}, shell {account.pw_shell}, groups {', '.join(groups) or 'none'}"


def _is_group(number: int) -> bool:
    """Say whether a group has a name."""
    try:
        grp.getgrgid(number)
    except KeyError:
        return False
    return True


def taken(name: str, user: str) -> list[str]:
    """Return the directories of an app's name that are neither its own nor were made for it."""
    found = []
    for parent in PLACES:
        path = os.path.join(parent, name)
        if os.path.lexists(path) and not os.path.exists(DIRECTORIES.format(name)) and not _belongs(path, user):
            found.append(path)
    return found


def _belongs(path: str, user: str) -> bool:
    """Say whether a path is a directory of a user or of a group of its name, as what an interrupted run left is."""
    try:
        account, there = pwd.getpwnam(user), os.lstat(path)
    except KeyError:
        return False
    return os.path.isdir(path) and not os.path.islink(path) and (there.st_uid == account.pw_uid or there.st_gid == account.pw_gid)


def check(name: str, user: str) -> None:
    """Fail if something would be taken over.

    Args:
        name: the app's name.
        user: the user that runs it.

    Raises:
        ReleaseError: when an account or a directory is another's.
    """
    who = stranger(user)
    if who:
        raise ReleaseError(
            f"app_user is {user}, and this host has an account of that name which Slipway did not make: {who}. The app "
            "would have its rights. Nothing was changed. Set app_user to a name that is free here, then run this again."
        )
    others = taken(name, user)
    if others:
        raise ReleaseError(
            f"app_name is {name}, and this host has {' and '.join(others)}, which Slipway did not make. Nothing was changed. "
            "Set app_name to another name; or, where nothing needs it any more, move it away. Then run this again."
        )
