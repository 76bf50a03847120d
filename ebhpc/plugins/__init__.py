"""Plugins: found, checked, and called so that one which fails takes only its own platform out.

- ``load_plugins`` finds them, ``describe_plugins`` lists them, ``added_kinds`` collects the types that they
  add.
- ``build_platforms`` makes the configured platforms; ``Platform.call`` calls one hook of one of them,
  ``Platform.call_each`` several with one change of threads.
- ``Policies`` asks for a site's rules, ``merge_policies`` makes one of several.
- ``SessionFailed`` and ``PlatformUnavailable`` are all that a call raises.
"""

from ebhpc.plugins.calls import ABSENT, REQUIRED
from ebhpc.plugins.failures import PlatformUnavailable, SessionFailed
from ebhpc.plugins.kinds import added_kinds
from ebhpc.plugins.loading import (
    Origin,
    PluginDescription,
    PluginManager,
    describe_plugins,
    load_plugins,
)
from ebhpc.plugins.platforms import Platform, Platforms, build_platforms
from ebhpc.plugins.policies import Policies, merge_policies

__all__ = [
    "ABSENT",
    "REQUIRED",
    "Origin",
    "Platform",
    "PlatformUnavailable",
    "Platforms",
    "PluginDescription",
    "PluginManager",
    "Policies",
    "SessionFailed",
    "added_kinds",
    "build_platforms",
    "describe_plugins",
    "load_plugins",
    "merge_policies",
]
