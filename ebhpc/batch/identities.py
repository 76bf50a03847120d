"""Who the broker's users are at a batch system: the users of Unix whose their jobs and files are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from ebhpc.batch.access import Account, unix_account
from ebhpc.model import Message, MessageKind, message
from ebhpc.plugins import SessionFailed

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"

UnixName = Annotated[str, Meta(pattern=rf"\A{_NAME}\Z", description="a Unix user name")]


class UnixUser(Struct, frozen=True, kw_only=True):
    """A user of the batch system; a plugin's setting ``identities`` has one, with what else it needs, for each name."""

    user: UnixName
    uid: Annotated[int, Meta(ge=1)] | None = None
    """The user's number, where the broker's host does not know the batch system's users."""


User = TypeVar("User", bound=UnixUser)


def is_unix_name(text: str) -> bool:
    """Whether a text may be the name of a Unix user."""
    return re.fullmatch(_NAME, text) is not None


def user_of(username: str, identities: Mapping[str, User], kind: type[User], *, same_name: bool) -> User | None:
    """Return who a user of the broker is at the batch system; None: nobody.

    ``same_name``: who is not among ``identities`` has the broker's name there too, as a ``kind`` with nothing else.
    Nobody is root by that.
    """
    known = identities.get(username)
    if known is None and same_name and is_unix_name(username) and username != "root":
        return kind(user=username)
    return known


def account_of(who: UnixUser, *, own: bool) -> Account:
    """Return whose a session's files will be; ``own``: jobs run as the broker's own account.

    Raises:
        SessionFailed: this host does not know the user.
    """
    if own:
        return unix_account(None)
    if who.uid is not None:
        return Account(name=who.user, uid=who.uid)
    try:
        return unix_account(who.user)
    except KeyError:
        text = "The broker's host does not know the user {user}."
        raise SessionFailed(message(MessageKind.FAILED, text, user=who.user)) from None


def no_account(username: str, platform: str) -> Message:
    """Tell a user that they are nobody at a platform."""
    text = "{username} has no account on {platform}."
    return message(MessageKind.POLICY_REFUSED, text, username=username, platform=platform)
