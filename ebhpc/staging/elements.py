"""Fetching what a session's elements name by URL: its data to their places, its notebook, its image.

Everything may be repeated after a crash at any instant: what is complete is left, what is not is begun anew. What can
never be had is the session's end, told in words with the path of the element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from ebhpc.model import (
    Data,
    IvoaData,
    JupyterNotebook,
    Message,
    MessageKind,
    Session,
    SourceRule,
    Sources,
    message,
)
from ebhpc.plugins import SessionFailed
from ebhpc.staging.fetching import FetchRefused, Limits, fetch
from ebhpc.staging.files import GIBI
from ebhpc.staging.locations import LocationError, read_location
from ebhpc.staging.rules import StagingRules
from ebhpc.staging.usage import size
from ebhpc.staging.volumes import data_url, label, places, sizes

NOTEBOOK_SIZE = 64 * 2**20
"""The largest notebook, in bytes, that is fetched."""


class Fetcher(Struct, frozen=True, kw_only=True):
    """Fetches for one session (``uuid``), by a site's ``rules``, until ``stop`` says that it is not wanted any more.

    ``sources`` are the site's rules on where the session's things come from.
    """

    uuid: str
    rules: StagingRules
    stop: Callable[[], bool]
    sources: Sources = Sources()

    def file(
        self,
        url: str,
        target: Path,
        path: str,
        *,
        most: int | None = None,
        stated: int | None = None,
        sources: Sequence[SourceRule] = (),
    ) -> int:
        """Fetch one URL to a file; ``path`` is the element's JSON pointer, ``most`` bytes and ``stated`` its size.

        ``sources`` are the rules on where it comes from.

        Raises:
            SessionFailed: it can never be had.
            FetchFailed: not now.
        """
        rules = self.rules
        bound = int(rules.max_download_gib * GIBI)
        limits = Limits(
            size=bound if most is None else min(most, bound),
            connect=float(rules.connect_timeout),
            total=float(rules.download_timeout),
        )
        try:
            location = read_location(url, rules.file_roots, private=rules.private_networks)
            return fetch(
                location,
                target,
                roots=rules.file_roots,
                private=rules.private_networks,
                limits=limits,
                uuid=self.uuid,
                size=stated,
                sources=sources,
                stop=self.stop,
            )
        except (LocationError, FetchRefused) as error:
            kind = MessageKind.INVALID_VALUE
            if getattr(error, "missing", False):
                kind = MessageKind.RESOURCE_NOT_FOUND
            elif getattr(error, "large", False):
                kind = MessageKind.RESOURCE_LIMIT
            elif getattr(error, "forbidden", False):
                kind = MessageKind.POLICY_REFUSED
            raise SessionFailed(
                message(kind, "{url} cannot be fetched: {why}", url=url, why=str(error), path=path)
            ) from None

    def data(self, session: Session, storage: Path) -> list[Message]:
        """Fetch all data elements to their places below the directory ``storage``; return what to tell the user.

        Raises:
            SessionFailed, FetchFailed: as :meth:`file`.
        """
        told = []
        bounds = sizes(session.storage, session.data, self.rules)
        placed = places(session.storage, session.data)
        for at, (place, item) in enumerate(zip(placed, session.data, strict=True)):
            home = storage / str(place.storage)
            target = home / place.name
            if target.exists():
                continue
            for stale in home.glob("*.part"):
                stale.unlink()
            room = max(0, bounds[place.storage] - size(str(home)) + 4096)
            url, stated = data_url(item) or "", stated_size(item)
            taken = self.file(url, target, f"/data/{at}", most=room, stated=stated, sources=self.sources.data)
            told.append(
                message(
                    MessageKind.PROGRESS,
                    "Data {name} is staged: {bytes} bytes.",
                    level="INFO",
                    name=label(item, place.name),
                    bytes=taken,
                    path=f"/data/{at}",
                )
            )
        return told

    def notebook(self, executable: JupyterNotebook, target: Path) -> None:
        """Fetch a notebook, and see that it is one.

        Raises:
            SessionFailed, FetchFailed: as :meth:`file`; SessionFailed, too, where it is no notebook.
        """
        import nbformat

        path = "/executable/location"
        self.file(executable.location or "", target, path, most=NOTEBOOK_SIZE, sources=self.sources.notebooks)
        target.chmod(0o644)
        text = target.read_bytes()
        try:
            notebook = nbformat.reads(text.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]  # no types
            nbformat.validate(notebook)
        except Exception as error:  # noqa: BLE001  # its converters raise whatever they stumble over
            why = str(error).strip().partition("\n")[0][:300]
            raise SessionFailed(
                message(
                    MessageKind.INVALID_VALUE,
                    "{url} is no Jupyter notebook: {why}",
                    url=executable.location,
                    why=why,
                    path=path,
                )
            ) from None


def stated_size(item: Data) -> int | None:
    """Return the size in bytes that a data element's metadata states."""
    if isinstance(item, IvoaData) and item.ivoa is not None and item.ivoa.datalink is not None:
        return item.ivoa.datalink.content_length
    return None
