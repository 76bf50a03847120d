"""A Python client made by openapi-generator from the standard's schema, nothing of ebhpc in it.

The generator takes up only schemas that something refers to, and the standard's subtypes stand in files of their own
that only discriminators name. So the files are first put into one document, as every user of the generator does with
a bundler: the schemas stay as they are, their references become local.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PACKAGE = "standard_client"


def bundle(spec: Path) -> dict[str, Any]:
    """The standard's OpenAPI document with the schemas of all its files in it."""
    document: dict[str, Any] = yaml.safe_load((spec / "execution-broker.yaml").read_text(encoding="utf-8"))
    schemas: dict[str, Any] = {}
    for file in sorted(spec.rglob("*.yaml")):
        if file.name != "execution-broker.yaml":
            schemas |= yaml.safe_load(file.read_text(encoding="utf-8"))["components"]["schemas"]
    document["components"] = {"schemas": schemas}
    return _local(document)


def _local(node: Any) -> Any:
    """``node`` with each reference to a schema of any file as one within the document."""
    if isinstance(node, dict):
        return {name: _local(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_local(item) for item in node]
    if isinstance(node, str) and "#/components/schemas/" in node:
        return "#" + node.rpartition("#")[2]
    return node


def missing() -> str | None:
    """What is missing here for generating a client; None: nothing."""
    if shutil.which("java") is None:
        return "there is no java, which openapi-generator needs (Debian: default-jre-headless)"
    if not Path(sys.executable).with_name("openapi-generator-cli").exists():
        return "openapi-generator-cli is not installed (the extra 'test')"
    return None


def generate(spec: Path, folder: Path) -> Path:
    """Generate the client below ``folder``; return the directory to import ``standard_client`` from."""
    source = folder / "bundle.yaml"
    source.write_text(yaml.safe_dump(bundle(spec), sort_keys=False), encoding="utf-8")
    target = folder / "client"
    command = [str(Path(sys.executable).with_name("openapi-generator-cli")), "generate", "--generator-name", "python"]
    command += ["--input-spec", str(source), "--output", str(target), "--package-name", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"openapi-generator failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return target
