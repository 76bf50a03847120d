"""What ``ebhpc check`` says, against a real cloud."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from openstack_lab import Place

from ebhpc.model import Finding
from ebhpc_openstack.platform import OpenStackPlatform

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def bad(platform: OpenStackPlatform) -> list[Finding]:
    return [one for one in platform.ebhpc_check() if one.level in ("WARN", "ERROR")]


def test_a_cloud_that_is_right_has_nothing_to_complain_of(place: Place) -> None:
    platform = place.platform()
    found = {one.subject: one.text for one in platform.ebhpc_check()}
    assert bad(platform) == []
    assert "3 hypervisors with 24 cores" in found["capacity"]
    assert "servers 10, cores 20, memory 51200" in found["quota"]
    assert "gpu, huge, large, medium, small" in found["flavors"]


def test_an_account_that_may_see_little_is_told_what_it_lacks(place: Place) -> None:
    (found,) = bad(place.platform(cloud="member"))
    assert (found.level, found.subject) == ("WARN", "capacity")
    assert "placement is not open" in found.text


@pytest.mark.parametrize(
    ("wrong", "subject", "told"),
    [
        ({"ssh": {"port": 9}}, "login host", "not reached"),
        ({"ssh": {"user": "nobody"}}, "login host", "does not let nobody in"),
        ({"python": ["/usr/bin/python9"]}, "login host", "does not run our program"),
        ({"python": ["/opt/lab/bin/python"]}, "login host", "no openstacksdk"),
        ({"cloud": "nowhere"}, "cloud", "does not let us in"),
        ({"image": "none-such"}, "image", "no active image none-such"),
        ({"flavors": ["large"]}, "flavors", "no flavor fits one core"),
        ({"flavors": ["absent"]}, "flavors", "no flavor is left"),
        ({"zones": ["elsewhere"]}, "zones", "no availability zone elsewhere"),
        ({"connectors": {"through": "forward", "address": "192.0.2.1"}}, "ports", "192.0.2.1 cannot be listened on"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(place: Place, wrong: dict[str, Any], subject: str, told: str) -> None:
    found = bad(place.platform(**wrong))
    assert any(one.subject == subject and told in one.text and one.advice for one in found), found


def test_a_host_key_that_changed_is_refused_loudly(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    kind, key = (tmp_path / "other.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{place.cloud.ssh.port} {kind} {key}\n")
    (found,) = bad(place.platform(ssh={"known_hosts": str(known)}))
    assert "has CHANGED" in found.text
    assert "fingerprint" in found.advice
    assert any(record.levelname == "ERROR" and "CHANGED" in record.message for record in caplog.records)
    known.write_text("")
    (found,) = bad(place.platform(ssh={"known_hosts": str(known)}))
    assert "is not in known_hosts" in found.text


def test_a_quota_of_zero_and_a_credential_that_was_deleted_are_told(place: Place) -> None:
    place.cloud.quota(cores=0)
    assert any("quota of cores is zero" in one.text for one in bad(place.platform()))
    home = place.cloud.root / "home/ebhpc/.config/openstack/clouds.yaml"
    kept = home.read_text()
    try:
        home.write_text(kept.replace('application_credential_secret": "', 'application_credential_secret": "x'))
        (found,) = bad(place.platform())
    finally:
        home.write_text(kept)
    assert found.subject == "cloud"
    assert "does not let us in" in found.text
    assert "expired" in found.advice


def test_a_login_host_that_forwards_nothing_is_told(place: Place) -> None:
    forward = {"through": "forward", "address": "127.0.0.1"}
    assert bad(place.platform(connectors=forward)) == []
    with place.cloud.login_host_without_forwarding() as login:
        platform = place.platform(connectors=forward, ssh={"port": login.port, "known_hosts": str(login.known_hosts)})
        (found,) = bad(platform)
    assert found.subject == "ports"
    assert "prohibited" in found.text
    assert "AllowTcpForwarding" in found.advice
