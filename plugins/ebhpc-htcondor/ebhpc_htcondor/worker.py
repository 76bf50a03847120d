"""A process that asks HTCondor: ``python -m ebhpc_htcondor.worker``.

The bindings hold Python's lock while they wait for a daemon, have one configuration for the whole process, and their
time limits are minutes long: in a process of their own they hold up nobody, and can be ended. Questions come on stdin
and answers go to stdout, each as its length and msgpack; the configuration comes in the environment (``_CONDOR_…``).
"""

from __future__ import annotations

import os
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import classad2  # type: ignore[import-untyped]
import htcondor2  # type: ignore[import-untyped]
import msgspec

from ebhpc_htcondor import ads, records
from ebhpc_htcondor.confining import write_only_below
from ebhpc_htcondor.matching import has, references, usable
from ebhpc_htcondor.names import resource_name

ACTIONS = {
    "remove": htcondor2.JobAction.Remove,
    "release": htcondor2.JobAction.Release,
    "forget": htcondor2.JobAction.RemoveX,
}


class Ad:
    """A ClassAd whose attributes are evaluated; what cannot be is None."""

    def __init__(self, ad: classad2.ClassAd) -> None:
        self.ad = ad
        self._get = ad.get

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute's value."""
        value = self._get(key, default)
        if isinstance(value, classad2.ExprTree):
            try:
                value = self.ad.eval(key)
            except Exception:  # noqa: BLE001  # the bindings raise many kinds; all say that there is no value
                return default
            return default if isinstance(value, classad2.Value) else value
        return value


