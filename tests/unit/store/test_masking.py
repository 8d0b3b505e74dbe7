"""What is masked, and what must stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.store import Store, dialogues, export, feedback, picks
from tutelage.store.export.outlook import outlook
from tutelage.store.masking import mask
from tutelage.store.tables import Message

Chat = Callable[..., list[Message]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.b+x@mail.example.org, please.", "Write to [email], please."),
        ("寫信到 ada@example.com.tw。", "寫信到 [email]。"),
        ("Call +44 20 7946 0958 now", "Call [phone] now"),
        ("Call (02) 2345-6789.", "Call [phone]."),
        ("Call 0912-345-678 or 0912345678", "Call [phone] or [phone]"),
        ("Call 555-123-4567", "Call [phone]"),
        ("Card 4111 1111 1111 1111 it is", "Card [card] it is"),
        ("Card 5500-0000-0000-0004", "Card [card]"),
        ("key sk-proj-abcDEF1234567890abcdef and ghp_abcdefghijklmnopqrstuv", "key [key] and [key]"),
        ("AKIAIOSFODNN7EXAMPLE", "[key]"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_X now", "token [key] now"),
        ("xoxb-123456789012-abcdefABCDEF", "[key]"),
        ("AIzaSyA-1234567890abcdefghijklmnopqrstu", "[key]"),
        ("0044 20 7946 0958", "[phone]"),
        ("02 2345 6789", "[phone]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----", "[key]"),
    ],
)
def test_what_has_the_form_of_personal_data_is_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Pi is 3.14159265358979.",
        "On 2024-01-31 at 10:15, in 1999 and 2001.",
        "Add 123456 to 9876543210.",
        "The order number is 4111 1111 1111 1112.",
        "python -m pip install x==1.2.3; user@host",
        "0.000123 and 10,000,000,000,000 and 192.168.100.200",
        "a sk-ip in the task-list-of-everything-we-know",
        "ISBN 978-3-16-148410-0",
        "a sk-of-everything-that-we-know-about",
        "0.4111111111111111 and 1,4111111111111111 and 41111111111111111",
        "part 555-123-4567-89 and 0912345678a",
    ],
)
def test_other_numbers_and_words_stay(text: str) -> None:
    assert mask(text) == text


@given(st.text(alphabet="ab01 +-().@/_:skeyJ\n", max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize("piece", ["0-", "a@", "1 ", "(", "eyJ", "sk-a", "+1", "-----BEGIN A", "a.b@c."])
def test_long_texts_take_no_long_time(piece: str) -> None:
    started = time.perf_counter()
    mask(piece * 20_000)
    assert time.perf_counter() - started < 5


def test_chats_are_masked_on_their_way_into_training(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    rows = chat(cast.reader, "I am ada@example.org", "Hello ada@example.org")
    with store.write() as tx:
        feedback.rate(
            tx, message_id=rows[1].id, rater_id=cast.reader, verdict="down", ideal="Hello, call 0912-345-678."
        )
    with store.read() as tx:
        [corrected] = export.demonstrations(tx)
        [compared] = export.comparisons(tx)
        [asked] = export.prompts(tx)
    assert [message.content for message in corrected.messages] == ["I am [email]", "Hello, call [phone]."]
    assert compared.candidates == ("Hello, call [phone].", "Hello [email]")
    assert asked.messages[0].content == "I am [email]"


def test_the_outlook_says_what_would_enter_and_why_the_rest_does_not(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q1", "a1", "write to x@example.org", "a2")
    chat(cast.private, "q", "a")
    chat(cast.reader, "q", "a", temporary=True)
    chat(cast.reader, "q3", "a3", status="blocked")
    with store.write() as tx:
        feedback.rate(
            tx, message_id=rows[1].id, rater_id=cast.reader, verdict="down", ideal="call 0912-345-678"
        )
        feedback.rate(tx, message_id=rows[3].id, rater_id=cast.reader, verdict="up")
    with store.read() as tx:
        found = outlook(tx)
    assert found.enters["comparisons"] == {"correction": 1}
    assert found.enters["demonstrations"] == {"correction": 1}
    assert found.enters["prompts"] == {"chat": 3}
    assert found.masked == 2
    assert found.left_out["no_consent"] == 1
    assert found.left_out["temporary"] == 1
    assert found.left_out["blocked_or_broken"] == 1
    assert found.left_out["nothing_to_compare"] == 1
    assert found.left_out["without_consent"] == 0


def test_judgements_without_consent_are_counted_whatever_their_kind(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    question, first = chat(cast.private, "q", "a")
    with store.write() as tx:
        second = dialogues.start_answer(
            tx, question.dialogue_id, parent_id=question.id, model_version="v1", sampling={}
        )
        dialogues.finish_answer(tx, second.id, content="b", status="complete", finish_reason="stop")
        feedback.rate(tx, message_id=first.id, rater_id=cast.private, verdict="up")
        picks.pick(tx, first_id=first.id, second_id=second.id, rater_id=cast.private, verdict="second")
    with store.read() as tx:
        assert outlook(tx).left_out["without_consent"] == 2
