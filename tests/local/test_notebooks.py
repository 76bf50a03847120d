"""Notebooks, from their URL to what came of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ebhpc.model import (
    DataLink,
    IvoaBlock,
    IvoaData,
    JupyterNotebook,
    Metadata,
    Range,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
)
from ebhpc.plugins import SessionFailed
from tests.labs import require
from tests.local.conftest import Workshop, notebook, said
from tests.local.webserver import WebServer


def test_a_notebook_runs_and_its_page_is_kept(workshop: Workshop, web: WebServer) -> None:
    url = web.put("/sums.ipynb", notebook("total = sum(range(101))", "print('the sum is', total)"))
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=url))
    seen = workshop.run(platform, session)
    assert (seen.state, seen.exit_code, seen.messages) == ("SUCCEEDED", 0, ()), said(seen)
    assert seen.started is not None
    assert seen.ended is not None
    assert seen.started < seen.ended
    platform.ebhpc_cleanup(session=session)
    names = {output.name: output for output in platform.ebhpc_outputs(session=session)}
    assert set(names) == {"stdout", "stderr", "results/sums.ipynb", "results/sums.html"}
    assert names["results/sums.html"].media_type == "text/html"
    executed = json.loads(workshop.output(platform, session, "results/sums.ipynb"))
    assert executed["cells"][1]["outputs"][0]["text"] == ["the sum is 5050\n"]
    assert "the sum is 5050" in workshop.output(platform, session, "results/sums.html")


def test_a_failing_cell_fails_the_session_with_its_error_and_keeps_what_ran(workshop: Workshop, web: WebServer) -> None:
    cells = ("print('before')", "raise ValueError('no such star: {Vega}')", "print('after')")
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/bad.ipynb", notebook(*cells))))
    seen = workshop.run(platform, session)
    assert seen.state == "FAILED"
    assert said(seen) == "Cell 2 of the notebook failed: ValueError: no such star: {Vega}"
    executed = json.loads(workshop.output(platform, session, "results/bad.ipynb"))
    assert executed["cells"][0]["outputs"][0]["text"] == ["before\n"]
    assert executed["cells"][2]["outputs"] == []
    assert "no such star" in workshop.output(platform, session, "results/bad.html")


def test_a_notebook_sees_nothing_of_the_brokers_environment(
    workshop: Workshop, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EBHPC_DATABASE_URL", "postgresql://broker:secret@db/ebhpc")
    url = web.put("/env.ipynb", notebook("import os, json; print(json.dumps(dict(os.environ)))"))
    platform = workshop.platform(environment={"SITE": "south"})
    session = workshop.session(platform, JupyterNotebook(location=url))
    workshop.run(platform, session)
    executed = json.loads(workshop.output(platform, session, "results/env.ipynb"))
    environment = json.loads("".join(executed["cells"][0]["outputs"][0]["text"]))
    assert "EBHPC_DATABASE_URL" not in environment
    assert environment["SITE"] == "south"
    assert environment["EBHPC_SESSION"] == session.uuid
    assert environment["OMP_NUM_THREADS"] == "1"


def test_nobody_outside_of_this_host_reaches_a_kernel(workshop: Workshop, web: WebServer) -> None:
    # ipykernel has a pipe of its own on loopback, for output of its subprocesses; its channels are Unix sockets
    look = """
import psutil
family = [psutil.Process(), *psutil.Process().parents()[:1]]
print({c.laddr.ip for p in family for c in p.net_connections('inet') if c.status == 'LISTEN'})
print(sum('.ebhpc-kernel/kernel-' in c.laddr for c in family[0].net_connections('unix')) >= 5)
"""
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/n.ipynb", notebook(look))))
    workshop.run(platform, session)
    executed = json.loads(workshop.output(platform, session, "results/n.ipynb"))
    assert executed["cells"][0]["outputs"][0]["text"] == ["{'127.0.0.1'}\n", "True\n"]


def test_a_cell_that_eats_all_memory_ends_the_session_and_says_so(workshop: Workshop, web: WebServer) -> None:
    hog = notebook("print('before')", "hoard = []\nwhile True: hoard.append(bytearray(b'x') * 2**23)")
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/hog.ipynb", hog)), memory=300)
    seen = workshop.run(platform, session)
    assert seen.state == "FAILED"
    assert "used more than its 300 MiB of memory" in said(seen)
    assert "urn:resource-limit" in {one.kind for one in seen.messages}


def test_a_notebook_that_runs_out_of_time_is_kept_as_far_as_it_came(workshop: Workshop, web: WebServer) -> None:
    url = web.put("/long.ipynb", notebook("print('first')", "import time; time.sleep(600)"))
    platform = workshop.platform(grace="10s")
    session = workshop.session(platform, JupyterNotebook(location=url), duration=5)
    seen = workshop.run(platform, session)
    assert seen.state == "FAILED"
    assert [one.kind for one in seen.messages] == ["urn:time-limit"], said(seen)
    assert "first" in workshop.output(platform, session, "results/long.ipynb")


def test_data_and_storage_appear_where_a_notebook_wants_them(workshop: Workshop, web: WebServer) -> None:
    stars = web.put("/stars.csv", b"Vega,0.03\n")
    read = """
