"""Ending whatever a session's job has left on this host: processes, container, control group.

Imported by the supervisor: the standard library and psutil only.
"""

from __future__ import annotations

from typing import Any

import psutil

from ebhpc.local import cgroups, processes
from ebhpc.local.engine_calls import Container


def end(uuid: str, name: str, container: dict[str, Any] | None, *, children_of: int | None = None) -> list[str]:
    """End all that is left of a session; return what could not be ended, in words. Safe to repeat.

    ``container`` is job.json's, or None; ``children_of``: all below this process are the session's, too.
    """
    stubborn = []
    if container is not None and not Container(container).remove():
        stubborn.append(f"container {name}")
    group = cgroups.find(name)

    def find() -> list[psutil.Process]:
        found = set(processes.marked(uuid))
        if children_of is not None:
            found.update(processes.descendants(children_of))
        if group is not None:
            found.update(processes.of_pids(group.processes()))
        return list(found)

    if not processes.end_all(find):
        stubborn.append(f"processes {', '.join(str(process.pid) for process in find())}")
    if group is not None and not group.remove():
        stubborn.append(f"control group {name}")
    return stubborn
