"""Contests for feedback: one at a time, entries that are their ratings, and draws that anybody can check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from tutelage.errors import Conflict, Denied, InvalidRequest, NotFound
from tutelage.store import Store, accounts, bin, campaigns, export, feedback, opinions
from tutelage.store.campaigns import Call, draws, entries
from tutelage.store.ids import now
from tutelage.store.restoring import restore
from tutelage.store.tables import Campaign, Message

Chat = Callable[..., list[Message]]
DAY = timedelta(days=1)


def call(**changes: Any) -> Call:
    whole = Call(title="Contest", rules="Be **kind**.", opens=now(), closes=now() + DAY)
    return replace(whole, **changes)


def plan(store: Store, by: str, **changes: Any) -> str:
    with store.write() as tx:
        return campaigns.plan_campaign(tx, call(**changes), by=by).id


def end(store: Store, campaign_id: str) -> None:
    with store.write() as tx:
        campaigns.move_end(tx, campaign_id, now() - DAY)


def rate(store: Store, user_id: str, message_id: str, **more: Any) -> str:
    with store.write() as tx:
        rated: dict[str, Any] = {"verdict": "down", "note": "a note", **more}
        return feedback.rate(tx, message_id=message_id, rater_id=user_id, **rated).id


def enter(store: Store, campaign_id: str, user_id: str, message_id: str) -> str:
    with store.write() as tx:
        return entries.enter(tx, campaign_id=campaign_id, message_id=message_id, user_id=user_id).id


def entered(store: Store, campaign_id: str, chat: Chat, user_id: str, *answers: str) -> list[str]:
    """Ids of entries of one person, a chat each."""
    made = []
    for answer in answers:
        message_id = chat(user_id, "q", answer)[1].id
        rate(store, user_id, message_id)
        made.append(enter(store, campaign_id, user_id, message_id))
    return made


def make_people(store: Store, count: int) -> list[str]:
    with store.write() as tx:
        return [
            accounts.create_user(tx, name=f"person {number}", password_hash="-", role="user").id
            for number in range(count)
        ]


def test_a_campaign_opens_and_closes_by_the_clock_and_one_is_open_at_a_time(
    store: Store, cast: SimpleNamespace
) -> None:
    first = plan(store, cast.operator)
    later = plan(store, cast.operator, title="Later", opens=now() + 2 * DAY, closes=now() + 3 * DAY)
    with store.write() as tx:
        found = campaigns.open_campaign(tx)
        assert found is not None
        assert found.id == first
        assert [campaigns.state(row) for row in campaigns.list_campaigns(tx)] == ["planned", "open"]
    with pytest.raises(Conflict, match="Later"), store.write() as tx:
        campaigns.move_end(tx, first, now() + 2.5 * DAY)
    for opens, closes in ((0.5, 0.6), (0.5, 5), (-1, 9), (2.5, 2.6)):
        with pytest.raises(Conflict, match="is open from"):
            plan(store, cast.operator, opens=now() + opens * DAY, closes=now() + closes * DAY)
    with store.write() as tx:
        campaigns.change_campaign(
            tx, later, call(title="Sooner", opens=now() + 1.5 * DAY, closes=now() + 4 * DAY)
        )
        with pytest.raises(Conflict, match="rules stand"):
            campaigns.change_campaign(tx, first, call(rules="Something else."))
        with pytest.raises(Conflict):
            campaigns.move_end(tx, later, now() + 9 * DAY)
        campaigns.move_end(tx, first, now())
        assert campaigns.open_campaign(tx) is None
        with pytest.raises(Conflict):
            campaigns.move_end(tx, first, now() + DAY / 2)
        campaigns.delete_campaign(tx, later)
        with pytest.raises(NotFound):
            campaigns.get_campaign(tx, later)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"title": "  "}, "title"),
        ({"rules": "\n"}, "rules"),
        ({"title": "x" * 121}, "title"),
        ({"closes": datetime(2020, 1, 2, tzinfo=UTC), "opens": datetime(2020, 1, 1, tzinfo=UTC)}, "closes"),
        ({"opens": datetime(2999, 1, 2, tzinfo=UTC)}, "closes"),
        ({"weight": "luck"}, "weight"),
    ],
)
def test_what_cannot_be_a_campaign_is_refused(
    store: Store, cast: SimpleNamespace, wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(store, cast.operator, **wrong)
    assert caught.value.param == field
    with store.read() as tx:
        assert not campaigns.list_campaigns(tx)


def test_an_entry_is_its_rating_and_goes_with_it(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    answer = chat(cast.private, "q", "a")[1].id
    with pytest.raises(NotFound, match="not rated"):
        enter(store, contest, cast.private, answer)
    rate(store, cast.private, answer)
    first = enter(store, contest, cast.private, answer)
    assert enter(store, contest, cast.private, answer) == first
    rate(store, cast.private, answer, verdict="up", note="another note")
    with store.read() as tx:
        [row] = entries.list_entries(tx, contest, limit=9)
        assert (row.entry.id, row.person.name, row.rating.note) == (first, "private", "another note")
        assert entries.count_entries(tx, contest) == (1, 1)
    with store.write() as tx:
        feedback.withdraw(tx, message_id=answer, rater_id=cast.private)
        assert entries.count_entries(tx, contest) == (0, 0)
    rate(store, cast.private, answer)
    enter(store, contest, cast.private, answer)
    end(store, contest)
    with store.write() as tx:
        took = {"campaign_id": contest, "message_id": answer, "user_id": cast.private}
        assert entries.take_back(tx, **took)
        assert not entries.take_back(tx, **took)
        assert entries.parts_of(tx, cast.private) == []


def test_who_may_not_enter_is_told_why(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    with store.write() as tx:
        guest = accounts.create_guest(tx).id
    refused: list[tuple[str, type[Exception], dict[str, Any]]] = [
        (guest, Denied, {}),
        (cast.operator, Denied, {}),
        (cast.reader, InvalidRequest, {"temporary": True}),
    ]
    for person, error, kind in refused:
        answer = chat(person, "q", "a", **kind)[1].id
        rate(store, person, answer)
        with pytest.raises(error):
            enter(store, contest, person, answer)
    mine = chat(cast.reader, "q", "a")[1].id
    rate(store, cast.reader, mine)
    with pytest.raises(NotFound):
        enter(store, contest, cast.private, mine)
    with pytest.raises(NotFound):
        enter(store, "none", cast.reader, mine)
    end(store, contest)
    with pytest.raises(Conflict):
        enter(store, contest, cast.reader, mine)


def test_an_entry_lets_operators_read_what_it_shares_and_models_learn_nothing(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    contest = plan(store, cast.operator)
    rows = chat(cast.private, "my question", "an answer")
    rating = rate(store, cast.private, rows[1].id, ideal="a better one")
    with store.write() as tx:
        with pytest.raises(Denied):
            opinions.read_opinion(tx, rating, reader_id=cast.operator)
        entries.enter(tx, campaign_id=contest, message_id=rows[1].id, user_id=cast.private)
        reading = opinions.read_opinion(tx, rating, reader_id=cast.operator)
        assert [turn["content"] for turn in reading.messages] == ["my question", "an answer"]
        assert (reading.note, reading.ideal) == ("a note", "a better one")
        assert [each.ground for each in opinions.list_opinions(tx)] == ["entry"]
        assert not list(export.demonstrations(tx))
        bin.bin_dialogue(tx, rows[0].dialogue_id, owner_id=cast.private)
        assert entries.count_entries(tx, contest) == (0, 0)
        with pytest.raises(Denied):
            opinions.read_opinion(tx, rating, reader_id=cast.operator)
        bin.restore_dialogue(tx, rows[0].dialogue_id, owner_id=cast.private)
        entries.take_back(tx, campaign_id=contest, message_id=rows[1].id, user_id=cast.private)
        with pytest.raises(Denied):
            opinions.read_opinion(tx, rating, reader_id=cast.operator)


def test_an_entry_shares_neither_instructions_nor_what_was_blocked(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.private, "q", "a")
    rate(store, cast.private, rows[1].id)
    with store.write() as tx:
        rating = feedback.ratings_for(tx, [rows[1].id], cast.private)[rows[1].id]
        hidden = [
            {"role": "system", "content": "I live in Taipei.", "status": "complete"},
            {"role": "assistant", "content": "Something bad.", "status": "blocked"},
        ]
        rating.path = [*hidden, *rating.path]
        assert [turn["content"] for turn in entries.shown_messages(rating)] == ["q", "a"]


def test_winners_follow_from_the_seed_and_nobody_wins_twice(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    contest = plan(store, cast.operator, weight="entry")
    people = make_people(store, 6)
    tickets = {
        entry: person for person in people for entry in entered(store, contest, chat, person, "a", "b")
    }
    with store.write() as tx, pytest.raises(Conflict, match="ended"):
        draws.draw(tx, contest, 1)
    end(store, contest)
    with store.write() as tx:
        campaign = campaigns.get_campaign(tx, contest)
        seed = campaign.seed
        assert campaigns.seal(campaign) == hashlib.sha256(seed.encode()).hexdigest()
        ranked = sorted(tickets, key=lambda entry: hashlib.sha256(f"{seed}:{entry}".encode()).hexdigest())
        expected = list(dict.fromkeys(tickets[entry] for entry in ranked))
        drawn = [winner.winner_id for winner in draws.draw(tx, contest, 2)]
        assert drawn == expected[:2]
    with store.write() as tx:
        loser = expected[3]
        [part, _] = entries.parts_of(tx, loser)
        entries.take_back(tx, campaign_id=contest, message_id=part.message_id, user_id=loser)
        accounts.delete_user(tx, expected[2])
    with store.write() as tx:
        more = [winner.winner_id for winner in draws.draw(tx, contest, 99)]
        assert {*more} == {*expected[3:]}
        assert [place for place, _ in enumerate(draws.list_winners(tx, contest), 1)] == [1, 2, 3, 4, 5]
        with pytest.raises(Conflict, match="nobody left"):
            draws.draw(tx, contest, 1)
        for wrong in (0, -1, 1001):
            with pytest.raises(InvalidRequest):
                draws.draw(tx, contest, wrong)


def test_the_weight_is_as_the_rules_say(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    much, little = make_people(store, 2)
    entered(store, contest, chat, much, *"abcdefghi")
    entered(store, contest, chat, little, "a")
    shares = {}
    with store.read() as tx:
        for weight in ("person", "entry"):
            first = 0
            for number in range(300):
                campaign = Campaign(id=contest, weight=weight, seed=str(number))
                found = draws.lots(tx, campaign)
                first += found[much] < found[little]
            shares[weight] = first / 300
    assert 0.4 < shares["person"] < 0.6
    assert 0.84 < shares["entry"] < 0.96


def test_operators_are_left_out_of_the_draw(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    entered(store, contest, chat, cast.reader, "a")
    end(store, contest)
    with store.write() as tx:
        accounts.set_role(tx, cast.reader, "operator")
        with pytest.raises(Conflict):
            draws.draw(tx, contest, 1)


def test_who_leaves_takes_their_entries_along_and_leaves_no_name(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    contest = plan(store, cast.operator)
    entered(store, contest, chat, cast.private, "a")
    end(store, contest)
    with store.write() as tx:
        draws.draw(tx, contest, 1)
        accounts.leave(tx, cast.private)
        assert entries.count_entries(tx, contest) == (0, 0)
        [(winner, person)] = draws.list_winners(tx, contest)
        assert (winner.place, winner.winner_id, person) == (1, None, None)


def test_a_campaign_that_was_entered_stays(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    entered(store, contest, chat, cast.private, "a")
    with store.write() as tx, pytest.raises(Conflict, match="entered"):
        campaigns.delete_campaign(tx, contest)


@pytest.mark.sqlite
def test_an_entry_that_was_taken_back_does_not_return_with_a_backup(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    contest = plan(store, cast.operator)
    answer = chat(cast.private, "q", "a")[1].id
    rate(store, cast.private, answer)
    enter(store, contest, cast.private, answer)
    store.backup(store.place.with_name("copy.db"))
    with store.write() as tx:
        entries.take_back(tx, campaign_id=contest, message_id=answer, user_id=cast.private)
    restore(store.place.with_name("copy.db"), store.place)
    with store.read() as tx:
        assert entries.count_entries(tx, contest) == (0, 0)
        assert feedback.ratings_for(tx, [answer], cast.private)


def test_entries_are_listed_in_parts(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    made = entered(store, contest, chat, cast.reader, *"abcde")
    found: list[str] = []
    with store.read() as tx:
        while batch := entries.list_entries(tx, contest, limit=2, after=found[-1] if found else None):
            found += [each.entry.id for each in batch]
    assert found == made


def test_the_clock_alone_closes(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    contest = plan(store, cast.operator)
    entered(store, contest, chat, cast.reader, "a")
    with store.write() as tx:
        tx.execute(update(Campaign).values(opens=now() - 2 * DAY, closes=now() - timedelta(seconds=1)))
    with store.write() as tx:
        assert campaigns.open_campaign(tx) is None
        assert len(draws.draw(tx, contest, 3)) == 1
