"""What ``ebhpc check`` says of a cloud: each finding with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ebhpc import batch
from ebhpc.batch.ssh import HostKeyRefused, LoginRefused
from ebhpc.model import SCRATCH, Finding
from ebhpc_openstack import lease_checks, records
from ebhpc_openstack.asking import CloudFault, NotLoggedIn, NotReached
from ebhpc_openstack.guest import LARGEST
from ebhpc_openstack.snapshot import offered

if TYPE_CHECKING:
    from ebhpc_openstack.platform import OpenStackPlatform


def findings(platform: OpenStackPlatform) -> Iterator[Finding]:
    """Yield what was looked at, the login host first: without it nothing else can be."""
    yield from batch.check(platform.settings.jobs)
    ssh = platform.settings.ssh
    try:
        look = platform.cloud.look()
    except NotReached as fault:
        yield _not_reached(platform, fault)
        return
    except NotLoggedIn as fault:
        yield _ok("login host", f"{ssh.user}@{ssh.host} is reached")
        yield Finding(
            level="ERROR",
            subject="cloud",
            text=f"the cloud does not let us in: {fault}",
            advice=f"look at cloud {platform.settings.cloud or '(environment)'} of {ssh.user} on {ssh.host}: "
            "has its application credential expired, or been deleted?",
        )
        return
    except CloudFault as fault:
        yield _ok("login host", f"{ssh.user}@{ssh.host} is reached")
        yield Finding(
            level="ERROR",
            subject="cloud",
            text=f"the cloud does not answer: {fault}",
            advice=f"try `openstack server list` as {ssh.user} on {ssh.host}",
        )
        return
    yield _ok("login host", f"{ssh.user}@{ssh.host} is reached, with openstacksdk {platform.host.sdk}")
    yield _ok("cloud", f"project {look.project}, {len(look.servers)} servers, zones {', '.join(look.zones) or 'none'}")
    yield from _quota(look.quota)
    yield from _room(look)
    yield from _storage(platform, look)
    yield from _flavors(platform, look)
    yield from _zones(platform, look)
    yield from _image(platform)
    yield from _forwards(platform)
    yield from lease_checks.findings(platform.settings, platform.cloud, look)


def _ok(subject: str, text: str) -> Finding:
    return Finding(level="INFO", subject=subject, text=text)


def _not_reached(platform: OpenStackPlatform, fault: NotReached) -> Finding:
    ssh = platform.settings.ssh
    advice = f"look at the network between here and {ssh.host}, port {ssh.port}"
    if isinstance(fault.__cause__, HostKeyRefused):
        advice = (
            f"ask the operators of {ssh.host} for its key's fingerprint; only when `ssh-keyscan -p {ssh.port} "
            f"{ssh.host}` shows that key, write it to {ssh.known_hosts}"
        )
    elif isinstance(fault.__cause__, LoginRefused):
        advice = f"is the public key of {ssh.key_file or 'the agent'} in {ssh.user}'s authorized_keys there?"
    elif "openstacksdk" in str(fault) or "Python" in str(fault):
        advice = f"install python3-openstacksdk on {ssh.host}, or name a Python that has it as python"
    return Finding(level="ERROR", subject="login host", text=str(fault), advice=advice)


def _quota(quota: records.Quota) -> Iterator[Finding]:
    limits = {"servers": quota.servers, "cores": quota.cores, "memory": quota.memory}
    for name, limit in limits.items():
        if limit == 0:
            advice = f"ask the cloud's operators to raise the project's quota of {name}"
            yield Finding(level="ERROR", subject="quota", text=f"the quota of {name} is zero", advice=advice)
    told = ", ".join(f"{name} {'unlimited' if limit is None else limit}" for name, limit in limits.items())
    used = f"{quota.servers_used} servers, {quota.cores_used} cores"
    yield _ok("quota", f"{told}; used: {used}")


def _room(look: records.Look) -> Iterator[Finding]:
    if look.providers is not None:
        cores = sum(one.capacity.get("VCPU", 0) + one.capacity.get("PCPU", 0) for one in look.providers)
        yield _ok("capacity", f"placement tells of {len(look.providers)} hypervisors with {cores} cores")
        if not look.hypervisors:
            advice = "allow os_compute_api:os-hypervisors:list-detail and os-services:list to the broker's role"
            text = "nova does not tell which hypervisors are down: offers may name those"
            yield Finding(level="WARN", subject="capacity", text=text, advice=advice)
        return
    advice = "a role that may read placement's candidates and providers makes offers true to what is free"
    text = "placement is not open to the account: how much room there is, quotas and refusals alone tell"
    yield Finding(level="WARN", subject="capacity", text=text, advice=advice)


def _storage(platform: OpenStackPlatform, look: records.Look) -> Iterator[Finding]:
    if platform.settings.volumes.through == "none":
        return
    if look.storage is None:
        advice = "has the cloud block storage, in the account's catalog? Else leave volumes out"
        yield Finding(
            level="WARN", subject="volumes", text="no volume can be made: Cinder does not answer", advice=advice
        )
        return
    told = ["unlimited" if limit is None else str(limit) for limit in (look.storage.count, look.storage.gib)]
    used = f"{look.storage.count_used} volumes, {look.storage.gib_used} GiB"
    yield _ok("volumes", f"{told[0]} volumes, {told[1]} GiB; used: {used}")


def _flavors(platform: OpenStackPlatform, look: records.Look) -> Iterator[Finding]:
    found = offered(look, platform.site)
    for name in platform.settings.flavors:
        if not any(name in (one.name, one.id) for one in look.flavors):
            yield Finding(level="ERROR", subject="flavors", text=f"there is no flavor {name}", advice="see flavors")
    if not found:
        advice = "name flavors that the project may use, or leave flavors out"
        yield Finding(level="ERROR", subject="flavors", text="no flavor is left to offer", advice=advice)
        return
    smallest = min(found, key=lambda one: (one.cores, one.memory))
    if smallest.cores > 1 or smallest.memory > 1024:
        text = f"no flavor fits one core and 1 GiB: {smallest.name} has {smallest.cores}, and {smallest.memory} MiB"
        advice = "requests that name no maximum get it all the same; those for at most one core are refused"
        yield Finding(level="WARN", subject="flavors", text=text, advice=advice)
    by_shape: dict[str, str] = {}
    for one in found:
        shape = records.shape(one, platform.site.devices)
        told = f"{shape.cores} cores, {shape.memory} MiB, {shape.devices.get(SCRATCH, 0)} GiB of disk"
        told += "".join(f", {count} {kind}" for kind, count in shape.devices.items() if kind != SCRATCH)
        if told in by_shape:
            text = f"{by_shape[told]} and {one.name} give the same: which of them a session gets, their names decide"
            yield Finding(level="WARN", subject="flavors", text=text, advice="name the ones to offer as flavors")
        by_shape[told] = one.name
    yield _ok("flavors", f"{len(found)} are offered: {', '.join(sorted(one.name for one in found))}")


def _zones(platform: OpenStackPlatform, look: records.Look) -> Iterator[Finding]:
    for name in platform.settings.zones:
        if name not in look.zones:
            text = f"there is no availability zone {name}, or it is down"
            advice = f"the cloud has {', '.join(look.zones) or 'none'}"
            yield Finding(level="ERROR", subject="zones", text=text, advice=advice)


def _image(platform: OpenStackPlatform) -> Iterator[Finding]:
    name = platform.settings.image
    try:
        found = platform.cloud.image(name)
    except CloudFault as fault:
        yield Finding(level="ERROR", subject="image", text=f"glance does not answer: {fault}", advice="try again later")
        return
    if found is None:
        advice = "upload one with cloud-init, Python 3.8 or newer and a container runtime, or name another"
        yield Finding(level="ERROR", subject="image", text=f"there is no active image {name}", advice=advice)
        return
    yield _ok("image", f"{name} is {found}; user data has room for {LARGEST} characters")


def _forwards(platform: OpenStackPlatform) -> Iterator[Finding]:
    if platform.forwards is None:
        return
    problem = platform.forwards.prevented()
    if problem is not None:
        advice = "connectors.address must be one of this host, and the login host's sshd allow AllowTcpForwarding"
        yield Finding(level="ERROR", subject="ports", text=problem, advice=advice)
        return
    first, last = platform.settings.connectors.ports
    yield _ok("ports", f"{last - first + 1} ports of {platform.settings.connectors.address} may lead to servers")
