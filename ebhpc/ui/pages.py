"""The pages themselves: templates, each with its own script."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import falcon
from jinja2 import Environment, PackageLoader, StrictUndefined

from ebhpc import __version__
from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem
from ebhpc.api.wire import base_url
from ebhpc.ui.assets import Assets
from ebhpc.ui.visits import root_of

_TITLES = {
    401: "Please sign in",
    403: "Not for you",
    404: "Nothing here",
    429: "Too many tries",
    503: "Not available now",
}


class Templates:
    """Renders the pages of a worker."""

    def __init__(self, broker: Broker, assets: Assets) -> None:
        self._broker = broker
        self._environment = Environment(
            loader=PackageLoader("ebhpc.ui"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.root = root_of(broker.config.api)
        self._static = f"{self.root}/ui/static/{assets.version}"

    def page(self, req: falcon.Request, resp: falcon.Response, template: str, title: str, **values: Any) -> None:
        """Answer a page."""
        visit = req.context.visit
        text = self._environment.get_template(template).render(
            title=title,
            root=f"{self.root}/ui",
            static=self._static,
            version=__version__,
            visit=visit,
            path=req.path,
            broker=base_url(req, self._broker.config.api),
            lifetime=int(self._broker.config.offers.lifetime),
            **values,
        )
        resp.data = text.encode()
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Cache-Control", "no-store")

    def problem(self, req: falcon.Request, resp: falcon.Response, problem: Problem) -> None:
        """Answer a page that says what is wrong."""
        resp.status = problem.status
        if problem.headers:
            resp.set_headers(problem.headers)
        title = _TITLES.get(problem.status_code, "That did not work")
        self.page(req, resp, "problem.html", title, text=problem.description or "", status=problem.status_code)

    def sign_in_address(self, req: falcon.Request) -> str:
        """Return where a stranger signs in, to come back here."""
        there = req.path.removeprefix("/ui").strip("/")
        return f"{self.root}/ui/sign-in" + (f"?to={quote(there, safe='')}" if there else "")


class PageOf(Readable):
    """A page for users whose content its script fetches."""

    def __init__(self, templates: Templates, template: str, title: str, *, operators: bool = False) -> None:
        self._templates = templates
        self._template = template
        self._title = title
        self.access = Access.ADMINISTRATORS if operators else Access.ACCOUNTS

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str | None = None) -> None:
        """Answer the page; what it is about is in its address, which the script reads."""
        self._templates.page(req, resp, self._template, self._title)


class Home(PageOf):
    """``/ui/``: ask."""

    def __init__(self, templates: Templates) -> None:
        super().__init__(templates, "ask.html", "When can it run?")
