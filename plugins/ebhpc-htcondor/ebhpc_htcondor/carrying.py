"""Sessions whose files HTCondor itself carries (``files: transfer``): to the schedd's spool, to the machine, and back.

The broker's directory of a session is on no machine. Its job's script carries what the job needs; URLs are fetched by
HTCondor's own plugins where it has them; what is to be kept comes back to the schedd, and from there to us.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ebhpc import batch
from ebhpc.batch import Native, SessionDirectory
from ebhpc.model import DockerContainer, Message, MessageKind, Request, S3Data, Session, message
from ebhpc.staging.files import mark
from ebhpc.staging.volumes import data_url
from ebhpc_htcondor import records, universe
from ebhpc_htcondor.asking import NotReached, Pool, Unanswered
from ebhpc_htcondor.names import string
from ebhpc_htcondor.settings import SIGNED, HTCondorSettings

log = logging.getLogger("ebhpc_htcondor")

PLACE = "ebhpc"
"""The session's directory within the job's scratch directory."""

BROUGHT = "brought"
"""The mark in a session's directory that its files were fetched."""

_SCRATCH = f"$_CONDOR_SCRATCH_DIR/{PLACE}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_URL = re.compile(r"[a-z][a-z0-9]*://[A-Za-z0-9.:-]+/[A-Za-z0-9._~:@/+-]+")
"""Without who asks: everybody may read a job's ad."""
_TAKEN = frozenset({PLACE, "job.sh", "condor_exec.exe", "stdout", "stderr", "results"})
_WAYS = 4
_TRIES = 5
"""How often the pool may refuse to give a job's files back until they are given up."""

LEFT = 864_000
"""Seconds for which a job whose files were not fetched stays in the queue."""


def brought_by_pool(urls: Iterable[str], settings: HTCondorSettings) -> dict[str, str]:
    """Return which URLs HTCondor is to fetch, and the names that their files will have; the runner fetches the others.

    It takes plain ones alone: it knows no quotes in its list, and names a file by the last word of its path.
    """
    found: dict[str, str] = {}
    for url in urls:
        name = url.rpartition("/")[2]
        plain = _URL.fullmatch(url) and _NAME.fullmatch(name) and name not in (*_TAKEN, *found.values())
        if plain and url.partition(":")[0] in settings.native_urls:
            found[url] = name
    return found


def refusals(request: Request, settings: HTCondorSettings) -> Iterable[Message]:
    """Yield what of a request cannot be carried."""
    for at, item in enumerate(request.data):
        if isinstance(item, S3Data) and "s3" in settings.native_urls and item.endpoint and not _asked_by_pool(item):
            text = "The pool asks for objects by https, of services whose names have a dot; not of {endpoint}."
            path = f"/data/{at}/endpoint"
            yield batch.refusal(MessageKind.NOT_SUPPORTED, path, text, endpoint=item.endpoint)
    urls = [data_url(item) or "" for item in request.data]
    brought = brought_by_pool(urls, settings)
    for at, url in enumerate(urls):
        if url and url not in brought and url.partition(":")[0].lower() not in ("http", "https", "file"):
            text = "{url} cannot be fetched: the pool takes URLs of plain characters, each with a file name of its own."
            yield batch.refusal(MessageKind.NOT_SUPPORTED, f"/data/{at}", text, url=url)
    executable = request.executable
    by_pool = universe.is_run_by_pool(executable, settings)
    if not by_pool and isinstance(executable, DockerContainer) and universe.ports(executable):
        text = "A container's ports are not reached here: the broker shares no files with the pool's machines."
        yield batch.refusal(MessageKind.NOT_SUPPORTED, "/executable/network/ports", text)


def _asked_by_pool(item: S3Data) -> bool:
    """Whether HTCondor would ask the service that is meant: it takes a name without a dot for a bucket of Amazon's."""
    scheme, _, rest = (item.endpoint or "").rpartition("://")
    return scheme.lower() in ("https", "s3", "") and "." in rest.partition("/")[0]


def lines(
    session: Session, settings: HTCondorSettings, directory: SessionDirectory, script: str, user: str
) -> dict[str, str]:
    """Return the lines that say what is run, and what is carried where; ``user``: the job's owner."""
    if universe.is_run_by_pool(session.executable, settings):
        return {**common(directory), **universe.lines(session, settings)}
    brought = brought_by_pool(fetched(directory), settings)
    kept = ["output", "report", *(["storage"] if settings.jobs.keep_storage else [])]
    return {
        **common(directory),
        "universe": "vanilla",
        "executable": str(directory.path / script),
        "transfer_executable": "True",
        **({"transfer_input_files": ",".join(brought)} if brought else {}),
        **(keys(settings, user) if any(url.partition(":")[0] in SIGNED for url in brought) else {}),
        "transfer_output_files": ",".join(f"{PLACE}/{name}" for name in kept),
        "output": "/dev/null",
        "error": "batch.log",
    }


def keys(settings: HTCondorSettings, user: str) -> dict[str, str]:
    """Return where the keys are with which HTCondor signs URLs: names of files, which stay with the schedd.

    They are attributes, since ``aws_access_key_id_file`` wants the files to be where the job is submitted from.
    """
    place = (settings.s3_keys or "").replace("{user}", user)
    named = {"EC2AccessKeyId": "access-key-id", "EC2SecretAccessKey": "secret-access-key"}
    return {f"+{attribute}": string(f"{place}/{name}") for attribute, name in named.items()}


