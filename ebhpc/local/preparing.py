"""What happens to a session before its job: storage made, data staged, notebook or image fetched.

Everything may be repeated after a crash at any instant: what is complete is left, what is not is begun anew.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from ebhpc.faults import point
from ebhpc.local.engine import (
    Engine,
    EngineFailed,
    digests,
    says_digest_is_unknown,
    says_image_is_unknown,
)
from ebhpc.local.payload import IMAGE, LAUNCHER, NOTEBOOK, account, apptainer
from ebhpc.local.places import SessionDirectory
from ebhpc.local.settings import Local
from ebhpc.model import (
    BatchScript,
    DockerContainer,
    JupyterNotebook,
    Message,
    MessageKind,
    Session,
    SingularityContainer,
    message,
)
from ebhpc.plugins import SessionFailed
from ebhpc.staging import scripts
from ebhpc.staging.elements import Fetcher
from ebhpc.staging.fetching import FetchFailed
from ebhpc.staging.files import held, write_json
from ebhpc.staging.references import read_reference
from ebhpc.staging.volumes import mounts, sizes


class Preparation(Struct, frozen=True, kw_only=True):
    """What preparing one session needs to know."""

    session: Session
    directory: SessionDirectory
    settings: Local
    state: Path
    engine: Callable[[], Engine | None]

    @property
    def fetcher(self) -> Fetcher:
        """Return what fetches for this session."""
        return Fetcher(
            uuid=self.directory.uuid,
            rules=self.settings,
            stop=self.directory.marked_to_end,
            sources=self.session.sources,
        )


def prepare(work: Preparation) -> tuple[Message, ...]:
    """Make everything ready for the job; return what there is to tell the user.

    Raises:
        SessionFailed: it can never be.
    """
    storage(work)
    told = work.fetcher.data(work.session, work.directory.storage)
    executable = work.session.executable
    if isinstance(executable, JupyterNotebook):
        work.fetcher.notebook(executable, work.directory.stage / NOTEBOOK)
        shown_volumes(work)
    elif isinstance(executable, DockerContainer):
        told += _pull(work, executable)
    elif isinstance(executable, SingularityContainer):
        _fetch_image(work, executable)
    elif isinstance(executable, BatchScript):
        _write_script(work, executable)
        shown_volumes(work)
    hand_over(work)
    return tuple(told)


def storage(work: Preparation) -> None:
    """Make the storage directories. Who a container's user will be, nobody knows: the session's directory is the
    door that stays shut."""
    point("local.storage.before", work.directory.uuid)
    work.directory.make()
    (work.directory.work / ".tmp").mkdir(mode=0o700, exist_ok=True)
    session = work.session
    for at in range(len(sizes(session.storage, session.data, work.settings))):
        place = work.directory.storage / str(at)
        place.mkdir(exist_ok=True)
        place.chmod(0o777)
    work.directory.results.chmod(0o777)
    point("local.storage.after", work.directory.uuid)


def _write_script(work: Preparation, script: BatchScript) -> None:
    """Put a script into the job's own directory, and what starts it where the job can only read."""
    target = work.directory.work / scripts.SCRIPT
    if script.location is not None:
        url = scripts.checked_location(script)
        sources = work.session.sources.notebooks
        work.fetcher.file(url, target, "/executable/location", most=scripts.LARGEST, sources=sources)
    else:
        target.write_text(script.script or "", encoding="utf-8", newline="")
    target.chmod(0o700)
    launcher = work.directory.stage / LAUNCHER
    launcher.write_text(scripts.launch_text(script, work.settings.scripts), encoding="utf-8")
    launcher.chmod(0o644)


def shown_volumes(work: Preparation) -> None:
    """Make the places in a job's working directory where its volumes appear.

    Root mounts them there, in a view of the job's own. Without root a symbolic link leads to them, and read-only is
    a matter of the files' modes, which the notebook, being of the same user, can change.
    """
    session, directory = work.session, work.directory
    shown = mounts(session.volumes, session.storage, session.data)
    for mount in shown:
        target, source = directory.work / mount.target, directory.storage / mount.source
        if os.geteuid() == 0:
            if mount.is_file:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            else:
                target.mkdir(parents=True, exist_ok=True)
        elif not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    if os.geteuid() != 0:
        writable = {mount.source.partition("/")[0] for mount in shown if not mount.read_only}
        for mount in shown:
            home = mount.source.partition("/")[0]
            if home not in writable:
                for entry in (directory.storage / home).iterdir():
                    entry.chmod(0o444)
                (directory.storage / home).chmod(0o555)


def hand_over(work: Preparation) -> None:
    """Give the job's directories to the user that it runs as, where that is another."""
    if isinstance(work.session.executable, DockerContainer):
        return
    user = account(work.settings)
    if user is None:
        return
    directory = work.directory
    for place in (directory.path, directory.output, directory.stage, directory.storage):
        place.chmod(0o711)
    own = [directory.work, directory.results, *directory.storage.iterdir()]
    for top in own:
        for folder, _, files, descriptor in os.fwalk(top, follow_symlinks=False):
            del folder
            os.fchown(descriptor, user["uid"], user["gid"])
            for name in files:
                os.chown(name, user["uid"], user["gid"], dir_fd=descriptor, follow_symlinks=False)
        top.chmod(0o700)


