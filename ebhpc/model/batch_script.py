"""A batch script to run as a batch system runs one. A kind of ours beside the standard's."""

from __future__ import annotations

from ebhpc.model import kinds
from ebhpc.model.elements import Executable


class BatchScript(Executable, tag=kinds.BATCH_SCRIPT):
    """A script: its text (``script``), or its URL (``location``) and the ``digest`` that it must have.

    It runs once, on the first of the session's nodes, and starts what runs on the others by the batch system's own
    launcher. ``interpreter`` is a program and its options; absent, the script's first line names it (``#!``), and else
    ``/bin/sh`` reads it. ``directory`` is the absolute path that it runs in; absent, one of the session's own.
    ``modules`` are loaded before it begins.
    """

    script: str | None = None
    location: str | None = None
    digest: str | None = None
    interpreter: list[str] | None = None
    arguments: list[str] | None = None
    environment: dict[str, str] | None = None
    directory: str | None = None
    modules: list[str] | None = None
