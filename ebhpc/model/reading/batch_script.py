"""What a batch script must say to be run."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from msgspec.structs import replace

from ebhpc.model.batch_script import BatchScript
from ebhpc.model.reading.environment import check_environment
from ebhpc.model.reading.findings import Findings
from ebhpc.model.structure import pointer

LONGEST = 256 * 1024
"""Characters of a script."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_LONGEST_MODULE = 200


def read_batch_script(script: BatchScript, findings: Findings) -> BatchScript:
    """Return the script with what is empty left out; what is wrong goes to ``findings``."""
    _check_source(script, findings)
    _check_words(script.interpreter, "/executable/interpreter", findings)
    if script.interpreter and not script.interpreter[0].startswith("/"):
        findings.invalid("/executable/interpreter/0", script.interpreter[0], "an absolute path such as /bin/bash")
    _check_words(script.arguments, "/executable/arguments", findings)
    check_environment(script.environment or {}, findings)
    if script.directory is not None and findings.line(script.directory, "/executable/directory", "a directory"):
        absolute = script.directory.startswith("/") and ".." not in script.directory.split("/")
        if not absolute:
            findings.invalid("/executable/directory", script.directory, "an absolute path without ..")
    _check_modules(script.modules, findings)
    return replace(
        script,
        interpreter=script.interpreter or None,
        arguments=script.arguments or None,
        environment=script.environment or None,
        directory=None if script.directory is None else posixpath.normpath(script.directory),
        modules=list(dict.fromkeys(script.modules)) if script.modules else None,
    )


def _check_source(script: BatchScript, findings: Findings) -> None:
    if script.script is None and script.location is None:
        findings.missing("/executable/script", "the script's text, or its URL as location, and its digest")
    if script.script is not None and script.location is not None:
        findings.invalid("/executable/location", script.location, "either the script's text or its URL, not both")
    text = script.script
    if text is not None:
        if not text.strip():
            findings.invalid("/executable/script", text, "a script that is not empty")
        elif len(text) > LONGEST:
            findings.invalid("/executable/script", text, f"at most {LONGEST} characters; give a longer one's location")
        elif "\0" in text:
            findings.invalid("/executable/script", text, "a text without NUL characters")
    if script.location is not None:
        findings.url(script.location, "/executable/location")
        if script.digest is None:
            findings.missing("/executable/digest", "the script's digest, sha256: and 64 hexadecimal digits")
    if script.digest is not None and not _DIGEST.fullmatch(script.digest):
        expected = "sha256: and 64 hexadecimal digits in lower case"
        findings.invalid("/executable/digest", script.digest, expected)


def _check_words(words: Sequence[str] | None, path: str, findings: Findings) -> None:
    if words and findings.few(words, path):
        for place, word in enumerate(words):
            findings.text(word, pointer(path, place))


def _check_modules(modules: Sequence[str] | None, findings: Findings) -> None:
    path = "/executable/modules"
    if not modules or not findings.few(modules, path):
        return
    for place, module in enumerate(modules):
        if len(module) > _LONGEST_MODULE or not _MODULE.fullmatch(module):
            findings.invalid(pointer(path, place), module, "the name of a module such as gcc/13.2")
