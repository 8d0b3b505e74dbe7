"""What operators learn of readers' opinions: numbers of all, words of few, and each reading leaves a trace."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from tutelage.store import audit
from tutelage.store.tables import Rating


def rated(
    site: Any, words: str, *, consent: bool, reasons: list[str] | None = None
) -> tuple[httpx.Client, str, str]:
    """Somebody's answer with a thumb: their client, the answer, the rating."""
    cookies = {"tutelage": site.session("user", consent=consent)}
    user = httpx.Client(base_url=site.url, cookies=cookies, timeout=20)
    started = user.post("/api/dialogues", json={"text": words}).json()
    assert "event: done" in user.get(f"/api/answers/{started['answer_id']}/events").text
    body = {"verdict": "down", "reasons": reasons or []}
    assert user.put(f"/api/messages/{started['answer_id']}/rating", json=body).status_code == 200
    with site.store.read() as tx:
        row = tx.scalars(select(Rating).where(Rating.message_id == started["answer_id"])).one()
    return user, started["answer_id"], row.id


def test_words_are_read_only_where_their_author_lets_them_and_each_reading_is_logged(site: Any) -> None:
    with site.client("operator") as operator:
        for words, consent in (("open-hearted", True), ("close-lipped", False)):
            user, answer, rating = rated(site, f"I am {words}", consent=consent)
            shown = operator.get("/operate/feedback").text
            assert rating in shown
            assert words not in shown
            read = operator.post(f"/operate/feedback/{rating}/words", json={})
            assert (read.status_code, words in read.text) == ((200, True) if consent else (403, False))
            with site.store.read() as tx:
                subjects = [entry.subject for entry, _ in audit.list_entries(tx)]
            assert (rating in subjects) == consent
            user.close()
        assert rating not in operator.get("/operate/audit").text
        user, answer, rating = rated(site, "I am reporting", consent=False)
        user.post(f"/api/messages/{answer}/report", json={"kind": "missed"})
        read = operator.post(f"/operate/feedback/{rating}/words", json={}).text
        assert "Hello there." in read
        assert "I am reporting" not in read
        assert "read feedback" in operator.get("/operate/audit").text


def test_a_shared_chat_is_read_until_its_link_is_taken_away(site: Any) -> None:
    user, answer, rating = rated(site, "I am sharing", consent=False)
    with site.client("operator") as operator, contextlib.closing(user):
        name = user.get("/api/dialogues").json()["dialogues"][0]["id"]
        user.put(f"/api/dialogues/{name}/share", json={})
        body = {"verdict": "down", "note": "a private note", "ideal": "a private ideal"}
        user.put(f"/api/messages/{answer}/rating", json=body)
        assert "private" not in operator.post(f"/operate/feedback/{rating}/words", json={}).text
        assert "I am sharing" in operator.post(f"/operate/feedback/{rating}/words", json={}).text
        user.delete(f"/api/dialogues/{name}/share")
        assert operator.post(f"/operate/feedback/{rating}/words", json={}).status_code == 403


def test_ratings_are_counted_by_version_week_and_reason(site: Any) -> None:
    user, _, rating = rated(site, "Wrong", consent=False, reasons=["untrue"])
    user.close()
    with site.client("operator") as operator:
        whole = operator.get("/operate/feedback").text
        assert '<rect class="down"' in whole
        assert "Not true" in whole
        assert rating in operator.get("/operate/feedback?version=v1&reason=untrue").text
        assert rating not in operator.get("/operate/feedback?version=v1&reason=too_long").text
        assert rating not in operator.get("/operate/feedback?version=v9").text


def test_an_invitation_is_made_accepted_and_taken_back(site: Any) -> None:
    with site.client("operator") as operator, site.client(None) as person:
        path = operator.post("/operate/invites", json={"role": "trainer"}).json()["secret"]
        assert person.get(path).status_code == 200
        body = {"token": path.rpartition("/")[2], "name": "Invited", "password": "a long enough password"}
        assert person.post("/api/invites/accept", json=body).json()["user"]["role"] == "trainer"
        assert person.get(path).status_code == 403
        other = operator.post("/operate/invites", json={"role": "user"}).json()["secret"]
        made = operator.get("/operate/access").text
        invite = made.partition('data-path="/operate/invites/')[2].partition('"')[0]
        assert operator.delete(f"/operate/invites/{invite}").status_code == 204
        assert person.get(other).status_code == 403
        log = operator.get("/operate/audit").text
        assert "invited somebody" in log
        assert "took an invitation back" in log


@pytest.mark.parametrize(
    "wrong", [{"guest_limit": -1}, {"guest_limit": "many"}, {"guest_storage": 0}, {"answers_at_once": 0}]
)
def test_settings_that_cannot_be_are_refused(site: Any, wrong: dict[str, Any]) -> None:
    form = {"guests": True, "guest_limit": "", "user_limit": "", "answers_at_once": "16", "terms": ""}
    with site.client("operator") as operator:
        assert operator.put("/operate/access", json=form | wrong).status_code == 400
        assert operator.put("/operate/access", json=form | {"terms": "Be **kind**."}).status_code == 204
        assert "<strong>kind</strong>" in operator.get("/terms").text
        assert operator.put("/operate/access", json=form).status_code == 204
