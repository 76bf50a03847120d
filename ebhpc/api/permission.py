"""Who may see and change what is somebody's: its owner, administrators, and those whom the site's rules name."""

from __future__ import annotations

from typing import Literal

import falcon

from ebhpc.api.broker import Broker
from ebhpc.api.problems import forbidden
from ebhpc.model import Identity


def check_may(
    broker: Broker,
    req: falcon.Request,
    owner: str,
    what: str,
    need: Literal["see", "end"],
    platform: str | None = None,
    *,
    private: bool = False,
) -> None:
    """Let those pass who may see, or change, what is ``owner``'s; ``what`` says in words what it is.

    Who passes without being the owner is in the audit trail; so is who does not. ``private``: ``public_reads`` does
    not let everybody see it.

    Raises:
        Problem: 403.
    """
    identity: Identity | None = req.context.identity
    if identity is not None and identity.uuid == owner:
        return
    if need == "see" and not private and broker.config.api.public_reads:
        return
    kind, _, uuid = what.removeprefix("the ").rpartition(" ")
    rule = None
    if identity is not None:
        if identity.admin:
            rule = "administrator"
        else:
            rule = broker.rules.may_others(identity, need, platform, lambda: broker.accounts.recall(owner))
    if rule is None:
        broker.audit.note(req, need, kind, uuid, result="refused", detail="not its owner")
        raise forbidden(what)
    if need == "see" or rule != "administrator":  # what an administrator changes has an entry of its own
        broker.audit.note(req, need, kind, uuid, detail=f"another's, by the rule {rule}")
