"""A cluster of one node: what the local platform runs of the kind that asks for nodes and GPUs."""

from __future__ import annotations

from ebhpc.model import Allocation, ClusterCompute, Gpus, Range
from tests.local.conftest import Workshop, changed, notebook, notebook_at
from tests.local.webserver import WebServer

TELL = """
import os
for name in sorted(os.environ):
    if name.startswith("EBHPC_DEVICES") or name == "CUDA_VISIBLE_DEVICES":
        open(os.environ["EBHPC_RESULTS"] + "/devices", "a").write(f"{name}={os.environ[name]}\\n")
"""


def test_a_session_gets_its_devices_once_whether_by_model_or_not(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform(devices={"gpu": 2, "gpu:a100": 2})
    session = workshop.session(platform, notebook_at(web.put("/tell.ipynb", notebook(TELL))))
    share = Allocation(node=platform.node, cores=1, memory=1024, devices={"gpu": 1, "gpu:a100": 1})
    compute = ClusterCompute(nodes=Range(min=1, max=1), gpus=Gpus(min=1, max=1, model="a100"))
    session = changed(session, allocations=(share,), compute=compute)
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", workshop.log(session)
    given = dict(line.split("=") for line in workshop.output(platform, session, "results/devices").splitlines())
    assert given.keys() == {"EBHPC_DEVICES_GPU", "CUDA_VISIBLE_DEVICES"}
    assert given["CUDA_VISIBLE_DEVICES"] in ("0", "1")
