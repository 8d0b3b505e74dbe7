"""Every table, one class each: the data model.

    users ─┬─ sessions, identities, operator_links, api_keys  who may come in
           ├─ dialogues ── messages (a tree by parent_id)   what was said, by whom, by which version
           │                 ├─ ratings                     thumbs and corrections, with the path they judged
           │                 ├─ picks                       which of two answers was better
           │                 ├─ moderation_reports          where the content filter was wrong
           │                 └─ labelling_tasks ─┬─ candidates
           │                                     ├─ leases  one per annotator who ever saw the task
           │                                     └─ rankings
           └─ demonstrations                                dialogues whose both sides a person wrote
    writing_prompts, guidelines                             what writers begin from and go by
    comparisons                                             judged completions that came from files
    snapshots                                               immutable exports that models train on
    tombstones                                              ids of rows that were deleted
    run_requests ─► runs                                    what the worker should do, and what was done
    workers                                                 which processes carry that out
    experiments                                             two versions side by side in the chat
    campaigns ─► campaign_entries, campaign_winners         contests for feedback: ratings that readers have entered
    settings                                                what operators have set

Every row that can train a model says who wrote it (`owner_id`, `author_id`, `rater_id`, `annotator_id`, or
`author` for people known only to an imported file), which version spoke (`model_version`), and whether its
author consented (`consent`). A dialogue's `consent` covers all that was said in it; a ranking and a written
demonstration exist to train models, and are used only while the dialogue they stand on allows it.

Deleting a dialogue deletes everything that hangs on it; deleting a user deletes their dialogues, and leaves
their rankings and demonstrations without a name.

Ids are UUIDv7 as text, so sorting by id is sorting by time. Times are UTC. Rows are used after their session
is closed: there are no relationships, hence nothing is ever loaded behind a reader's back.
"""

from tutelage.store.tables.base import (
    Base,
)
from tutelage.store.tables.campaigns import (
    Campaign,
    CampaignEntry,
    CampaignWeight,
    CampaignWinner,
)
from tutelage.store.tables.chat import (
    AuthorKind,
    Dialogue,
    Message,
    MessageStatus,
    Pick,
    PickKind,
    PickVerdict,
    Rating,
    RatingVerdict,
    Report,
    ReportKind,
    ReportStatus,
    SearchOwner,
    SearchRow,
    Share,
)
from tutelage.store.tables.labelling import (
    Candidate,
    ComparisonRow,
    Demonstration,
    DemonstrationStatus,
    Guidelines,
    LabellingTask,
    Lease,
    LeaseStatus,
    Ranking,
    WritingPrompt,
)
from tutelage.store.tables.operations import (
    AuditAction,
    AuditEntry,
    Experiment,
    ExperimentStatus,
    RequestStatus,
    Run,
    RunRequest,
    RunStatus,
    Setting,
    SnapshotRow,
    Tombstone,
    Worker,
)
from tutelage.store.tables.people import (
    ApiKey,
    Identity,
    Invite,
    OperatorLink,
    Usage,
    User,
    UserRole,
    UserSession,
)

__all__ = [
    "ApiKey",
    "AuditAction",
    "AuditEntry",
    "AuthorKind",
    "Base",
    "Campaign",
    "CampaignEntry",
    "CampaignWeight",
    "CampaignWinner",
    "Candidate",
    "ComparisonRow",
    "Demonstration",
    "DemonstrationStatus",
    "Dialogue",
    "Experiment",
    "ExperimentStatus",
    "Guidelines",
    "Identity",
    "Invite",
    "LabellingTask",
    "Lease",
    "LeaseStatus",
    "Message",
    "MessageStatus",
    "OperatorLink",
    "Pick",
    "PickKind",
    "PickVerdict",
    "Ranking",
    "Rating",
    "RatingVerdict",
    "Report",
    "ReportKind",
    "ReportStatus",
    "RequestStatus",
    "Run",
    "RunRequest",
    "RunStatus",
    "SearchOwner",
    "SearchRow",
    "Setting",
    "Share",
    "SnapshotRow",
    "Tombstone",
    "Usage",
    "User",
    "UserRole",
    "UserSession",
    "Worker",
    "WritingPrompt",
]