def common(directory: SessionDirectory) -> dict[str, str]:
    """Return the lines of every job whose files are carried."""
    return {
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "initialdir": str(directory.path),
        # The files wait in the schedd's spool until they are fetched
        "leave_in_queue": f"JobStatus == 4 && (StageOutFinish ?: 0) == 0 && time() - CompletionDate < {LEFT}",
    }


def fetched(directory: SessionDirectory) -> list[str]:
    """Return the URLs that a session's job needs.

    Raises:
        OSError: the session was not prepared.
    """
    return [str(file["url"]) for file in batch.prepared_job(directory)["fetch"]]


def script(session: Session, settings: HTCondorSettings, directory: SessionDirectory) -> str | None:
    """Return the job's script, which carries all that it needs; None: a container of the pool's needs none."""
    if universe.is_run_by_pool(session.executable, settings):
        (directory.path / universe.RESULTS).mkdir(mode=0o700, exist_ok=True)
        return None
    # What is to come back must be there, whatever becomes of the job
    made = f'mkdir -p "{_SCRATCH}/output" "{_SCRATCH}/report" "{_SCRATCH}/storage"\n{settings.jobs.setup}'
    jobs = own(settings.jobs, setup=made)
    return batch.brought_script(directory, jobs, _SCRATCH, brought_by_pool(fetched(directory), settings))


def jobs(settings: HTCondorSettings) -> batch.JobSettings:
    """Return how sessions become jobs; where files are carried the sessions' directories are the broker's alone."""
    return own(settings.jobs) if settings.files == "transfer" else settings.jobs


def own(settings: batch.JobSettings, **more: Any) -> batch.JobSettings:
    """Return settings for sessions' directories that are the broker's alone."""
    return replace(settings, access="own", **more)


class _Way(Struct):
    """How fetching one session's files goes: ``under_way``, and how often the pool has refused, in which words."""

    under_way: Future[None]
    refused: int = 0
    why: str = ""
    again: float = 0.0


class Bringer:
    """Fetches the files of jobs that have ended from their schedd, a few at a time, beside everything else."""

    def __init__(self, settings: HTCondorSettings, pool: Pool, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._pool = pool
        self._clock = clock
        self._free = threading.Semaphore(_WAYS)
        self._lock = threading.Lock()
        self._ways: dict[str, _Way] = {}

    def bring(self, session: Session, job: records.Job, *, queued: bool) -> Native | None:
        """See that the files of a job that has ended are fetched; None: all is here that can be had.

        Until then its session counts as running. ``queued``: the job is still in its schedd's queue; it leaves it when
        its files have been fetched.
        """
        directory = batch.session_directory(self._settings.jobs.root, session.uuid)
        if (directory.path / BROUGHT).exists():
            return None
        if not queued:
            settle(directory)
            return None
        with self._lock:
            way = self._ways.get(session.uuid)
            if way is None:
                way = self._ways[session.uuid] = _Way(self._begin(directory, job))
            if way.under_way.done():
                error = way.under_way.exception()
                if error is None:
                    del self._ways[session.uuid]
                    return None
                self._failed(session, job, directory, way, error)
        if way.refused >= _TRIES:
            return _given_up(job, way.why)
        words = message(MessageKind.PROGRESS, "the job has ended, and its files are being fetched", level="INFO")
        return Native(state="RUNNING", node=None, started=job.executing or job.started, messages=(words,))

    def _failed(
        self, session: Session, job: records.Job, directory: SessionDirectory, way: _Way, error: BaseException
    ) -> None:
        """Try again after a while; what the pool refuses it may refuse for ever."""
        now = self._clock()
        if not way.again:
            passing = isinstance(error, NotReached | Unanswered)
            way.refused += 0 if passing else 1
            way.why, way.again = str(error), now + 5 * (1 + way.refused)
            log.warning("session %s: the files of job %s were not fetched: %s", session.uuid, job.id, error)
        elif now >= way.again and way.refused < _TRIES:
            way.again = 0.0
            way.under_way = self._begin(directory, job)

    def _begin(self, directory: SessionDirectory, job: records.Job) -> Future[None]:
        # No executor: whoever ends this process does not wait for files, which are fetched again by the next one
        future: Future[None] = Future()
        threading.Thread(target=self._fetch, args=(directory, job, future), daemon=True).start()
        return future

    def _fetch(self, directory: SessionDirectory, job: records.Job, future: Future[None]) -> None:
        try:
            with self._free:
                self._pool.retrieve([job.id], job.owner, directory.path)
                settle(directory)
                mark(directory.path / BROUGHT)
        except BaseException as error:  # noqa: BLE001  # whoever asks for the files is told
            future.set_exception(error)
        else:
            future.set_result(None)


def settle(directory: SessionDirectory) -> None:
    """Put what a container of the pool's has left where a session's outputs are; safe to repeat."""
    moved = {"stdout": directory.output / "stdout", "stderr": directory.output / "stderr"}
    directory.output.mkdir(mode=0o700, exist_ok=True)
    for name, place in moved.items():
        if (directory.path / name).is_file():
            os.replace(directory.path / name, place)
    results = directory.path / universe.RESULTS
    if results.is_dir():
        shutil.rmtree(directory.results, ignore_errors=True)
        os.replace(results, directory.results)


def _given_up(job: records.Job, why: str) -> Native:
    words = message(MessageKind.FAILED, "the job's files could not be fetched from the pool: {why}", why=why)
    return Native(
        state="FAILED",
        exit_code=job.exit_code,
        started=job.executing or job.started,
        ended=job.finished or job.entered,
        messages=(words,),
    )
