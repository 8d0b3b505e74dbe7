"""Who may see which page and do what on it, asked over HTTP as every role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from tutelage.store import accounts, runs
from tutelage.store import labelling as labels
from tutelage.web.app import ROOMS

ROLES = ("guest", "user", "trainer", "operator")
EVERYBODY, TRAINERS, OPERATORS = set(ROLES), {"trainer", "operator"}, {"operator"}
ID = "00000000-0000-7000-8000-000000000000"
# Who gets past the door. What is behind it (400, 404, 409) is not this test's business.
ALLOWED: dict[str, set[str]] = {
    "GET /": EVERYBODY,
    "GET /c/{dialogue_id}": EVERYBODY,
    "GET /fragments/messages/{message_id}": EVERYBODY,
    "GET /fragments/threads/{dialogue_id}": EVERYBODY,
    "GET /fragments/pairs/{answer_id}": EVERYBODY,
    "GET /fragments/dialogues": EVERYBODY,
    "GET /s/{token}": EVERYBODY,
    "GET /terms": EVERYBODY,
    "GET /invite/{token}": set(),
    "GET /campaigns/{campaign_id}": EVERYBODY,
    "POST /fragments/markdown": EVERYBODY,
    "GET /sign-in": EVERYBODY,
    "GET /sign-in/{provider}": EVERYBODY,
    "GET /sign-in/{provider}/callback": EVERYBODY,
    "GET /operator-link/{token}": EVERYBODY,
    "GET /account": EVERYBODY,
    "PUT /account/preferences": EVERYBODY,
    "DELETE /account/identities/{identity_id}": EVERYBODY,
    "GET /write": TRAINERS,
    "PUT /write/draft": TRAINERS,
    "DELETE /write/draft/{draft_id}": TRAINERS,
    "POST /write/submit": TRAINERS,
    "POST /write/suggest": TRAINERS,
    "GET /write/start": TRAINERS,
    "GET /rank": TRAINERS,
    "POST /rank/next": TRAINERS,
    "GET /rank/tasks/{task_id}": TRAINERS,
    "POST /rank/tasks/{task_id}": TRAINERS,
    "POST /rank/tasks/{task_id}/renew": TRAINERS,
    "POST /rank/tasks/{task_id}/skip": TRAINERS,
    "GET /operate": OPERATORS,
    "POST /operate/versions/{name}/promote": OPERATORS,
    "POST /operate/rollback": OPERATORS,
    "POST /operate/experiments": OPERATORS,
    "POST /operate/experiments/{experiment_id}/end": OPERATORS,
    "GET /operate/training": OPERATORS,
    "POST /operate/training": OPERATORS,
    "GET /operate/data": OPERATORS,
    "GET /operate/data/rows": OPERATORS,
    "GET /operate/training/live": OPERATORS,
    "GET /operate/training/rounds/{name}": OPERATORS,
    "POST /operate/training/{request_id}/resume": OPERATORS,
    "POST /operate/training/{request_id}/cancel": OPERATORS,
    "GET /operate/demonstrations": OPERATORS,
    "POST /operate/demonstrations/{demonstration_id}": OPERATORS,
    "GET /operate/agreement": OPERATORS,
    "GET /operate/tasks/{task_id}": OPERATORS,
    "POST /operate/tasks/{task_id}": OPERATORS,
    "GET /operate/labelling": OPERATORS,
    "PUT /operate/labelling": OPERATORS,
    "POST /operate/labelling/guidelines": OPERATORS,
    "POST /operate/labelling/prompts": OPERATORS,
    "GET /operate/reports": OPERATORS,
    "POST /operate/reports/{report_id}": OPERATORS,
    "GET /operate/feedback": OPERATORS,
    "GET /operate/audit": OPERATORS,
    "GET /operate/access": OPERATORS,
    "PUT /operate/access": OPERATORS,
    "POST /operate/invites": OPERATORS,
    "DELETE /operate/invites/{invite_id}": OPERATORS,
    "POST /operate/feedback/{rating_id}/words": OPERATORS,
    "GET /operate/campaigns": OPERATORS,
    "POST /operate/campaigns": OPERATORS,
    "GET /operate/campaigns/{campaign_id}": OPERATORS,
    "PUT /operate/campaigns/{campaign_id}": OPERATORS,
    "PUT /operate/campaigns/{campaign_id}/end": OPERATORS,
    "POST /operate/campaigns/{campaign_id}/close": OPERATORS,
    "DELETE /operate/campaigns/{campaign_id}": OPERATORS,
    "POST /operate/campaigns/{campaign_id}/draw": OPERATORS,
    "GET /operate/campaigns/{campaign_id}/entries": OPERATORS,
    "GET /operate/people": OPERATORS,
    "POST /operate/people": OPERATORS,
    "PUT /operate/people/{user_id}/role": OPERATORS,
    "GET /operate/keys": OPERATORS,
    "POST /operate/keys": OPERATORS,
    "POST /operate/keys/{key_id}/revoke": OPERATORS,
}
BODIES: dict[str, Any] = {
    "PUT /operate/access": {"guests": True},
    "POST /operate/invites": {"role": ""},
    "POST /fragments/markdown": {"text": "hi"},
    "PUT /account/preferences": {"consent": True},
    "PUT /write/draft": {"messages": []},
    "POST /write/submit": {"messages": []},
    "POST /write/suggest": {"messages": []},
    "POST /rank/tasks/{task_id}": {"groups": []},
    "POST /rank/tasks/{task_id}/skip": {},
    "POST /operate/demonstrations/{demonstration_id}": {"decision": "accepted"},
    "POST /operate/experiments": {"treatment": "v1", "percent": 0},
    "POST /operate/tasks/{task_id}": {"ranks": []},
    "PUT /operate/labelling": {"candidates": 0, "overlap": 1, "gold_percent": 0, "versions": "stable"},
    "POST /operate/labelling/guidelines": {"place": "chat", "content": ""},
    "POST /operate/labelling/prompts": {"topic": "x", "prompts": ""},
    "POST /operate/reports/{report_id}": {"decision": "accepted"},
    "POST /operate/campaigns": {"title": ""},
    "PUT /operate/campaigns/{campaign_id}": {"title": ""},
    "PUT /operate/campaigns/{campaign_id}/end": {"closes": "2099-01-01T00:00"},
    "POST /operate/campaigns/{campaign_id}/draw": {"count": 1},
    "POST /operate/people": {"name": "", "role": "user"},
    "PUT /operate/people/{user_id}/role": {"role": "user"},
    "POST /operate/keys": {"name": "", "scopes": []},
}


@pytest.fixture(scope="module")
def clients(site: Any) -> Iterator[dict[str, httpx.Client]]:
    made = {role: site.client(None if role == "guest" else role) for role in ROLES}
    yield made
    for client in made.values():
        client.close()


def request(client: httpx.Client, route: str) -> httpx.Response:
    method, path = route.split()
    path = "/".join(ID if part.startswith("{") else part for part in path.split("/"))
    return client.request(method, path, json=BODIES.get(route))


def test_every_route_is_in_the_table() -> None:
    routes = {
        f"{method} {route.path}"
        for room in ROOMS
        for route in room.router.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == set(ALLOWED)


@pytest.mark.parametrize("route", ALLOWED)
def test_only_these_roles_get_in(clients: dict[str, httpx.Client], route: str) -> None:
    statuses = {role: request(clients[role], route).status_code for role in ROLES}
    assert {role for role, status in statuses.items() if status != 403} == ALLOWED[route]
    assert max(statuses.values()) < 500


def test_whoever_only_looks_at_pages_leaves_nothing_behind(site: Any) -> None:
    with site.store.read() as tx:
        before = accounts.count_users(tx)
    with site.client(None) as client:
        for path in ("/", "/account", "/terms", "/sign-in", "/fragments/dialogues"):
            assert client.get(path).status_code == 200
        assert len(client.cookies) == 0
    with site.store.read() as tx:
        assert accounts.count_users(tx) == before


@pytest.mark.parametrize("path", ["/write", "/rank", "/operate"])
def test_who_is_not_signed_in_is_sent_to_the_sign_in_page(site: Any, path: str) -> None:
    with site.client(None) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")


def test_nobody_sees_or_touches_what_is_somebody_elses(site: Any) -> None:
    with site.client("user") as owner, site.client("operator") as other:
        dialogue = owner.post("/api/dialogues", json={"text": "Hello"}).json()
        for path in (f"/c/{dialogue['dialogue_id']}", f"/fragments/messages/{dialogue['user_message_id']}"):
            assert owner.get(path).status_code == 200
            assert other.get(path).status_code == 404
    with site.client("trainer") as writer, site.client("trainer") as other:
        draft = writer.put("/write/draft", json={"messages": [{"role": "user", "content": "mine"}]}).json()[
            "id"
        ]
        assert other.get(f"/write?draft={draft}").status_code == 404
        assert other.delete(f"/write/draft/{draft}").status_code == 404
        assert other.put("/write/draft", json={"id": draft, "messages": []}).status_code == 404
        assert "mine" in writer.get(f"/write?draft={draft}").text


def test_looking_at_an_operators_link_does_not_use_it_up(site: Any) -> None:
    with site.store.write() as tx:
        token = accounts.make_operator_link(tx)
    with site.client(None) as preview, site.client(None) as person:
        assert preview.get(f"/operator-link/{token}").status_code == 200
        assert preview.head(f"/operator-link/{token}").status_code in (200, 405)
        assert person.post("/api/operator-link", json={"token": token}).json()["user"]["role"] == "operator"
        assert preview.post("/api/operator-link", json={"token": token}).status_code == 403


def test_an_operator_makes_people_changes_their_role_and_makes_keys(site: Any) -> None:
    with site.client("operator") as operator, site.client(None) as person:
        password = operator.post("/operate/people", json={"name": "Ada", "role": "user"}).json()["secret"]
        signed_in = person.post("/api/sign-in", json={"name": "Ada", "password": password}).json()["user"]
        assert person.get("/write").status_code == 403
        changed = operator.put(f"/operate/people/{signed_in['id']}/role", json={"role": "trainer"})
        assert changed.status_code == 204
        assert person.get("/write").status_code == 200
        secret = operator.post("/operate/keys", json={"name": "script", "scopes": ["chat"]}).json()["secret"]
        assert secret.startswith("tut-")
        assert secret not in operator.get("/operate/keys").text


def test_an_operator_promotes_rolls_back_and_reviews(site: Any) -> None:
    with site.client("operator") as operator, site.client("trainer") as trainer:
        assert operator.post("/operate/versions/v2/promote").status_code == 204
        assert "Roll back to v1" in operator.get("/operate").text
        assert operator.post("/operate/rollback").status_code == 204
        assert operator.post("/operate/versions/v9/promote").status_code == 404
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because of that."}]
        assert trainer.post("/write/submit", json={"messages": turns}).status_code == 204
        assert "Because of that." in operator.get("/operate/demonstrations").text
        with site.store.read() as tx:
            waiting = labels.list_demonstrations(tx, status="submitted")
            row = next(each for each in waiting if each.messages[-1]["content"] == turns[-1]["content"])
        reviewed = operator.post(f"/operate/demonstrations/{row.id}", json={"decision": "accepted"})
        assert reviewed.status_code == 204
        assert "Because of that." in operator.get("/operate/demonstrations?status=accepted").text


def test_an_operator_asks_for_one_round_at_a_time_and_can_take_it_back(site: Any) -> None:
    with site.client("operator") as operator:
        with site.store.write() as tx:
            for row in runs.list_requests(tx):
                if row.status == "pending":
                    runs.cancel_request(tx, row.id)
        assert operator.post("/operate/training").status_code == 204
        assert "Waiting for a worker" in operator.get("/operate/training").text
        assert operator.post("/operate/training").status_code == 409
        with site.store.read() as tx:
            asked = runs.list_requests(tx)[0]
        assert (asked.kind, asked.config) == ("improve", {"model": "tiny"})
        assert operator.post(f"/operate/training/{asked.id}/cancel").status_code == 204
        assert "Cancelled" in operator.get("/operate/training").text


def test_a_reported_message_is_decided_and_its_reporter_sees_the_outcome(site: Any) -> None:
    with site.client("user") as reader, site.client("operator") as operator:
        started = reader.post("/api/dialogues", json={"text": "A questionable sentence"}).json()
        path = f"/api/messages/{started['user_message_id']}/report"
        report = reader.post(path, json={"kind": "missed", "category": "hate"}).json()["report"]
        assert "A questionable sentence" in operator.get("/operate/reports").text
        assert (
            operator.post(f"/operate/reports/{report['id']}", json={"decision": "accepted"}).status_code
            == 204
        )
        assert "Accepted" in reader.get("/account").text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/c/nowhere", "/static/x/nowhere.js", f"/fragments/messages/{ID}"]
)
def test_what_is_not_there_is_a_page_for_people_and_json_for_scripts(site: Any, path: str) -> None:
    fetch: Callable[..., httpx.Response] = site.client("user").get
    page = fetch(path, headers={"sec-fetch-mode": "navigate"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    script = fetch(path, headers={"sec-fetch-mode": "cors"})
    assert script.status_code == 404
    assert script.json()["error"]["message"]


def test_pages_carry_a_policy_without_inline_scripts(site: Any) -> None:
    with site.client(None) as client:
        policy = client.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
