"""The platform of hypervisors that are Blazar's: what is offered is kept by a lease of the session's own."""

from __future__ import annotations

from collections.abc import Sequence

from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.model import MessageKind, Promise, Session, message
from ebhpc.planning import Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import leases
from ebhpc_openstack.leasing import Leases
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.settings import LeaseSettings
from ebhpc_openstack.snapshot import snapshot


class LeasedPlatform(OpenStackPlatform):
    """A project whose settings have leases to offer."""

    @property
    def _leases(self) -> Leases:
        assert self.launches.leases is not None
        return self.launches.leases

    @property
    def _lease_settings(self) -> LeaseSettings:
        assert self.settings.leases is not None
        return self.settings.leases

    @hookimpl
    def ebhpc_promises(self) -> Sequence[Promise]:
        return ("reservation",)

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        look = self.cloud.look(leases=True)
        self.launches.learn(look)
        return leases.leased(snapshot(look, self.site, now), look, self._lease_settings, self.settings.prefix)

    @hookimpl
    def ebhpc_hold(self, session: Session) -> str | None:
        if session.extends is not None:
            text = "Leases of this cloud are not lengthened."
            raise SessionFailed(message(MessageKind.NOT_SUPPORTED, text))
        return self._leases.hold(session)

    @hookimpl
    def ebhpc_release(self, session: Session) -> None:
        point("openstack.release.before", session.uuid)
        self._leases.release(session.uuid)
        point("openstack.release.after", session.uuid)

    @hookimpl
    def ebhpc_reconcile(self, sessions: Sequence[Session]) -> None:
        super().ebhpc_reconcile(sessions)
        self._leases.reconcile(sessions)
