"""The hooks' pages keep to ebhpc/hookspecs.py: each hook has one, with its signature and a working example."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from ebhpc import hookspecs
from ebhpc.plugins import ABSENT, REQUIRED
from ebhpc.plugins.loading import fault_of

REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "docs" / "plugin-authors" / "hooks"
TEMPLATE = REPOSITORY / "docs" / "template-plugin" / "ebhpc_template" / "__init__.py"
HOOKS = sorted(
    name for name, function in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(function, "ebhpc_spec")
)


def page(hook: str) -> str:
    return (PAGES / f"{hook}.md").read_text(encoding="utf-8")


def examples(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_hook_has_a_page_and_every_page_a_hook() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == HOOKS
    overview = (PAGES.parent / "hooks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[(\w+)\]\(hooks/\1\.md\)", overview, re.MULTILINE)) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_a_page_has_the_hooks_signature_and_says_all_there_is_to_say(hook: str) -> None:
    text = page(hook)
    assert text.startswith(f"# {hook}\n")
    signature = inspect.signature(getattr(hookspecs, hook))
    assert f"```\n{hook}{signature}\n```".replace("'", "") in text
    for heading in ("Called by", "Returns", "Raises", "When left out"):
        assert re.search(rf"^{heading}\n: \S", text, re.MULTILINE), heading
    assert ("**it must be there" in text) == (hook in REQUIRED)
    assert hook in REQUIRED or hook in ABSENT or hook in ("ebhpc_platform", "ebhpc_kinds")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_pages_example_runs_and_its_hooks_are_hooks(hook: str) -> None:
    implemented = set()
    for number, example in enumerate(examples(page(hook))):
        module = ModuleType(f"example_{hook}_{number}")
        code = compile(example, f"{hook}.md", "exec", dont_inherit=True)
        exec(code, vars(module))  # the page's own text
        plugins = [
            module,
            *(it for it in vars(module).values() if inspect.isclass(it) and it.__module__ == module.__name__),
        ]
        for plugin in plugins:
            assert fault_of(plugin, "example") is None
            implemented |= {name for name in dir(plugin) if name.startswith("ebhpc_")}
    assert hook in implemented


def test_every_link_to_a_hook_leads_to_one() -> None:
    for path in (REPOSITORY / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\b(ebhpc_\w+)\.md", text):
            assert name in HOOKS, f"{path}: {name}"


def test_the_tutorial_shows_parts_of_the_template_that_are_there() -> None:
    text = (PAGES.parent / "tutorial.md").read_text(encoding="utf-8")
    template = TEMPLATE.read_text(encoding="utf-8")
    shown = re.findall(r"^:pyobject: (\S+)$", text, re.MULTILINE)
    assert len(shown) >= 4
    for name in shown:
        assert re.search(rf"^ *(class|def) {name.rpartition('.')[2]}\b", template, re.MULTILINE), name
