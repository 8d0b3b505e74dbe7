"""Every route with every method, real and odd names, queries, cookies, headers and bodies: never a 500."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tutelage.store import accounts, dialogues, feedback, invites, labelling, pairs, reports, runs, shares
from tutelage.web.app import create_app

EXAMPLES = 600
ODD = [
    "",
    "%00",
    "%ff",
    "..%2f..",
    "a" * 2000,
    "-1",
    "0",
    "9" * 30,
    "é",
    "'",
    "%7B%7B",
    "null",
    "true",
    "1e9",
    "%0d%0a",
]
TYPES = [
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain; charset=utf-99",
    "application/octet-stream",
    "",
]
BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"a=1&b=%ff",
    b"--x\r\n\r\n--x--",
    b"\xff\xfe\x00",
    b'{"a":' * 500,
]
HEADERS = {
    "accept": ["text/html", "*/*", "application/json", "text/html;q=x", ""],
    "accept-language": ["zh-TW", "en;q=0", "*", "x" * 500, "zh-Hant-TW;q=nan, ,;"],
    "sec-fetch-mode": ["navigate", "cors", "odd"],
    "if-none-match": ["*", '"x"'],
    "range": ["bytes=5-1", "bytes=0-"],
    "last-event-id": ["-1", "²", "9" * 19, "x"],
    "user-agent": ["", "x" * 2000, "é"],
}
COOKIES = {
    "timezone": ["America", "../etc", "Asia/Taipei", "%00", "x" * 300],
    "sidebar": ["closed", "odd"],
}
ROLES = ["guest", "user", "trainer", "operator"]


@pytest.fixture
def everything(site: Any) -> Iterator[TestClient]:
    """The whole application."""
    site.create = create_app
    with site.client() as client:
        yield client


@pytest.fixture
def cast(site: Any) -> tuple[list[str], dict[str, str]]:
    """Names that things in the store have, and a session of each role; the operator owns all of them."""
    with site.store.write() as tx:
        people = {role: accounts.create_guest(tx, consent=True).id for role in ROLES}
        for role, name in people.items():
            accounts.set_role(tx, name, role)  # type: ignore[arg-type]
        tokens = {role: accounts.open_session(tx, name, days=1) for role, name in people.items()}
        me = people["operator"]
        chat = dialogues.create_dialogue(tx, me, title="Title").id
        asked = dialogues.add_message(
            tx, chat, parent_id=None, role="user", content="Hi", author_kind="human", author_id=me
        ).id
        first, second = (
            dialogues.add_message(
                tx,
                chat,
                parent_id=asked,
                role="assistant",
                content=text,
                author_kind="model",
                model_version="v1",
            )
            for text in ("one", "two")
        )
        pairs.put_side_by_side(first, second)
        rating = feedback.rate(tx, message_id=first.id, rater_id=me, verdict="down", reasons=["untrue"])
        report = reports.report(tx, message_id=first.id, reporter_id=me, kind="missed", category="hate")
        run = runs.create_run(tx, kind="improve", config={})
        turns = [{"role": role, "content": "words"} for role in ("user", "assistant")]
        written = labelling.save_demonstration(tx, author_id=me, messages=turns, status="submitted")
        task = labelling.next_ranking_task(tx, annotator_id=people["trainer"], k=3, rng=random.Random(0))
        invite, token = invites.create_invite(tx, role="user", by=me)
        key, _ = accounts.create_key(tx, name="key", scopes=["chat"])
        share = shares.share(tx, chat, owner_id=me)
        rows = [first, second, rating, report, run, written, invite, key, *([task] if task else [])]
        names = [chat, asked, *(row.id for row in rows), token, share.token, *people.values(), "v1"]
    return names, tokens


def test_no_request_is_too_odd(everything: TestClient, cast: Any) -> None:
    names, tokens = cast
    app: Any = everything.app
    routes = sorted(
        (method, each.path, tuple(_queries(each)))
        for each in iter_route_contexts(app.routes)
        for method in each.methods
    )
    assert len(routes) > 80
    value = st.sampled_from([*ODD, *names])
    some = {name: st.sampled_from(values) for name, values in HEADERS.items()}
    crumbs = {name: st.sampled_from(values) for name, values in COOKIES.items()}

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.data(), route=st.sampled_from(routes), role=st.sampled_from([*ROLES, None]))
    def send(data: st.DataObject, route: Any, role: str | None) -> None:
        method, path, queries = route
        place = "/".join(data.draw(value) if part.startswith("{") else part for part in path.split("/"))
        query = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys((*queries, "x"), value)))
        headers = data.draw(st.fixed_dictionaries({}, optional=some))
        cookies = data.draw(st.fixed_dictionaries({}, optional=crumbs))
        if role is not None:
            cookies["tutelage"] = tokens[role]
        headers["cookie"] = "; ".join(f"{name}={crumb}" for name, crumb in cookies.items())
        sent = {name: text.encode() for name, text in headers.items()}
        body = b""
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            sent["content-type"] = data.draw(st.sampled_from(TYPES)).encode()
            body = data.draw(st.sampled_from(BODIES))
        address = f"{place}?{'&'.join(f'{name}={each}' for name, each in query.items())}"
        response = everything.request(method, address, headers=sent, content=body, follow_redirects=False)
        assert response.status_code < 500 or response.status_code == 503, (method, address, sent, body)
        if response.status_code >= 400 and response.headers["content-type"] == "application/json":
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    send()


def _queries(route: Any) -> list[str]:
    """The names of a route's query."""
    dependant = getattr(route.original_route, "dependant", None)
    return [] if dependant is None else [each.alias for each in dependant.query_params]
