"""Results are what lies in their directory, and never anything else, whatever a job has left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebhpc.staging.outputs import listed, opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The output directory of a session, with a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "job.json").write_text("{}")
    root = tmp_path / "output"
    (root / "results" / "deep").mkdir(parents=True)
    (root / "stdout").write_text("out")
    (root / "stderr").write_text("")
    (root / "results" / "deep" / "plot.png").write_bytes(b"png")
    return root


def test_results_are_listed_with_size_and_type(root: Path) -> None:
    (root / "results" / "n.ipynb").write_text("{}")
    (root / "results" / "unknown").write_text("1234")
    assert [(one.name, one.size, one.media_type) for one in listed(root)] == [
        ("stdout", 3, "text/plain; charset=utf-8"),
        ("stderr", 0, "text/plain; charset=utf-8"),
        ("results/n.ipynb", 2, "application/x-ipynb+json"),
        ("results/unknown", 4, "application/octet-stream"),
        ("results/deep/plot.png", 3, "image/png"),
    ]


def test_a_session_without_a_directory_has_no_results(tmp_path: Path) -> None:
    assert list(listed(tmp_path / "none")) == []
    assert opened(tmp_path / "none", "stdout") is None


def test_a_result_is_opened(root: Path) -> None:
    file = opened(root, "results/deep/plot.png")
    assert file is not None
    with file:
        assert file.read() == b"png"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "../secret",
        "results/../../secret",
        "results//deep/plot.png",
        "/etc/passwd",
        "results/./deep/plot.png",
        "results",
        "results/deep",
        "none",
        "stdout/",
        "stdout\0",
        "results/\ud800",
        "a/" * 100 + "b",
        "x" * 10_000,
        "..\\secret",
        "%2e%2e/secret",
        "job.json",
    ],
)
def test_no_name_leads_anywhere_else(root: Path, name: str) -> None:
    assert opened(root, name) is None


def test_links_are_no_results(root: Path) -> None:
    results = root / "results"
    (results / "file").symlink_to(root.parent / "secret")
    (results / "absolute").symlink_to("/etc/passwd")
    (results / "folder").symlink_to(root.parent)
    (results / "inside").symlink_to("deep/plot.png")
    (results / "circle").symlink_to("circle")
    assert [one.name for one in listed(root)] == ["stdout", "stderr", "results/deep/plot.png"]
    for name in ("file", "absolute", "folder/secret", "inside", "circle"):
        assert opened(root, f"results/{name}") is None


def test_stdout_itself_may_have_been_made_a_link(root: Path) -> None:
    (root / "stdout").unlink()
    (root / "stdout").symlink_to(root.parent / "secret")
    assert opened(root, "stdout") is None
    assert "stdout" not in {one.name for one in listed(root)}


def test_pipes_and_sockets_are_no_results_and_keep_nobody_waiting(root: Path) -> None:
    os.mkfifo(root / "results" / "pipe")
    assert opened(root, "results/pipe") is None
    assert "results/pipe" not in {one.name for one in listed(root)}


def test_names_that_are_no_text_are_left_out(root: Path) -> None:
    with open(os.fsencode(root) + b"/results/\xff", "wb") as file:
        file.write(b"x")
    assert [one.name for one in listed(root)] == ["stdout", "stderr", "results/deep/plot.png"]
