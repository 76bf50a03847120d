"""Who the broker's users are on the cluster, and how a command of Slurm's becomes one of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from ebhpc import batch
from ebhpc_slurm.processes import Ran
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.transport import NotReached, fault

Run = Callable[[Sequence[str], bytes], Ran]


def mapped(settings: SlurmSettings, username: str) -> Mapped | None:
    """Return who a user of the broker is on the cluster; None: nobody."""
    known = batch.user_of(username, settings.identities, Mapped, same_name=settings.others == "same-name")
    if known is None:
        return None
    return Mapped(
        user=known.user, account=known.account or settings.account, qos=known.qos or settings.qos, uid=known.uid
    )


class Becoming(Struct, frozen=True, kw_only=True):
    """How a command is run as a user: ``how`` as in the settings' ``run_as``."""

    how: str
    sudo: tuple[str, ...] = ()
    token_command: tuple[str, ...] = ()

    def words(self, user: str, words: Sequence[str], run: Run) -> tuple[list[str], str]:
        """Return the words that run a command as ``user``, and what must come first on its stdin.

        A token is handed over by stdin: the words of a process are for all to see. ``run`` runs what makes one.

        Raises:
            SlurmFault: no token could be had.
        """
        if not batch.is_unix_name(user):
            raise ValueError(f"no Unix user name: {user!r}")
        if self.how == "sudo":
            return [*(word.replace("{user}", user) for word in self.sudo), *words], ""
        if self.how == "token":
            return [*_WITH_TOKEN, *words], self.token(user, run) + "\n"
        return list(words), ""

    def token(self, user: str, run: Run) -> str:
        """Return a token of a user's.

        Raises:
            SlurmFault: there is none.
        """
        ran = run([word.replace("{user}", user) for word in self.token_command], b"")
        text = ran.out.decode(errors="replace").strip()
        if ran.code:
            raise fault(ran.err.decode(errors="replace"))
        token = text.removeprefix("SLURM_JWT=")
        if not _TOKEN.fullmatch(token):
            raise NotReached(f"{self.token_command[0]} printed no token")
        return token


_TOKEN = re.compile(r"[A-Za-z0-9_.=-]{20,8000}")

_WITH_TOKEN = ("sh", "-c", 'IFS= read -r SLURM_JWT && export SLURM_JWT && exec "$@"', "sh")
