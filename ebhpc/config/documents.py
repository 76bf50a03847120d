"""YAML files of settings as plain data, with the line of every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ebhpc.config.problems import KeyPath, SettingsError, SettingsProblem, Source

_MERGE = "tag:yaml.org,2002:merge"


def read_document(path: Path) -> tuple[dict[str, Any], Source]:
    """Read a YAML file whose top is a mapping; an empty file is an empty one.

    Raises:
        SettingsError: the file cannot be read, is no YAML, has a key twice, a key that is no string, or no
            mapping at its top.
    """
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(SettingsProblem(file=file, text=f"cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError as error:
        raise SettingsError(SettingsProblem(file=file, text=f"is no UTF-8 text (byte {error.start})")) from None
    reading = _Reading(file)
    try:
        loader = reading.loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        data = {} if node is None else reading.build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SettingsError(
            SettingsProblem(
                file=file,
                line=None if mark is None else mark.line + 1,
                text=f"is no YAML: {error.problem or error.context}",
            )
        ) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(SettingsProblem(file=file, text=f"is no YAML: {reason}")) from None
    except RecursionError:
        raise SettingsError(SettingsProblem(file=file, text="is nested too deeply")) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        reading.wrong((), 1, "expected a mapping of settings at the top")
        data = {}
    if reading.problems:
        raise SettingsError(*reading.problems)
    return data, Source(file=file, lines=reading.lines)


class _Reading:
    """Builds plain data from YAML nodes and notes the line of each key."""

    loader: yaml.SafeLoader

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[SettingsProblem] = []
        self.open: set[int] = set()

    def wrong(self, path: KeyPath, line: int, text: str) -> None:
        self.problems.append(SettingsProblem(file=self.file, line=line, path=path, text=text))

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            try:
                return self.loader.construct_object(node)
            except ValueError as error:  # as 2026-13-45, which looks like a date
                self.wrong(path, node.start_mark.line + 1, f"{node.value!r} is no value: {error}")
                return None
        if id(node) in self.open:
            self.wrong(path, node.start_mark.line + 1, "an alias refers to what contains it")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, at)) for at, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self.mapping(node, path)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        merged = any(key.tag == _MERGE for key, _ in node.value)
        if merged:
            self.loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                name = getattr(key_node, "value", "")
                self.wrong(path, line, f"expected a key that is a string, got {name!r}; quote it")
                continue
            key = key_node.value
            if key in result and not merged:  # a merged key comes first, and the mapping's own replaces it
                self.wrong((*path, key), line, f"is given twice, first on line {self.lines[*path, key]}")
                continue
            self.lines[*path, key] = line
            result[key] = self.build(value_node, (*path, key))
        return result
