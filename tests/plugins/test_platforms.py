"""Building the configured platforms, and the site's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

import ebhpc
from ebhpc.config import Config, SettingsError, load_config, read_settings
from ebhpc.model import Limits, Policy, message
from ebhpc.plugins import (
    PlatformUnavailable,
    PluginManager,
    Policies,
    build_platforms,
    describe_plugins,
    load_plugins,
    merge_policies,
    platforms,
)
from tests.plugins.batch import OWNER, Batch, FullBatch, request


class BatchSettings(Struct, frozen=True, kw_only=True):
    cores: int = 1
    partition: str


class BatchPlugin:
    """Serves the kind ``batch``; ``build`` makes its platforms."""

    __name__ = "batch_plugin"

    def __init__(self, build: Callable[[str], object] = Batch, serves: str = "batch") -> None:
        self.build = build
        self.serves = serves
        self.states: list[Path] = []

    @ebhpc.hookimpl
    def ebhpc_platform(self, kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
        if kind != self.serves:
            return None
        if settings:
            read_settings(BatchSettings, settings)
        self.states.append(state)
        return self.build(name)


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "ebhpc.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ={"EBHPC_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)})


TWO = "platforms:\n- {name: one, kind: batch}\n- {name: two, kind: batch}\n- {name: spare, kind: x, enabled: false}\n"


def test_platforms_are_built_registered_and_called_each_on_its_own(tmp_path: Path) -> None:
    plugin = BatchPlugin()
    pm = load_plugins(builtin=[plugin])
    built = build_platforms(pm, configured(tmp_path, TWO))
    assert list(built) == ["one", "two"]
    assert built["two"].call("ebhpc_snapshot", now=3).platform == "two"
    assert pm.is_registered(built["one"].implementation)
    assert plugin.states == [tmp_path / "state/platforms/one", tmp_path / "state/platforms/two"]
    assert all(state.is_dir() for state in plugin.states)
    (described,) = describe_plugins(pm)
    assert (described.name, described.platforms) == ("batch_plugin", ("one", "two"))
    assert {"ebhpc_platform", "ebhpc_submit"} <= set(described.hooks)
    assert built.findings == []


def test_a_platform_may_have_its_plugins_name(tmp_path: Path) -> None:
    pm = load_plugins(builtin=[BatchPlugin()])
    config = configured(tmp_path, "platforms: [{name: batch-plugin, kind: batch}]")
    config = replace(config, platforms=(replace(config.platforms[0], name="batch_plugin"),))
    built = build_platforms(pm, config)
    assert built["batch_plugin"].fault is None
    assert [described.platforms for described in describe_plugins(pm)] == [("batch_plugin",)]


def test_a_kind_that_no_plugin_serves_is_an_error_with_file_line_and_the_plugins_there_are(
    tmp_path: Path,
) -> None:
    pm = load_plugins(builtin=[BatchPlugin()])
    with pytest.raises(SettingsError) as raised:
        build_platforms(pm, configured(tmp_path, "platforms:\n- name: one\n  kind: slurm\n"))
    assert str(raised.value) == (
        f"{tmp_path}/ebhpc.yaml:3: kind: no plugin serves the kind slurm; plugins that serve platforms: batch_plugin"
    )


def test_settings_that_a_plugin_refuses_are_errors_with_file_and_line_all_at_once(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        "platforms:\n"
        "- name: one\n"
        "  kind: batch\n"
        "  settings:\n"
        "    core: 3\n"
        "    partition: [1]\n"
        "- {name: two, kind: batch, settings: {cores: 1}}\n",
    )
    with pytest.raises(SettingsError) as raised:
        build_platforms(load_plugins(builtin=[BatchPlugin()]), config)
    assert str(raised.value).replace(f"{tmp_path}/", "").splitlines() == [
        "ebhpc.yaml:5: settings.core: unknown setting; did you mean cores?",
        "ebhpc.yaml:6: settings.partition: expected a string, got a list",
        "ebhpc.yaml:7: settings: the setting partition is missing",
    ]


class Unmarked(Batch):
    def ebhpc_observe(self, sessions: object) -> tuple[object, ...]:  # type: ignore[override]
        return ()


class WrongArgument(Batch):
    @ebhpc.hookimpl
    def ebhpc_cancel(self, session: object, harder: bool) -> None:  # type: ignore[override]
        return None


class OnlySubmits:
    def __init__(self, name: str) -> None:
        self.name = name

    @ebhpc.hookimpl
    def ebhpc_submit(self) -> str:
        return self.name


def refuse(name: str) -> object:
    raise OSError("no such machine")


def leave(name: str) -> object:
    raise SystemExit(4)


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (refuse, "could not build it: OSError: no such machine"),
        (leave, "could not build it: SystemExit: 4"),
        (Unmarked, "ebhpc_observe is not marked with @ebhpc.hookimpl"),
        (WrongArgument, "harder"),
        (OnlySubmits, "it lacks ebhpc_cancel, ebhpc_cleanup, ebhpc_observe, ebhpc_refuses, ebhpc_snapshot"),
        (lambda name: "a string", "it lacks"),
    ],
)
def test_a_platform_that_cannot_be_built_takes_only_itself_out(
    tmp_path: Path, build: Callable[[str], object], fault: str
) -> None:
    plugin = BatchPlugin(lambda name: build(name) if name == "one" else Batch(name))
    built = build_platforms(load_plugins(builtin=[plugin]), configured(tmp_path, TWO))
    assert built["two"].call("ebhpc_refuses", request=request()) == ()
    with pytest.raises(PlatformUnavailable, match=fault):
        built["one"].call("ebhpc_refuses", request=request())
    assert built["one"].implements("ebhpc_release"), "nobody may skip a step for a fault"
    (finding,) = built.findings
    assert (finding.subject, finding.level) == ("one", "ERROR")
    assert fault in finding.text


def test_an_object_given_for_two_platforms_serves_the_first_only(tmp_path: Path) -> None:
    shared = Batch("one")
    plugin = BatchPlugin(lambda name: shared)
    built = build_platforms(load_plugins(builtin=[plugin]), configured(tmp_path, TWO))
    assert built["one"].fault is None
    assert built["two"].fault is not None
    assert "an object of its own for each platform" in built["two"].fault


def test_a_plugin_that_hangs_while_building_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(platforms, "BUILD_TIMEOUT", 0.1)
    gate = threading.Event()
    plugin = BatchPlugin(lambda name: gate.wait(30) if name == "one" else Batch(name))
    built = build_platforms(load_plugins(builtin=[plugin]), configured(tmp_path, TWO))
    gate.set()
    assert built["one"].fault is not None
    assert "no answer within 0.1 s" in built["one"].fault
    assert built["two"].fault is None


def test_a_plugin_that_fails_for_the_kinds_of_others_does_not_harm_them(tmp_path: Path) -> None:
    class Rude:
        __name__ = "rude"

        @ebhpc.hookimpl(tryfirst=True)
        def ebhpc_platform(self, settings: Mapping[str, Any]) -> object:
            settings["added"] = 1  # type: ignore[index]
            raise KeyError("kind")

    pm = load_plugins(builtin=[BatchPlugin(), Rude()])
    built = build_platforms(pm, configured(tmp_path, TWO))
    assert built["one"].fault is None
    assert built["one"].config.settings == {}


def test_a_state_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be made"):
        build_platforms(load_plugins(builtin=[BatchPlugin()]), configured(tmp_path, TWO))


NO = message("urn:policy-refused", "no")
NEVER = message("urn:policy-refused", "never")


def test_of_several_policies_refusals_add_up_and_the_tightest_limits_hold() -> None:
    merged = merge_policies(
        [
            None,
            Policy(refusals=(NO,), limits=Limits(cores=4, memory=100, devices={"a": 2, "b": 1})),
            Policy(refusals=(NEVER,), limits=Limits(cores=2, duration=60, devices={"a": 3})),
        ]
    )
    assert merged.refusals == (NO, NEVER)
    assert merged.limits == Limits(cores=2, memory=100, devices={"a": 2, "b": 1}, duration=60)
    assert merge_policies([]) == Policy()


def site_plugin(answer: Callable[[str], Policy | None]) -> object:
    class Site:
        __name__ = "site"

        @ebhpc.hookimpl
        def ebhpc_policy(self, platform: str) -> Policy | None:
            return answer(platform)

    return Site()


def policies_of(
    tmp_path: Path, own: Policy | None, answer: Callable[[str], Policy | None]
) -> tuple[PluginManager, Any, Policies]:
    plugin = BatchPlugin(lambda name: FullBatch(name, {"ebhpc_policy": lambda request, identity: own}))
    pm = load_plugins(builtin=[plugin, site_plugin(answer)])
    built = build_platforms(pm, configured(tmp_path, TWO))
    return pm, built, Policies(pm)


def test_plugins_that_are_no_platform_are_asked_about_every_platform(tmp_path: Path) -> None:
    _, built, policies = policies_of(
        tmp_path,
        Policy(limits=Limits(cores=8)),
        lambda name: Policy(refusals=(NO,)) if name == "two" else Policy(limits=Limits(cores=3)),
    )
    assert policies.ask(built["one"], request(), OWNER) == Policy(limits=Limits(cores=3))
    assert policies.ask(built["two"], request(), OWNER) == Policy(refusals=(NO,), limits=Limits(cores=8))


def test_rules_that_cannot_be_asked_for_offer_nothing(tmp_path: Path) -> None:
    def fail(name: str) -> Policy | None:
        raise OSError("directory down")

    _, built, policies = policies_of(tmp_path, None, fail)
    with pytest.raises(PlatformUnavailable, match="directory down") as raised:
        policies.ask(built["one"], request(), OWNER)
    assert raised.value.platform == "site"
