"""Finding plugins: built in, installed (entry point group ``ebhpc``), and files of a directory."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import pluggy
from msgspec import Struct

from ebhpc import hookspecs
from ebhpc.config import SettingsError
from ebhpc.model import Finding

log = logging.getLogger(__name__)

GROUP = "ebhpc"


class Origin(Struct, frozen=True, kw_only=True):
    """Where a plugin comes from: ``built in``, a file, or an installed distribution with its ``version``."""

    place: str
    version: str | None = None


class PluginManager(pluggy.PluginManager):
    """pluggy's manager, and what there is to tell about the plugins.

    ``origins`` by plugin name; ``built``: by the name that a platform is registered under, the plugin that
    built it; ``findings``: plugins that were left out, and why.
    """

    def __init__(self) -> None:
        super().__init__("ebhpc")
        self.add_hookspecs(hookspecs)
        self.origins: dict[str, Origin] = {}
        self.built: dict[str, str] = {}
        self.findings: list[Finding] = []

    def leave_out(self, name: str, origin: Origin, text: str, error: BaseException | None = None) -> None:
        """Note that a plugin is left out."""
        log.warning("the plugin %s (%s) is left out: %s", name, origin.place, text, exc_info=error)
        self.findings.append(
            Finding(
                level="ERROR",
                subject=name,
                text=f"{text} ({origin.place})",
                advice="the plugin is left out: mend it, update it or remove it",
            )
        )


class PluginDescription(Struct, frozen=True, kw_only=True):
    """A line of ``ebhpc plugins``: a plugin, the hooks that it implements, the platforms that it built."""

    name: str
    origin: str
    version: str | None
    hooks: tuple[str, ...]
    platforms: tuple[str, ...] = ()


def load_plugins(plugins_dir: Path | None = None, builtin: Iterable[object] = ()) -> PluginManager:
    """Load the ``builtin`` modules, installed plugins, and each ``*.py`` file or package in ``plugins_dir``.

    Files whose name begins with ``_`` or ``.`` are passed over. A plugin that cannot be imported, or has a
    hook that is not in ``ebhpc.hookspecs``, is left out; ``findings`` of the result say why.

    Raises:
        SettingsError: ``plugins_dir`` is no directory.
    """
    pm = PluginManager()
    for plugin in builtin:
        name = getattr(plugin, "__name__", type(plugin).__name__).rpartition(".")[2]
        _add(pm, name, Origin(place="built in"), lambda plugin=plugin: plugin)  # type: ignore[misc]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        _add(pm, point.name, _installed(point), point.load)
    if plugins_dir is not None:
        if not plugins_dir.is_dir():
            raise SettingsError(f"--plugins-dir {plugins_dir}: there is no such directory")
        for path in sorted(plugins_dir.iterdir()):
            file = path / "__init__.py" if path.is_dir() else path
            if path.name[0] in "._" or file.suffix != ".py" or not file.is_file():
                continue
            _add(pm, path.stem, Origin(place=str(path)), lambda file=file: _import_file(file))  # type: ignore[misc]
    return pm


def fault_of(plugin: object, name: str) -> str | None:
    """Say what is wrong with a plugin's hooks, before it is registered; None: nothing."""
    trial = pluggy.PluginManager("ebhpc")
    trial.add_hookspecs(hookspecs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial.register(plugin, name=name)
    except (pluggy.PluginValidationError, ValueError, TypeError) as error:
        return " ".join(str(error).split())
    specified = {hook for hook, _ in inspect.getmembers(hookspecs, _is_specification)}
    for hook, caller in vars(trial.hook).items():
        if not isinstance(caller, pluggy.HookCaller) or not caller.get_hookimpls():
            continue
        if hook not in specified:
            return f"unknown hook {hook}; the hooks are {', '.join(sorted(specified))}"
        if len(caller.get_hookimpls()) > 1:
            return f"{hook} is implemented twice"
        if any(impl.wrapper or impl.hookwrapper for impl in caller.get_hookimpls()):
            return f"{hook} is a wrapper; a plugin cannot wrap the hooks of others"
    marked = {
        impl.function.__name__ for caller in trial.get_hookcallers(plugin) or () for impl in caller.get_hookimpls()
    }
    for attribute in dir(plugin):
        unmarked = attribute.startswith("ebhpc_") and attribute not in marked
        if unmarked and inspect.isroutine(inspect.getattr_static(plugin, attribute)):
            return f"{attribute} is not marked with @ebhpc.hookimpl"
    return None


def describe_plugins(pm: PluginManager) -> list[PluginDescription]:
    """Describe the loaded plugins, sorted by name; a plugin's hooks are also those of its platforms."""
    described = []
    for name, plugin in sorted(pm.list_name_plugin()):
        if plugin is None or name in pm.built:
            continue
        origin = pm.origins.get(name, Origin(place="registered by the program"))
        built = sorted(registered for registered, by in pm.built.items() if by == name)
        objects = [plugin, *(pm.get_plugin(registered) for registered in built)]
        hooks = {caller.name for item in objects if item is not None for caller in pm.get_hookcallers(item) or ()}
        described.append(
            PluginDescription(
                name=name,
                origin=origin.place,
                version=origin.version,
                hooks=tuple(sorted(hooks)),
                platforms=tuple(registered.removeprefix("platform ") for registered in built),
            )
        )
    return described


def _is_specification(member: object) -> bool:
    return inspect.isfunction(member) and hasattr(member, "ebhpc_spec")


def _installed(point: EntryPoint) -> Origin:
    if point.dist is None:
        return Origin(place=f"entry point {point.value}")
    return Origin(place=point.dist.name, version=point.dist.version)


def _import_file(file: Path) -> ModuleType:
    stem = file.parent.name if file.name == "__init__.py" else file.stem
    name = f"ebhpc_plugins_dir_{stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _add(pm: PluginManager, name: str, origin: Origin, load: Callable[[], object]) -> None:
    try:
        plugin = load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # SystemExit as well: a plugin must not end the broker
        pm.leave_out(name, origin, f"cannot be imported: {type(error).__name__}: {error}", error)
        return
    if pm.has_plugin(name):
        pm.leave_out(name, origin, f"a plugin of this name is loaded already, from {pm.origins[name].place}")
        return
    if pm.is_registered(plugin):
        pm.leave_out(name, origin, "is loaded already under another name")
        return
    if (fault := fault_of(plugin, name)) is not None:
        pm.leave_out(name, origin, fault)
        return
    pm.register(plugin, name=name)
    pm.origins[name] = origin
