"""Work for trainers: dialogues they write from both sides, and answers they rank."""

from tutelage.store.labelling.agreement import Estimate
from tutelage.store.labelling.demonstrations import (
    Brief,
    delete_draft,
    drafts,
    get_demonstration,
    list_demonstrations,
    review_demonstration,
    save_demonstration,
)
from tutelage.store.labelling.guidelines import change_guidelines, current_guidelines, guidelines_history
from tutelage.store.labelling.provenance import provenance
from tutelage.store.labelling.ranking import (
    LabelledTask,
    adjudicate,
    fix_candidate,
    labelled_task,
    rankings_by,
    set_candidates,
    submit_ranking,
)
from tutelage.store.labelling.reliability import Agreement, agreement, reliability_weights
from tutelage.store.labelling.settings import (
    TOPICS,
    LabellingSettings,
    change_labelling_settings,
    labelling_settings,
)
from tutelage.store.labelling.tasks import (
    RankingTask,
    flagged_tasks,
    next_ranking_task,
    ranking_task,
    release,
    renew_lease,
)
from tutelage.store.labelling.writing_prompts import (
    Start,
    add_writing_prompts,
    count_writing_prompts,
    draw_start,
    note_use,
)

__all__ = [
    "TOPICS",
    "Agreement",
    "Brief",
    "Estimate",
    "LabelledTask",
    "LabellingSettings",
    "RankingTask",
    "Start",
    "add_writing_prompts",
    "adjudicate",
    "agreement",
    "change_guidelines",
    "change_labelling_settings",
    "count_writing_prompts",
    "current_guidelines",
    "delete_draft",
    "drafts",
    "draw_start",
    "fix_candidate",
    "flagged_tasks",
    "get_demonstration",
    "guidelines_history",
    "labelled_task",
    "labelling_settings",
    "list_demonstrations",
    "next_ranking_task",
    "note_use",
    "provenance",
    "ranking_task",
    "rankings_by",
    "release",
    "reliability_weights",
    "renew_lease",
    "review_demonstration",
    "save_demonstration",
    "set_candidates",
    "submit_ranking",
]
