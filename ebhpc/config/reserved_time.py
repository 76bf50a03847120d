"""Settings of reserved time: time on nodes that is its user's, in which the broker runs nothing."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ebhpc.config.values import Duration

Idle = Annotated[Duration, Meta(ge=20)]
"""A duration of 20 seconds or more: what is given back sooner cannot be warned of."""


class ReservedTimeRules(Struct, frozen=True, kw_only=True):
    """What users may do with reserved time on a platform. How much of it they get, the rules under ``firm`` say."""

    offered: bool = True
    """Whether it is offered at all."""

    users: bool = False
    """Whether a user may share it with other users of the broker, whom the request names."""

    accounts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    """The batch system's accounts with which it may be shared."""

    idle_release: Idle | None = None
    """Time in which nothing runs for so long is given back; a request may ask for less. Absent: as the request says."""
