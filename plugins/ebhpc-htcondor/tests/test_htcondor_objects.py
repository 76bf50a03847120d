"""Data in S3: HTCondor signs the URL with keys of the job's owner, and its own plugin fetches it on the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from htcondor_lab import IDENTITIES, Place, ended, ready_to_carry, session, submitted, text_of, until, words
from object_store import object_store

from ebhpc.model import Metadata, S3Data

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

TRUSTED = "etc/ssl/certs/ca-certificates.crt"
KEYS = "/etc/object-keys/{user}"
KEY, SECRET = "AKIAOFALICE", "the/secret+of/alice"


def give_keys(place: Place, user: str) -> None:
    """Put keys where the schedd finds them, for their owner alone to read."""
    uid = next(int(str(one["uid"])) for one in IDENTITIES.values() if one["user"] == user)
    folder = place.pool.root / KEYS.lstrip("/").replace("{user}", user)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"access-key-id": KEY, "secret-access-key": SECRET}.items():
        (folder / name).write_text(f"{text}\n", encoding="ascii")
        (folder / name).chmod(0o600)
        os.chown(folder / name, uid, uid)
    folder.chmod(0o700)
    os.chown(folder, uid, uid)


def test_an_object_is_fetched_with_keys_that_only_its_user_can_read(place: Place, tmp_path: Path) -> None:
    platform = place.carrying(native_urls=["s3"], s3_keys=KEYS)
    give_keys(place, "alice")
    with object_store(tmp_path, KEY, SECRET) as store:
        store.put("stars", "far/stars.txt", b"the stars\n")
        with (place.pool.root / TRUSTED).open("ab") as trusted:
            trusted.write(store.authority.read_bytes())

        def far(name: str) -> S3Data:
            service = f"https://{store.address}"
            return S3Data(endpoint=service, bucket="stars", object=f"far/{name}", meta=Metadata(name="stars"))

        script = (
            'cat "$EBHPC_RESOURCE_STARS"; cp "$_CONDOR_JOB_AD" "$EBHPC_RESULTS/ad"; '
            "env; cat /etc/object-keys/bob/* /proc/$$/cmdline"
        )
        one = session(data=(far("stars.txt"),))
        missing = session(data=(far("none.txt"),))
        keyless = session(data=(far("stars.txt"),), who="berta")
        one, missing, keyless = (
            submitted(platform, ready_to_carry(platform, each, ["/bin/sh", "-c", script]))
            for each in (one, missing, keyless)
        )
        ads = str(place.pool.queue())
        seen, absent, refused = (until(platform, each, ended) for each in (one, missing, keyless))
        ads += str(place.pool.queue())
        assert set(store.given) == {"/stars/far/stars.txt", "/stars/far/none.txt"}
    assert f"https://{store.address}" in str(one.data[0])
    assert text_of(platform, one).startswith("the stars\n"), words(seen)
    assert "404" in words(absent), words(absent)
    assert "unable to read from access key file" in words(refused), words(refused)
    ad = text_of(platform, one, "results/ad")
    assert f'TransferInput = "s3://{store.address}/stars/far/stars.txt"' in ad
    assert '"/etc/object-keys/alice/secret-access-key"' in ad
    told = [ad, ads, text_of(platform, one), *(words(each) for each in (seen, absent, refused))]
    told += [path.read_text(errors="replace") for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    for text in told:
        assert KEY not in text
        assert SECRET not in text
        assert "X-Amz-Signature" not in text
    for each in (missing, keyless):
        platform.ebhpc_cleanup(each)
