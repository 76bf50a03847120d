"""Slurm asked by its commands, on this host or another, in the words of ``answers``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from types import MappingProxyType

from msgspec import Struct

from ebhpc_slurm import answers, records
from ebhpc_slurm.identities import Becoming
from ebhpc_slurm.notation import joined, split, tres_text
from ebhpc_slurm.processes import Programs, Ran
from ebhpc_slurm.transport import Refused, Slurm, Why, fault

PARSER = "--json=v0.0.42"
"""The data parser that all Slurms from 24.11 on have, so that an answer means the same on each."""

_TIMES = ("env", "SLURM_TIME_FORMAT=%s", "SLURM_BITSTR_LEN=0")
"""Times in POSIX seconds; tasks of an array never cut short."""

QUEUE = ("squeue", "--noheader", "--states=all")

_NAMES_AT_ONCE = 500


class _Queue(Struct, frozen=True):
    """An answer of squeue's: when it was asked for, its text, and how that is to be read."""

    at: float
    text: str
    mark: str
    older: bool


class Commands(Slurm):
    """The commands. ``within``: seconds that each may take."""

    # squeue asks for partitions, whatever is wanted; what shows nodes does too. show config pings each controller
    requests = MappingProxyType(
        {"jobs": 2, "nodes": 2, "partitions": 1, "reservations": 1, "licences": 1, "configuration": 2}
    )

    def __init__(self, programs: Programs, becoming: Becoming, *, within: float) -> None:
        self._programs = programs
        self._becoming = becoming
        self._within = within
        self._older = False
        self._queue: _Queue | None = None

    def version(self) -> str:
        return self.configuration().settings.get("SLURM_VERSION", "")

    def configuration(self) -> records.Configuration:
        return answers.configuration(self._text("scontrol", "show", "config"))

    def ping(self) -> None:
        """Ask whether a controller is up.

        Raises:
            NotReached: none is.
        """
        answers.check_ping(self._ask("scontrol", "ping", may_fail=True).out.decode(errors="replace"))

    def nodes(self) -> Sequence[records.Node]:
        return answers.nodes(self._ask("scontrol", PARSER, "show", "nodes").out)

    def partitions(self) -> Sequence[records.Partition]:
        return answers.partitions(self._text("scontrol", "--oneliner", "show", "partitions"))

    def reservations(self) -> Sequence[records.Reservation]:
        return answers.reservations(self._ask("scontrol", PARSER, "show", "reservations").out)

    def licences(self) -> dict[str, int]:
        return answers.licences(self._ask("scontrol", PARSER, "show", "licenses").out)

    def jobs(self, prefix: str = "", age: float = 0.0) -> Sequence[records.Job]:
        told = self._queue
        if told is None or time.monotonic() - told.at > age:
            # As old as the question: what happens while it is answered may be missing
            asked = time.monotonic()
            told = self._queue = _Queue(asked, *self._asked_queue())
        return answers.queue(told.text, told.mark, prefix, older=told.older)

    def _asked_queue(self) -> tuple[str, str, bool]:
        mark = _mark()
        older = self._older
        try:
            text = self._text(*QUEUE, f"--Format={answers.queue_format(mark, older=older)}")
        except Refused as refused:
            if older or "format specification" not in str(refused):
                raise
            older = self._older = True
            text = self._text(*QUEUE, f"--Format={answers.queue_format(mark, older=older)}")
        return text, mark, older

    def ended(self, since: int, names: Sequence[str] = ()) -> Sequence[records.Job]:
        found: list[records.Job] = []
        for at in range(0, max(len(names), 1), _NAMES_AT_ONCE):
            some = names[at : at + _NAMES_AT_ONCE]
            mark = _mark()
            text = self._text(
                "sacct",
                "--allusers",
                "--allocations",
                "--duplicates",
                "--noheader",
                "--parsable",
                f"--delimiter={mark}",
                f"--format={','.join(answers.ACCOUNTING_FIELDS)}",
                f"--starttime=uts{since}",
                *([f"--name={','.join(some)}"] if some else [f"--state={','.join(_ENDED)}"]),
            )
            found += answers.accounted(text, mark)
        return found

    def submit(self, wish: records.Submit) -> int:
        words, secret = self._becoming.words(wish.user, submission(wish), self._run)
        ran = self._run(words, (secret + wish.script).encode())
        if ran.code:
            raise fault(_complaint(ran))
        return answers.submitted(ran.out.decode(errors="replace"))

    def cancel(self, job: int, user: str) -> None:
        # An operator may end anybody's job; without that right it is done as the user
        try:
            self._cancel(("scancel", str(job)), "")
        except Refused as refused:
            if refused.why is not Why.NOT_PERMITTED:
                raise
            self._cancel(*self._becoming.words(user, ("scancel", str(job)), self._run))

    def _cancel(self, words: Sequence[str], secret: str) -> None:
        ran = self._run(words, secret.encode())
        if ran.code:
            complaint = fault(_complaint(ran))
            if not (isinstance(complaint, Refused) and complaint.why is Why.UNKNOWN):
                raise complaint

    def reserve(self, wish: records.Reserve) -> None:
        self._ask("scontrol", "create", "reservation", *reservation(wish))

    def change_reservation(self, wish: records.Reserve) -> None:
        self._ask("scontrol", "update", *changed_reservation(wish))

    def delete_reservation(self, name: str) -> None:
        self._ask("scontrol", "delete", f"reservationname={name}")

    def close(self) -> None:
        self._programs.close()

    def _text(self, *words: str) -> str:
        out = self._ask(*words).out
        try:
            return out.decode()
        except UnicodeDecodeError:  # a job may be named by any bytes
            return out.decode(errors="replace")

    def _ask(self, *words: str, may_fail: bool = False) -> Ran:
        ran = self._run((*_TIMES, *words), b"")
        if ran.code and not may_fail:
            raise fault(_complaint(ran))
        return ran

    def _run(self, words: Sequence[str], data: bytes) -> Ran:
        return self._programs.run(words, data=data, seconds=self._within)


