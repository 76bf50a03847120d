"""The page before a real Slurm cluster: asked, booked, watched, and the result read."""

from __future__ import annotations

import importlib.util

import pytest

from tests.broker import PASSWORD, QUICK
from tests.labs import require
from tests.ui.browsing import User, ended_well, until
from tests.ui.conftest import Site

pytest_plugins = ["tests.lab.slurm.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1200)]

ALICE = 2001


@pytest.fixture
def clustered(slurm_2605, tmp_path):
    """A broker for the lab's cluster, on which ada is alice."""
    require(importlib.util.find_spec("ebhpc_slurm") is not None, "the plugin ebhpc-slurm is not installed")
    slurm_2605.clean()
    settings = {
        "jobs": {
            "root": str(slurm_2605.shared / "sessions"),
            "python": slurm_2605.python,
            "runtime": {"kind": "none"},
            "scripts": {"allowed": True},
        },
        "identities": {"ada": {"user": "alice", "account": "phys", "uid": ALICE}},
        "partitions": ["batch", "gpu"],
        "look": "500ms",
        "command_prefix": slurm_2605.enter_argv("ebhpc", {}),
        "transport": "commands",
    }
    platform = {"name": "cluster", "kind": "slurm", "lead": "2s", "refresh": "1s", "settings": settings}
    made = Site(tmp_path, {**QUICK, "offers": {"lifetime": "10m"}, "platforms": [platform]})
    try:
        made.make_ready()
        made.make_people()
        made.start("serve")
        made.wait_ready(300)
        yield made
    finally:
        made.stop()


def test_a_script_is_asked_for_booked_watched_and_read_on_a_cluster(chrome, clustered):
    ada = User(chrome, clustered.url)
    page = ada.sign_in("ada", PASSWORD)
    page.wait_for_selector("#kind-script:not([disabled])", state="attached")
    page.check("#kind-script", force=True)
    page.fill("#f-script", "#!/bin/sh\nid -un\n")
    page.fill("#f-amount", "2")
    page.select_option("#f-unit", "60")
    page.wait_for_selector("#f-nodes")
    assert {"any", "batch", "gpu"} <= set(page.locator("#f-partition option").all_inner_texts())
    page.wait_for_selector("#verdict.yes")
    until(page, "document.querySelector('canvas').ariaLabel.startsWith('Calendar of cluster')")
    page.click("text=As a table")
    until(page, "document.querySelector('#picture table caption')?.textContent.includes('of 88,')")
    page.click("#submit")
    page.wait_for_url("**/ui/offers/*")
    page.click("#accept-1")
    page.wait_for_url("**/ui/sessions/*")
    ended_well(page)
    page.locator(".files li", has_text="stdout").get_by_role("button", name="Show").click()
    until(page, "document.querySelector('#shown pre')?.textContent === 'alice\\n'")
    assert "cluster" in page.inner_text("#facts")
    print(ada.told())
    assert not ada.faults
    ada.close()
