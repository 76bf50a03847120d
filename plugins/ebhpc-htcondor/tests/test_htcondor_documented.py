"""The operators' page and the example of settings say what the code says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from ebhpc.config import SettingsError, read_settings
from ebhpc_htcondor import ebhpc_platform
from ebhpc_htcondor.following import REJECTS
from ebhpc_htcondor.platform import HTCondorPlatform
from ebhpc_htcondor.settings import HTCondorSettings
from ebhpc_htcondor.states import ENDED, HOLDS, LIVE, STATES, hold, state

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operators/htcondor.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "conf/platforms.d/htcondor.yaml").read_text(encoding="utf-8")
LEAST = {"jobs": {"root": "/scratch"}, "collector": "cm", "domain": "lab", "token_command": ["x", "{user}"]}


def test_every_state_and_hold_is_on_the_page_with_what_it_means() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert [(int(code), seen, words.strip()) for code, seen, words in rows] == [
        (code, one.seen, one.words) for code, one in STATES.items()
    ]
    assert set(STATES) >= LIVE | ENDED
    rows = re.findall(r"^\| (\d+) \| (yes|no) \| (.*) \|$", PAGE, re.MULTILINE)
    assert [(int(code), final == "yes", words) for code, final, words in rows] == [
        (code, one.final, one.words) for code, one in HOLDS.items()
    ]
    for said, words in REJECTS:
        assert f"| {said} | {words} |" in PAGE


def test_every_setting_is_on_the_page_and_in_the_example() -> None:
    named = {name for row in re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    shown = set(re.findall(r"^  #?(\w+):", EXAMPLE, re.MULTILINE))
    settings = {field.name for field in msgspec.structs.fields(HTCondorSettings)}
    assert settings <= named
    assert settings == shown


def test_the_example_can_be_used_with_its_defaults_spelled_out(tmp_path: Path) -> None:
    given = yaml.safe_load(re.sub(r"^  #(\w+:)", r"  \1", EXAMPLE, flags=re.MULTILINE))
    assert given["enabled"] is False
    plain = yaml.safe_load(EXAMPLE)["settings"]
    assert read_settings(HTCondorSettings, given["settings"]) == read_settings(HTCondorSettings, plain)
    built = ebhpc_platform("htcondor", "pool", plain, tmp_path, 60.0)
    assert isinstance(built, HTCondorPlatform)
    assert built.ebhpc_promises() == ("queue",)
    assert ebhpc_platform("local", "pool", {}, tmp_path, 60.0) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"token_command": ["x"]}, "{user}"),
        ({"run_as": "self"}, "jobs.access: own"),
        ({"start_expression": True}, "needs reservations"),
        ({"collector": "a b"}, "settings.collector"),
        ({"domain": "-x"}, "settings.domain"),
        ({"requirements": "true\nqueue 5"}, "settings.requirements"),
        ({"submit": {"+A\nqueue": "1"}}, "settings.submit"),
        ({"identities": {"ada": {"user": "-oops"}}}, "settings.identities.ada.user"),
        ({"schedd_name": "x"}, "did you mean schedd"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        ebhpc_platform("htcondor", "pool", {**LEAST, **wrong}, tmp_path, 60.0)


def test_jobs_that_would_be_submitted_after_they_should_have_their_claims_are_a_wrong_setting_with_its_line(
    tmp_path: Path,
) -> None:
    kept = {"start_expression": True, "reservations": "/scratch/kept", "early": "90s"}
    platform = {"name": "pool", "kind": "htcondor", "lead": "90s", "settings": {**LEAST, **kept}}
    config = tmp_path / "ebhpc.yaml"
    config.write_text(yaml.safe_dump({"platforms": [platform]}, sort_keys=False))
    line = next(at for at, text in enumerate(config.read_text().splitlines(), 1) if "lead:" in text)
    own = {"EBHPC_STATE": str(tmp_path / "state")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "ebhpc", *words, "--config", str(config)]
        return subprocess.run(whole, env=os.environ | own, capture_output=True, text=True, timeout=120, check=False)

    assert run("db", "upgrade").returncode == 0
    done = run("check")
    assert done.returncode == 2
    assert f"{config}:{line}: " in done.stderr
    assert "lead: expected more than settings.early (90 s)" in done.stderr
    built = ebhpc_platform("htcondor", "pool", platform["settings"], tmp_path, 91.0)  # type: ignore[arg-type]
    assert isinstance(built, HTCondorPlatform)
    queue_alone = {**LEAST, "early": "90s"}
    assert ebhpc_platform("htcondor", "pool", queue_alone, tmp_path, 1.0) is not None


def test_a_number_that_nobody_knows_is_said_to_be_unknown() -> None:
    assert state(99) is None
    assert hold(999).final
    assert "999" in hold(999).words
