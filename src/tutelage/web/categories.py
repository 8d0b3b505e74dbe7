"""What the categories of the content filter are called on the pages."""

from __future__ import annotations

from tutelage.errors import Sentence
from tutelage.moderation.categories import Category
from tutelage.web.catalogue import Translate

NAMES: dict[Category, Sentence] = {
    "harassment": Sentence("harassment"),
    "harassment/threatening": Sentence("harassment with threats"),
    "hate": Sentence("hate"),
    "hate/threatening": Sentence("hate with threats"),
    "illicit": Sentence("wrongdoing"),
    "illicit/violent": Sentence("violent wrongdoing"),
    "self-harm": Sentence("self-harm"),
    "self-harm/intent": Sentence("intent of self-harm"),
    "self-harm/instructions": Sentence("instructions for self-harm"),
    "sexual": Sentence("sexual content"),
    "sexual/minors": Sentence("sexual content with minors"),
    "violence": Sentence("violence"),
    "violence/graphic": Sentence("graphic violence"),
}


def named(category: Category, t: Translate) -> str:
    """A category in the reader's language; one of another filter stays as it is."""
    return NAMES[category].told(t) if category in NAMES else category
