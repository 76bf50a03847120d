"""Who may enter a session's directory: the broker, whose it is, and the user whose job it is; nobody else.

The broker is no root, so it cannot give files away. The session's directory is a door: mode 0700, and opened to one
more user by an access control list (``acl``), or to a group (``group``). Behind the door the directories that a job may
write to are open to all, because nobody knows who a container's user will be. What the job makes there is the user's;
default access control lists, or the directories' group, let the broker read it and take it away in the end.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from ebhpc.batch.directory import SessionDirectory
from ebhpc.batch.settings import JobSettings


class AccessFailed(Exception):
    """The directory cannot be opened to the user; the text says why."""


class Account(Struct, frozen=True, kw_only=True):
    """A Unix user that jobs run as: name and number."""

    name: str
    uid: int


def unix_account(name: str | None) -> Account:
    """Return the account of a name; None: the one that we run as.

    Raises:
        KeyError: this host has no such user.
    """
    entry = pwd.getpwnam(name) if name is not None else pwd.getpwuid(os.geteuid())
    return Account(name=entry.pw_name, uid=entry.pw_uid)


def umask(settings: JobSettings) -> int:
    """Return the umask of jobs: with a group between them, the broker needs its bits."""
    return 0o077 if settings.access == "own" else 0o007


def make_door(directory: SessionDirectory) -> None:
    """Make the session's directory and those above it. Safe to repeat: a door that was opened stays open."""
    root = directory.path.parent.parent
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.path.parent.mkdir(exist_ok=True)
    directory.path.parent.chmod(0o711)
    directory.path.mkdir(mode=0o700, exist_ok=True)


def arrange(
    directory: SessionDirectory, settings: JobSettings, account: Account, writable: Iterable[Path], shut: Iterable[Path]
) -> None:
    """Say what the job may write to behind the door (``writable``), and what it may only read (``shut``).

    Only while the door is shut: afterwards somebody else might change what we look at.

    Raises:
        AccessFailed: the file system, or the name service, does not do it.
    """
    for one in shut:
        for path in reversed(list(_tree(one))):
            path.chmod(0o555 if path.is_dir() else 0o444)
    if _is_our_own(settings, account):
        return
    group = shared_group(settings, account) if settings.access == "group" else None
    for one in writable:
        for path in _tree(one):
            if group is not None:
                os.chown(path, -1, group)
            path.chmod((0o777 if group is None else 0o2777) if path.is_dir() else 0o666)
        if group is None:
            users = f"d:u:{account.uid}:rwx,d:u:{os.geteuid()}:rwx"
            _setfacl(f"{users},d:g::rwx,d:m::rwx,d:o::rwx", [path for path in _tree(one) if path.is_dir()])
    for path in (directory.job, directory.runner):
        path.chmod(0o644)
    directory.storage.chmod(0o755)


def open_door(directory: SessionDirectory, settings: JobSettings, account: Account) -> None:
    """Let the user in. Safe to repeat.

    Raises:
        AccessFailed: the file system, or the name service, does not do it.
    """
    if _is_our_own(settings, account):
        return
    if settings.access == "group":
        os.chown(directory.path, -1, shared_group(settings, account))
        directory.path.chmod(0o750)
    else:
        _setfacl(f"u:{account.uid}:r-x,g::---,o::---", [directory.path])


def _is_our_own(settings: JobSettings, account: Account) -> bool:
    if account.uid == os.geteuid():
        return True
    if settings.access == "own":
        raise AccessFailed(f"jobs run as {account.name}, but access: own keeps the directory to the broker alone")
    return False


def shared_group(settings: JobSettings, account: Account) -> int:
    """Return the number of the group that the broker shares with the user.

    Raises:
        AccessFailed: there is none, the broker is not in it, or the name service lists others in it.
    """
    name = settings.group.replace("{user}", account.name)
    try:
        entry = grp.getgrnam(name)
    except KeyError:
        raise AccessFailed(f"there is no group {name}") from None
    if entry.gr_gid not in (*os.getgroups(), os.getegid()):
        raise AccessFailed(f"the broker is not in the group {name}")
    own = pwd.getpwuid(os.geteuid()).pw_name
    others = sorted(set(entry.gr_mem) - {account.name, own})
    if others:
        raise AccessFailed(f"the group {name} has other members, who could read along: {', '.join(others[:5])}")
    return entry.gr_gid


def _tree(top: Path) -> Iterable[Path]:
    """Yield a directory and all files and directories below it, which are our own."""
    yield top
    for folder, folders, files in os.walk(top):
        yield from (Path(folder, name) for name in folders + files)


def _setfacl(entries: str, paths: list[Path]) -> None:
    try:
        done = subprocess.run(
            ["setfacl", "-m", entries, "--", *map(str, paths)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise AccessFailed("setfacl is not installed; access: acl needs it") from None
    if done.returncode != 0:
        raise AccessFailed(f"setfacl: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}")
