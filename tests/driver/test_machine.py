"""The machine's table agrees with the phases of the model, and with its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebhpc import hookspecs
from ebhpc.driver import MACHINE, Step
from ebhpc.model import LIVE, Phase, may_move

PAGE = Path(__file__).parents[2] / "docs" / "developers" / "driver.md"


@pytest.mark.parametrize("step", Step)
def test_each_step_leads_along_the_edges_of_the_phases(step):
    rule = MACHINE[step]
    for phase in rule.phases:
        if rule.success is not None:
            assert may_move(phase, rule.success)
        if phase in LIVE:
            assert may_move(phase, rule.failure)


def test_every_phase_in_which_something_is_left_to_do_has_a_step():
    covered = {phase for rule in MACHINE.values() for phase in rule.phases}
    assert set(LIVE) | {Phase.FAILED, Phase.CANCELLED, Phase.EXPIRED, Phase.REJECTED} == covered


def test_every_hook_of_the_machine_is_in_the_contract():
    for rule in MACHINE.values():
        for hook in rule.hooks:
            assert hasattr(hookspecs, hook)


@pytest.mark.parametrize("step", Step)
def test_the_documentation_has_each_step_with_its_phases_and_hooks(step):
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{step}` |"))
    for word in (*MACHINE[step].phases, *MACHINE[step].hooks):
        assert word in row
