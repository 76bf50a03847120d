"""The operators' page and the example of settings say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from ebhpc.config import SettingsError, read_settings
from ebhpc_slurm import ebhpc_platform
from ebhpc_slurm.platform import SlurmPlatform
from ebhpc_slurm.settings import SlurmSettings, Ssh
from ebhpc_slurm.states import ENDED, LIVE, REASONS, STATES, exit_code, reason, state

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operators/slurm.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "conf/platforms.d/slurm.yaml").read_text(encoding="utf-8")


def test_every_state_is_on_the_page_with_what_it_means() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([A-Z]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert [(name, seen, words.strip()) for name, seen, words in rows] == [
        (name, one.seen, one.words) for name, one in STATES.items()
    ]
    assert set(STATES) >= LIVE | ENDED


def test_every_reason_is_on_the_page_with_what_it_means() -> None:
    rows = re.findall(r"^\| `(\w[^`]*)` \| (.*) \| (yes|no) \|$", PAGE, re.MULTILINE)
    assert [(name, words, way == "no") for name, words, way in rows] == [
        (name, one.words, one.held or one.dependent) for name, one in REASONS.items()
    ]


def test_every_setting_is_on_the_page_and_in_the_example() -> None:
    named = {name for row in re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    shown = set(re.findall(r"^  #?(\w+):", EXAMPLE, re.MULTILINE))
    settings = {field.name for field in msgspec.structs.fields(SlurmSettings)}
    assert settings <= named
    assert settings == shown


def test_the_example_can_be_used_with_its_defaults_spelled_out(tmp_path: Path) -> None:
    text = re.sub(r"^  #(\w+:)", r"  \1", EXAMPLE, flags=re.MULTILINE)
    given = yaml.safe_load(text)
    assert given["enabled"] is False
    spelled = read_settings(SlurmSettings, {**given["settings"], "ssh": None})
    plain = read_settings(SlurmSettings, yaml.safe_load(EXAMPLE)["settings"])
    assert spelled == plain
    assert read_settings(Ssh, given["settings"]["ssh"]).host == "login.example.org"
    assert isinstance(ebhpc_platform("slurm", "main", yaml.safe_load(EXAMPLE)["settings"], tmp_path), SlurmPlatform)
    assert ebhpc_platform("local", "main", {}, tmp_path) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gap": "30s"}, "gap must be 0s or at least 60s"),
        ({"prefix": "Our-Own"}, "settings.prefix"),
        ({"identities": {"ada": {"user": "-oops"}}}, "settings.identities.ada.user"),
        ({"account": "a b"}, "settings.account"),
        ({"sudo": ["sudo"]}, "{user}"),
        ({"run_as": "token", "token_command": ["x"]}, "{user}"),
        ({"transport": "rest"}, "settings.transport"),
        (
            {"transport": "pyslurm", "ssh": {"host": "h", "user": "u", "key_file": "/k", "known_hosts": "/h"}},
            "pyslurm runs on this host",
        ),
        ({"partition": "x"}, "did you mean partitions"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        ebhpc_platform("slurm", "main", {"jobs": {"root": "/scratch"}, **wrong}, tmp_path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Resources", "the resources are not free yet"),
        ("(Priority)", "jobs of higher priority wait for the same resources"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-7]", "a node that the job needs is not available, or is reserved"),
        ("Nodes required for job are DOWN, DRAINED or reserved", "a node that the job needs is not available"),
        ("Reservation HD was deleted", "the job's reservation is gone, and the job is held"),
        ("job requeued in held state", "the job is held after it was put back into the queue"),
        ("QOSMaxCpuPerUserLimit", "a limit of the user, account or QOS is reached (QOSMaxCpuPerUserLimit)"),
        ("AssocGrpCpuLimit", "a limit of the user, account or QOS is reached (AssocGrpCpuLimit)"),
        ("SomethingNew", "the cluster says: SomethingNew"),
    ],
)
def test_a_reason_is_understood_in_every_spelling(said: str, words: str) -> None:
    assert reason(said).words.startswith(words)


def test_a_state_is_understood_with_what_is_behind_it() -> None:
    assert state("CANCELLED by 2001") is STATES["CANCELLED"]
    assert state("CANCELLED+") is STATES["CANCELLED"]
    assert state("NEW") is None
    assert [exit_code(text) for text in ("0:0", "3:0", "0:15", "", "x:0")] == [0, 3, 143, None, None]
