"""Finding plugins: a plugin that is wrong is left out with a reason, and the others are there all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import Struct

import ebhpc
from ebhpc.config import SettingsError
from ebhpc.model import Executable, kinds
from ebhpc.plugins import added_kinds, describe_plugins, load_plugins
from tests.plugins.batch import plugin_file

GOOD = """
import ebhpc

@ebhpc.hookimpl
def ebhpc_policy(request):
    return None
"""


def test_files_and_packages_of_a_directory_are_loaded(tmp_path: Path) -> None:
    plugin_file(tmp_path, "site_rules.py", GOOD)
    plugin_file(tmp_path, "big/__init__.py", "from ebhpc_plugins_dir_big.rules import ebhpc_policy\n")
    plugin_file(tmp_path, "big/rules.py", GOOD)
    plugin_file(tmp_path, "_draft.py", "raise OSError")
    plugin_file(tmp_path, ".hidden.py", "raise OSError")
    plugin_file(tmp_path, "notes.txt", "raise OSError")
    plugin_file(tmp_path, "empty/rules.py", "raise OSError")
    pm = load_plugins(tmp_path)
    assert pm.findings == []
    assert [(it.name, it.origin, it.hooks) for it in describe_plugins(pm)] == [
        ("big", str(tmp_path / "big"), ("ebhpc_policy",)),
        ("site_rules", str(tmp_path / "site_rules.py"), ("ebhpc_policy",)),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import ebhpc_nowhere", "cannot be imported: ModuleNotFoundError: No module named 'ebhpc_nowhere'"),
        ("def f(:", "cannot be imported: SyntaxError"),
        ("raise SystemExit(2)", "cannot be imported: SystemExit: 2"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("raise BaseException('x')", "cannot be imported: BaseException: x"),
        (
            "import ebhpc\n@ebhpc.hookimpl\ndef ebhpc_refuse(request): return ()\n",
            "unknown hook ebhpc_refuse",
        ),
        (
            "import ebhpc\n@ebhpc.hookimpl\ndef ebhpc_refuses(request, identity): return ()\n",
            "Argument.s. {'identity'} are declared in the hookimpl but can not be found in the hookspec",
        ),
        ("def ebhpc_refuses(request): return ()\n", "ebhpc_refuses is not marked with @ebhpc.hookimpl"),
        (
            "import ebhpc\n@ebhpc.hookimpl(wrapper=True)\ndef ebhpc_refuses(request): return (yield)\n",
            "ebhpc_refuses is a wrapper",
        ),
        (
            "import ebhpc\n@ebhpc.hookimpl\ndef ebhpc_policy(): pass\n"
            "@ebhpc.hookimpl(specname='ebhpc_policy')\ndef again(): pass\n",
            "ebhpc_policy is implemented twice",
        ),
        ("import ebhpc\n@ebhpc.hookimpl(wrapper=True)\ndef ebhpc_kinds(): return ()\n", "not a generator"),
    ],
)
def test_a_plugin_that_is_wrong_is_left_out_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    plugin_file(tmp_path, "a_wrong.py", text)
    plugin_file(tmp_path, "b_good.py", GOOD)
    pm = load_plugins(tmp_path)
    (finding,) = pm.findings
    assert (finding.level, finding.subject) == ("ERROR", "a_wrong")
    assert str(tmp_path / "a_wrong.py") in finding.text
    import re

    assert re.search(reason, finding.text), finding.text
    assert [it.name for it in describe_plugins(pm)] == ["b_good"]


def test_a_plugins_directory_that_is_none_is_an_error_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such directory"):
        load_plugins(tmp_path / "nowhere")


def test_builtin_plugins_are_named_after_their_module() -> None:
    module = ModuleType("ebhpc.local")

    @ebhpc.hookimpl
    def ebhpc_kinds() -> tuple[type, ...]:
        return ()

    module.ebhpc_kinds = ebhpc_kinds  # type: ignore[attr-defined]
    pm = load_plugins(builtin=[module])
    (described,) = describe_plugins(pm)
    assert (described.name, described.origin, described.version) == ("local", "built in", None)


def test_two_plugins_of_one_name_do_not_replace_one_another(tmp_path: Path) -> None:
    plugin_file(tmp_path, "local.py", GOOD)
    pm = load_plugins(tmp_path, builtin=[ModuleType("ebhpc.local")])
    assert "a plugin of this name is loaded already, from built in" in pm.findings[0].text


def test_a_property_of_a_plugin_object_is_not_run_while_it_is_looked_at() -> None:
    class Sly:
        __name__ = "sly"

        @property
        def secret(self) -> str:
            raise AssertionError("was run")

        @ebhpc.hookimpl
        def ebhpc_kinds(self) -> tuple[type, ...]:
            return ()

    assert load_plugins(builtin=[Sly()]).findings == []


def test_installed_plugins_are_found_by_their_entry_point(tmp_path: Path) -> None:
    """In a process of its own, with a distribution on its path as pip would leave it."""
    plugin_file(tmp_path, "ebhpc_some.py", GOOD)
    plugin_file(tmp_path, "ebhpc_odd.py", "raise SystemExit('no')")
    plugin_file(
        tmp_path, "ebhpc_some-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: ebhpc-some\nVersion: 1.2\n"
    )
    plugin_file(
        tmp_path,
        "ebhpc_some-1.2.dist-info/entry_points.txt",
        "[ebhpc]\nsome = ebhpc_some\nodd = ebhpc_odd\nnone = ebhpc_none\n",
    )
    script = """
