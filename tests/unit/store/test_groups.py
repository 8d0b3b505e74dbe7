"""Nobody's prompt and, where that can be, nobody's words stand on both sides of a split."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.datasets.splits import is_held_out, split
from tutelage.dialogue import Comparison, Dialogue, Message, root_of
from tutelage.store import Store, export, imports
from tutelage.store.export.groups import LARGEST, Groups, Row, group_rows


def row(root: int, author: str | None, *, judged: bool = False) -> Row:
    prompt = (Message("user", f"question {root}"),)
    return Comparison(prompt, (), (), author=author) if judged else Dialogue(prompt, author=author)


ROWS = st.lists(
    st.builds(
        row,
        st.integers(0, 60),
        st.none() | st.sampled_from([f"person {n}" for n in range(12)]),
        judged=st.booleans(),
    ),
    max_size=150,
)


def sides(rows: list[Row], groups: Groups, share: float) -> tuple[list[Row], list[Row]]:
    """The rows as a snapshot gives them to training, split there."""
    train: list[Row] = []
    held_out: list[Row] = []
    for kind in (Dialogue, Comparison):
        chosen = [grouped(each, groups.of(each)) for each in rows if isinstance(each, kind)]
        for side, part in zip((train, held_out), split(chosen, share), strict=True):
            side += part
    return train, held_out


def grouped(row: Row, group: str) -> Row:
    if isinstance(row, Dialogue):
        return Dialogue(row.messages, author=row.author, group=group)
    return Comparison(row.prompt, (), (), author=row.author, group=group)


@given(ROWS, st.floats(0, 1))
def test_a_prompt_never_stands_on_both_sides_nor_an_author_but_those_that_are_divided(
    rows: list[Row], share: float
) -> None:
    groups = group_rows(rows)
    train, held_out = sides(rows, groups, share)
    assert len(train) + len(held_out) == len(rows)
    assert not {root_of(each) for each in train} & {root_of(each) for each in held_out}
    authors = [{each.author for each in side if each.author} for side in (train, held_out)]
    assert len(authors[0] & authors[1]) <= groups.authors - groups.whole


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=True), st.integers(0, 200), st.floats(0.2, 0.8))
def test_people_who_come_later_move_nobody_but_a_group_that_they_tie_to_an_older_one(
    chance: random.Random, later: int, share: float
) -> None:
    rows = [
        replace(row(chance.randrange(150), f"person {chance.randrange(60)}"), id=f"{number:04d}")
        for number in range(200 + later)
    ]
    first = rows[:200]
    before, after = group_rows(first), group_rows(rows)
    old = {root_of(each): index for index, each in reversed([*enumerate(rows)])}

    def oldest(groups: Groups, root: str) -> str:
        group = groups.of_root.get(root)
        members = [name for name, key in groups.of_root.items() if key == group] if group else [root]
        return min(members, key=lambda name: old[name])

    for each in first:
        root = root_of(each)
        sides = [is_held_out(grouped(each, groups.of(each)), share) for groups in (before, after)]
        leaders = [oldest(groups, root) for groups in (before, after)]
        alone = [is_held_out(Dialogue((Message("user", leader),)), share) for leader in leaders]
        assert sides == alone
        if leaders[0] != leaders[1] and root == leaders[0]:
            assert old[leaders[1]] < old[leaders[0]]


def test_a_person_between_two_rounds_leaves_everybody_where_they_were() -> None:
    rows = [
        replace(row(10 * person + turn, f"person {person}"), id=f"{person:03d}{turn}")
        for person in range(40)
        for turn in range(4)
    ]
    before = group_rows(rows)
    for newcomer in ("a newcomer", "another", "and one more"):
        joins = [replace(row(31, newcomer), id="9000"), replace(row(777, newcomer), id="9001")]
        after = group_rows([*rows, *joins])
        assert [after.of(each) for each in rows] == [before.of(each) for each in rows]
        assert after.of(joins[1]) == before.of(rows[12])


@given(ROWS, st.randoms())
def test_groups_are_small_and_do_not_depend_on_the_order(rows: list[Row], chance: random.Random) -> None:
    groups = group_rows(rows)
    mixed = rows.copy()
    chance.shuffle(mixed)
    assert group_rows(mixed) == groups
    members: dict[str, set[str]] = {}
    for root, group in groups.of_root.items():
        members.setdefault(group, set()).add(root)
    for roots in members.values():
        size = sum(root_of(each) in roots for each in rows)
        assert len(roots) == 1 or size <= LARGEST * len(rows)


def test_many_people_are_kept_whole_and_one_who_wrote_half_is_divided() -> None:
    rows = [row(10 * person + turn, f"person {person}") for person in range(40) for turn in range(4)]
    rows += [row(1000 + turn, "somebody busy") for turn in range(160)]
    groups = group_rows(rows)
    assert groups.report() == {
        "authors": 41,
        "authors_whole": 40,
        "authors_divided": 1,
        "largest_group": round(4 / 320, 4),
    }
    train, held_out = sides(rows, groups, 0.2)
    assert 0.1 < len(held_out) / len(rows) < 0.3
    both = {each.author for each in train} & {each.author for each in held_out}
    assert both == {"somebody busy"}


def test_who_ranks_everybodys_chats_ties_nobody_to_anybody() -> None:
    rows = [row(10 * person + turn, f"person {person}") for person in range(40) for turn in range(4)]
    rows += [row(10 * person + turn, "annotator", judged=True) for person in range(40) for turn in range(4)]
    groups = group_rows(rows)
    assert (groups.whole, groups.authors) == (40, 41)
    assert len({*groups.of_root.values()}) == 40


def test_one_author_alone_is_split_by_prompt() -> None:
    groups = group_rows([row(number, "me") for number in range(30)])
    assert (groups.whole, groups.of_root) == (0, {})


def test_a_snapshot_carries_groups_without_names_and_says_how_it_can_be_split(
    store: Store, tmp_path: Path
) -> None:
    with store.write() as tx:
        for person in range(25):
            for turn in range(2):
                texts = (Message("user", f"{person}/{turn}"), Message("assistant", "yes"))
                found = Dialogue(texts, source="file", author=f"secret {person}")
                imports.import_dialogue(tx, found, demonstration=True)
    made = export.snapshot(store, tmp_path)
    rows = list(export.read_demonstrations(made.path))
    prompts = list(export.read_prompts(made.path))
    for each in (rows, prompts):
        by_author: dict[str | None, set[str]] = {}
        for one in each:
            by_author.setdefault(one.author, set()).add(one.group)
        assert {len(groups) for groups in by_author.values()} == {1}
        assert len(set.union(*by_author.values())) == 25
    assert not any("secret" in one.group for one in rows)
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["split"]["authors_whole"] == 25
    assert export.snapshot(store, tmp_path).hash == made.hash


def test_a_snapshot_of_earlier_days_is_read_as_it_was_split(store: Store, tmp_path: Path) -> None:
    with store.write() as tx:
        found = Dialogue((Message("user", "a"), Message("assistant", "b")), source="file")
        imports.import_dialogue(tx, found, demonstration=True)
    made = export.snapshot(store, tmp_path)
    file = made.path / "demonstrations.jsonl"
    old = [json.loads(line) for line in file.read_text().splitlines()]
    for line in old:
        del line["group"]
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    manifest = json.loads((made.path / "manifest.json").read_text())
    manifest["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    assert [each.group for each in export.read_demonstrations(made.path)] == [""]
