"""The standard's own schema as a judge of documents.

It lies in the directory that EBHPC_SPEC names, or in ``../shared/spec/v1.0`` beside the checkout. Where it is
absent, tests that need it are skipped (``tests.labs.require``).

``validate(document, "OfferSetResponse")`` checks plain data against a schema by its name, and every element within it
against the concrete schema that its ``kind`` selects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jsonschema
import yaml
from jsonschema.validators import extend
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from ebhpc.model.kinds import OWN_BASE
from tests.labs import require

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "spec" / "v1.0"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def directory() -> Path:
    """Return the directory of the standard's schema; skip the test where there is none."""
    path = Path(os.environ.get("EBHPC_SPEC") or _DEFAULT)
    require(
        (path / "components.yaml").is_file(),
        f"the standard's schema is not in {path}: set EBHPC_SPEC to the directory that has its components.yaml",
    )
    return path


def validate(document: object, name: str) -> None:
    """Raise AssertionError with every place where plain data is not what the schema of that name says."""
    wrong = errors(document, name)
    assert not wrong, f"not a valid {name}:\n" + "\n".join(wrong)


def errors(document: object, name: str) -> list[str]:
    """Return every place where plain data is not what the schema of that name says."""
    registry, index = _load(directory())
    validator = _VALIDATOR(
        {"$ref": index[name]}, registry=registry, format_checker=_FORMATS, _resolver=registry.resolver()
    )
    return list(dict.fromkeys(f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)))


def properties(name: str) -> dict[str, Any]:
    """Return the properties of a schema by name, those that it inherits among them."""
    registry, index = _load(directory())
    resolved = registry.resolver().lookup(index[name])
    return dict(_properties(resolved.contents, resolved.resolver))


def kinds() -> dict[str, str]:
    """Return the name of the concrete schema of each kind."""
    registry, index = _load(directory())
    found = {}
    for uri in index.values():
        resolved = registry.resolver().lookup(uri)
        mapping: Mapping[str, str] = resolved.contents.get("discriminator", {}).get("mapping", {})
        for kind, target in mapping.items():
            assert resolved.resolver.lookup(target).contents["type"] == "object"
            found[kind] = target.rpartition("/")[2]
    return found


def _properties(schema: Mapping[str, Any], resolver: Any) -> Iterator[tuple[str, Any]]:
    if "$ref" in schema:
        resolved = resolver.lookup(schema["$ref"])
        yield from _properties(resolved.contents, resolved.resolver)
    for part in schema.get("allOf", ()):
        yield from _properties(part, resolver)
    yield from schema.get("properties", {}).items()


@cache
def _load(path: Path) -> tuple[Registry[Any], dict[str, str]]:
    registry: Registry[Any] = Registry()
    index: dict[str, str] = {}
    for file in sorted(path.rglob("*.yaml")):
        contents = yaml.safe_load(file.read_text(encoding="utf-8"))
        uri = file.as_uri()
        registry = registry.with_resource(uri, Resource.from_contents(contents, default_specification=DRAFT202012))
        for name in contents.get("components", {}).get("schemas", {}):
            assert name not in index, f"{name} is defined in {index[name]} and in {uri}"
            index[name] = f"{uri}#/components/schemas/{name}"
    return registry, index


# --- the rules that JSON Schema leaves to OpenAPI ----------------------------------------------------------

_busy: set[tuple[int, str]] = set()


def _concrete(validator: Any, discriminator: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    kind = instance.get(discriminator["propertyName"])
    target = discriminator["mapping"].get(kind)
    if target is None:
        if isinstance(kind, str) and kind.startswith(OWN_BASE):
            return  # the standard leaves room for kinds that it does not know: our own description judges them
        yield jsonschema.ValidationError(f"{kind!r} is none of {sorted(discriminator['mapping'])}")
        return
    # The concrete schema includes the abstract one, whose discriminator leads here again.
    key = (id(instance), target.rpartition("/")[2])
    if key in _busy:
        return
    _busy.add(key)
    try:
        yield from validator.descend(instance, {"$ref": target})
    finally:
        _busy.discard(key)


_VALIDATOR: Any = extend(jsonschema.Draft202012Validator, {"discriminator": _concrete})
_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("uuid", ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value.lower()


@_FORMATS.checks("date-time")
def _is_instant(value: object) -> bool:
    return not isinstance(value, str) or _INSTANT.fullmatch(value) is not None


@_FORMATS.checks("uri", ValueError)
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


@_FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@_FORMATS.checks("int64")
def _is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63