class Pool:
    """What is asked for, and what is remembered from one look to the next."""

    def __init__(self, schedd: str | None) -> None:
        self._name = schedd
        self._located: dict[str, classad2.ClassAd] = {}
        self._own: tuple[str, ...] = ()
        self._gpus: tuple[str, ...] = ()
        self._kinds: dict[tuple[str, int], classad2.ClassAd] = {}
        self._collector: htcondor2.Collector | None = None

    # --- daemons

    @property
    def collector(self) -> htcondor2.Collector:
        """Return the collector that the configuration names."""
        if self._collector is None:
            self._collector = htcondor2.Collector()
        return self._collector

    def _ads(self, kind: htcondor2.AdType, constraint: str | None, projection: Sequence[str]) -> list[classad2.ClassAd]:
        found: list[classad2.ClassAd] = self.collector.query(kind, constraint, list(projection))
        return found

    def _schedds(self) -> dict[str, classad2.ClassAd]:
        found = self._ads(
            htcondor2.AdType.Schedd,
            None,
            ["Name", "MyAddress", "AddressV1", "CondorVersion", "Machine", "MyCurrentTime"],
        )
        return {str(ad.get("Name")): ad for ad in found if ad.get("MyAddress")}

    def _located_schedd(self) -> tuple[str, classad2.ClassAd]:
        """Return our schedd; it is asked for again after a fault, since it may have another address then."""
        if not self._located:
            self._located = self._schedds()
        known = self._located
        if self._name is not None:
            if self._name not in known:
                self._located = {}
                raise LookupError(f"the collector knows no schedd {self._name}")
            return self._name, known[self._name]
        if len(known) != 1:
            self._located = {}
            names = ", ".join(sorted(known)[:5]) or "none"
            raise LookupError(f"no schedd is named, and the pool has not one but {len(known)}: {names}")
        return next(iter(known.items()))

    def schedd(self) -> tuple[str, htcondor2.Schedd]:
        """Return our schedd, by name."""
        name, ad = self._located_schedd()
        return name, htcondor2.Schedd(ad)

    def forget_addresses(self) -> None:
        """Ask the collector anew where daemons are."""
        self._located = {}
        self._collector = None

    # --- questions

    def daemons(self) -> records.Daemons:
        """Say which daemons there are, and whether we may write to the schedd."""
        self.forget_addresses()
        collectors = self._ads(htcondor2.AdType.Collector, None, ["Name", "CondorVersion"])
        negotiators = self._ads(htcondor2.AdType.Negotiator, None, ["Name", "LastNegotiationCyclePeriod0"])
        cycle = negotiators[0].get("LastNegotiationCyclePeriod0") if negotiators else None
        found = records.Daemons(
            collector=str(collectors[0].get("CondorVersion")) if collectors else "",
            negotiator=str(negotiators[0].get("Name")) if negotiators else "",
            cycle=cycle if isinstance(cycle, int) else None,
        )
        try:
            name, ad = self._located_schedd()
        except LookupError as error:
            return msgspec.structs.replace(found, write_error=str(error))
        version = str(ad.get("CondorVersion"))
        clock = ad.get("MyCurrentTime")
        found = msgspec.structs.replace(
            found, schedd=name, schedd_version=version, clock=clock if isinstance(clock, int) else None
        )
        try:
            said = htcondor2.ping(ad, "WRITE")
        except htcondor2.HTCondorException as error:
            return msgspec.structs.replace(found, may_write=False, write_error=_words(error))
        return msgspec.structs.replace(
            found,
            may_write=said.get("AuthorizationSucceeded") is True,
            identity=str(said.get("MyRemoteUserName") or ""),
        )

    def look(
        self,
        slots: str,
        every: bool,
        since: int | None,
        most: int,
        limits: Sequence[str],
        features: Mapping[str, str],
    ) -> records.Look:
        """Look at the pool: slots, jobs, who comes first, and the jobs that ended since."""
        asked = {name: classad2.ExprTree(text) for name, text in features.items()}
        known = self._schedds()
        self._located = known
        wanted = list(known) if every else [self._located_schedd()[0]]
        silent: list[str] = []
        projection = [*ads.JOB, *(f"Request{one}" for one in self._own), *limits]
        live: list[tuple[str, classad2.ClassAd]] = []
        ended: list[tuple[str, classad2.ClassAd]] = []
        constraint = "JobStatus =!= 3 && JobStatus =!= 4"
        for name in wanted:
            schedd = htcondor2.Schedd(known[name])
            try:
                live += [(name, ad) for ad in schedd.query(constraint, projection)]
                if since is not None:
                    over = f"CompletionDate >= {since} && JobCurrentStartDate =!= undefined"
                    until = f"CompletionDate < {since - 600} && CompletionDate > 0"
                    ended += [(name, ad) for ad in schedd.history(over, projection, most, until)]
            except (htcondor2.HTCondorException, OSError) as error:
                if name == self._name or len(wanted) == 1:
                    raise
                silent.append(f"{name}: {_words(error)}")
        jobs = [(ad, one) for name, ad in live if (one := ads.job(Ad(ad), name, self._own, limits)) is not None]
        kinds = self._kinds_of(jobs, known)
        refs = sorted({ref for ad in kinds.values() for ref in references(str(ad.lookup("Requirements")))})
        found = self._slots(slots, [*refs, *(ref for text in features.values() for ref in references(text))])
        taken = [
            (ad, slot)
            for ad in found
            if (slot := ads.slot(Ad(ad), self._own, [name for name in asked if has(ad, asked[name])])) is not None
        ]
        jobs_of, groups = usable(
            [(one.schedd, ad.get("AutoClusterId")) if one.status == 1 else None for ad, one in jobs],
            kinds,
            [(slot.name, ad) for ad, slot in taken],
        )
        submitters, negotiator = self._submitters()
        return records.Look(
            slots=tuple(slot for _, slot in taken),
            jobs=tuple(
                one if not group else msgspec.structs.replace(one, partition=group)
                for (_, one), group in zip(jobs, jobs_of, strict=True)
            ),
            finished=tuple(one for name, ad in ended if (one := ads.job(Ad(ad), name, self._own, limits)) is not None),
            submitters=submitters,
            groups=groups,
            negotiator=negotiator,
            silent=tuple(silent),
        )

    def _slots(self, constraint: str, refs: Iterable[str]) -> list[classad2.ClassAd]:
        """Return the slots that are no parts of others; asked twice where a pool has resources that are new to us."""
        own = [f"{prefix}{one}" for one in self._own for prefix in ("", "TotalSlot", "Child")]
        more = dict.fromkeys([*ads.SLOT, *own, *(ads.gpu_attribute(one) for one in self._gpus), *refs])
        only = f"DynamicSlot =!= true && ({constraint})"
        found = self._ads(htcondor2.AdType.Startd, only, list(more))
        new = {name for ad in found for name in ads.resources(Ad(ad)) if resource_name(name)}
        names = {
            word
            for ad in found
            if isinstance(text := ad.get("AssignedGPUs"), str)
            for word in text.replace(",", " ").split()
        }
        if new <= set(self._own) and names <= set(self._gpus):
            return found
        self._own, self._gpus = tuple(sorted(new)), tuple(sorted(names))
        return self._slots(constraint, refs)

    def _kinds_of(
        self, jobs: Sequence[tuple[classad2.ClassAd, records.Job]], known: Mapping[str, classad2.ClassAd]
    ) -> dict[tuple[str, int], classad2.ClassAd]:
        """Return a job of each kind of waiting job, whole: a schedd gives the same number to jobs that match alike.

        Each is asked for once.
        """
        first: dict[tuple[str, int], str] = {}
        for ad, one in jobs:
            cluster = ad.get("AutoClusterId")
            if one.status == 1 and isinstance(cluster, int):
                first.setdefault((one.schedd, cluster), one.id)
        # Numbers of kinds are given anew when a schedd starts again; what is not seen now is forgotten
        self._kinds = {key: ad for key, ad in self._kinds.items() if key in first}
        new: dict[str, list[str]] = {}
        for key, number in first.items():
            if key not in self._kinds:
                new.setdefault(key[0], []).append(number)
        for name, numbers in new.items():
            schedd = htcondor2.Schedd(known[name])
            for start in range(0, len(numbers), 100):
                some = " || ".join(
                    f"(ClusterId == {number.partition('.')[0]} && ProcId == {number.partition('.')[2]})"
                    for number in numbers[start : start + 100]
                )
                for ad in schedd.query(some):
                    self._kinds[name, ad.get("AutoClusterId")] = ad
        return {key: ad for key, ad in self._kinds.items() if "Requirements" in ad}

    def _submitters(self) -> tuple[tuple[records.Submitter, ...], bool]:
        try:
            found = self._ads(htcondor2.AdType.Accounting, None, ads.SUBMITTER)
            negotiator = bool(self._ads(htcondor2.AdType.Negotiator, None, ["Name"]))
        except htcondor2.HTCondorException:
            return (), False
        return tuple(one for ad in found if (one := ads.submitter(Ad(ad))) is not None), negotiator

    def jobs(self, prefix: str) -> tuple[records.Job, ...]:
        """Return our jobs in the queue."""
        name, schedd = self.schedd()
        found = schedd.query(f"EbhpcPrefix =?= {classad2.quote(prefix)}", list(ads.JOB))
        return tuple(one for ad in found if (one := ads.job(Ad(ad), name)) is not None)

    def history(self, sessions: Sequence[str], since: int) -> tuple[records.Job, ...]:
        """Return jobs of sessions that have left the queue."""
        name, schedd = self.schedd()
        wanted = ", ".join(classad2.quote(one) for one in sessions)
        over = f"member(EbhpcSession, {{{wanted}}}) =?= true"
        until = f"EnteredCurrentStatus < {since} && EnteredCurrentStatus > 0"
        found = schedd.history(over, list(ads.JOB), -1, until)
        return tuple(one for ad in found if (one := ads.job(Ad(ad), name)) is not None)

    def kept(self, slots: str) -> tuple[records.Slot, ...]:
        """Return the slots, for what the machines say that they keep."""
        found = self._slots(slots, ())
        return tuple(one for ad in found if (one := ads.slot(Ad(ad), self._own)) is not None)

    def submit(self, description: str, spool: bool) -> records.Submitted:
        """Submit one job, and send its files."""
        _, schedd = self.schedd()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = schedd.submit(htcondor2.Submit(description), count=1, spool=spool)
        if spool:
            schedd.spool(result)
        return records.Submitted(cluster=result.cluster())

    def retrieve(self, jobs: Sequence[str], directory: str) -> int:
        """Fetch the files of jobs; from then on this process writes nowhere but below ``directory``."""
        _, schedd = self.schedd()
        write_only_below(directory)
        schedd.retrieve(list(jobs))
        return len(jobs)

    def act(self, action: str, jobs: Sequence[str], reason: str, only: str = "") -> int:
        """Do something to jobs, with ``only`` to those of which it is true then; return to how many it was done."""
        _, schedd = self.schedd()
        if only:
            some = " || ".join(
                f"(ClusterId == {number.partition('.')[0]} && ProcId == {number.partition('.')[2]})" for number in jobs
            )
            said = schedd.act(ACTIONS[action], f"({some}) && ({only})", reason)
        else:
            said = schedd.act(ACTIONS[action], list(jobs), reason)
        if said.get("TotalPermissionDenied"):
            raise PermissionError(f"{action} of {', '.join(jobs)}: permission denied")
        return int(said.get("TotalSuccess") or 0)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


