"""The page's application: its resources, what all of them share, and its place beside the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import falcon
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ebhpc.api.approvals import Approval, Approvals
from ebhpc.api.broker import Broker
from ebhpc.api.calendars import CalendarKey
from ebhpc.api.outputs import OutputFile, Outputs
from ebhpc.api.platforms import PlatformPicture
from ebhpc.api.problems import Problem, problem_of
from ebhpc.api.wire import problem_answer
from ebhpc.ui.asking import Ask, FormOfFile, OfferSet, Preview
from ebhpc.ui.assets import Asset, Assets
from ebhpc.ui.door import Door
from ebhpc.ui.files import Shown
from ebhpc.ui.oidc import OidcAnswer, OidcStart
from ebhpc.ui.operations import Operations
from ebhpc.ui.pages import Home, PageOf, Templates
from ebhpc.ui.platforms import Platforms, Promises
from ebhpc.ui.sessions import RequestAgain, SessionList, WatchedSession
from ebhpc.ui.sign_in import SignIn, SignOut
from ebhpc.ui.visits import Visits, root_of
from ebhpc.ui.watching import Watching

log = logging.getLogger(__name__)

Start = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], Start], Iterable[bytes]]


def with_page(api: Wsgi, broker: Broker) -> Wsgi:
    """Return a WSGI application that serves the page at ``/ui/`` and the API everywhere else.

    A browser that opens the broker's address itself is sent to the page.
    """
    page = page_application(broker)
    watching = Watching(broker)
    root = root_of(broker.config.api)

    def serve(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/ui" or path.startswith("/ui/"):
            if (tag := _unchanged(watching, environ)) is not None:
                start_response("304 Not Modified", [("ETag", tag), ("Cache-Control", "private, no-cache")])
                return []
            return page(environ, start_response)
        if path in ("", "/") and environ.get("REQUEST_METHOD") == "GET" and "html" in environ.get("HTTP_ACCEPT", ""):
            start_response("302 Found", [("Location", f"{root}/ui/"), ("Content-Length", "0")])
            return []
        return api(environ, start_response)

    return serve


def _unchanged(watching: Watching, environ: dict[str, Any]) -> str | None:
    try:
        return watching.unchanged(environ)
    except (OperationalError, PoolTimeoutError):
        return None  # the application asks again, and says what is the matter


def page_application(broker: Broker) -> falcon.App[falcon.Request, falcon.Response]:
    """Make the page's own WSGI application for a worker's ``broker``."""
    # As in create_app: what it imports decides whether workers share their measures
    from ebhpc.api.metrics import Timing

    visits = Visits(broker)
    assets = Assets.of_package()
    templates = Templates(broker, assets)
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App(
        middleware=[Timing(broker.measures), Door(broker, visits, templates)]
    )
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    app.add_error_handler(Exception, _fault(templates))
    app.add_error_handler(OperationalError, _silence(templates))
    app.add_error_handler(PoolTimeoutError, _silence(templates))
    app.add_error_handler(falcon.HTTPError, _problem(templates))
    for path, resource in _resources(broker, visits, templates, assets).items():
        app.add_route(f"/ui{path}", resource)
    return app


def _resources(broker: Broker, visits: Visits, templates: Templates, assets: Assets) -> dict[str, Any]:
    return {
        "": Home(templates),
        "/static/{version}/{name:path}": Asset(assets),
        "/sign-in": SignIn(broker, visits, templates),
        "/sign-in/{issuer}": OidcStart(broker, visits),
        "/sign-in/{issuer}/answer": OidcAnswer(broker, visits),
        "/sign-out": SignOut(broker, visits),
        "/offers/{uuid}": PageOf(templates, "offers.html", "Offers"),
        "/sessions": PageOf(templates, "sessions.html", "My sessions"),
        "/sessions/{uuid}": PageOf(templates, "session.html", "Session"),
        "/platforms": PageOf(templates, "platforms.html", "Platforms and promises"),
        "/operations": PageOf(templates, "operations.html", "Operations", operators=True),
        "/data/preview": Preview(broker),
        "/data/form": FormOfFile(broker),
        "/data/requests": Ask(broker),
        "/data/offersets/{uuid}": OfferSet(broker),
        "/data/sessions": SessionList(broker),
        "/data/sessions/{uuid}": WatchedSession(broker),
        "/data/sessions/{uuid}/request": RequestAgain(broker),
        "/data/sessions/{uuid}/files": Outputs(broker),
        "/data/sessions/{uuid}/files/{name:path}": OutputFile(broker),
        "/shown/{uuid}/{name:path}": Shown(broker),
        "/data/platforms": Platforms(broker),
        "/data/platforms/{name}/picture": PlatformPicture(broker),
        "/data/promises": Promises(broker),
        "/data/operations": Operations(broker),
        "/data/approvals": Approvals(broker),
        "/data/approvals/{uuid}": Approval(broker),
        "/data/calendar": CalendarKey(broker),
    }


_Handler = Callable[[falcon.Request, falcon.Response, Any, dict[str, Any]], None]


def _problem(templates: Templates) -> _Handler:
    def handle(req: falcon.Request, resp: falcon.Response, error: Any, params: dict[str, Any]) -> None:
        _tell(templates, req, resp, problem_of(error))

    return handle


def _fault(templates: Templates) -> _Handler:
    """Answer a fault of our own: what it was is for the log, not for the browser."""

    def handle(req: falcon.Request, resp: falcon.Response, error: Any, params: dict[str, Any]) -> None:
        log.error("%s %a failed", req.method, req.path, exc_info=error)
        _tell(templates, req, resp, Problem(500, "the broker failed to answer; its log says why"))

    return handle


def _silence(templates: Templates) -> _Handler:
    def handle(req: falcon.Request, resp: falcon.Response, error: Any, params: dict[str, Any]) -> None:
        log.error("%s %a: the database does not answer", req.method, req.path, exc_info=error)
        told = Problem(503, "the database does not answer", headers={"Retry-After": "5"})
        _tell(templates, req, resp, told)

    return handle


def _tell(templates: Templates, req: falcon.Request, resp: falcon.Response, problem: Problem) -> None:
    """Answer a problem: a document where a script asked, else a page."""
    if req.path.startswith("/ui/data/"):
        problem_answer(req, resp, problem)
    else:
        templates.problem(req, resp, problem)
    # No browser shall ask for a password by itself: the page has a form for that
    if "www-authenticate" in resp.headers:
        resp.delete_header("WWW-Authenticate")
