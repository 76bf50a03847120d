"""The answers of Slurm's commands as records: pure functions of what they print.

JSON is that of the data parser v0.0.42, which every Slurm from 24.11 to 26.05 speaks alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from ebhpc_slurm import records
from ebhpc_slurm.notation import hosts, instant, seconds
from ebhpc_slurm.transport import Refused, Unanswered, fault

T = TypeVar("T")


class _Number(Struct):
    """A number that may be absent, or infinite."""

    set: bool = False
    infinite: bool = False
    number: float = 0

    def value(self) -> int | None:
        return int(self.number) if self.set and not self.infinite else None


class _Complaint(Struct):
    error: str = ""
    description: str = ""


class _Node(Struct):
    name: str
    state: list[str] = []
    cpus: int = 0
    effective_cpus: int = 0
    threads: int = 1
    real_memory: int = 0
    specialized_memory: int = 0
    gres: str = ""
    features: list[str] = []
    reason: str = ""
    version: str = ""


class _Nodes(Struct):
    nodes: list[_Node]
    errors: list[_Complaint] = []


class _Cores(Struct):
    node: str = ""
    core: str = ""


class _Reservation(Struct):
    name: str
    start_time: _Number = field(default_factory=_Number)
    end_time: _Number = field(default_factory=_Number)
    node_list: str = ""
    core_specializations: list[_Cores] = []
    tres: str = ""
    flags: list[str] = []
    users: str = ""
    partition: str = ""
    licenses: str = ""


class _Reservations(Struct):
    reservations: list[_Reservation]
    errors: list[_Complaint] = []


class _Licence(Struct):
    LicenseName: str
    Total: int = 0


class _Licences(Struct):
    licenses: list[_Licence]
    errors: list[_Complaint] = []


def _decoded(text: bytes, wanted: type[T]) -> T:
    try:
        answer = msgspec.json.decode(text, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unanswered(f"an answer that is none: {error}") from None
    for complaint in getattr(answer, "errors", ()):
        raise fault(f"{complaint.error} {complaint.description}")
    return answer


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word and word != "(null)")


def nodes(text: bytes) -> list[records.Node]:
    """Read ``scontrol show nodes --json``."""
    return [
        records.Node(
            name=node.name,
            states=tuple(node.state),
            cpus=node.effective_cpus or node.cpus,
            memory=max(node.real_memory - node.specialized_memory, 0),
            threads=max(node.threads, 1),
            gres=node.gres,
            features=tuple(node.features),
            reason=node.reason,
            version=node.version,
        )
        for node in _decoded(text, _Nodes).nodes
    ]


_PAIR = re.compile(r"(\w+)=(\S*)")


def partitions(text: str) -> list[records.Partition]:
    """Read ``scontrol --oneliner show partitions``. The data parser does not tell which is the default one."""
    return [_partition(dict(_PAIR.findall(line))) for line in text.splitlines() if line.startswith("PartitionName=")]


def _partition(has: dict[str, str]) -> records.Partition:
    most = has.get("MaxNodes", "")
    return records.Partition(
        name=has["PartitionName"],
        nodes=_word(has.get("Nodes", "")),
        state=has.get("State", "UP"),
        limit=seconds(has.get("MaxTime", "UNLIMITED")),
        default=has.get("Default") == "YES",
        tier=int(has.get("PriorityTier", "1")),
        most_nodes=int(most) if most.isdecimal() else None,
        exclusive=has.get("OverSubscribe", "").startswith("EXCLUSIVE"),
        allowed_accounts=_everybody(has.get("AllowAccounts", "")),
        denied_accounts=_listed(has.get("DenyAccounts", "")),
        allowed_qos=_everybody(has.get("AllowQos", "")),
        denied_qos=_listed(has.get("DenyQos", "")),
    )


def _everybody(text: str) -> tuple[str, ...]:
    return () if text in ("ALL", "") else _listed(text)


def reservations(text: bytes) -> list[records.Reservation]:
    """Read ``scontrol show reservations --json``."""
    return [
        records.Reservation(
            name=one.name,
            start=one.start_time.value() or 0,
            end=one.end_time.value() or ENDLESS,
            nodes=one.node_list,
            cores={cores.node: core_count(cores.core) for cores in one.core_specializations},
            tres=one.tres,
            flags=tuple(one.flags),
            users=_listed(one.users),
            partition=one.partition,
            licences=one.licenses,
        )
        for one in _decoded(text, _Reservations).reservations
    ]


ENDLESS = 253_402_300_799
"""The end of a reservation that has none: the last instant that can be told."""


def core_count(cores: str) -> int:
    """Return how many cores ``0-3,7`` are."""
    return len(hosts(f"c[{cores}]")) if cores else 0


def licences(text: bytes) -> dict[str, int]:
    """Read ``scontrol show licenses --json``."""
    return {one.LicenseName: one.Total for one in _decoded(text, _Licences).licenses if one.Total}


_SETTING = re.compile(r"^(\w+)\s+= (.*?)\s*$", re.MULTILINE)
_AS_OF = re.compile(r"^Configuration data as of (\d+)\s*$", re.MULTILINE)


def configuration(text: str) -> records.Configuration:
    """Read ``scontrol show config``, asked for with times in POSIX seconds."""
    taken = _AS_OF.search(text)
    if taken is None:
        raise Unanswered(f"no configuration: {text[:200]!r}")
    settings = {name: "" if value == "(null)" else value for name, value in _SETTING.findall(text)}
    return records.Configuration(now=int(taken[1]), settings=settings)


# --- jobs --------------------------------------------------------------------------------------------------------

QUEUE_FIELDS = (
    "JobID",
    "ArrayJobID",
    "ArrayTaskID",
    "UserName",
    "Account",
    "Partition",
    "State",
    "Reason",
    "SubmitTime",
    "EligibleTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "NumNodes",
    "NumCPUs",
    "tres-alloc",
    "NodeList",
    "PriorityLong",
    "Feature",
    "Reservation",
    "Licenses",
    "ReqNodes",
    "ExcNodes",
    "Exclusive",
    "exit_code",
    "Name",
    "Comment",
)
"""What ``squeue`` is asked for, in this order."""

ACCOUNTING_FIELDS = (
    "JobIDRaw",
    "User",
    "Account",
    "Partition",
    "State",
    "Submit",
    "Eligible",
    "Start",
    "End",
    "TimelimitRaw",
    "NNodes",
    "NCPUS",
    "AllocTRES",
    "NodeList",
    "Reservation",
    "ExitCode",
    "JobName",
)
"""What ``sacct`` is asked for, in this order."""


OLDER = {"Exclusive": "OverSubscribe"}
"""What older Slurms call a field. A job that takes whole nodes then shares them with NO one, others are OK."""


def queue_format(mark: str, *, older: bool = False) -> str:
    """Return what ``squeue --Format`` takes so that every field ends with ``mark``, and none is cut."""
    names = [OLDER.get(name, name) if older else name for name in QUEUE_FIELDS]
    return ",".join(f"{name}:{mark}" for name in names)


_WHOLE = QUEUE_FIELDS.index("Exclusive")
_NAMED = tuple(QUEUE_FIELDS.index(name) for name in ("Name", "Comment", "Reservation"))


def queue(text: str, mark: str, prefix: str = "", *, older: bool = False) -> list[records.Job]:
    """Read ``squeue`` as asked by ``queue_format``. ``prefix``: only jobs of which a name begins so: their own, that of
    their reservation, or the comment.

    Any user can put anything into a job's name, line breaks included; ``mark`` is one that nobody can foresee.
    """
    fields = text.split(mark)
    width = len(QUEUE_FIELDS)
    if len(fields) % width != 1 or fields[-1].strip():
        raise Unanswered(f"squeue answered {len(fields)} fields, which is no multiple of {width}")
    whole = _WHOLE
    found = []
    for at in range(0, len(fields) - 1, width):
        row = fields[at : at + width]
        if older:
            row[whole] = "NODE" if row[whole] == "NO" else "NO"
        if prefix and not any(row[place].startswith(prefix) for place in _NAMED):
            continue
        found.append(_understood(_queued, row))
    return found


def _understood(read: Callable[[Sequence[str]], records.Job], row: Sequence[str]) -> records.Job:
    try:
        return read(row)
    except ValueError as error:
        raise Unanswered(f"a job that cannot be read: {error}") from None


def _word(text: str) -> str:
    return "" if text in ("N/A", "(null)", "None assigned") else text


def _queued(row: Sequence[str]) -> records.Job:
    array = _word(row[1])
    return records.Job(
        id=int(row[0].strip()),
        array=int(array) if array.isdecimal() and _word(row[2]) else 0,
        task=_word(row[2]),
        user=row[3],
        account=_word(row[4]),
        partition=row[5],
        state=row[6],
        reason=_word(row[7]),
        submitted=instant(row[8]) or 0,
        eligible=instant(row[9]),
        started=instant(row[10]),
        ends=instant(row[11]),
        limit=seconds(row[12]),
        nodes=int(row[13].partition("-")[0] or 1),
        cpus=int(row[14] or 1),
        tres=_word(row[15]),
        hosts=_word(row[16]),
        priority=int(row[17] or 0),
        features=_word(row[18]),
        reservation=_word(row[19]),
        licences=_word(row[20]),
        required=_word(row[21]),
        excluded=_word(row[22]),
        exclusive=row[23] not in ("NO", ""),
        exit=row[24],
        name=row[25],
        comment=_word(row[26]),
    )


def accounted(text: str, mark: str) -> list[records.Job]:
    """Read ``sacct --parsable --delimiter=mark`` of the ``ACCOUNTING_FIELDS``, asked for without steps."""
    fields = text.split(mark)
    width = len(ACCOUNTING_FIELDS)
    if len(fields) % width != 1 or fields[-1].strip():
        raise Unanswered(f"sacct answered {len(fields)} fields, which is no multiple of {width}")
    return [
        _understood(_accounted, fields[at : at + width])
        for at in range(0, len(fields) - 1, width)
        if fields[at].strip().isdecimal()
    ]


def _accounted(row: Sequence[str]) -> records.Job:
    minutes = row[9]
    return records.Job(
        id=int(row[0].strip()),
        user=row[1],
        account=row[2],
        partition=row[3],
        state=row[4].partition(" ")[0],  # CANCELLED by 2001
        submitted=instant(row[5]) or 0,
        eligible=instant(row[6]),
        started=instant(row[7]),
        ends=instant(row[8]),
        limit=int(minutes) * 60 if minutes.isdecimal() else None,
        nodes=int(row[10] or 1),
        cpus=int(row[11] or 1),
        tres=row[12],
        hosts=_word(row[13]),
        reservation=row[14],
        exit=row[15],
        name=row[16],
    )


_SUBMITTED = re.compile(r"(\d+)(?:;.*)?")


def submitted(text: str) -> int:
    """Read what ``sbatch --parsable`` prints: the number of the job."""
    for line in text.splitlines():
        if match := _SUBMITTED.fullmatch(line.strip()):
            return int(match[1])
    raise Unanswered(f"sbatch told no number: {text[:200]!r}")


_PING = re.compile(r"is (UP|DOWN)")


def check_ping(text: str) -> None:
    """Read ``scontrol ping``.

    Raises:
        NotReached: no controller is up.
    """
    states = _PING.findall(text)
    if not states:
        raise Refused(f"scontrol ping answered {text[:200]!r}")
    if "UP" not in states:
        raise fault("Unable to contact slurm controller: it is down")
