"""Whether this host can run notebooks: the Python that is to run them, and the kernel, looked for once in a while."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time

from ebhpc.local.settings import Local

_AGAIN = 300.0
"""Seconds after which an answer is looked for again."""

_LOOK = """
import sys
import nbclient, nbconvert, nbformat
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
try:
    KernelSpecManager().get_kernel_spec(sys.argv[1])
except NoSuchKernel:
    sys.exit(f"there is no Jupyter kernel {sys.argv[1]}")
"""


class NotebookSearch:
    """Asks the configured Python whether it has what notebooks need, and remembers the answer."""

    def __init__(self, settings: Local) -> None:
        self.python = settings.python or sys.executable
        self.kernel = settings.kernel
        self._lock = threading.Lock()
        self._answer: str | None = None
        self._looked: float | None = None

    def reason(self) -> str | None:
        """Return why notebooks cannot run here; None: they can."""
        with self._lock:
            if self._looked is None or time.monotonic() > self._looked + _AGAIN:
                self._answer = self._look()
                self._looked = time.monotonic()
            return self._answer

    def _look(self) -> str | None:
        if importlib.util.find_spec("nbformat") is None:
            return "ebhpc[notebook] is not installed"
        try:
            done = subprocess.run(
                [self.python, "-c", _LOOK, self.kernel],
                cwd="/",
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=60,
                check=False,
            )
        except OSError as error:
            return f"{self.python} cannot be run: {error.strerror}"
        except subprocess.TimeoutExpired:
            return f"{self.python} does not answer"
        if done.returncode == 0:
            return None
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"{self.python}: {last}" if last else f"{self.python} ends with exit code {done.returncode}"
