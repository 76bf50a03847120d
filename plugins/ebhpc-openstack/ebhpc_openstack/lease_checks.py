"""What ``ebhpc check`` says of Blazar and its hypervisors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from ebhpc.model import Finding
from ebhpc_openstack import leases, records
from ebhpc_openstack.asking import Call, CloudFault, NotReached, Refused
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.leasing import LIST
from ebhpc_openstack.settings import OpenStackSettings

_SUBJECT = "leases"


def findings(settings: OpenStackSettings, cloud: Cloud, look: records.Look) -> Iterator[Finding]:
    """Yield whether the leases that the settings tell of can be had."""
    if settings.leases is None:
        return
    yield from _hosts(settings.leases.hosts, look)
    if not settings.leases.offered:
        return
    try:
        (answer,) = cloud.ask(LIST)
        known = leases.leases(answer.ok()["leases"])
    except Refused as refused:
        advice = "allow blazar:leases:get, :post and :delete to the broker's role"
        yield _bad(f"Blazar does not let us see leases: {refused}", advice)
    except NotReached as fault:
        advice = "is Blazar there? the catalogue needs a service of type reservation; else leave leases out"
        yield _bad(f"Blazar is not reached: {fault}", advice)
    except CloudFault as fault:
        yield _bad(f"Blazar does not answer: {fault}", "look at blazar-api and blazar-manager, or leave leases out")
    else:
        yield from _trusts(cloud)
        text = f"{len(settings.leases.hosts)} hypervisors are offered by leases; the project has {len(known)} now"
        yield Finding(level="INFO", subject=_SUBJECT, text=text)


def _hosts(names: tuple[str, ...], look: records.Look) -> Iterator[Finding]:
    if look.providers is None:
        advice = "give the broker's role placement's candidates and providers"
        yield _bad("placement is not open to the account, which leases need: how large are the hypervisors?", advice)
        return
    there = {one.name for one in look.providers}
    for name in names:
        if name not in there:
            yield _bad(f"placement knows no hypervisor {name}", f"it knows {', '.join(sorted(there)) or 'none'}")


def _trusts(cloud: Cloud) -> Iterator[Finding]:
    """Yield whether keystone lets the account make trusts, as Blazar does in its name for each lease.

    Asked for one for a user that does not exist, which never comes to be, keystone refuses an account that may make
    none before it looks for that user.
    """
    (who,) = cloud.ask(Call(service="who"))
    trust = {"trustor_user_id": who.ok()["user"], "trustee_user_id": uuid.uuid4().hex, "impersonation": True}
    (answer,) = cloud.ask(Call(service="identity", path="/OS-TRUST/trusts", method="POST", json={"trust": trust}))
    if answer.status == 403:
        advice = "give the broker an application credential that is unrestricted, or a password"
        text = f"keystone lets the account make no trusts, and Blazar needs one for each lease: {answer.failure()}"
        yield _bad(text, advice)


def _bad(text: str, advice: str) -> Finding:
    return Finding(level="ERROR", subject=_SUBJECT, text=text, advice=advice)
