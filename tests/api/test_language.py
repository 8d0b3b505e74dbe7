"""People read errors in the language of their page, programs for OpenAI's API in English."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.engine.interface import Sampling, TokenChunk
from tutelage.errors import DataError, Unavailable
from tutelage.evaluation.gate import Evidence, GateConfig, judge
from tutelage.store import accounts, runs
from tutelage.web.app import create_app

from .conftest import events_of

CHINESE = {"accept-language": "zh-TW,zh;q=0.9,en;q=0.5"}


@pytest.fixture
def pages(site: Any) -> Iterator[TestClient]:
    """The whole application."""
    site.create = create_app
    with site.client() as client:
        yield client


def message(response: Any) -> str:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


def test_an_error_is_told_in_the_browsers_language(pages: TestClient) -> None:
    body = {"name": "nobody", "password": "wrong"}
    assert (
        message(pages.post("/api/sign-in", json=body))
        == "Name or password is wrong. Check both, and try again"
    )
    assert (
        message(pages.post("/api/sign-in", json=body, headers=CHINESE))
        == "名稱或密碼錯誤。請檢查後再試一次。"
    )


def test_kinds_of_versions_and_scopes_of_keys_have_words_of_their_own(site: Any, pages: TestClient) -> None:
    site.registry.publish(kind="reward", model="tiny")
    pages.headers.update({**site.session("operator"), **CHINESE})
    refused = message(pages.post("/operate/versions/r1/promote"))
    assert "1 是獎勵模型，無法對話。" in refused
    assert pages.post("/operate/keys", json={"name": "script", "scopes": ["rewards"]}).status_code == 201
    for path in ("/operate/keys", "/operate/audit"):
        assert "獎勵模型的評分" in pages.get(path).text


def test_the_language_that_somebody_chose_goes_before_their_browsers(site: Any, pages: TestClient) -> None:
    cookie = site.session("user")
    with site.store.write() as tx:
        token = cookie["cookie"].partition("=")[2]
        user = accounts.session_user(tx, token)
        assert user is not None
        user.locale = "zh-Hant"
    for language in ({}, {"accept-language": "en"}):
        headers = {**cookie, **language}
        assert (
            message(pages.post("/api/dialogues", json={"text": " "}, headers=headers))
            == "訊息是空的。請輸入內容。"
        )
        assert (
            message(pages.post("/operate/rollback", headers=headers))
            == "這需要「管理者」的角色。請向管理者申請。"
        )
        wrong = pages.post("/api/dialogues", json={"text": "x", "answers": 3}, headers=headers)
        assert message(wrong) == "Answers：必須小於或等於 2。"
        page = pages.get("/operate", headers={**headers, "accept": "text/html"})
        assert (page.status_code, "這需要「管理者」的角色。" in page.text) == (403, True)


def test_programs_read_english(site: Any, pages: TestClient) -> None:
    asked = pages.get("/v1/models/v9", headers={**site.bearer(), **CHINESE})
    assert message(asked) == "There is no version “v9”. There are v1, stable."
    assert message(pages.get("/v1/nowhere", headers=CHINESE)) == "Invalid URL (GET /v1/nowhere)"


def test_what_stands_before_every_handler_speaks_the_language_too(pages: TestClient) -> None:
    elsewhere = {**CHINESE, "sec-fetch-site": "cross-site"}
    assert message(pages.post("/api/sign-out", headers=elsewhere)) == "這個請求來自其他網站。"
    large = {**CHINESE, "content-length": str(10**9)}
    assert message(pages.post("/api/sign-in", content=b"{", headers=large)) == "請求內容超過 2 MB。"


def test_an_answer_that_breaks_off_says_why_in_its_readers_language(site: Any) -> None:
    class Broken:
        version, context_length, broken, wait = "v1", 1024, False, 0.0
        renderer = site.renderer

        async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
            await asyncio.sleep(self.wait)
            raise Unavailable("the model's server broke off its answer", hint="send the message again")
            yield

        async def close(self) -> None:
            return

    engine = Broken()
    site.create, site.load = create_app, lambda version: engine
    with site.client() as client:
        for engine.wait in (0.1, 1.0, 10.0):  # whoever comes too late reads only that it was interrupted
            started = client.post("/api/dialogues", json={"text": "Hi"}, headers=CHINESE).json()
            events = events_of(client.get(f"/api/answers/{started['answer_id']}/events", headers=CHINESE))
            if events[-1][1] == "error":
                break
    told = json.loads(events[-1][2])
    assert (told["message"], told["hint"]) == ("模型的伺服器中斷了回答。", "請重新傳送訊息。")


def test_why_a_round_failed_and_a_version_was_refused_is_told_to_operators_in_their_language(
    site: Any, pages: TestClient
) -> None:
    refused = Evidence(prompts=9, wins={}, flagged=(0, 0), flagged_twice=0, lengths=(1.0, 1.0), kl=0.0)
    evaluation = {"gate": judge(refused, GateConfig()).as_dict()}
    site.registry.publish(kind="chat", model="tiny", evaluation=evaluation)
    with site.store.write() as tx:
        run = runs.create_run(tx, kind="improve", config={}, name="round-0001")
        nothing = DataError("There is nothing to learn from yet.", path="snapshots", hint="resume it")
        runs.update_run(tx, run.id, status="failed", error=nothing.sentence)
    headers = {**site.session("operator"), **CHINESE}
    for path in ("/operate/training", "/operate/training/rounds/round-0001"):
        page = pages.get(path, headers=headers).text
        assert "<p>snapshots：還沒有可以學習的資料。</p>" in page
        assert "nothing to learn" not in page
    page = pages.get("/operate", headers=headers).text
    assert "9 則保留集提示" in page
    assert "至少 30" in page
    assert "at least" not in page


def test_the_log_of_operators_says_what_they_did_in_the_readers_language(
    site: Any, pages: TestClient
) -> None:
    headers = {**site.session("operator"), **CHINESE}
    body = {"name": "somebody", "role": "trainer"}
    assert pages.post("/operate/people", json=body, headers=headers).status_code == 201
    settings = {"guests": False, "user_limit": 3, "answers_at_once": 4, "terms": ""}
    assert pages.put("/operate/access", json=settings, headers=headers).status_code == 204
    path = "/operate/data/rows?stream=demonstrations&source=written"
    assert pages.get(path, headers=headers).status_code == 200
    log = re.findall("<td[^>]*>(.*?)</td>", pages.get("/operate/audit", headers=headers).text)
    told = re.sub("<[^>]*>", "", " ".join(log))
    assert "建立帳號 角色：訓練員" in told
    assert "變更：訪客、使用者每天的回答數" in told
    assert "來源：訓練員撰寫" in told


def test_who_goes_to_a_page_that_nobody_expected_to_fail_reads_a_page(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the secret words of a user")

    monkeypatch.setattr("tutelage.store.dialogues.list_dialogues", explode)
    answer = pages.get("/account", headers={"accept": "text/html", **CHINESE})
    assert answer.status_code == 500
    assert '<p class="soft">伺服器發生錯誤，詳情請見伺服器的記錄。</p>' in answer.text
    assert "secret" not in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert pages.get("/nowhere", headers={"accept": "text/html", **CHINESE}).status_code == 404


def test_the_theme_that_somebody_chose_is_their_browsers(pages: TestClient) -> None:
    assert "data-theme" not in pages.get("/account").text
    body = {"consent": False, "locale": "", "theme": "dark"}
    assert pages.put("/account/preferences", json=body).status_code == 204
    page = pages.get("/account").text
    assert '<html lang="en" data-theme="dark">' in page
    assert '<option value="dark" selected>' in page
    assert pages.put("/account/preferences", json={**body, "theme": "pink"}).status_code == 400
    assert pages.put("/account/preferences", json={**body, "theme": ""}).status_code == 204
    assert "data-theme" not in pages.get("/account").text