from ebhpc.plugins import describe_plugins, load_plugins
pm = load_plugins()
print([(it.name, it.origin, it.version) for it in describe_plugins(pm) if it.name == "some"])
print(sorted(finding.subject for finding in pm.findings))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[('some', 'ebhpc-some', '1.2')]", "['none', 'odd']"]


KINDS = """
import ebhpc
from ebhpc.model import Executable

class Script(Executable, tag="https://example.org/kinds/script.yaml"):
    text: str | None = None

@ebhpc.hookimpl
def ebhpc_kinds():
    return [Script]
"""


def test_kinds_that_plugins_add_are_collected(tmp_path: Path) -> None:
    plugin_file(tmp_path, "scripts.py", KINDS)
    pm = load_plugins(tmp_path)
    (script,) = added_kinds(pm)
    assert issubclass(script, Executable)
    assert issubclass(script, Struct)
    assert pm.findings == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("return [Script]", "return Script"), "TypeError"),
        (("return [Script]", "return None"), "TypeError"),
        (("return [Script]", "return [str]"), "must be a Struct derived from"),
        (("return [Script]", "return [Script()]"), "is not a class"),
        (("return [Script]", "import sys; sys.exit()"), "SystemExit"),
        ((', tag="https://example.org/kinds/script.yaml"', ""), "needs a URI of its own"),
        (("https://example.org/kinds/script.yaml", "script"), "needs a URI of its own"),
        (
            ("https://example.org/kinds/script.yaml", kinds.JUPYTER_NOTEBOOK),
            "is taken by ebhpc.model.elements.JupyterNotebook",
        ),
    ],
)
def test_kinds_that_are_wrong_are_left_out_with_the_reason(
    tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    plugin_file(tmp_path, "odd.py", KINDS.replace(*change))
    plugin_file(tmp_path, "good.py", KINDS.replace("script.yaml", "good.yaml"))
    pm = load_plugins(tmp_path)
    assert [type_.__name__ for type_ in added_kinds(pm)] == ["Script"]
    assert [finding.subject for finding in pm.findings] == ["odd"]
    assert reason in pm.findings[0].text


def test_a_kind_that_two_plugins_add_is_the_firsts(tmp_path: Path) -> None:
    plugin_file(tmp_path, "one.py", KINDS)
    plugin_file(tmp_path, "two.py", KINDS)
    pm = load_plugins(tmp_path)
    assert len(added_kinds(pm)) == 1
    assert "is taken by" in pm.findings[0].text
