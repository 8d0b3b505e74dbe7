"""Every route of the whole application, and who may pass. A route that is not in the matrix fails the test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from tutelage.server.services import Access
from tutelage.store import accounts, campaigns, dialogues, feedback, pairs
from tutelage.store.campaigns import Call
from tutelage.store.ids import now
from tutelage.store.usage import ChatSettings, change_chat_settings
from tutelage.web.app import create_app

Door = Literal[
    "anybody",
    "invited",
    "session",
    "owner",
    "trainer",
    "operator",
    "chat key",
    "moderations key",
    "rewards key",
]

# anybody: also those who are not signed in, where guests may not come in. session: guests and everybody above.
# invited: who has an open invitation; for everybody else it is closed.
# owner: the dialogue's owner alone; for everybody else, operators too, it does not exist.
MATRIX: dict[str, Door] = {
    "POST /v1/chat/completions": "chat key",
    "POST /v1/completions": "chat key",
    "GET /v1/models": "chat key",
    "GET /v1/models/{name}": "chat key",
    "POST /v1/moderations": "moderations key",
    "POST /v1/rewards": "rewards key",
    "POST /api/dialogues": "session",
    "GET /api/dialogues": "session",
    "GET /api/dialogues/{dialogue_id}": "owner",
    "PATCH /api/dialogues/{dialogue_id}": "owner",
    "DELETE /api/dialogues/{dialogue_id}": "owner",
    "POST /api/dialogues/{dialogue_id}/messages": "owner",
    "POST /api/messages/{message_id}/regenerate": "owner",
    "POST /api/messages/{message_id}/continue": "owner",
    "GET /api/answers/{answer_id}/events": "owner",
    "POST /api/answers/{answer_id}/stop": "owner",
    "PUT /api/messages/{message_id}/rating": "owner",
    "DELETE /api/messages/{message_id}/rating": "owner",
    "POST /api/messages/{message_id}/report": "owner",
    "POST /api/dialogues/{dialogue_id}/restore": "owner",
    "GET /api/dialogues/{dialogue_id}/share": "owner",
    "PUT /api/dialogues/{dialogue_id}/share": "owner",
    "DELETE /api/dialogues/{dialogue_id}/share": "owner",
    "GET /api/dialogues/{dialogue_id}/export": "owner",
    "PUT /api/picks/{first_id}/{second_id}": "owner",
    "DELETE /api/picks/{first_id}/{second_id}": "owner",
    "GET /api/campaign": "anybody",
    "PUT /api/messages/{message_id}/entries/{campaign_id}": "owner",
    "DELETE /api/messages/{message_id}/entries/{campaign_id}": "owner",
    "DELETE /api/dialogues": "session",
    "GET /api/search": "session",
    "POST /api/import": "session",
    "PUT /api/account/instructions": "session",
    "GET /api/account/export": "session",
    "DELETE /api/account": "session",
    "GET /api/sessions": "session",
    "DELETE /api/sessions/{session_id}": "session",
    "POST /api/invites/accept": "invited",
    "GET /api/model": "session",
    "POST /api/sign-in": "anybody",
    "POST /api/sign-out": "anybody",
    "POST /api/operator-link": "anybody",
    "PUT /api/account": "session",
    "PUT /api/account/password": "session",
    "GET /api/me": "anybody",
    "GET /health": "anybody",
    "GET /static/{hash}/{name}": "anybody",
    "GET /": "session",
    "GET /c/{dialogue_id}": "owner",
    "GET /fragments/messages/{message_id}": "owner",
    "GET /fragments/pairs/{answer_id}": "owner",
    "GET /fragments/threads/{dialogue_id}": "owner",
    "GET /fragments/dialogues": "session",
    "GET /s/{token}": "anybody",
    "GET /terms": "anybody",
    "GET /campaigns/{campaign_id}": "anybody",
    "GET /invite/{token}": "invited",
    "POST /fragments/markdown": "session",
    "GET /write": "trainer",
    "PUT /write/draft": "trainer",
    "DELETE /write/draft/{draft_id}": "trainer",
    "POST /write/submit": "trainer",
    "POST /write/suggest": "trainer",
    "GET /rank": "trainer",
    "POST /rank/next": "trainer",
    "GET /rank/tasks/{task_id}": "trainer",
    "POST /rank/tasks/{task_id}": "trainer",
    "POST /rank/tasks/{task_id}/renew": "trainer",
    "POST /rank/tasks/{task_id}/skip": "trainer",
    "GET /operate": "operator",
    "POST /operate/versions/{name}/promote": "operator",
    "POST /operate/rollback": "operator",
    "GET /operate/training": "operator",
    "POST /operate/training": "operator",
    "POST /operate/training/{request_id}/cancel": "operator",
    "GET /operate/demonstrations": "operator",
    "POST /operate/demonstrations/{demonstration_id}": "operator",
    "GET /operate/reports": "operator",
    "POST /operate/reports/{report_id}": "operator",
    "GET /operate/feedback": "operator",
    "GET /operate/audit": "operator",
    "GET /operate/access": "operator",
    "PUT /operate/access": "operator",
    "POST /operate/invites": "operator",
    "DELETE /operate/invites/{invite_id}": "operator",
    "POST /operate/feedback/{rating_id}/words": "operator",
    "GET /operate/campaigns": "operator",
    "POST /operate/campaigns": "operator",
    "GET /operate/campaigns/{campaign_id}": "operator",
    "PUT /operate/campaigns/{campaign_id}": "operator",
    "PUT /operate/campaigns/{campaign_id}/end": "operator",
    "POST /operate/campaigns/{campaign_id}/close": "operator",
    "DELETE /operate/campaigns/{campaign_id}": "operator",
    "POST /operate/campaigns/{campaign_id}/draw": "operator",
    "GET /operate/campaigns/{campaign_id}/entries": "operator",
    "GET /operate/people": "operator",
    "POST /operate/people": "operator",
    "PUT /operate/people/{user_id}/role": "operator",
    "GET /operate/keys": "operator",
    "POST /operate/keys": "operator",
    "POST /operate/keys/{key_id}/revoke": "operator",
    "GET /write/start": "trainer",
    "POST /operate/experiments": "operator",
    "POST /operate/experiments/{experiment_id}/end": "operator",
    "GET /operate/data": "operator",
    "GET /operate/data/rows": "operator",
    "GET /operate/training/live": "operator",
    "GET /operate/training/rounds/{name}": "operator",
    "POST /operate/training/{request_id}/resume": "operator",
    "GET /operate/agreement": "operator",
    "GET /operate/tasks/{task_id}": "operator",
    "POST /operate/tasks/{task_id}": "operator",
    "GET /operate/labelling": "operator",
    "PUT /operate/labelling": "operator",
    "POST /operate/labelling/guidelines": "operator",
    "POST /operate/labelling/prompts": "operator",
    "GET /sign-in": "anybody",
    "GET /sign-in/{provider}": "anybody",
    "GET /sign-in/{provider}/callback": "anybody",
    "GET /operator-link/{token}": "anybody",
    "GET /account": "session",
    "PUT /account/preferences": "session",
    "DELETE /account/identities/{identity_id}": "session",
}

# Bodies of the routes where the owner's success is to be seen.
BODIES: dict[str, Any] = {
    "PATCH /api/dialogues/{dialogue_id}": {"title": "New"},
    "POST /api/dialogues/{dialogue_id}/messages": {"text": "More"},
    "PUT /api/messages/{message_id}/rating": {"verdict": "up"},
    "POST /api/messages/{message_id}/report": {"kind": "missed"},
    "PUT /api/dialogues/{dialogue_id}/share": {},
    "PUT /api/picks/{first_id}/{second_id}": {"verdict": "tie"},
    "POST /api/import": {"conversations": []},
    "POST /api/invites/accept": {"token": "made up", "name": "New", "password": "a long enough password"},
}
CAST = ("anonymous", "owner", "other", "trainer", "operator")
ROLES = {"anonymous": -1, "owner": 1, "other": 1, "trainer": 2, "operator": 3}


@pytest.fixture
def strict_site(site: Any) -> Any:
    """The whole application where guests may not come in."""
    site.create = create_app
    site.access = Access(guests=False)
    return site


@pytest.fixture
def cast(strict_site: Any) -> dict[str, dict[str, str]]:
    """Headers of each of the cast; `owner` is a user whose dialogue the paths name."""
    sessions = {"other": "user", "trainer": "trainer", "operator": "operator"}
    headers = {name: strict_site.session(role) for name, role in sessions.items()}
    return {"anonymous": {}, "owner": {}, **headers}


@pytest.fixture
def ids(strict_site: Any, cast: dict[str, dict[str, str]]) -> dict[str, str]:
    """What the placeholders of paths stand for."""
    with strict_site.store.write() as tx:
        owner = accounts.create_user(tx, name="owner", password_hash="-", role="user")
        cast["owner"] = {"cookie": f"tutelage={accounts.open_session(tx, owner.id, days=1)}"}
        dialogue_id = dialogues.create_dialogue(tx, owner.id).id
        question = dialogues.add_message(
            tx, dialogue_id, parent_id=None, role="user", content="Hi", author_kind="human"
        )
        answer, other = (
            dialogues.add_message(
                tx, dialogue_id, parent_id=question.id, role="assistant", content=text, author_kind="model"
            )
            for text in ("Hello", "Hi there")
        )
        pairs.put_side_by_side(answer, other)
        answer.finish_reason, answer.model_version = "length", "v1"
        feedback.rate(tx, message_id=answer.id, rater_id=owner.id, verdict="up")
        call = Call(title="Contest", rules="Be kind.", opens=now(), closes=now() + timedelta(days=1))
        campaign = campaigns.plan_campaign(tx, call, by=owner.id)
    answers = {"message_id": answer.id, "answer_id": answer.id, "first_id": answer.id, "second_id": other.id}
    return {"dialogue_id": dialogue_id, "campaign_id": campaign.id, **answers}


@pytest.fixture
def client(strict_site: Any) -> Iterator[TestClient]:
    with strict_site.client() as running:
        yield running


def routes(app: Any) -> set[str]:
    return {
        f"{method} {each.path}" for each in iter_route_contexts(app.routes) for method in each.methods or ()
    }


QUERIES = {"GET /fragments/threads/{dialogue_id}": "?message={message_id}"}


def call(client: TestClient, route: str, ids: dict[str, str], headers: dict[str, str]) -> int:
    """The status of the route for these headers."""
    method, path = route.split()
    path += QUERIES.get(route, "")
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    path = path.replace("{name}", "v1").replace("{", "").replace("}", "")
    client.cookies.clear()
    response = client.request(method, path, headers=headers, json=BODIES.get(route), follow_redirects=False)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.status_code


def test_the_matrix_names_every_route_and_no_other(strict_site: Any) -> None:
    assert routes(strict_site.app()) == set(MATRIX)


@pytest.mark.parametrize("route", [route for route, door in MATRIX.items() if door == "anybody"])
def test_doors_for_anybody(client: TestClient, ids: Any, cast: Any, route: str) -> None:
    for name in CAST:
        status = call(client, route, ids, cast[name])
        assert status not in (401, 403), name


@pytest.mark.parametrize("route", [route for route, door in MATRIX.items() if door == "invited"])
def test_doors_for_the_invited(client: TestClient, ids: Any, cast: Any, route: str) -> None:
    for name in CAST:
        assert call(client, route, ids, cast[name]) == 403, name


@pytest.mark.parametrize("route", [route for route, door in MATRIX.items() if door == "session"])
def test_doors_for_everybody_with_a_session(client: TestClient, ids: Any, cast: Any, route: str) -> None:
    for name in CAST:
        status = call(client, route, ids, cast[name])
        assert (status == 401) == (name == "anonymous"), name
        assert status != 403


@pytest.mark.parametrize("route", [route for route, door in MATRIX.items() if door == "owner"])
def test_doors_for_the_owner_alone(client: TestClient, ids: Any, cast: Any, route: str) -> None:
    for name in ("anonymous", "other", "trainer", "operator"):
        assert call(client, route, ids, cast[name]) == (401 if name == "anonymous" else 404), name
    assert call(client, route, ids, cast["owner"]) < 300


@pytest.mark.parametrize(
    ("route", "door"), [(route, door) for route, door in MATRIX.items() if door in ("trainer", "operator")]
)
def test_doors_for_a_role(client: TestClient, ids: Any, cast: Any, route: str, door: str) -> None:
    for name in CAST:
        status = call(client, route, ids, cast[name])
        if name == "anonymous":
            assert status == 401
        else:
            assert (status == 403) == (ROLES[name] < ROLES[door]), name
            assert status != 401


@pytest.mark.parametrize(
    ("route", "door"), [(route, door) for route, door in MATRIX.items() if door.endswith(" key")]
)
def test_doors_for_keys(
    client: TestClient, strict_site: Any, ids: Any, cast: Any, route: str, door: str
) -> None:
    for name in CAST:
        assert call(client, route, ids, cast[name]) == 401, name
    scope = door.removesuffix(" key")
    other = "chat" if scope == "moderations" else "moderations"
    assert call(client, route, ids, strict_site.bearer(other)) == 403
    assert call(client, route, ids, strict_site.bearer(scope)) not in (401, 403)


def test_where_guests_may_come_in_everybody_is_one_who_does_something(site: Any) -> None:
    with site.client() as client:
        first = client.put("/api/account/instructions", json={"instructions": "Be brief."})
        assert (first.status_code, len(client.cookies)) == (200, 1)
        again = client.put("/api/account/instructions", json={"instructions": "Be kind."})
        assert "set-cookie" not in again.headers
        assert len(client.get("/api/sessions").json()["sessions"]) == 1


@pytest.mark.parametrize(
    "path", ["/api/dialogues", "/api/search?q=cat", "/api/sessions", "/api/account/export"]
)
def test_whoever_only_looks_leaves_nothing_behind(site: Any, path: str) -> None:
    with site.client() as client:
        for answer in (client.get(path), client.head(path)):
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
        with site.store.write() as tx:
            assert accounts.count_users(tx) == 0
            change_chat_settings(tx, ChatSettings(guests=False))
        assert {client.get(path).status_code, client.head(path).status_code} == {401}


def test_a_session_that_was_made_up_or_closed_is_none(strict_site: Any, client: TestClient) -> None:
    cookie = strict_site.session("operator")
    assert client.get("/api/model", headers=cookie).status_code == 200
    client.post("/api/sign-out", headers=cookie)
    assert client.get("/api/model", headers=cookie).status_code == 401
    for made_up in ("x", "é", "a" * 5000, ""):
        headers = {"cookie": f"tutelage={made_up}".encode()}
        assert client.get("/api/model", headers=headers).status_code == 401


def test_nothing_changes_because_another_site_asks_for_it(
    client: TestClient, strict_site: Any, ids: Any, cast: Any
) -> None:
    """Whatever the route and however high the role: a browser that is on another site is refused."""
    unsafe = [route for route in MATRIX if not route.startswith("GET ") and " /v1/" not in route]
    assert len(unsafe) > 30
    for route in unsafe:
        for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
            assert call(client, route, ids, {**cast["operator"], **foreign}) == 403, route
    assert call(client, "PATCH /api/dialogues/{dialogue_id}", ids, cast["owner"]) == 200
