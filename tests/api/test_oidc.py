"""/sign-in/{provider}: signing in by an OpenID Connect provider, and everything that can go wrong on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.testclient import TestClient

from tutelage.config import check
from tutelage.server.oidc import provider as oidc
from tutelage.server.oidc.provider import Provider
from tutelage.server.oidc.settings import ProviderSettings
from tutelage.server.services import Access
from tutelage.store import accounts, audit, identities, invites
from tutelage.web.app import create_app


@pytest.fixture
def known(site: Any, fake_provider: Any) -> Callable[..., None]:
    """Makes the provider known to the server, under these settings."""

    def configure(key: str = "example", **settings: Any) -> None:
        found = check(fake_provider.settings(**settings), ProviderSettings)
        site.providers = {**site.providers, key: Provider(key, found)}

    site.create, site.access = create_app, Access(guests=False)
    configure()
    return configure


@pytest.fixture
def client(site: Any, known: Any) -> Iterator[TestClient]:
    with site.client() as running:
        yield running


def begin(client: TestClient, query: str = "", key: str = "example") -> str:
    """Click on "Continue with"; the address at the provider."""
    sent = client.get(f"/sign-in/{key}{query}", follow_redirects=False)
    assert sent.status_code == 303, sent.text
    return str(sent.headers["location"])


def approve(address: str) -> str:
    """What the provider has the browser ask us for."""
    back = httpx.get(address)
    assert back.status_code == 303, back.text
    return back.headers["location"].removeprefix("http://127.0.0.1")


def come(client: TestClient, query: str = "", key: str = "example") -> httpx.Response:
    """The whole way there and back."""
    return client.get(approve(begin(client, query, key)), follow_redirects=False)


def me(client: TestClient) -> dict[str, Any] | None:
    found: dict[str, Any] | None = client.get("/api/me").json()["user"]
    return found


def test_who_comes_first_is_made_a_user_and_known_again(client: TestClient, fake_provider: Any) -> None:
    done = come(client, "?next=/account")
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    first = me(client)
    assert first is not None
    assert (first["name"], first["role"]) == ("jane", "user")
    assert client.post("/api/sign-out").status_code == 204
    assert me(client) is None
    fake_provider.claims["preferred_username"] = "jane.married"
    come(client)
    assert me(client) == first


def test_nothing_is_fetched_before_somebody_signs_in(client: TestClient, fake_provider: Any) -> None:
    assert "Continue with Example" in client.get("/sign-in").text
    assert fake_provider.asked == []


def test_what_is_asked_of_the_provider(client: TestClient, fake_provider: Any) -> None:
    address = begin(client)
    query = parse_qs(urlsplit(address).query)
    assert query["redirect_uri"] == ["http://127.0.0.1/sign-in/example/callback"]
    assert query["scope"] == ["openid profile"]
    assert len({query[name][0] for name in ("state", "nonce", "code_challenge")}) == 3
    assert query["state"] != parse_qs(urlsplit(begin(client)).query)["state"]
    cookie = client.get("/sign-in/example", follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()


def test_over_https_the_cookie_is_the_hosts_alone(site: Any, known: Any) -> None:
    with TestClient(site.app(), base_url="https://127.0.0.1") as client:
        answer = client.get("/sign-in/example", follow_redirects=False)
    assert answer.headers["set-cookie"].startswith("__Host-tutelage-oidc=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "redirect_uri=https%3A%2F%2F127.0.0.1" in answer.headers["location"]


def test_a_guest_keeps_their_chats(site: Any, known: Any) -> None:
    site.access = Access(guests=True)
    with site.client() as client:
        made = client.post("/api/dialogues", json={"text": "Hi"}).json()["dialogue_id"]
        guest = me(client)
        come(client)
        assert guest is not None
        assert (me(client) or {})["id"] == guest["id"]
        assert client.get(f"/api/dialogues/{made}").status_code == 200


def test_a_taken_name_gets_a_number_and_a_mail_address_finds_nobody(
    site: Any, client: TestClient, fake_provider: Any
) -> None:
    with site.store.write() as tx:
        accounts.create_user(tx, name="Jane", password_hash="-", role="operator")
    fake_provider.claims = {"sub": "2", "email": "jane@example.org", "email_verified": True}
    come(client)
    assert (me(client) or {})["name"] == "jane-2"
    assert (me(client) or {})["role"] == "user"


def test_the_same_subject_of_another_issuer_is_somebody_else(
    site: Any, client: TestClient, fake_provider: Any
) -> None:
    with site.store.write() as tx:
        other = accounts.create_user(tx, name="other", password_hash=None, role="operator")
        identities.connect(tx, "https://elsewhere.example", fake_provider.claims["sub"], other.id)
    come(client)
    assert (me(client) or {})["id"] != other.id


def test_where_newcomers_are_not_welcome_they_need_an_invitation(site: Any, known: Any) -> None:
    known(newcomers=False)
    with site.client() as client:
        refused = come(client)
        assert refused.status_code == 403
        assert "invitation" in refused.json()["error"]["message"]
        assert me(client) is None
        with site.store.write() as tx:
            chief = accounts.create_user(tx, name="chief", password_hash="-", role="operator")
            _, token = invites.create_invite(tx, role="trainer", by=chief.id)
        assert f"invite={token}" in client.get(f"/invite/{token}").text
        assert come(client, f"?invite={token}").status_code == 303
        assert (me(client) or {})["role"] == "trainer"
        client.post("/api/sign-out")
        assert come(client).status_code == 303


def test_an_invitation_that_is_used_lets_nobody_in(site: Any, known: Any) -> None:
    known(newcomers=True)
    with site.client() as client:
        assert come(client, "?invite=made-up").status_code == 403
        assert me(client) is None


def test_the_way_back_leads_only_to_this_server(client: TestClient) -> None:
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert come(client, f"?next={path}").headers["location"] == "/"


def test_an_answer_counts_only_in_the_browser_that_began(client: TestClient) -> None:
    back = approve(begin(client))
    client.cookies.clear()
    refused = client.get(back, headers={"accept": "text/html"})
    assert refused.status_code == 400
    assert "Begin again" in refused.text
    assert me(client) is None
    begin(client)
    stale = client.get(back)
    assert (stale.status_code, me(client)) == (400, None)
    assert "has not begun" in stale.json()["error"]["message"]


def test_an_answer_counts_once(client: TestClient) -> None:
    address = begin(client)
    kept = client.cookies["tutelage-oidc"]
    back = approve(address)
    assert client.get(back, follow_redirects=False).status_code == 303
    client.cookies.clear()
    assert client.get(back).status_code == 400
    client.cookies.set("tutelage-oidc", kept)
    replayed = client.get(back)
    assert replayed.status_code == 400
    assert "used already" in replayed.json()["error"]["message"]
    assert me(client) is None


def test_another_site_cannot_begin_it(client: TestClient) -> None:
    sent = client.get("/sign-in/example", headers={"sec-fetch-site": "cross-site"}, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in")
    assert "set-cookie" not in sent.headers


def test_an_answer_to_one_provider_is_not_taken_by_another(site: Any, known: Any, fake_provider: Any) -> None:
    known("other")
    with site.client() as client:
        back = approve(begin(client))
        assert client.get(back.replace("/example/", "/other/")).status_code == 400
        fake_provider.sent = {"iss": "https://evil.example"}
        mixed = come(client)
        assert mixed.status_code == 400
        assert "another provider" in mixed.json()["error"]["message"]
        fake_provider.sent = {"iss": fake_provider.url}
        assert come(client).status_code == 303


def test_a_provider_that_says_it_names_itself_has_to(client: TestClient, fake_provider: Any) -> None:
    fake_provider.about = {"authorization_response_iss_parameter_supported": True}
    assert come(client).status_code == 400


HOUR = 3600
FORGED: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "another program": {"aud": "somebody-else"},
    "several programs": {"aud": ["tutelage", "somebody-else"]},
    "for another party": {"azp": "somebody-else"},
    "expired": {"exp": int(time.time()) - HOUR},
    "without an end": {"exp": None},
    "from the future": {"iat": int(time.time()) + HOUR},
    "of another try": {"nonce": "replayed"},
    "of no try": {"nonce": None},
    "without a subject": {"sub": None},
    "with an empty subject": {"sub": ""},
    "with an endless subject": {"sub": "x" * 300},
    "with a number as subject": {"sub": 7},
}


@pytest.mark.parametrize("claims", FORGED.values(), ids=FORGED)
def test_a_token_that_is_not_for_us_now_signs_nobody_in(
    client: TestClient, fake_provider: Any, claims: dict[str, Any]
) -> None:
    fake_provider.token = claims
    refused = come(client)
    assert (refused.status_code, me(client)) == (503, None)
    assert "does not work at present" in refused.json()["error"]["message"]


def test_a_token_needs_the_providers_signature(client: TestClient, fake_provider: Any) -> None:
    real = fake_provider.published = fake_provider.key
    for alg, key in (
        ("ES256", ECKey.generate_key("P-256", {"kid": "first"})),
        ("none", real),
        ("HS256", real.as_pem(private=False)),
        ("HS256", fake_provider.secret.encode()),
    ):
        fake_provider.alg, fake_provider.key = alg, key
        assert come(client).status_code == 503, alg
        assert me(client) is None


def test_keys_may_change(client: TestClient, fake_provider: Any) -> None:
    come(client)
    fake_provider.key, fake_provider.alg = RSAKey.generate_key(2048, {"kid": "second"}), "RS256"
    client.post("/api/sign-out")
    assert come(client).status_code == 303
    assert me(client) is not None


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token", "/userinfo"])
def test_rubbish_is_told_in_a_sentence(
    client: TestClient, fake_provider: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "LONGEST_ANSWER", 10_000)
    monkeypatch.setattr(oidc, "REST_SECONDS", 0.0)
    fake_provider.thin = True
    rubbish = (
        PlainTextResponse("<html>maintenance</html>"),
        PlainTextResponse("[" * 9_000),
        PlainTextResponse("x" * 20_000),
        JSONResponse([1]),
        JSONResponse({}),
        JSONResponse({"issuer": 7, "keys": "none", "id_token": 7, "sub": 7}),
        JSONResponse({"error": "invalid_client"}, status_code=401),
        RedirectResponse("http://127.0.0.1:1/", status_code=302),
    )
    for answer in rubbish:
        fake_provider.answers[path] = answer
        began = client.get("/sign-in/example", follow_redirects=False)
        told = began if began.status_code == 503 else client.get(approve(began.headers["location"]))
        assert (told.status_code, me(client)) == (503, None), (path, answer.body[:20])
        assert "Example" in told.json()["error"]["message"]
    fake_provider.answers.clear()
    assert come(client).status_code == 303


def test_a_provider_that_is_down_is_told_and_left_alone_for_a_while(
    site: Any, known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(issuer="http://127.0.0.1:1")
    with site.client() as client:
        for _ in range(2):
            told = client.get("/sign-in/example", headers={"accept": "text/html"})
            assert told.status_code == 503
            assert "Example cannot be reached" in told.text
            assert "with a name and a password" in told.text


def test_who_turns_back_is_told_so(client: TestClient, fake_provider: Any) -> None:
    fake_provider.sent = {"code": None, "error": "access_denied", "error_description": "<script>"}
    told = come(client)
    assert told.status_code == 403
    assert "turned back" in told.json()["error"]["message"]
    assert "script" not in told.text
    fake_provider.sent = {"code": None}
    assert come(client).status_code == 400


def test_a_provider_of_strange_endpoints_is_not_followed(
    site: Any, known: Any, fake_provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "REST_SECONDS", 0.0)
    with site.client() as client:
        for name in ("authorization_endpoint", "jwks_uri"):
            for address in ("javascript:alert(1)", "http://evil.example/", "/relative", None, "http://["):
                fake_provider.about = {name: address}
                known()
                assert client.get("/sign-in/example").status_code == 503
    with site.client() as client:
        assert client.get("/sign-in/example").status_code == 503


def test_roles_follow_the_provider_but_the_last_operator_stays(
    site: Any, known: Any, fake_provider: Any
) -> None:
    known(role_claim="groups", trainers=["writers"], operators=["admins"])
    roles = []
    with site.client() as client:
        for groups in (["writers"], ["x", "admins"], [], "writers"):
            fake_provider.claims["groups"] = groups
            come(client)
            roles.append((me(client) or {})["role"])
            with site.store.write() as tx:
                if groups == []:
                    accounts.create_user(tx, name="second", password_hash="-", role="operator")
    assert roles == ["trainer", "operator", "operator", "trainer"]
    with site.store.read() as tx:
        actions = [entry.detail for entry, _ in audit.list_entries(tx)]
    assert actions[0] == {"role": "trainer", "by": "example"}


def test_what_is_required_is_required_each_time(site: Any, known: Any, fake_provider: Any) -> None:
    known(required={"hd": "example.org"})
    with site.client() as client:
        assert come(client).status_code == 403
        fake_provider.claims["hd"] = "example.org"
        assert come(client).status_code == 303
        client.post("/api/sign-out")
        fake_provider.claims["hd"] = "evil.example"
        assert come(client).status_code == 403
        assert me(client) is None


def test_a_thin_token_is_filled_up(site: Any, known: Any, fake_provider: Any) -> None:
    known(role_claim="groups", trainers=["writers"])
    fake_provider.thin = True
    fake_provider.claims["groups"] = ["writers"]
    with site.client() as client:
        come(client)
        assert (me(client) or {})["name"] == "jane"
        assert (me(client) or {})["role"] == "trainer"
        fake_provider.answers["/userinfo"] = JSONResponse({"sub": "somebody else", "groups": ["writers"]})
        assert come(client).status_code == 503


def test_the_secret_goes_the_way_the_provider_wants(site: Any, known: Any, fake_provider: Any) -> None:
    fake_provider.about = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with site.client() as client:
        assert come(client).status_code == 303


def test_a_wrong_secret_is_in_no_answer_and_no_log(
    site: Any, known: Any, fake_provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    known(client_secret="hush-hush")
    with caplog.at_level(logging.DEBUG), site.client() as client:
        told = come(client)
    assert told.status_code == 503
    assert "hush" not in told.text + caplog.text + repr(site.providers["example"].settings)
    assert "invalid_client" in caplog.text


def test_guesses_are_limited(client: TestClient) -> None:
    statuses = []
    for _ in range(11):
        begin(client)
        state = parse_qs(urlsplit(begin(client)).query)["state"][0]
        statuses.append(client.get(f"/sign-in/example/callback?state={state}&code=guess").status_code)
    assert statuses == [400] * 10 + [429]


def test_an_account_with_a_password_can_be_connected(
    site: Any, client: TestClient, fake_provider: Any
) -> None:
    with site.store.write() as tx:
        user = accounts.create_user(tx, name="ann", password_hash="-", role="trainer")
        token = accounts.open_session(tx, user.id, days=1)
    client.cookies.set("tutelage", token)
    assert "Connect Example" in client.get("/account").text
    assert come(client, "?connect=1&next=/account").headers["location"] == "/account"
    client.post("/api/sign-out")
    come(client)
    assert (me(client) or {})["id"] == user.id
    kept = client.get("/api/account/export").json()["identities"]
    assert [(row["issuer"], row["subject"]) for row in kept] == [(fake_provider.url, "248289761001")]


def test_connecting_needs_the_one_who_began_and_an_identity_that_is_free(
    site: Any, client: TestClient
) -> None:
    assert client.get("/sign-in/example?connect=1").status_code == 400
    come(client)
    client.post("/api/sign-out")
    with site.store.write() as tx:
        ann = accounts.create_user(tx, name="ann", password_hash="-", role="user")
        bob = accounts.create_user(tx, name="bob", password_hash="-", role="user")
        tokens = [accounts.open_session(tx, user.id, days=1) for user in (ann, bob)]
    client.cookies.set("tutelage", tokens[0])
    address = begin(client, "?connect=1")
    client.cookies.set("tutelage", tokens[1])
    assert client.get(approve(address)).status_code == 409
    assert come(client, "?connect=1").status_code == 409


def test_the_last_way_to_sign_in_stays_and_goes_with_the_account(site: Any, client: TestClient) -> None:
    come(client)
    user_id = (me(client) or {})["id"]
    with site.store.read() as tx:
        [row] = identities.list_identities(tx, user_id)
    assert client.delete(f"/account/identities/{row.id}").status_code == 409
    with site.store.write() as tx:
        accounts.set_password(tx, user_id, "-")
        stranger = accounts.create_user(tx, name="eve", password_hash="-", role="operator")
        foreign = accounts.open_session(tx, stranger.id, days=1)
    headers = {"cookie": f"tutelage={foreign}"}
    assert client.delete(f"/account/identities/{row.id}", headers=headers).status_code == 404
    come(client)
    assert client.delete(f"/account/identities/{row.id}").status_code == 204


def test_who_deletes_the_account_is_unknown_again(site: Any, client: TestClient) -> None:
    come(client)
    first = (me(client) or {})["id"]
    assert client.request("DELETE", "/api/account", json={}).status_code == 204
    with site.store.read() as tx:
        assert identities.list_identities(tx, first) == []
    come(client)
    assert (me(client) or {})["id"] != first


def test_sessions_last_as_long_as_the_provider_is_trusted(site: Any, known: Any) -> None:
    known(session_days=2)
    with site.client() as client:
        come(client)
        with site.store.read() as tx:
            [row] = accounts.list_sessions(tx, (me(client) or {})["id"])
    assert 1.9 < (row.expires - row.created).total_seconds() / 86400 < 2.1


def test_a_cookie_of_rubbish_is_none(client: TestClient) -> None:
    for cookie in ("x", "W10", "e30", "é", "WyIiLCJleGFtcGxlIiwiLyIsIiIsIiJd", "A" * 3500, "W1tbW1tb"):
        headers = {"cookie": f"tutelage-oidc={cookie}".encode()}
        assert client.get("/sign-in/example/callback?state=x&code=y", headers=headers).status_code == 400
