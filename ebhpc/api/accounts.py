"""Local accounts: HTTP Basic against argon2 hashes, and how accounts are made.

A hash is meant to be slow. A worker therefore remembers for a few seconds which credentials were right or wrong, and
asks the database, not argon2, whether that still holds; and it computes a few hashes at a time only, so that nobody
takes all its processor time by guessing.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from uuid import uuid4

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

from ebhpc.api.problems import Problem, unauthenticated
from ebhpc.model import Identity, Message, MessageKind, message
from ebhpc.store import IdentityRecord, Store, add_identity, count_identities, find_identity

# The second of the choices that OWASP recommends for Argon2id: 19 MiB, so that several at a time fit in a worker.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 256
LONGEST_USERNAME = 64

_WRONG = "the username or the password is wrong"


class AccountError(ValueError):
    """An account cannot be made: its username or password cannot be used."""


class _Seen(Struct, frozen=True):
    """Credentials that were looked at: whose (None: wrong), by which hash, when it was last compared."""

    identity: Identity | None
    password: str
    looked: float


class Accounts:
    """Tells who asks. Safe for threads; one for each worker process.

    ``remember``: seconds until the database is asked again; a changed password counts after that time. ``hashes``: how
    many are computed at the same time, ``patience`` how many seconds a caller waits for its turn.
    """

    def __init__(
        self,
        store: Store,
        *,
        remember: float = 5.0,
        hashes: int = 2,
        patience: float = 5.0,
        most: int = 4096,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._remember = remember
        self._patience = patience
        self._most = most
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._turns = threading.BoundedSemaphore(hashes)
        self._nobody: str | None = None

    def identify(self, authorization: str | None) -> Identity | None:
        """Return who an ``Authorization`` header names; None without one.

        Raises:
            Problem: 401 for wrong credentials; 429 where too many are looked at already.
        """
        if authorization is None:
            return None
        username, password = _credentials(authorization)
        if not is_username(username) or len(password) > LONGEST_PASSWORD:
            raise unauthenticated(_WRONG)
        mark = hmac.digest(self._key, f"{username}\0{password}".encode(), "sha256")
        seen = self._recall(mark)
        if seen is None:
            seen = self._look(mark, username, password)
        if seen.identity is None:
            raise unauthenticated(_WRONG)
        return seen.identity

    def _recall(self, mark: bytes) -> _Seen | None:
        with self._lock:
            seen = self._seen.get(mark)
        if seen is None or self._monotonic() - seen.looked > self._remember:
            return None
        return seen

    def _look(self, mark: bytes, username: str, password: str) -> _Seen:
        """Ask the database whether what was seen before still holds, else argon2."""
        record = find_identity(self._store, username)
        with self._lock:
            seen = self._seen.get(mark)
        if (
            seen is None
            or record is None
            or seen.identity is None
            or not hmac.compare_digest(seen.password, record.password)
        ):
            if not self._turns.acquire(timeout=self._patience):
                raise Problem(
                    429,
                    "too many passwords are being checked; try again in a moment",
                    headers={"Retry-After": "1"},
                )
            try:
                recalled = self._recall(mark)  # another thread may have done it meanwhile
                if recalled is not None:
                    return recalled
                right = self._verify(record, password)
            finally:
                self._turns.release()
        else:
            right = True
        identity = (
            Identity(uuid=record.uuid, username=record.username, admin=record.admin)
            if right and record is not None
            else None
        )
        seen = _Seen(identity, record.password if record else "", self._monotonic())
        with self._lock:
            self._seen[mark] = seen
            self._seen.move_to_end(mark)
            while len(self._seen) > self._most:
                self._seen.popitem(last=False)
        return seen

    def _verify(self, record: IdentityRecord | None, password: str) -> bool:
        """Compare with the account's hash; with a hash of nobody's where there is none, so that it takes as long."""
        if record is None:
            if self._nobody is None:
                self._nobody = HASHER.hash(secrets.token_urlsafe(16))
            known = self._nobody
        else:
            known = record.password
        try:
            HASHER.verify(known, password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False
        return record is not None


def _credentials(authorization: str) -> tuple[str, str]:
    """Read an ``Authorization`` header of the scheme Basic (RFC 7617).

    Raises:
        Problem: 401, it is none.
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise unauthenticated("only HTTP Basic authentication is understood")
    try:
        text = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise unauthenticated("the Authorization header cannot be read") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise unauthenticated("the Authorization header holds no username and password")
    return username, password


def is_username(text: str) -> bool:
    """Whether a text can be a username: 1 to 64 printable characters, no colon (RFC 7617), no space at an end."""
    return 0 < len(text) <= LONGEST_USERNAME and text.isprintable() and ":" not in text and text == text.strip()


def account_problems(username: object, password: object) -> list[Message]:
    """Say what is wrong with the data of a new account; nothing if all is well. No message repeats a password."""
    problems = []
    for name, value in (("username", username), ("password", password)):
        if value is None:
            problems.append(message(MessageKind.MISSING_VALUE, "{path} is required", path=f"/{name}"))
        elif not isinstance(value, str):
            problems.append(message(MessageKind.INPUT_SYNTAX, "expected a string at {path}", path=f"/{name}"))
    if isinstance(username, str) and not is_username(username):
        problems.append(
            message(
                MessageKind.INVALID_VALUE,
                "{path} must have 1 to {most} printable characters, no colon, and no space at its ends",
                path="/username",
                most=LONGEST_USERNAME,
            )
        )
    if isinstance(password, str) and not (
        SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD and password.isprintable()
    ):
        problems.append(
            message(
                MessageKind.INVALID_VALUE,
                "{path} must have {least} to {most} printable characters",
                path="/password",
                least=SHORTEST_PASSWORD,
                most=LONGEST_PASSWORD,
            )
        )
    return problems


def add_account(store: Store, username: str, password: str, *, admin: bool = False, now: float) -> str | None:
    """Make an account; return its UUID, or None where the username is taken.

    Raises:
        AccountError: the username or the password cannot be used; says why.
    """
    problems = account_problems(username, password)
    if problems:
        raise AccountError("; ".join(str(problem) for problem in problems))
    record = IdentityRecord(
        uuid=str(uuid4()), username=username, password=HASHER.hash(password), admin=admin, created=now
    )
    return record.uuid if add_identity(store, record) is None else None


def ensure_admin(store: Store, username: str, now: float) -> str | None:
    """Make the administrator's account where there is no account at all; return its password, which is kept nowhere.

    None: there are accounts.

    Raises:
        AccountError: the username cannot be used.
    """
    if count_identities(store):
        return None
    password = secrets.token_urlsafe(18)
    made = add_account(store, username, password, admin=True, now=now)
    return password if made is not None else None