def _fetch_image(work: Preparation, executable: SingularityContainer) -> None:
    target = work.directory.stage / IMAGE
    url = executable.location or ""
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https", "file"):
        work.fetcher.file(url, target, "/executable/location")
        target.chmod(0o644)
        return
    program = apptainer(work.settings)
    if program is None:
        raise FetchFailed("there is no apptainer on this host any more")
    if target.exists():
        return
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    puller = Engine(
        program=program,
        options=(),
        environment={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(work.directory.stage),
            "APPTAINER_CACHEDIR": str(work.directory.stage / "cache"),
            "APPTAINER_TMPDIR": str(work.directory.work / ".tmp"),
        },
        podman=False,
        version="",
    )
    point("local.pull.before", work.directory.uuid)
    try:
        puller.call("pull", "--force", str(part), url, timeout=float(work.settings.download_timeout))
    except EngineFailed as error:
        if says_image_is_unknown(error.text) or says_digest_is_unknown(error.text):
            raise SessionFailed(
                message(
                    MessageKind.RESOURCE_NOT_FOUND,
                    "The image {url} cannot be fetched: {why}",
                    url=url,
                    why=error.text[-500:],
                    path="/executable/location",
                )
            ) from None
        raise
    os.replace(part, target)
    target.chmod(0o644)
    point("local.pull.after", work.directory.uuid)


def _pull(work: Preparation, executable: DockerContainer) -> list[Message]:
    """Get the image of the digest from the first location that has it, and note its name."""
    image, engine = executable.image, work.engine()
    if engine is None:
        raise EngineFailed("there is no container engine that works")
    digest = (image.digest if image else None) or ""
    unknown: list[str] = []
    failed: list[str] = []
    mismatch = False
    # Whoever removes an image waits until nobody is between fetching one and noting that it is needed
    with held(work.state / "images.lock", shared=True):
        for location in (image.locations if image else None) or ():
            reference = read_reference(location)
            if reference is None:
                unknown.append(f"{location} is no image location")
                continue
            name = reference.by_digest(digest)
            try:
                there = engine.image(name) is not None
                if not there:
                    _pull_one(work, engine, executable, name)
            except EngineFailed as error:
                if says_digest_is_unknown(error.text):
                    mismatch = True
                    unknown.append(f"{location} has no image of this digest")
                elif says_image_is_unknown(error.text):
                    unknown.append(f"{location}: {_last_line(error.text)}")
                else:
                    failed.append(f"{location}: {_last_line(error.text)}")
                continue
            _verify(engine, executable, name, digest)
            write_json(work.directory.image, {"name": name, "time": time.time()})
            if there:
                return []
            words = "Image {image} is fetched and has the digest that was asked for."
            return [message(MessageKind.PROGRESS, words, level="INFO", image=name)]
    if failed:
        raise EngineFailed("; ".join(failed))
    raise SessionFailed(
        message(
            MessageKind.DIGEST_MISMATCH if mismatch else MessageKind.RESOURCE_NOT_FOUND,
            "No location has the image {digest}: {why}",
            digest=digest,
            why="; ".join(unknown),
            path="/executable/image/digest" if mismatch else "/executable/image/locations",
        )
    )


def _pull_one(work: Preparation, engine: Engine, executable: DockerContainer, name: str) -> None:
    platform = executable.image.platform if executable.image else None
    system = (platform.os if platform else None) or "linux"
    architecture = (platform.architecture if platform else None) or "amd64"
    point("local.pull.before", work.directory.uuid)
    engine.call(
        "pull",
        "--quiet",
        "--platform",
        f"{system}/{architecture}",
        name,
        timeout=float(work.settings.download_timeout),
    )
    point("local.pull.after", work.directory.uuid)


def _verify(engine: Engine, executable: DockerContainer, name: str, digest: str) -> None:
    """Make sure that what the engine has under the name is what was asked for."""
    found = engine.image(name)
    if found is None:
        raise EngineFailed(f"{name} was fetched and is not there")
    if digest not in digests(found):
        raise SessionFailed(
            message(
                MessageKind.DIGEST_MISMATCH,
                "The image at {image} has the digests {found}, not {digest}.",
                image=name,
                found=json.dumps(list(digests(found))),
                digest=digest,
                path="/executable/image/digest",
            )
        )
    platform = executable.image.platform if executable.image else None
    wanted = (
        (platform.os if platform else None) or "linux",
        (platform.architecture if platform else None) or "amd64",
    )
    built = (str(found.get("Os", "")), str(found.get("Architecture", "")))
    if built != wanted:
        raise SessionFailed(
            message(
                MessageKind.NOT_SUPPORTED,
                "The image at {image} is built for {built}, not for {wanted}.",
                image=name,
                built="/".join(built),
                wanted="/".join(wanted),
                path="/executable/image/platform",
            )
        )


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][-300:]
