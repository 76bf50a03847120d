"""The operators' page and the example of settings say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from ebhpc.batch.ssh import SshSettings
from ebhpc.config import SettingsError, read_settings
from ebhpc_openstack import ebhpc_platform
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.states import STATUSES, status

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operators/openstack.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "conf/platforms.d/openstack.yaml").read_text(encoding="utf-8")
SEEN = {"BUILDING": "it is being made", "UP": "it runs", "OFF": "it has ended", "LOST": "it is lost"}
SSH = {"host": "login", "user": "ebhpc", "known_hosts": "/k", "key_file": "/i"}
LEAST: dict[str, Any] = {"ssh": SSH, "image": "x", "jobs": {"root": "/r", "access": "own", "staging": "job"}}


def test_every_status_is_on_the_page_with_what_it_means() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| ([a-z ]+) \| (.*?) ?\|$", PAGE, re.MULTILINE)
    assert rows == [(name, SEEN[one.seen], one.words) for name, one in STATUSES.items()]
    assert status("NEW").seen == "UP"
    assert "NEW" in status("NEW").words


def test_every_setting_is_on_the_page_and_in_the_example() -> None:
    named = {name for row in re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    shown = set(re.findall(r"^  #?(\w+):", EXAMPLE, re.MULTILINE))
    settings = {field.name for field in msgspec.structs.fields(OpenStackSettings)}
    assert settings <= named
    assert settings == shown
    (ssh,) = re.findall(r"^\| `ssh` \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", ssh)) == {field.name for field in msgspec.structs.fields(SshSettings)}


def test_the_example_can_be_used_with_its_defaults_spelled_out(tmp_path: Path) -> None:
    given = yaml.safe_load(re.sub(r"^  #(\w+:)", r"  \1", EXAMPLE, flags=re.MULTILINE))
    assert given["enabled"] is False
    plain = yaml.safe_load(EXAMPLE)["settings"]
    assert read_settings(OpenStackSettings, given["settings"]) == read_settings(OpenStackSettings, plain)
    built = ebhpc_platform("openstack", "cloud", plain, tmp_path)
    assert isinstance(built, OpenStackPlatform)
    assert built.ebhpc_promises() == ("queue",)
    assert ebhpc_platform("local", "cloud", {}, tmp_path) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"jobs": {"root": "/r"}}, "jobs.access must be own"),
        ({"jobs": {"root": "/r", "access": "own"}}, "jobs.staging must be job"),
        ({"pin": True}, "capacity: own"),
        ({"ssh": {**SSH, "host": "-oProxyCommand=x"}}, "settings.ssh.host"),
        ({"ssh": {"host": "a", "user": "b", "known_hosts": "/k"}}, "key_file, or agent"),
        ({"connectors": {"through": "floating"}}, "network names"),
        ({"connectors": {"through": "forward"}}, "address says"),
        ({"connectors": {"through": "forward", "address": "elsewhere"}}, "settings.connectors.address"),
        ({"connectors": {"through": "address", "name": "cloud.example.org"}}, "name is what users are told"),
        ({"connectors": {"through": "forward", "address": "::1", "ports": [2000, 1999]}}, "the smaller one first"),
        (
            {
                "connectors": {"through": "address"},
                "jobs": {**LEAST["jobs"], "runtime": {"kind": "podman", "network": "publish"}},
            },
            "must be host with connectors",
        ),
        ({"jobs": {**LEAST["jobs"], "scripts": {"allowed": True}}}, "no account of the script's user"),
        ({"image": "x\ny"}, "settings.image"),
        ({"flavor": ["x"]}, "did you mean flavors"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        ebhpc_platform("openstack", "cloud", {**LEAST, **wrong}, tmp_path)
