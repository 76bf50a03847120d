"""Who asks: local accounts by HTTP Basic against argon2 hashes, issuers' users by bearer tokens; how accounts are made.

A hash is meant to be slow. A worker therefore remembers for a few seconds which credentials were right or wrong, and
asks the database, not argon2, whether that still holds; and it computes a few hashes at a time only, so that nobody
takes all its processor time by guessing. A token that was verified is remembered in the same way.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from uuid import uuid4

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.challenges import challenges
from ebhpc.api.issuers import IssuerSilent, OpenIssuer
from ebhpc.api.problems import Problem, unauthenticated
from ebhpc.api.rates import Limiter, address_key, retry_after
from ebhpc.api.tokens import TokenRefused, read_access_token
from ebhpc.config import SitePolicy
from ebhpc.model import Identity, Message, MessageKind, message
from ebhpc.policy import People
from ebhpc.store import (
    ExternalUser,
    IdentityRecord,
    Store,
    add_identity,
    count_identities,
    find_identity,
    get_identity,
    meet_external,
    set_password,
)

log = logging.getLogger(__name__)

# The second of the choices that OWASP recommends for Argon2id: 19 MiB, so that several at a time fit in a worker.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 256
LONGEST_USERNAME = 64

VERIFIED_FOR = 300.0
"""Seconds for which a token that was verified is believed, until its signature, and its issuer's word, are looked at
again; what the database says of its owner is looked at more often."""

_WRONG = "the username or the password is wrong"


class AccountError(ValueError):
    """An account cannot be made: its username or password cannot be used."""


class _Seen(Struct, frozen=True):
    """Credentials that were looked at: whose (None: wrong), by which hash, when it was last compared."""

    identity: Identity | None
    password: str
    looked: float


class _Token(Struct, frozen=True):
    """A token that was believed: whose, until when (POSIX seconds), when it was verified and its owner looked at."""

    identity: Identity
    expires: float
    verified: float
    looked: float


class Accounts:
    """Tells who asks. Safe for threads; one for each worker process.

    ``remember``: seconds until the database is asked again; a changed password counts after that time. ``hashes``: how
    many are computed at the same time, ``patience`` how many seconds a caller waits for its turn. ``people`` says what
    the site's own rules say of somebody, ``failures`` how many wrong credentials an address may send.
    """

    def __init__(
        self,
        store: Store,
        *,
        issuers: Iterable[OpenIssuer] = (),
        people: People | None = None,
        failures: Limiter | None = None,
        clock: Callable[[], float] = time.time,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
        remember: float = 5.0,
        hashes: int = 2,
        patience: float = 5.0,
        most: int = 4096,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuers: Mapping[str, OpenIssuer] = {issuer.settings.name: issuer for issuer in issuers}
        self._by_url = {str(issuer.settings.url): issuer for issuer in self.issuers.values()}
        self._store = store
        self._people = people or People(SitePolicy())
        self._failures = failures
        self._clock = clock
        self._new_uuid = new_uuid
        self._remember = remember
        self._patience = patience
        self._most = most
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        self._recalled: OrderedDict[str, tuple[float, Identity | None]] = OrderedDict()
        self._turns = threading.BoundedSemaphore(hashes)
        self._nobody: str | None = None

    # --- what the API asks -------------------------------------------------------------------------------------------

    def identify(self, authorization: str | None, address: str = "") -> Identity | None:
        """Return who an ``Authorization`` header names; None without one. ``address`` is where it comes from.

        Raises:
            Problem: 401 for wrong credentials; 429 where too many are looked at already, or were wrong; 503 where an
                issuer cannot be asked.
        """
        if authorization is None:
            return None
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == "bearer" and self._by_url:
            return self.of_token(rest.strip(), address)
        try:
            username, password = _credentials(authorization)
        except Problem as problem:
            problem.headers = {"WWW-Authenticate": self.challenge()}
            raise
        return self.check_password(username, password, address)

    def check_password(self, username: str, password: str, address: str = "") -> Identity:
        """Return whose username and password these are.

        Raises:
            Problem: 401 or 429.
        """
        if not is_username(username) or len(password) > LONGEST_PASSWORD:
            raise unauthenticated(_WRONG, self.challenge())
        mark = hmac.digest(self._key, f"{username}\0{password}".encode("utf-8", "replace"), "sha256")
        seen = self._recall(mark)
        if seen is None:
            seen = self._look(mark, username, password, address)
        if seen.identity is None:
            raise unauthenticated(_WRONG, self.challenge())
        return seen.identity

    def of_token(self, token: str, address: str = "") -> Identity:
        """Return whose bearer token this is.

        Raises:
            Problem: 401, 429 or 503.
        """
        mark = hmac.digest(self._key, b"\0token\0" + token.encode("utf-8", "replace"), "sha256")
        with self._lock:
            known = self._tokens.get(mark)
        moment = self._monotonic()
        if known is not None and self._clock() < known.expires:
            if moment - known.looked <= self._remember:
                return known.identity
            if moment - known.verified <= VERIFIED_FOR:
                current = self.recall(known.identity.uuid)
                if current is None:
                    raise unauthenticated("this account is barred", self.challenge("invalid_token"))
                self._keep(mark, replace(known, identity=current, looked=moment))
                return current
        self._refuse_guessing(address)
        try:
            believed = read_access_token(token, self._by_url, self._clock())
        except TokenRefused as error:
            self._note_failure(address)
            raise unauthenticated(error.reason, self.challenge(error.error, error.reason)) from None
        except IssuerSilent as error:
            raise silent_issuer(error) from error
        identity = self.meet(believed.user)
        self._keep(mark, _Token(identity, believed.expires, moment, moment))
        return identity

    def meet(self, user: ExternalUser) -> Identity:
        """Return the identity of an issuer's user, made where it is new; what the issuer says of its groups is kept.

        Raises:
            Problem: 401, it is barred.
        """
        record = meet_external(self._store, user, uuid=self._new_uuid(), now=self._clock())
        if record.barred is not None:
            raise unauthenticated("this account is barred", self.challenge("invalid_token"))
        identity = self._identity(record, user.groups)
        with self._lock:
            self._recalled.pop(identity.uuid, None)
        return identity

    def recall(self, uuid: str) -> Identity | None:
        """Return who an account is by now, with the groups that its issuer last said; None: gone, or barred."""
        moment = self._monotonic()
        with self._lock:
            known = self._recalled.get(uuid)
        if known is not None and moment - known[0] <= self._remember:
            return known[1]
        found = get_identity(self._store, uuid)
        identity = self._identity(*found) if found is not None and found[0].barred is None else None
        with self._lock:
            self._recalled[uuid] = (moment, identity)
            self._recalled.move_to_end(uuid)
            while len(self._recalled) > self._most:
                self._recalled.popitem(last=False)
        return identity

    def challenge(self, error: str | None = None, reason: str | None = None) -> str:
        """Return what an answer 401 says of how to be known; ``error`` is a code of RFC 6750."""
        return challenges(self.issuers.values(), error, reason)

    # --- passwords ---------------------------------------------------------------------------------------------------

    def _recall(self, mark: bytes) -> _Seen | None:
        with self._lock:
            seen = self._seen.get(mark)
        if seen is None or self._monotonic() - seen.looked > self._remember:
            return None
        return seen

    def _look(self, mark: bytes, username: str, password: str, address: str) -> _Seen:
        """Ask the database whether what was seen before still holds, else argon2."""
        record = find_identity(self._store, username)
        if record is not None and (record.barred is not None or not record.password):
            record = None
        with self._lock:
            seen = self._seen.get(mark)
        if (
            seen is None
            or record is None
            or seen.identity is None
            or not hmac.compare_digest(seen.password, record.password)
        ):
            self._refuse_guessing(address)
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
        if not right:
            self._note_failure(address)
        identity = self._identity(record, ()) if right and record is not None else None
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

    # --- shared ------------------------------------------------------------------------------------------------------

    def _identity(self, record: IdentityRecord, groups: tuple[str, ...]) -> Identity:
        return self._people.known(
            Identity(uuid=record.uuid, username=record.username, admin=record.admin, groups=groups)
        )

    def _keep(self, mark: bytes, token: _Token) -> None:
        with self._lock:
            self._tokens[mark] = token
            self._tokens.move_to_end(mark)
            while len(self._tokens) > self._most:
                self._tokens.popitem(last=False)

    def _refuse_guessing(self, address: str) -> None:
        if self._failures is None:
            return
        wait = self._failures.wait(address_key(address), take=False)
        if wait:
            raise Problem(
                429,
                "too many wrong passwords or tokens came from your address; try again later",
                headers={"Retry-After": retry_after(wait)},
            )

    def _note_failure(self, address: str) -> None:
        if self._failures is not None:
            self._failures.wait(address_key(address))


def silent_issuer(error: IssuerSilent) -> Problem:
    """503: an issuer cannot be asked; the log says what it answered."""
    log.warning("%s", error)
    return Problem(503, "the issuer of your token cannot be asked now", headers={"Retry-After": "5"})


def claimed_username(authorization: str | None) -> str:
    """Return the username that an ``Authorization`` header claims, right or wrong; empty: none that can be read."""
    try:
        return _credentials(authorization or "")[0]
    except Problem:
        return ""


def _credentials(authorization: str) -> tuple[str, str]:
    """Read an ``Authorization`` header of the scheme Basic (RFC 7617).

    Raises:
        Problem: 401, it is none.
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise unauthenticated("this way of authentication is not understood here")
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


def change_password(store: Store, username: str, password: str) -> bool:
    """Give a local account another password; False: there is none of that name.

    Raises:
        AccountError: the password cannot be used; says why.
    """
    problems = account_problems(username, password)
    if problems:
        raise AccountError("; ".join(str(problem) for problem in problems))
    record = find_identity(store, username)
    if record is None or record.issuer is not None:
        return False
    set_password(store, record.uuid, HASHER.hash(password))
    return True


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
