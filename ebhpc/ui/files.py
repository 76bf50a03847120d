"""HTML that a job wrote, shown so that it can do nothing. Lists and downloads are the API's own resources."""

from __future__ import annotations

import falcon

from ebhpc.api.outputs import OutputFile

_HTML = frozenset({"text/html", "application/xhtml+xml"})

SANDBOX = "; ".join(
    (
        "sandbox",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""For HTML that a job wrote: no script runs, nothing is fetched or sent, and its origin is not ours."""


class Shown(OutputFile):
    """``/ui/shown/UUID/NAME``: for the frame in which the page shows a notebook."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str, name: str) -> None:
        """Send HTML to be shown in a sandbox; anything else as the API does."""
        super().on_get(req, resp, uuid, name)
        if (resp.content_type or "").partition(";")[0].strip().lower() in _HTML:
            resp.set_header("Content-Disposition", "inline")
            resp.set_header("Content-Security-Policy", SANDBOX)
