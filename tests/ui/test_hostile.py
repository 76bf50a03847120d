"""Strings that nobody wishes for, by hypothesis, in every text that reaches a page: none acts, none breaks the layout.

What the broker answers to the page's scripts passes through the test, which puts strings into all texts of users, jobs
and batch systems in it: names, labels, messages, commands, addresses, node names, platform messages. A real job writes
files by such names, too.
"""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Error as PlaywrightError

from ebhpc.model import kinds
from tests.broker import ADMIN, PASSWORD
from tests.ui.browsing import PATIENCE, User, ended_well

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PIECES = [
    "<script>top.pwned=1</script>",
    '"><img src=x onerror=top.pwned=1>',
    "'><svg onload=top.pwned=1>",
    "</title></textarea></script><b>",
    "javascript:top.pwned=1",
    "data:text/html,<script>top.pwned=1</script>",
    "${7*7}{{7*7}}<%=7*7%>",
    "\u202egnp.evil\u2066",
    "&lt;script&gt;&#x3c;&quot;",
    "W" * 300,
    "a\u0301\u0302" * 40,
    "http://[::1",
    "../../../etc/passwd",
    "constructor",
    "__proto__",
    "😀" * 30,
    "line\nbreak\ttab\r",
]
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.lists(st.sampled_from(PIECES), min_size=2, max_size=3).map("".join),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    ),
    min_size=20,
    max_size=40,
)

# Parts that the broker itself makes and that scripts decide by; everything else may come from somebody
OWN = {
    *("uuid", "offerset", "session", "phase", "options", "level", "result", "firm", "status", "kind", "url", "version"),
    *(
        "started",
        "ended",
        "start",
        "latest",
        "end",
        "created",
        "modified",
        "expires",
        "taken",
        "now",
        "time",
        "deadline",
    ),
    *(
        "heartbeat",
        "from",
        "to",
        "duration",
        "path",
        "promises",
        "sessions",
        "work",
        "media_type",
        "decision",
        "colour",
    ),
}


def poisoned(value, strings, key=""):
    """The same document with other texts."""
    if isinstance(value, dict):
        return {name: poisoned(item, strings, name) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, strings, key) for item in value]
    if isinstance(value, str) and key not in OWN:
        return next(strings)
    return value


WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""

JUDGE = """() => {
  const bad = [...violations];
  const all = (what) => [...document.querySelectorAll(what)];
  const begin = (one) => one.outerHTML.slice(0, 200);
  const beyond = (one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, pre, .command');
  if (top.pwned !== undefined) bad.push('a script ran');
  if (document.documentElement.scrollWidth > innerWidth) {
    bad.push('wider than the window', ...all('main *').filter(beyond).slice(0, 3).map(begin));
  }
  bad.push(...all('main script, main b b, main img:not([alt]), main [onerror], main [onload]').map(begin));
  bad.push(...all('main a[href]').filter((one) => !/^https?:$/.test(one.protocol)).map(begin));
  if (!document.querySelector('header.bar nav')) bad.push('the bar is gone');
  return bad;
}"""


@pytest.fixture(scope="module")
def visited(chrome, site, notebooks, request_of):
    """The pages that show something, and a browser as wide as a phone on them."""
    uuid = site.accepted("admin", request_of(f"{notebooks}/good.ipynb", "to be renamed"))
    with site.as_user("admin") as api:
        offers = api.post("/requests", json=request_of(f"{notebooks}/good.ipynb")).json()
    one = User(chrome, site.url, viewport={"width": 400, "height": 800})
    one.context.add_init_script(WATCH)
    one.sign_in(ADMIN, PASSWORD)
    pages = {
        f"/ui/sessions/{uuid}": "#facts dd",
        f"/ui/offers/{offers['meta']['uuid']}": ".offer",
        "/ui/sessions": ".rowlink",
        "/ui/platforms": "#platforms .card",
        "/ui/operations": "#trail table, #audit table",
        f"/ui/?like={uuid}": "#ask.ready",
    }
    one.go(f"/ui/sessions/{uuid}")
    ended_well(one.page)
    yield one, pages
    one.close()


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(HOSTILE)
def test_no_text_of_anybody_acts_or_breaks_a_page(visited, strings):
    one, pages = visited
    page = one.page
    said: list[str] = []

    def giving():
        for text in itertools.cycle(strings):
            said.append(text)
            yield text

    given_out = giving()

    def pass_on(route):
        with contextlib.suppress(PlaywrightError):  # the page that asked may have been left
            answer = route.fetch(timeout=PATIENCE * 1000)
            document = answer.json() if "json" in answer.headers.get("content-type", "") else None
            changed = {} if document is None else {"body": json.dumps(poisoned(document, given_out))}
            route.fulfill(response=answer, **changed)

    page.route("**/ui/data/**", pass_on)
    for path, there in pages.items():
        said.clear()
        page.goto(one.url + path)
        page.wait_for_selector(there, state="attached")
        for _ in range(PATIENCE * 10):  # what a page shows may come in several answers
            if len(said) > 5:
                break
            page.wait_for_timeout(100)
        assert len(said) > 5, f"hardly a text of {path} was another"
        tables = page.get_by_role("button", name="As a table", exact=True)
        if tables.count() and tables.first.is_visible():
            tables.first.click()
        assert page.evaluate(JUDGE) == [], (path, strings)
    page.unroute_all(behavior="ignoreErrors")
    page.goto(one.url + "/ui/sessions")
    assert not [fault for fault in one.faults if "dialog" in fault or "Content Security" in fault], one.faults


NAMES = st.text(st.sampled_from(list("<>\"'`&=\\;:(){}$%!-_ \u202eaé1+#?*|~^,@[]")), min_size=1, max_size=40).map(
    lambda name: f"f{name}"
)


@settings(max_examples=1, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(NAMES, min_size=30, max_size=30, unique=True))
def test_files_and_environments_of_a_real_job_stay_text(user, site, names):
    """The names go in as a variable of the environment, and come out as files."""
    wanted = [*names, '<img src=x onerror="top.pwned=1">.txt', "<script>top.pwned=1<script>"]
    script = (
        "#!/usr/bin/env python3\nimport json, os\nfor name in json.loads(os.environ['NAMES']):\n"
        "    open(os.path.join(os.environ['EBHPC_RESULTS'], name), 'w').write('<script>top.pwned=1</script>' + name)\n"
    )
    document = {
        "executable": {
            "kind": kinds.BATCH_SCRIPT,
            "script": script,
            "environment": {"NAMES": json.dumps(wanted)},
            "meta": {"name": wanted[-1]},
        },
        "schedule": {"requested": {"duration": "PT5M"}},
    }
    uuid = site.accepted("ada", document)
    page = user("ada", f"/ui/sessions/{uuid}").page
    ended_well(page)
    page.wait_for_selector(f".files li >> nth={len(wanted) - 1}", state="attached")
    shown = page.locator(".files li .file .mono").all_text_contents()
    assert {f"results/{name}" for name in wanted} <= set(shown)
    for at in range(0, len(wanted), 8):
        row = page.locator(".files li").nth(at)
        if row.get_by_role("button", name="Show").count():
            row.get_by_role("button", name="Show").click()
            page.wait_for_selector("#shown h3")
    page.goto(f"{site.url}/ui/?like={uuid}")
    page.wait_for_selector("#f-environment", state="attached")
    assert page.evaluate("top.pwned === undefined")
    assert page.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0
