"""Requests as submit descriptions, and ads as records and snapshots; whatever text they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import classad2  # type: ignore[import-untyped]
import pytest
from htcondor_lab import Place, ended, ready, session, submitted, text_of, until
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as HypothesisPhase
from hypothesis import strategies as some
from msgspec.structs import replace

from ebhpc import batch
from ebhpc.model import Identity, Session
from ebhpc_htcondor import ads, records
from ebhpc_htcondor.asking import NotPermitted, NotReached, Refused, fault
from ebhpc_htcondor.matching import references, usable
from ebhpc_htcondor.names import label, node_name, session_id, slot_of, string
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.snapshot import Site, snapshot
from ebhpc_htcondor.submission import description, feature, of_model

HOSTILE = some.one_of(
    some.text(alphabet=some.characters(blacklist_categories=("Cs",)), max_size=40),
    some.sampled_from(
        [
            'x"\nqueue 100\n',
            "$(HOME) $ENV(PATH) $$(Arch) $RANDOM_CHOICE(a,b) $(DOLLAR)",
            '" || true || "',
            "a\\",
            '\\"; requirements = false',
            '\n+EbhpcPrefix = "other"',
            "'; exit 1 #",
            "queue",
            "line\r\nline",
        ]
    ),
)

SETTINGS = HTCondorSettings(
    jobs=batch.JobSettings(root=Path("/scratch")),
    collector="cm",
    domain="lab",
    token_command=("x", "{user}"),
    features={"big": "TARGET.Memory > 1"},
)


def told(one: Session, **more: Any) -> dict[str, str]:
    directory = batch.session_directory(SETTINGS.jobs.root, one.uuid)
    text = description(one, replace(SETTINGS, **more), Mapped(user="alice"), directory, now=float(one.start - 10))
    return dict(line.split(" = ", 1) for line in text.split("\n")[:-1])


@given(name=HOSTILE, username=HOSTILE)
def test_a_description_has_the_same_lines_whatever_a_user_calls_himself(name: str, username: str) -> None:
    one = session(name=name, owner=Identity(uuid="0b4e4f0a-61a6-4b8a-9f0f-0f6a0a1f5e11", username=username))
    plain = told(session())
    assert told(one).keys() == plain.keys()


@given(text=HOSTILE)
def test_a_text_is_one_string_to_classads_as_near_as_can_be(text: str) -> None:
    literal = string(text)
    assert "\n" not in literal
    assert "$" not in literal.replace("$(DOLLAR)", "")
    read = classad2.ExprTree(literal.replace("$(DOLLAR)", "$")).eval()
    assert read == label(text)
    assert len(read) == len(text)


@given(word=HOSTILE.filter(lambda text: not text.replace("_", "").isalnum()))
def test_a_word_that_is_none_becomes_no_part_of_an_expression(word: str) -> None:
    for make in (lambda: feature(word, SETTINGS), lambda: of_model(word)):
        try:
            text = make()
        except ValueError:
            continue
        assert set(word) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:+-")
        assert text.count('"') in (2, 4)
    kind = {word: 1}
    with pytest.raises(ValueError, match="no resource"):
        told(session(devices=kind if word.partition(":")[0] != "gpu" else {"x y": 1}))
    with pytest.raises(ValueError, match="no concurrency limit"):
        told(session(licences={word: 1}))


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[HypothesisPhase.explicit, HypothesisPhase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(name=HOSTILE, words=some.lists(HOSTILE.map(lambda text: text.replace("\0", "")), min_size=1, max_size=8))
@pytest.mark.lab
def test_whatever_a_session_holds_arrives_in_its_job_as_it_is(place: Place, name: str, words: list[str]) -> None:
    platform = place.platform()
    script = 'cp "$_CONDOR_JOB_AD" "$EBHPC_RESULTS/ad"; for word; do printf "%s\\0" "$word"; done'
    one = submitted(platform, ready(platform, session(name=name), ["/bin/sh", "-c", script, "sh", *words]))
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert text_of(platform, one).split("\0")[:-1] == words
    ad = classad2.parseOne(text_of(platform, one, "results/ad"))
    assert ad["EbhpcName"] == label(name)
    assert ad["EbhpcPrefix"] == "ebhpc"
    assert ad["EbhpcSession"] == one.uuid
    assert ad["TotalSubmitProcs"] == 1


def test_what_is_asked_becomes_lines() -> None:
    one = session(
        cores=3,
        memory=500,
        devices={"gpu": 2, "gpu:A100-SXM4_40GB": 2, "fpgas": 1, "scratch": 3},
        duration=100,
        start=500,
        features=("big", "X86_64"),
        licences={"matlab": 2, "ansys": 1},
    )
    lines = told(one, group="phys", requirements="TARGET.Good", submit={"+A": "1"})
    assert lines["request_cpus"] == "3"
    assert lines["request_memory"] == "500"
    assert lines["request_disk"] == str(3 << 20)
    assert lines["request_gpus"] == "2"
    assert lines["require_gpus"] == 'regexp("^A100-SXM4[ _]40GB$", DeviceName)'
    assert lines["request_fpgas"] == "1"
    assert lines["concurrency_limits"] == "ansys:1,matlab:2"
    assert lines["accounting_group"], lines["accounting_group_user"] == ("phys", "alice")
    assert lines["allowed_execute_duration"] == "140"
    assert lines["deferral_time"] == str(one.start)
    assert lines["+A"] == "1"
    assert lines["requirements"].startswith("(TARGET.Good) && ((TARGET.Memory > 1) =?= true) && (TARGET.Arch =?=")
    firm = replace(one, firm=True, allocations=(replace(one.allocations[0], node="slot2@n1.example.org"),))
    assert (
        'regexp("^(slot1(_[0-9]+)?@)?slot2(_[0-9]+)?@n1[.]example[.]org$", TARGET.Name)' in told(firm)["requirements"]
    )


def test_names_of_slots_are_those_of_nodes() -> None:
    assert [node_name(name) for name in ("slot1@a.b", "slot2@a.b", "a")] == ["a.b", "slot2@a.b", "a"]
    assert [slot_of(name) for name in ("slot1_3@a.b", "slot2_1@a.b", "slot1@a.b")] == ["a.b", "slot2@a.b", "a.b"]
    assert session_id("0B4E4F0A-61a6-4b8a-9f0f-0f6a0a1f5e11") is None


@dataclass
class Plain:
    """An ad whose attributes are values already."""

    has: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        return self.has.get(key, default)


VALUES = some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), HOSTILE, some.lists(some.integers()))


@given(has=some.dictionaries(some.sampled_from([*ads.SLOT, *ads.JOB]), VALUES))
def test_an_ad_of_any_content_is_read_or_left_out(has: dict[str, Any]) -> None:
    slot = ads.slot(Plain(has), ["FPGAs"])
    job = ads.job(Plain(has), "schedd", ["FPGAs"], ["MaxWallTime"])
    look = records.Look(
        slots=() if slot is None else (slot,),
        jobs=() if job is None else (job,),
        finished=() if job is None else (job,),
    )
    made = snapshot(Site(platform="pool", prefix="ebhpc"), look, 1000)
    assert len(made.nodes) <= 1


def test_the_order_is_the_negotiators() -> None:
    def job(cluster: int, user: str, priority: int = 0) -> records.Job:
        return records.Job(
            schedd="s", cluster=cluster, process=0, status=1, submitter=user, priority=priority, memory=1
        )

    look = records.Look(
        slots=(),
        jobs=(job(1, "greedy"), job(2, "new"), job(3, "modest"), job(4, "modest", 5)),
        submitters=(
            records.Submitter(name="greedy", priority=9000.0),
            records.Submitter(name="modest", priority=100.0),
        ),
    )
    made = snapshot(Site(platform="pool", prefix="ebhpc"), look, 1000)
    assert [one.id for one in made.waiting] == ["s#4.0", "s#3.0", "s#2.0", "s#1.0"]
    assert [one.priority for one in made.waiting] == [0, -1, -2, -3]


def test_slots_are_told_apart_by_what_requirements_look_at() -> None:
    text = '(TARGET.Cpus >= RequestCpus) && regexp("^a", TARGET.Name) && HasThing'
    assert {"Cpus", "TotalSlotCpus", "Name", "HasThing"} <= references(text)
    kind = classad2.ClassAd({"RequestCpus": 4})
    kind["Requirements"] = classad2.ExprTree(text)
    slots = [
        (name, classad2.ClassAd({"Name": name, "Cpus": 0, "TotalSlotCpus": cores, "HasThing": True}))
        for name, cores in (("a1", 8), ("a2", 2), ("b1", 8))
    ]
    jobs, groups = usable([("s", 1), None], {("s", 1): kind}, slots)
    assert groups == (records.Group(name="requirements-1", slots=("a1",)),)
    assert jobs == ["requirements-1", ""]


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("HTCondorException", "Failed communication with collector.", NotReached),
        ("LookupError", "the collector knows no schedd x", NotReached),
        ("HTCondorException", 'SECMAN:2010:Received "DENIED" from server, authentication', NotPermitted),
        ("PermissionError", "remove of 1.0: permission denied", NotPermitted),
        ("HTCondorException", "Submit failed: invalid attribute", Refused),
    ],
)
def test_a_complaint_is_understood(kind: str, text: str, wanted: type) -> None:
    assert type(fault(kind, text)) is wanted
