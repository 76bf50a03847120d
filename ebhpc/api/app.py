"""The Falcon application: its resources, and what all of them share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import falcon
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ebhpc import media
from ebhpc.api.access import Gate
from ebhpc.api.accounts import Accounts
from ebhpc.api.approvals import Approval, Approvals
from ebhpc.api.auditing import Auditing
from ebhpc.api.broker import Broker
from ebhpc.api.calendars import CalendarFile, CalendarKey
from ebhpc.api.description import Description
from ebhpc.api.health import Live, Metrics, Ready
from ebhpc.api.identities import Identities
from ebhpc.api.issuers import OpenIssuer
from ebhpc.api.outputs import OutputFile, Outputs
from ebhpc.api.platforms import PlatformList, PlatformPicture, PlatformTimeline
from ebhpc.api.problems import Problem, problem_of
from ebhpc.api.rates import Counters, Limiter
from ebhpc.api.requests import Direct, OfferSets, Requests
from ebhpc.api.sessions import Session, Sessions
from ebhpc.api.timelines import Timelines
from ebhpc.api.uuids import TimeOrderedUuids
from ebhpc.api.vosi import Availability, Capabilities
from ebhpc.api.wire import problem_answer
from ebhpc.config import Config
from ebhpc.model.registry import Kinds
from ebhpc.plugins import Platform, Policies
from ebhpc.policy import SiteRules
from ebhpc.store import Store

log = logging.getLogger(__name__)


def create_app(
    *,
    store: Store,
    platforms: Mapping[str, Platform],
    kinds: Kinds,
    config: Config,
    policies: Policies,
    clock: Callable[[], float] = time.time,
    new_uuid: Callable[[], str] | None = None,
    made: Callable[[Broker], None] | None = None,
    counters: Counters | None = None,
) -> falcon.App[falcon.Request, falcon.Response]:
    """Make the WSGI application of one worker process. Make it, and what it is given, after a fork.

    Args:
        store: the database, at the newest revision, with a row for each platform.
        platforms: by name; each is called on its own threads.
        kinds: the kinds of the data model, those of plugins included.
        config: all settings.
        policies: the site's rules.
        clock: gives POSIX seconds.
        new_uuid: gives a fresh UUID as text; by default one that begins with the time.
        counters: of how often somebody asks, shared by the workers; by default this one's own.
        made: is given the parts that the application works with, for what is served beside it.
    """
    # Not before: what it imports decides then whether the workers share their measures.
    from ebhpc.api.metrics import Measures, Timing

    measures = Measures(store, clock)
    counters = counters or Counters()
    rules = SiteRules(config.policy, store, most_open=config.api.max_outstanding_offers)
    new_uuid = new_uuid or TimeOrderedUuids(clock)
    broker = Broker(
        store=store,
        platforms=platforms,
        kinds=kinds,
        config=config,
        policies=policies,
        clock=clock,
        new_uuid=new_uuid,
        timelines=Timelines(store, platforms),
        accounts=Accounts(
            store,
            issuers=[OpenIssuer(issuer) for issuer in config.issuers],
            people=rules.people,
            failures=Limiter(counters, "failures", config.api.failed_logins),
            clock=clock,
            new_uuid=new_uuid,
        ),
        rules=rules,
        audit=Auditing(store, config.audit, config.api, clock=clock),
        measures=measures,
    )
    middleware: list[Any] = [Timing(measures), Gate(broker, counters)]
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App(middleware=middleware)
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.keep_blank_qs_values = True
    app.add_error_handler(Exception, _answer_fault)
    app.add_error_handler((OperationalError, PoolTimeoutError), _answer_silence)
    app.add_error_handler(falcon.HTTPError, _answer_problem)
    for path, resource in resources(broker).items():
        app.add_route(path, resource)
    if made is not None:
        made(broker)
    return app


def resources(broker: Broker) -> dict[str, Any]:
    """Return every resource by the template of its path."""
    return {
        "/requests": Requests(broker),
        "/direct": Direct(broker),
        "/offersets/{uuid}": OfferSets(broker),
        "/sessions": Sessions(broker),
        "/sessions/calendar": CalendarKey(broker),
        "/sessions/calendar.ics": CalendarFile(broker),
        "/sessions/{uuid}": Session(broker),
        "/sessions/{uuid}/output": Outputs(broker),
        "/sessions/{uuid}/output/{name:path}": OutputFile(broker),
        "/platforms": PlatformList(broker),
        "/platforms/{name}/timeline": PlatformTimeline(broker),
        "/platforms/{name}/picture": PlatformPicture(broker),
        "/admin/identities": Identities(broker),
        "/admin/approvals": Approvals(broker),
        "/admin/approvals/{uuid}": Approval(broker),
        "/openapi.yaml": Description(broker, media.YAML),
        "/openapi.json": Description(broker, media.JSON),
        "/health/live": Live(),
        "/health/ready": Ready(broker),
        "/metrics": Metrics(broker),
        "/availability": Availability(broker),
        "/capabilities": Capabilities(broker),
    }


def _answer_problem(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    problem_answer(req, resp, problem_of(error))


def _answer_fault(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    """Answer a fault of our own: what it was is for the log, not for the client."""
    log.error("%s %a failed", req.method, req.path, exc_info=error)
    problem_answer(req, resp, Problem(500, "the broker failed to answer; its log says why"))


def _answer_silence(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    """Answer that the database does not answer."""
    log.error("%s %a: the database does not answer", req.method, req.path, exc_info=error)
    problem_answer(req, resp, Problem(503, "the database does not answer", headers={"Retry-After": "5"}))
