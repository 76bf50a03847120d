"""What plugins for batch systems share: the common life of a job, whatever it is submitted to.

- ``JobSettings``: the block ``jobs:`` of a plugin's settings. ``ContainerRuntime`` is its part ``runtime``.
- ``abilities``, ``refusals``: why a request cannot run.
- ``session_directory``: where a session's files lie, on a file system that the nodes share.
- ``UnixUser``, ``user_of``, ``account_of``, ``no_account``: who the broker's users are there.
- ``unix_account``, ``prepare``: make that directory, fill it, and open it to the user whose job it is.
- ``job_script``, ``carried_script``, ``brought_script``, ``prepared_job``: what is handed to the batch system.
- ``read_report``, ``Native``, ``observation``: what became of the job.
- ``mark_cancelled``, ``cleanup``, ``outputs``, ``open_output``, ``forget``: its end.
- ``check``, ``probe_script``, ``probe_findings``, ``clock_skew``: what ``ebhpc check`` looks at.
"""

from ebhpc.batch.abilities import abilities
from ebhpc.batch.access import AccessFailed, Account, unix_account
from ebhpc.batch.checks import check, clock_skew, probe_directory, probe_findings, probe_script
from ebhpc.batch.directory import SessionDirectory, session_directory
from ebhpc.batch.ending import cleanup, forget, open_output, outputs
from ebhpc.batch.identities import UnixName, UnixUser, account_of, is_unix_name, no_account, user_of
from ebhpc.batch.preparing import mark_cancelled, prepare
from ebhpc.batch.reports import Native, Report, observation, read_report
from ebhpc.batch.script import brought_script, carried_script, job_script, prepared_job
from ebhpc.batch.settings import ContainerRuntime, JobSettings
from ebhpc.staging.refusals import Abilities, refusal, refusals, unknown_kind

__all__ = [
    "user_of",
    "no_account",
    "is_unix_name",
    "account_of",
    "UnixUser",
    "UnixName",
    "Abilities",
    "AccessFailed",
    "Account",
    "ContainerRuntime",
    "JobSettings",
    "Native",
    "Report",
    "SessionDirectory",
    "abilities",
    "brought_script",
    "carried_script",
    "check",
    "cleanup",
    "clock_skew",
    "forget",
    "job_script",
    "mark_cancelled",
    "observation",
    "open_output",
    "outputs",
    "prepare",
    "prepared_job",
    "probe_directory",
    "probe_findings",
    "probe_script",
    "read_report",
    "refusal",
    "refusals",
    "session_directory",
    "unix_account",
    "unknown_kind",
]
