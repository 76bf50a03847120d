"""Scripts and styles of the page: read once from the package, served under a name that tells their version."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

import falcon
from msgspec import Struct

from ebhpc.api.access import Access, Readable
from ebhpc.api.problems import not_found

_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}


class File(Struct, frozen=True):
    """An asset: its media type, and its content plain and compressed."""

    media_type: str
    plain: bytes
    compressed: bytes


class Assets(Struct, frozen=True):
    """All assets by their path; ``version`` changes whenever one of them does."""

    version: str
    files: dict[str, File]

    @classmethod
    def of_package(cls) -> Assets:
        """Read them."""
        files: dict[str, File] = {}
        _read(resources.files("ebhpc.ui") / "assets", "", files)
        digest = hashlib.blake2b(digest_size=8)
        for name, file in sorted(files.items()):
            digest.update(name.encode() + b"\0" + file.plain)
        return cls(version=digest.hexdigest(), files=files)


def _read(folder: Traversable, path: str, files: dict[str, File]) -> None:
    for item in folder.iterdir():
        name = path + item.name
        if item.is_dir():
            _read(item, f"{name}/", files)
        elif media_type := _TYPES.get(item.name.rpartition(".")[2]):
            content = item.read_bytes()
            files[name] = File(media_type, content, gzip.compress(content, compresslevel=9, mtime=0))


class Asset(Readable):
    """``/ui/static/VERSION/NAME``."""

    access = Access.EVERYBODY
    plain = True

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def on_get(self, req: falcon.Request, resp: falcon.Response, version: str, name: str) -> None:
        """Send one; under the present version's name browsers need not ask again."""
        file = self._assets.files.get(name)
        if file is None:
            raise not_found(f"file {name}")
        resp.content_type = file.media_type
        lasting = version == self._assets.version
        resp.set_header("Cache-Control", "public, max-age=31536000, immutable" if lasting else "no-cache")
        resp.set_header("Vary", "Accept-Encoding")
        resp.etag = self._assets.version
        if "gzip" in (req.get_header("Accept-Encoding") or ""):
            resp.set_header("Content-Encoding", "gzip")
            resp.data = file.compressed
        else:
            resp.data = file.plain
