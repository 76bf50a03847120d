"""The data-model types that plugins add."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from ebhpc.model.registry import Kinds
from ebhpc.plugins.loading import Origin, PluginManager


def added_kinds(pm: PluginManager) -> list[type]:
    """Return the types that all plugins add by ``ebhpc_kinds``, which :class:`ebhpc.model.registry.Kinds` takes.

    A plugin whose answer is no types, or one of whose kinds exists already, adds none; ``pm.findings`` says why.
    """
    added: list[type] = []
    for impl in pm.hook.ebhpc_kinds.get_hookimpls():
        origin = pm.origins.get(impl.plugin_name, Origin(place="registered by the program"))
        try:
            types = list(cast(Iterable[type], impl.function()))
            Kinds([*added, *types])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # SystemExit as well: a plugin must not end the broker
            pm.leave_out(impl.plugin_name, origin, f"ebhpc_kinds: {type(error).__name__}: {error}", error)
        else:
            added += types
    return added
