"""The examples that newcomers start from, and the commented settings, are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from ebhpc.config import read_settings, setting_fields
from ebhpc.local.settings import Local, Runtime
from ebhpc.model import ExecutionRequest, JupyterNotebook
from ebhpc.model.registry import Kinds
from ebhpc.staging.references import is_digest, read_reference
from tests.local.conftest import Workshop, said
from tests.local.webserver import WebServer

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


def test_the_notebook_finds_its_planet(workshop: Workshop, web: WebServer) -> None:
    body = (EXAMPLES / "hello.ipynb").read_bytes()
    assert all(not cell.get("outputs") for cell in json.loads(body)["cells"])
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/hello.ipynb", body)))
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", said(seen)
    page = workshop.output(platform, session, "results/hello.html")
    assert "period found: 3.21" in page


@pytest.mark.parametrize("name", ["hello-notebook.yaml", "hello-container.yaml"])
def test_the_requests_are_read_without_a_complaint(name: str) -> None:
    document: Any = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    decoded = Kinds().request(document)
    assert (decoded.problems, decoded.warnings) == ((), ())
    assert isinstance(decoded.document, ExecutionRequest)


def test_the_container_needs_nothing_but_a_digest() -> None:
    document: Any = yaml.safe_load((EXAMPLES / "hello-container.yaml").read_text(encoding="utf-8"))
    image = document["executable"]["image"]
    assert read_reference(image["locations"][0]) is not None
    assert is_digest(image["digest"].replace("DIGEST", "ab" * 32))


def test_the_commented_settings_are_all_there_are_with_their_defaults() -> None:
    path = ROOT / "conf" / "platforms.d" / "local.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    # Take the # from before every setting; prose begins with "# "
    bare = "\n".join(line.replace("#", "", 1) if line.lstrip().startswith("#") else line for line in lines)
    uncommented = "\n".join(
        line
        for line, was in zip(bare.splitlines(), lines, strict=True)
        if not was.lstrip().startswith("# ") and was.strip() != "#"
    )
    given: dict[str, Any] = yaml.safe_load(uncommented)["settings"]
    assert set(given) == {field.encode_name for field in setting_fields(Local)}
    assert set(given["runtime"]) == {field.encode_name for field in setting_fields(Runtime)}
    examples: dict[str, Any] = {"devices": {}, "port_range": None}
    read = read_settings(Local, {**given, **examples})
    assert msgspec.structs.asdict(read) == msgspec.structs.asdict(Local())
