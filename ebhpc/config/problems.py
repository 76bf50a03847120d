"""What is wrong with settings, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead from the top of a document to a value."""


def spell(path: KeyPath) -> str:
    """Write a key path as people do: ``platforms[0].settings.cores``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


class SettingsProblem(Struct, frozen=True, kw_only=True):
    """One wrong setting: what was wrong and what was expected, its key path, its file and line when known.

    ``file`` may also name another source, as ``environment EBHPC_STATE``.
    """

    text: str
    path: KeyPath = ()
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = None if self.file is None else self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, spell(self.path), self.text) if part)


class SettingsError(Exception):
    """Settings are wrong; ``problems`` holds all that was found, a line each when printed.

    A plugin may raise it with plain sentences as well; ebhpc adds file and line of the platform's settings.
    """

    def __init__(self, *problems: SettingsProblem | str) -> None:
        self.problems: tuple[SettingsProblem, ...] = tuple(
            SettingsProblem(text=problem) if isinstance(problem, str) else problem for problem in problems
        )
        super().__init__("\n".join(map(str, self.problems)))


class Source(Struct, frozen=True, kw_only=True):
    """Where a mapping of settings was written: its file, and the line (from 1) of each key path within it."""

    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of ``path``, or of the nearest key above it that has one."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def problem(self, path: KeyPath, text: str) -> SettingsProblem:
        """Return the problem ``text`` of the setting at ``path``."""
        return SettingsProblem(text=text, path=path, file=self.file, line=self.line(path))

    def below(self, path: KeyPath) -> Source:
        """Return the source of the mapping at ``path``."""
        depth = len(path)
        return Source(
            file=self.file,
            lines={key[depth:]: line for key, line in self.lines.items() if key[:depth] == path},
        )

    def locate(self, problems: Iterable[SettingsProblem], under: KeyPath = ()) -> list[SettingsProblem]:
        """Add file and line to problems that have none, taking their paths to begin at ``under``."""
        return [
            problem
            if problem.file is not None
            else replace(
                problem,
                path=under + problem.path,
                file=self.file,
                line=self.line(under + problem.path),
            )
            for problem in problems
        ]
