from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.moderation.categories import Scores
from tutelage.moderation.gate import Gate, Verdict
from tutelage.moderation.policy import Policy
from tutelage.moderation.streaming import HELD_BACK, StreamGate, piece_end

WORDS: dict[str, Scores] = {
    "BOOM": {"violence": 0.9},
    "hmm": {"violence": 0.3},
    "sad": {"self-harm/intent": 0.9},
}

fragments = st.sampled_from(
    [
        "BOOM",
        "BO",
        "OM",
        "a",
        "word ",
        "longer words follow ",
        ". ",
        "! ",
        "。",
        "\n",
        "x" * 90,
        "你好",
        '." ',
        "…",
    ]
)
quiet = fragments.filter(lambda text: text not in ("BOOM", "BO", "OM"))
texts = st.lists(fragments, max_size=60).map("".join)
lenient = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)


@pytest.fixture
def gate(policy: Policy, keywords: Any) -> Gate:
    return Gate(policy, keywords(WORDS))


def play(gate: Gate, deltas: Sequence[str]) -> tuple[str, Verdict]:
    stream = StreamGate(gate)
    shown = "".join([stream.push(delta) for delta in deltas])
    rest, verdict = stream.finish()
    return shown + rest, verdict


def chunked(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@lenient
@given(text=texts, data=st.data())
def test_what_is_released_depends_on_the_text_and_not_on_its_pieces(
    gate: Gate, text: str, data: st.DataObject
) -> None:
    whole, letters, pieces = play(gate, [text]), play(gate, list(text)), play(gate, chunked(text, data))
    assert whole == letters == pieces


@lenient
@given(text=texts, data=st.data())
def test_blocked_text_never_leaves(gate: Gate, text: str, data: st.DataObject) -> None:
    shown, verdict = play(gate, chunked(text, data))
    assert text.startswith(shown)
    assert "BOOM" not in shown
    assert verdict.state == ("blocked" if "BOOM" in text else "ok")
    assert shown == text or "BOOM" in text


@lenient
@given(text=st.lists(quiet, max_size=60).map("".join))
def test_no_more_than_the_window_is_held_back(gate: Gate, text: str) -> None:
    stream = StreamGate(gate)
    shown = 0
    for count, letter in enumerate(text, 1):
        shown += len(stream.push(letter))
        assert count - shown < HELD_BACK


@lenient
@given(text=texts, more=texts)
def test_more_text_never_moves_the_end_of_a_piece(text: str, more: str) -> None:
    end = piece_end(text)
    assert end is None or (0 < end <= HELD_BACK and piece_end(text + more) == end)


def test_a_sentence_is_released_as_soon_as_it_has_ended(gate: Gate) -> None:
    stream = StreamGate(gate)
    assert stream.push("The first sentence is long enough") == ""
    assert stream.push(".") == "", "a number may go on after a full stop"
    assert stream.push(" And") == "The first sentence is long enough. "
    assert stream.push(" so on") == ""
    assert stream.finish()[0] == "And so on"


def test_short_sentences_wait_for_each_other(gate: Gate) -> None:
    stream = StreamGate(gate)
    assert stream.push("Yes! Of course! ") == ""
    assert stream.push("It works. ") == "Yes! Of course! It works. "


def test_chinese_sentences_end_without_a_space(gate: Gate) -> None:
    sentence = "这是一个足够长的句子，用来看看它是不是会在句号之后马上放行。"
    stream = StreamGate(gate)
    assert stream.push(sentence + "下") == sentence


def test_the_stream_says_when_it_is_cut_and_stays_cut(gate: Gate) -> None:
    stream = StreamGate(gate)
    assert stream.push("This part is quite harmless. ") == "This part is quite harmless. "
    assert not stream.cut
    assert stream.push("But here it goes BOOM, as all can see. ") == ""
    assert stream.cut
    assert stream.push("Something harmless after that, and long. ") == ""
    rest, verdict = stream.finish()
    assert rest == ""
    assert (verdict.state, verdict.categories) == ("blocked", ("violence",))


def test_harm_across_the_edge_of_two_pieces_is_seen(gate: Gate) -> None:
    filler = "x" * (HELD_BACK - 2)
    shown, verdict = play(gate, [filler + "BOOM" + "y" * 300])
    assert verdict.state == "blocked"
    assert shown == filler + "BO"


def test_harm_late_in_a_long_stream_is_seen_before_it_leaves(gate: Gate) -> None:
    stream = StreamGate(gate)
    for _ in range(40):
        assert stream.push("Twenty-four letters now. ")
    assert stream.push("And here it goes BOOM at last. ") == ""
    assert stream.cut


def test_the_rest_is_judged_before_it_is_released(gate: Gate) -> None:
    stream = StreamGate(gate)
    assert stream.push("BOOM") == ""
    rest, verdict = stream.finish()
    assert (rest, verdict.state, stream.cut) == ("", "blocked", True)


def test_a_warning_on_the_way_is_kept_to_the_end(policy: Policy) -> None:
    class OnlyShort:
        """Sees something in a short text that it misses in a long one."""

        def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
            return [{"violence": 0.3 if len(text) < 60 else 0.0} for text in texts]

    shown, verdict = play(
        Gate(policy, OnlyShort()),
        ["A short sentence, a warning. ", "And then a great deal more text that follows."],
    )
    assert len(shown) == 74
    assert verdict.state == "warned"


def test_a_filter_that_is_down_follows_the_policy(make_policy: Any) -> None:
    class Down:
        def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
            raise RuntimeError

    text = "A sentence that is long enough to be released. And more."
    shown, verdict = play(Gate(make_policy(on_failure="open"), Down()), [text])
    assert (shown, verdict.state) == (text, "unchecked")
    shown, verdict = play(Gate(make_policy(on_failure="closed"), Down()), [text])
    assert (shown, verdict.state) == ("", "blocked")


def test_the_cost_of_a_stream_is_linear_in_its_length(policy: Policy, keywords: Any) -> None:
    def characters_per_character(length: int) -> float:
        classifier = keywords(WORDS)
        play(Gate(policy, classifier), ["Twenty-four letters now. "] * (length // 25))
        return classifier.seen / length

    assert characters_per_character(20_000) < 1.2 * characters_per_character(5_000)


def test_what_was_asked_reaches_the_classifier(policy: Policy, keywords: Any) -> None:
    classifier = keywords(WORDS)
    stream = StreamGate(Gate(policy, classifier), context="the question")
    stream.push("An answer that is a sentence. ")
    stream.finish()
    assert classifier.contexts == ["the question", "the question"]