from pathlib import Path
print(Path('in/stars.csv').read_text(), end='')
Path('out/result.txt').write_text('one star')
try:
    Path('in/stars.csv').write_text('none')
except OSError as error:
    print(error.errno)
"""
    platform = workshop.platform()
    require(os.geteuid() == 0, "only root can mount read-only volumes for a notebook")
    session = workshop.session(
        platform,
        JupyterNotebook(location=web.put("/v.ipynb", notebook(read))),
        data=(SimpleData(meta=Metadata(name="stars"), location=stars),),
        storage=(SimpleStorage(meta=Metadata(name="scratch"), size=Range(min=1)),),
        volumes=(
            SimpleVolume(path="in", mode="READONLY", resource="stars"),
            SimpleVolume(path="out", mode="READWRITE", resource="scratch"),
        ),
    )
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", said(seen)
    executed = json.loads(workshop.output(platform, session, "results/v.ipynb"))
    assert "".join(executed["cells"][0]["outputs"][0]["text"]) == "Vega,0.03\n30\n"  # EROFS
    platform.ebhpc_cleanup(session=session)
    assert workshop.output(platform, session, "storage/scratch/result.txt") == "one star"


def test_results_that_a_notebook_leaves_are_kept(workshop: Workshop, web: WebServer) -> None:
    leave = "import os; open(os.path.join(os.environ['EBHPC_RESULTS'], 'table.csv'), 'w').write('a,b')"
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/r.ipynb", notebook(leave))))
    workshop.run(platform, session)
    platform.ebhpc_cleanup(session=session)
    assert workshop.output(platform, session, "results/table.csv") == "a,b"


def test_a_notebook_from_a_file_root(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "one.ipynb").write_bytes(notebook("print(1)"))
    platform = workshop.platform(file_roots=[str(tmp_path / "shelf")])
    location = (tmp_path / "shelf" / "one.ipynb").as_uri()
    session = workshop.session(platform, JupyterNotebook(location=location))
    assert workshop.run(platform, session).state == "SUCCEEDED"


@pytest.mark.parametrize(
    "body", [b"", b"<html>not found</html>", b"[]", b'{"cells": 3}', b'{"nbformat": 4, "cells": [{"cell_type": 7}]}']
)
def test_what_is_no_notebook_fails_before_it_runs(workshop: Workshop, web: WebServer, body: bytes) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, JupyterNotebook(location=web.put("/x.ipynb", body)))
    with pytest.raises(SessionFailed) as failed:
        platform.ebhpc_prepare(session=session)
    (why,) = failed.value.messages
    assert why.kind == "urn:invalid-value"
    assert why.values is not None
    assert why.values["path"] == "/executable/location"


def test_ivoa_data_is_staged_by_its_datalink_and_its_size_is_checked(workshop: Workshop, web: WebServer) -> None:
    cube = web.put("/cube.fits", b"x" * 1000)
    platform = workshop.platform()

    def prepared(length: int) -> None:
        link = DataLink(access_url=cube, content_length=length)
        session = workshop.session(
            platform,
            JupyterNotebook(location=web.put("/n.ipynb", notebook("1"))),
            data=(IvoaData(meta=Metadata(name="cube"), ivoa=IvoaBlock(datalink=link)),),
        )
        platform.ebhpc_prepare(session=session)
        assert (workshop.directory(session).storage / "0" / "cube.fits").stat().st_size == 1000

    prepared(1000)
    with pytest.raises(SessionFailed, match="1000 bytes, not 999"):
        prepared(999)
