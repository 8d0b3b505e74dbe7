"""Reading the conversations of a ChatGPT data export (`conversations.json`): trees with all their branches.

A conversation's `mapping` is a tree of nodes, many of which nobody ever saw: an empty root, instructions, calls of
tools, thoughts. What is left alternates: texts of one speaker in a row become one message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tutelage.dialogue import Role

LONGEST_TITLE = 200
MOST_REPEATED = 100_000
"""So many characters of a conversation may stand in it more than once: a file of a megabyte could become gigabytes."""
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Node:
    """One message of a tree; `parent` is the index of an earlier one."""

    parent: int | None
    role: Role
    content: str
    model: str | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it can be stored: parents stand before their children. `key` names it in its export."""

    key: str
    title: str
    created: datetime | None
    nodes: list[Node]


def read_conversation(record: Any) -> Conversation | None:
    """One record of the export; None when it holds no question that somebody asked."""
    if not isinstance(record, dict) or not isinstance(record.get("mapping"), dict):
        return None
    nodes = _merged(_spoken(record["mapping"]))
    if not nodes:
        return None
    return Conversation(
        key=_text(record.get("conversation_id")) or _text(record.get("id")),
        title=_text(record.get("title"))[:LONGEST_TITLE],
        created=_time(record.get("create_time")),
        nodes=nodes,
    )


def _spoken(mapping: Mapping[str, Any]) -> list[Node]:
    """What was said, each under what was said before it. The first word is the user's."""
    found: list[Node] = []
    roots = [name for name, node in mapping.items() if _dict(node).get("parent") not in mapping]
    waiting: list[tuple[str, int | None]] = [(name, None) for name in reversed(roots)]
    seen: set[str] = set()
    while waiting:
        name, above = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = _dict(mapping.get(name))
        said = _said(_dict(node.get("message")), above)
        if said is not None and (above is not None or said.role == "user"):
            found.append(said)
            above = len(found) - 1
        children = node.get("children")
        names = [child for child in children if isinstance(child, str)] if isinstance(children, list) else []
        waiting += [(child, above) for child in reversed(names)]
    return found


def _merged(nodes: list[Node]) -> list[Node]:
    """Texts of one speaker in a row as one message. Where such a row branches, each branch has the whole of it.

    Of a row that is repeated too often, only the first branches have the beginning; nothing is lost, for the beginning
    is a message as well.
    """
    children = Counter(node.parent for node in nodes)
    found: list[Node] = []
    texts: list[list[str]] = []
    places: list[int] = []
    room = MOST_REPEATED
    for node in nodes:
        above = None if node.parent is None else places[node.parent]
        if above is None or found[above].role != node.role:
            found.append(replace(node, parent=above))
            texts.append([node.content])
        else:
            row = replace(found[above], model=node.model or found[above].model)
            if children[node.parent] == 1:
                found[above] = row
                texts[above].append(node.content)
                places.append(above)
                continue
            texts[above] = ["\n\n".join(texts[above])]
            again = texts[above] if len(texts[above][0]) <= room else []
            room -= sum(map(len, again))
            found.append(row)
            texts.append([*again, node.content])
        places.append(len(found) - 1)
    return [replace(node, content="\n\n".join(text)) for node, text in zip(found, texts, strict=True)]


def _said(message: Mapping[str, Any], above: int | None) -> Node | None:
    """A node's visible words; None for what was addressed to a tool, hidden or empty."""
    role = _text(_dict(message.get("author")).get("role"))
    metadata = _dict(message.get("metadata"))
    content = _dict(message.get("content"))
    hidden = metadata.get("is_visually_hidden_from_conversation") or message.get("recipient", "all") != "all"
    if role not in ("user", "assistant") or hidden:
        return None
    if content.get("content_type") not in ("text", "multimodal_text"):
        return None
    parts = content.get("parts")
    text = "\n\n".join(_text(part) for part in parts if _text(part)) if isinstance(parts, list) else ""
    if not text:
        return None
    model = _text(metadata.get("model_slug")) or None
    return Node(above, "user" if role == "user" else "assistant", text, model)


def _time(value: Any) -> datetime | None:
    """A moment from seconds since 1970; None for one that cannot be."""
    try:
        moment = datetime.fromtimestamp(float(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment if EARLIEST <= moment <= LATEST else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
