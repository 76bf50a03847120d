"""The site's rules: what all plugins that implement ``ebhpc_policy`` say, as one."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ebhpc.model import Identity, Limits, Policy, Request
from ebhpc.plugins.calls import Clock, PluginCalls
from ebhpc.plugins.loading import PluginManager
from ebhpc.plugins.platforms import Platform


def merge_policies(policies: Iterable[Policy | None]) -> Policy:
    """Return one policy for several: their refusals add up, of their limits the tightest holds."""
    given = [policy for policy in policies if policy is not None]
    limits = [policy.limits for policy in given]
    devices: dict[str, int] = {}
    for limit in limits:
        for device, count in limit.devices.items():
            devices[device] = min(count, devices.get(device, count))
    return Policy(
        refusals=tuple(refusal for policy in given for refusal in policy.refusals),
        limits=Limits(
            cores=_least(limit.cores for limit in limits),
            memory=_least(limit.memory for limit in limits),
            devices=devices,
            duration=_least(limit.duration for limit in limits),
            horizon=_least(limit.horizon for limit in limits),
        ),
    )


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


class Policies:
    """Asks a platform, and every plugin that is no platform, for the rules on a request.

    The latter have ``timeout`` seconds each. Make it after the platforms are built.
    """

    def __init__(self, pm: PluginManager, *, timeout: float = 10, clock: Clock = time.monotonic) -> None:
        self._sites = [
            PluginCalls(pm, impl.plugin, impl.plugin_name, timeout=timeout, clock=clock)
            for impl in pm.hook.ebhpc_policy.get_hookimpls()
            if impl.plugin_name not in pm.built
        ]

    def site(self, request: Request, identity: Identity, platform: str) -> Policy:
        """Return the rules of plugins that are no platform, for a request on ``platform``.

        Raises:
            PlatformUnavailable: a plugin failed. What it would have refused is not known, so nothing can be
                offered.
        """
        return merge_policies(
            site.call("ebhpc_policy", request=request, identity=identity, platform=platform) for site in self._sites
        )

    def ask(self, platform: Platform, request: Request, identity: Identity) -> Policy:
        """Return all rules for a request on ``platform``, its own included.

        Raises:
            PlatformUnavailable: the platform, or another plugin, failed.
        """
        own = platform.call("ebhpc_policy", request=request, identity=identity, platform=platform.name)
        return merge_policies([own, self.site(request, identity, platform.name)])
