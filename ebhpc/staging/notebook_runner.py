"""Executes one notebook without a browser, and keeps what came of it, also where a cell failed or time ran out.

    notebook_runner.py NOTEBOOK RESULT KERNEL OUTCOME

NOTEBOOK is read, RESULT.ipynb and RESULT.html are written, and OUTCOME, JSON, where a cell failed. The working
directory is the job's; the kernel is reached by Unix sockets in it, so nobody else reaches the kernel. This file needs
nothing of ebhpc: it runs under whatever Python the site has configured, with nbclient, nbconvert and ipykernel.

Exit codes: 0 all cells ran; 1 a cell failed; 2 the kernel could not be started, or died; 3 ended by SIGTERM.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any, NoReturn

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 4000
"""Characters of an error that are told; the rest is in the notebook."""


class Stopped(BaseException):
    """SIGTERM: save what there is."""


def main() -> int:
    """Execute the notebook named on the command line; return the exit code."""
    source, result, kernel, outcome = sys.argv[1:5]
    sockets = ".ebhpc-kernel"
    os.makedirs(sockets, mode=0o700, exist_ok=True)
    os.environ.setdefault("JUPYTER_RUNTIME_DIR", os.path.abspath(sockets))
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

    import nbformat
    from jupyter_client.kernelspec import NoSuchKernel
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    # A relative path keeps the sockets' names short: Unix allows 107 bytes (unix(7))
    manager = AsyncKernelManager(kernel_name=kernel, transport="ipc", ip=os.path.join(sockets, "kernel"))
    client = NotebookClient(
        notebook, km=manager, timeout=None, startup_timeout=120, resources={"metadata": {"path": "."}}
    )
    # While it executes, nbclient answers SIGTERM itself: it ends the kernel, which is then found dead
    signal.signal(signal.SIGTERM, _stop)
    code = 0
    problem: dict[str, Any] = {}
    try:
        client.execute()
    except CellExecutionError as error:
        problem = {
            "what": "cell",
            "cell": _failed_cell(notebook),
            "error": error.ename,
            "text": _short(error.evalue),
        }
        code = 1
    except DeadKernelError:
        problem = {"what": "died", "cell": _running_cell(notebook)}
        code = 2
    except NoSuchKernel as error:
        problem = {"what": "no-kernel", "text": str(error.name)}
        code = 2
    except RuntimeError as error:
        problem = {"what": "not-started", "text": _short(str(error))}
        code = 2
    except Stopped:
        code = 3
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _keep(notebook, result)
    if problem:
        with open(outcome, "w", encoding="utf-8") as file:
            json.dump({"cell": 0, "error": "", "text": "", **problem}, file)
    return code


def _keep(notebook: Any, result: str) -> None:
    """Write the notebook and its page; without a page where that fails, for the notebook has it all."""
    import nbformat

    nbformat.write(notebook, result + ".ipynb")  # type: ignore[no-untyped-call]  # as above
    try:
        from nbconvert import HTMLExporter

        exporter = HTMLExporter()  # type: ignore[no-untyped-call]  # nbconvert has no types
        page, _ = exporter.from_notebook_node(notebook)
        with open(result + ".html", "w", encoding="utf-8") as file:
            file.write(page)
    except Exception as error:  # noqa: BLE001  # whatever a template or an output makes of it
        print(f"the notebook's page could not be made: {error}", file=sys.stderr)  # noqa: T201  # the job's stderr


def _stop(*_: object) -> NoReturn:
    raise Stopped


def _failed_cell(notebook: Any) -> int:
    """Return the number, from 1, of the cell that has an error among its outputs."""
    for at, cell in enumerate(notebook.cells, start=1):
        if any(output.get("output_type") == "error" for output in cell.get("outputs", ())):
            return at
    return 0


def _running_cell(notebook: Any) -> int:
    """Return the number, from 1, of the cell that has begun and not ended."""
    for at, cell in enumerate(notebook.cells, start=1):
        times = cell.get("metadata", {}).get("execution", {})
        if "iopub.execute_input" in times and "shell.execute_reply" not in times:
            return at
    return 0


def _short(text: str) -> str:
    plain = _COLOURS.sub("", text)
    return plain if len(plain) <= _LONGEST else plain[:_LONGEST] + " …"


if __name__ == "__main__":
    sys.exit(main())
