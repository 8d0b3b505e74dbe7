"""Work for trainers: dialogues they write from both sides, and answers they rank."""

from tutelage.store.labelling.demonstrations import (
    delete_draft,
    drafts,
    get_demonstration,
    list_demonstrations,
    review_demonstration,
    save_demonstration,
)
from tutelage.store.labelling.ranking import (
    RankingTask,
    count_rankings,
    next_ranking_task,
    ranking_task,
    rankings_by,
    release,
    renew_lease,
    set_candidates,
    submit_ranking,
)

__all__ = [
    "RankingTask",
    "count_rankings",
    "delete_draft",
    "drafts",
    "get_demonstration",
    "list_demonstrations",
    "next_ranking_task",
    "ranking_task",
    "rankings_by",
    "release",
    "renew_lease",
    "review_demonstration",
    "save_demonstration",
    "set_candidates",
    "submit_ranking",
]
