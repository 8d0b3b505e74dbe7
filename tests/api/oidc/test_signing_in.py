"""/sign-in/{provider}. Signing in by an OpenID Connect provider: who is known, who is let in, as what."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from tutelage.server.services import Access
from tutelage.store import accounts, audit, identities, invites


def test_who_comes_first_is_made_a_user_and_known_again(
    client: TestClient, fake_provider: Any, way: Any, me: Any
) -> None:
    done = way.come(client, "?next=/account")
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    first = me(client)
    assert first is not None
    assert (first["name"], first["role"]) == ("jane", "user")
    assert client.post("/api/sign-out").status_code == 204
    assert me(client) is None
    fake_provider.claims["preferred_username"] = "jane.married"
    way.come(client)
    assert me(client) == first


def test_nothing_is_fetched_before_somebody_signs_in(client: TestClient, fake_provider: Any) -> None:
    assert "Continue with Example" in client.get("/sign-in").text
    assert fake_provider.asked == []


def test_what_is_asked_of_the_provider(client: TestClient, fake_provider: Any, way: Any) -> None:
    address = way.begin(client)
    query = parse_qs(urlsplit(address).query)
    assert query["redirect_uri"] == ["http://127.0.0.1/sign-in/example/callback"]
    assert query["scope"] == ["openid profile"]
    assert len({query[name][0] for name in ("state", "nonce", "code_challenge")}) == 3
    assert query["state"] != parse_qs(urlsplit(way.begin(client)).query)["state"]
    cookie = client.get("/sign-in/example", follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()


def test_a_guest_keeps_their_chats(site: Any, known: Any, way: Any, me: Any) -> None:
    site.access = Access(guests=True)
    with site.client() as client:
        made = client.post("/api/dialogues", json={"text": "Hi"}).json()["dialogue_id"]
        guest = me(client)
        way.come(client)
        assert guest is not None
        assert (me(client) or {})["id"] == guest["id"]
        assert client.get(f"/api/dialogues/{made}").status_code == 200


def test_a_taken_name_gets_a_number_and_a_mail_address_finds_nobody(
    site: Any, client: TestClient, fake_provider: Any, way: Any, me: Any
) -> None:
    with site.store.write() as tx:
        accounts.create_user(tx, name="Jane", password_hash="-", role="operator")
    fake_provider.claims = {"sub": "2", "email": "jane@example.org", "email_verified": True}
    way.come(client)
    assert (me(client) or {})["name"] == "jane-2"
    assert (me(client) or {})["role"] == "user"


def test_the_same_subject_of_another_issuer_is_somebody_else(
    site: Any, client: TestClient, fake_provider: Any, way: Any, me: Any
) -> None:
    with site.store.write() as tx:
        other = accounts.create_user(tx, name="other", password_hash=None, role="operator")
        identities.connect(tx, "https://elsewhere.example", fake_provider.claims["sub"], other.id)
    way.come(client)
    assert (me(client) or {})["id"] != other.id


def test_where_newcomers_are_not_welcome_they_need_an_invitation(
    site: Any, known: Any, way: Any, me: Any
) -> None:
    known(newcomers=False)
    with site.client() as client:
        refused = way.come(client)
        assert refused.status_code == 403
        assert "invitation" in refused.json()["error"]["message"]
        assert me(client) is None
        with site.store.write() as tx:
            chief = accounts.create_user(tx, name="chief", password_hash="-", role="operator")
            _, token = invites.create_invite(tx, role="trainer", by=chief.id)
        assert f"invite={token}" in client.get(f"/invite/{token}").text
        assert way.come(client, f"?invite={token}").status_code == 303
        assert (me(client) or {})["role"] == "trainer"
        client.post("/api/sign-out")
        assert way.come(client).status_code == 303


def test_an_invitation_that_is_used_lets_nobody_in(site: Any, known: Any, way: Any, me: Any) -> None:
    known(newcomers=True)
    with site.client() as client:
        assert way.come(client, "?invite=made-up").status_code == 403
        assert me(client) is None


def test_roles_follow_the_provider_but_the_last_operator_stays(
    site: Any, known: Any, fake_provider: Any, way: Any, me: Any
) -> None:
    known(role_claim="groups", trainers=["writers"], operators=["admins"])
    roles = []
    with site.client() as client:
        for groups in (["writers"], ["x", "admins"], [], "writers"):
            fake_provider.claims["groups"] = groups
            way.come(client)
            roles.append((me(client) or {})["role"])
            with site.store.write() as tx:
                if groups == []:
                    accounts.create_user(tx, name="second", password_hash="-", role="operator")
    assert roles == ["trainer", "operator", "operator", "trainer"]
    with site.store.read() as tx:
        actions = [entry.detail for entry, _ in audit.list_entries(tx)]
    assert actions[0] == {"role": "trainer", "by": "example"}


def test_what_is_required_is_required_each_time(
    site: Any, known: Any, fake_provider: Any, way: Any, me: Any
) -> None:
    known(required={"hd": "example.org"})
    with site.client() as client:
        assert way.come(client).status_code == 403
        fake_provider.claims["hd"] = "example.org"
        assert way.come(client).status_code == 303
        client.post("/api/sign-out")
        fake_provider.claims["hd"] = "evil.example"
        assert way.come(client).status_code == 403
        assert me(client) is None


def test_a_thin_token_is_filled_up(site: Any, known: Any, fake_provider: Any, way: Any, me: Any) -> None:
    known(role_claim="groups", trainers=["writers"])
    fake_provider.thin = True
    fake_provider.claims["groups"] = ["writers"]
    with site.client() as client:
        way.come(client)
        assert (me(client) or {})["name"] == "jane"
        assert (me(client) or {})["role"] == "trainer"
        fake_provider.answers["/userinfo"] = JSONResponse({"sub": "somebody else", "groups": ["writers"]})
        assert way.come(client).status_code == 503


def test_the_secret_goes_the_way_the_provider_wants(
    site: Any, known: Any, fake_provider: Any, way: Any
) -> None:
    fake_provider.about = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with site.client() as client:
        assert way.come(client).status_code == 303


def test_an_account_with_a_password_can_be_connected(
    site: Any, client: TestClient, fake_provider: Any, way: Any, me: Any
) -> None:
    with site.store.write() as tx:
        user = accounts.create_user(tx, name="ann", password_hash="-", role="trainer")
        token = accounts.open_session(tx, user.id, days=1)
    client.cookies.set("tutelage", token)
    assert "Connect Example" in client.get("/account").text
    assert way.come(client, "?connect=1&next=/account").headers["location"] == "/account"
    client.post("/api/sign-out")
    way.come(client)
    assert (me(client) or {})["id"] == user.id
    kept = client.get("/api/account/export").json()["identities"]
    assert [(row["issuer"], row["subject"]) for row in kept] == [(fake_provider.url, "248289761001")]


def test_connecting_needs_the_one_who_began_and_an_identity_that_is_free(
    site: Any, client: TestClient, way: Any
) -> None:
    assert client.get("/sign-in/example?connect=1").status_code == 400
    way.come(client)
    client.post("/api/sign-out")
    with site.store.write() as tx:
        ann = accounts.create_user(tx, name="ann", password_hash="-", role="user")
        bob = accounts.create_user(tx, name="bob", password_hash="-", role="user")
        tokens = [accounts.open_session(tx, user.id, days=1) for user in (ann, bob)]
    client.cookies.set("tutelage", tokens[0])
    address = way.begin(client, "?connect=1")
    client.cookies.set("tutelage", tokens[1])
    assert client.get(way.approve(address)).status_code == 409
    assert way.come(client, "?connect=1").status_code == 409


def test_the_last_way_to_sign_in_stays_and_goes_with_the_account(
    site: Any, client: TestClient, way: Any, me: Any
) -> None:
    way.come(client)
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
    way.come(client)
    assert client.delete(f"/account/identities/{row.id}").status_code == 204


def test_who_deletes_the_account_is_unknown_again(site: Any, client: TestClient, way: Any, me: Any) -> None:
    way.come(client)
    first = (me(client) or {})["id"]
    assert client.request("DELETE", "/api/account", json={}).status_code == 204
    with site.store.read() as tx:
        assert identities.list_identities(tx, first) == []
    way.come(client)
    assert (me(client) or {})["id"] != first


def test_sessions_last_as_long_as_the_provider_is_trusted(site: Any, known: Any, way: Any, me: Any) -> None:
    known(session_days=2)
    with site.client() as client:
        way.come(client)
        with site.store.read() as tx:
            [row] = accounts.list_sessions(tx, (me(client) or {})["id"])
    assert 1.9 < (row.expires - row.created).total_seconds() / 86400 < 2.1
