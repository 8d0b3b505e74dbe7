"""/sign-in/{provider}. Everything that can go wrong on the way to a provider and back, and what is tried there."""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import ECKey, RSAKey
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.testclient import TestClient

from tutelage.server.oidc import provider as oidc


def test_over_https_the_cookie_is_the_hosts_alone(site: Any, known: Any) -> None:
    with TestClient(site.app(), base_url="https://127.0.0.1") as client:
        answer = client.get("/sign-in/example", follow_redirects=False)
    assert answer.headers["set-cookie"].startswith("__Host-tutelage-oidc=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "redirect_uri=https%3A%2F%2F127.0.0.1" in answer.headers["location"]


def test_the_way_back_leads_only_to_this_server(client: TestClient, way: Any) -> None:
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert way.come(client, f"?next={path}").headers["location"] == "/"


def test_an_answer_counts_only_in_the_browser_that_began(client: TestClient, way: Any, me: Any) -> None:
    back = way.approve(way.begin(client))
    client.cookies.clear()
    refused = client.get(back, headers={"accept": "text/html"})
    assert refused.status_code == 400
    assert "Begin again" in refused.text
    assert me(client) is None
    way.begin(client)
    stale = client.get(back)
    assert (stale.status_code, me(client)) == (400, None)
    assert "has not begun" in stale.json()["error"]["message"]


def test_an_answer_counts_once(client: TestClient, way: Any, me: Any) -> None:
    address = way.begin(client)
    kept = client.cookies["tutelage-oidc"]
    back = way.approve(address)
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


def test_an_answer_to_one_provider_is_not_taken_by_another(
    site: Any, known: Any, fake_provider: Any, way: Any
) -> None:
    known("other")
    with site.client() as client:
        back = way.approve(way.begin(client))
        assert client.get(back.replace("/example/", "/other/")).status_code == 400
        fake_provider.sent = {"iss": "https://evil.example"}
        mixed = way.come(client)
        assert mixed.status_code == 400
        assert "another provider" in mixed.json()["error"]["message"]
        fake_provider.sent = {"iss": fake_provider.url}
        assert way.come(client).status_code == 303


def test_a_provider_that_says_it_names_itself_has_to(
    client: TestClient, fake_provider: Any, way: Any
) -> None:
    fake_provider.about = {"authorization_response_iss_parameter_supported": True}
    assert way.come(client).status_code == 400


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
    client: TestClient, fake_provider: Any, claims: dict[str, Any], way: Any, me: Any
) -> None:
    fake_provider.token = claims
    refused = way.come(client)
    assert (refused.status_code, me(client)) == (503, None)
    assert "does not work at present" in refused.json()["error"]["message"]


def test_a_token_needs_the_providers_signature(
    client: TestClient, fake_provider: Any, way: Any, me: Any
) -> None:
    real = fake_provider.published = fake_provider.key
    for alg, key in (
        ("ES256", ECKey.generate_key("P-256", {"kid": "first"})),
        ("none", real),
        ("HS256", real.as_pem(private=False)),
        ("HS256", fake_provider.secret.encode()),
    ):
        fake_provider.alg, fake_provider.key = alg, key
        assert way.come(client).status_code == 503, alg
        assert me(client) is None


def test_keys_may_change(client: TestClient, fake_provider: Any, way: Any, me: Any) -> None:
    way.come(client)
    fake_provider.key, fake_provider.alg = RSAKey.generate_key(2048, {"kid": "second"}), "RS256"
    client.post("/api/sign-out")
    assert way.come(client).status_code == 303
    assert me(client) is not None


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token", "/userinfo"])
def test_rubbish_is_told_in_a_sentence(
    client: TestClient, fake_provider: Any, path: str, monkeypatch: pytest.MonkeyPatch, way: Any, me: Any
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
        told = began if began.status_code == 503 else client.get(way.approve(began.headers["location"]))
        assert (told.status_code, me(client)) == (503, None), (path, answer.body[:20])
        assert "Example" in told.json()["error"]["message"]
    fake_provider.answers.clear()
    assert way.come(client).status_code == 303


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


def test_who_turns_back_is_told_so(client: TestClient, fake_provider: Any, way: Any) -> None:
    fake_provider.sent = {"code": None, "error": "access_denied", "error_description": "<script>"}
    told = way.come(client)
    assert told.status_code == 403
    assert "turned back" in told.json()["error"]["message"]
    assert "script" not in told.text
    fake_provider.sent = {"code": None}
    assert way.come(client).status_code == 400


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


def test_a_wrong_secret_is_in_no_answer_and_no_log(
    site: Any, known: Any, fake_provider: Any, caplog: pytest.LogCaptureFixture, way: Any
) -> None:
    known(client_secret="hush-hush")
    with caplog.at_level(logging.DEBUG), site.client() as client:
        told = way.come(client)
    assert told.status_code == 503
    assert "hush" not in told.text + caplog.text + repr(site.providers["example"].settings)
    assert "invalid_client" in caplog.text


def test_guesses_are_limited(client: TestClient, way: Any) -> None:
    statuses = []
    for _ in range(11):
        way.begin(client)
        state = parse_qs(urlsplit(way.begin(client)).query)["state"][0]
        statuses.append(client.get(f"/sign-in/example/callback?state={state}&code=guess").status_code)
    assert statuses == [400] * 10 + [429]


def test_a_cookie_of_rubbish_is_none(client: TestClient) -> None:
    for cookie in ("x", "W10", "e30", "é", "WyIiLCJleGFtcGxlIiwiLyIsIiIsIiJd", "A" * 3500, "W1tbW1tb"):
        headers = {"cookie": f"tutelage-oidc={cookie}".encode()}
        assert client.get("/sign-in/example/callback?state=x&code=y", headers=headers).status_code == 400
