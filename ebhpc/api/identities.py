"""``/admin/identities``: an administrator makes accounts."""

from __future__ import annotations

import falcon

from ebhpc.api.access import Access
from ebhpc.api.accounts import account_problems, add_account
from ebhpc.api.answers import Account
from ebhpc.api.broker import Broker
from ebhpc.api.problems import malformed
from ebhpc.api.wire import answer, read_body
from ebhpc.model import MessageKind, message
from ebhpc.store import find_identity


class Identities:
    """``/admin/identities``."""

    access = Access.ADMINISTRATORS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make an account: 201; 409 with the UUID of the account that has the username."""
        broker = self._broker
        username, password = wanted_account(read_body(req, broker.config.api))
        uuid = add_account(broker.store, username, password, now=broker.clock())
        resp.status = 201
        if uuid is not None:
            broker.audit.note(req, "add", "account", username)
        else:
            present = find_identity(broker.store, username)
            assert present is not None, "accounts are not deleted"
            uuid, resp.status = present.uuid, 409
        answer(req, resp, Account(uuid=uuid, username=username))


def wanted_account(raw: object) -> tuple[str, str]:
    """Return the username and password that a body asks for.

    Raises:
        Problem: 400, with a message for each thing that is wrong.
    """
    if not isinstance(raw, dict):
        raise malformed([message(MessageKind.INPUT_SYNTAX, "expected a mapping with username and password", path="")])
    username, password = raw.get("username"), raw.get("password")
    problems = account_problems(username, password)
    if problems:
        raise malformed(problems)
    return str(username), str(password)