class _Question(msgspec.Struct, array_like=True):
    name: str
    arguments: dict[str, Any]


_EFFECTS = ("submit", "act", "retrieve")
"""Questions that are not asked twice."""

_QUESTIONS = ("daemons", "look", "jobs", "history", "kept", "submit", "act", "retrieve")


def answer(pool: Pool, question: _Question) -> bytes:
    """Return the answer to one question, or what went wrong."""
    if question.name not in _QUESTIONS:
        return msgspec.msgpack.encode({"fault": "ValueError", "error": f"no question: {question.name}"})
    ask: Callable[..., Any] = getattr(pool, question.name)
    try:
        try:
            return msgspec.msgpack.encode({"ok": ask(**question.arguments)})
        except htcondor2.HTCondorException:
            # A daemon that has started again does not know our session with it; that is noticed by the first question
            pool.forget_addresses()
            if question.name in _EFFECTS:
                raise
            return msgspec.msgpack.encode({"ok": ask(**question.arguments)})
    except Exception as error:  # noqa: BLE001  # whatever it is, whoever asked is told
        pool.forget_addresses()
        return msgspec.msgpack.encode({"fault": type(error).__name__, "error": _words(error)})


def serve(requests: BinaryIO, answers: BinaryIO, schedd: str | None) -> None:
    """Answer questions until there are no more."""
    pool = Pool(schedd)
    decoder = msgspec.msgpack.Decoder(_Question)
    while len(size := requests.read(4)) == 4:
        said = answer(pool, decoder.decode(requests.read(struct.unpack(">I", size)[0])))
        answers.write(struct.pack(">I", len(said)) + said)
        answers.flush()


def main() -> None:
    """Answer on the stdout that we were started with; whatever the library prints goes elsewhere."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, os.environ.get("EBHPC_SCHEDD") or None)


if __name__ == "__main__":
    main()
