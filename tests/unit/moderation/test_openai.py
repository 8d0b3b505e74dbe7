from __future__ import annotations

from openai.types import Moderation

from tutelage.moderation.categories import CATEGORIES
from tutelage.moderation.openai import openai_result
from tutelage.moderation.policy import Policy


def test_all_thirteen_categories_are_there(policy: Policy) -> None:
    result = openai_result({"violence": 0.6, "hate": 0.1}, policy)
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert set(result[part]) == set(CATEGORIES)
    assert result["flagged"]
    assert [name for name, found in result["categories"].items() if found] == ["violence"]
    assert result["category_scores"]["violence"] == 0.6


def test_a_category_that_was_not_judged_was_applied_to_nothing(policy: Policy) -> None:
    result = openai_result({"violence": 0.1}, policy)
    assert not result["flagged"]
    assert result["category_applied_input_types"]["violence"] == ["text"]
    assert result["category_applied_input_types"]["sexual/minors"] == []
    assert result["category_scores"]["sexual/minors"] == 0.0


def test_the_official_client_reads_it(policy: Policy) -> None:
    assert Moderation.model_validate(
        openai_result({"violence": 0.6}, policy), strict=True
    ).categories.violence