_ENDED = ("CD", "F", "TO", "OOM", "NF", "CA", "PR", "BF", "DL")


def _mark() -> str:
    """Return a mark that no name of a job has, because nobody can know it."""
    return f"Q{secrets.token_hex(8)}Q"


def _complaint(ran: Ran) -> str:
    """Return what a command says went wrong: on stderr, or where it has the habit, on stdout."""
    err, out = ran.err.decode(errors="replace").strip(), ran.out.decode(errors="replace").strip()
    return err or out or f"exit code {ran.code}"


def reservation(wish: records.Reserve) -> list[str]:
    """Return a reservation in the words of ``scontrol create reservation``."""
    nodes = len(wish.nodes)
    words = [
        f"reservationname={wish.name}",
        f"starttime=uts{wish.start}",
        f"endtime=uts{wish.end}",
        *([f"users={','.join(wish.users)}"] if wish.users else []),
        *([f"accounts={','.join(wish.accounts)}"] if wish.accounts else []),
        f"nodes={joined(wish.nodes)}",
    ]
    if wish.partition:
        words.append(f"partition={wish.partition}")
    if not wish.whole:
        # Generic resources without cores would take all of a node's cores
        devices = {name: count * nodes for name, count in wish.devices.items()}
        words.append(f"tres={tres_text(cpus=wish.cpus * nodes, devices=devices)}")
    if wish.licences:
        words.append("licenses=" + ",".join(f"{name}:{count}" for name, count in sorted(wish.licences.items())))
    return words


def changed_reservation(wish: records.Reserve) -> list[str]:
    """Return in the words of ``scontrol update`` what a reservation shall have from now on: nodes, users and end."""
    words = reservation(wish)
    return [word for word in words if not word.startswith(("starttime=", "partition=", "licenses="))]


def submission(wish: records.Submit) -> list[str]:
    """Return a job in the words of ``sbatch``, which reads its script from stdin."""
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={wish.name}",
        f"--comment={wish.name}",
        f"--chdir={wish.directory}",
        f"--output={_literal(wish.output)}",
        f"--error={_literal(wish.errors)}",
        "--input=/dev/null",
        "--export=NIL",
        "--no-requeue",
        f"--time={wish.minutes}",
        f"--nodes={wish.nodes}",
        f"--ntasks={wish.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={wish.cpus}",
        "--mem=0" if wish.whole else f"--mem={wish.memory}M",
        *(["--exclusive"] if wish.whole else []),
    ]
    optional = {
        "--partition": wish.partition,
        "--account": wish.account,
        "--qos": wish.qos,
        "--reservation": wish.reservation,
        "--begin": f"uts{wish.begin}" if wish.begin is not None else None,
        "--nodelist": joined(wish.hosts) or None,
        "--constraint": "&".join(wish.features) or None,
        "--gres": ",".join(f"{name}:{count}" for name, count in sorted(split(wish.devices).items())) or None,
        "--licenses": ",".join(f"{name}:{count}" for name, count in sorted(wish.licences.items()) if count) or None,
    }
    return words + [f"{option}={value}" for option, value in optional.items() if value is not None]


def _literal(path: str) -> str:
    """Return a file's name in which Slurm replaces nothing."""
    return path.replace("%", "%%") if "%" in path else path
