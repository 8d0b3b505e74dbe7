"""The log of operators keeps codes for what was done, told in its reader's language; it kept English words."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CODES = {
    "start round": "start_round",
    "stop round": "stop_round",
    "resume round": "resume_round",
    "promote version": "promote_version",
    "start experiment": "start_experiment",
    "end experiment": "end_experiment",
    "planned a campaign": "plan_campaign",
    "changed a campaign": "change_campaign",
    "moved a campaign's end": "move_campaign_end",
    "closed a campaign": "close_campaign",
    "deleted a campaign": "delete_campaign",
    "drew winners": "draw_winners",
    "took a campaign's entries out": "export_entries",
    "changed who may come in": "change_access",
    "invited somebody": "invite",
    "took an invitation back": "revoke_invite",
    "made an account": "make_account",
    "changed a role": "change_role",
    "made a key": "make_key",
    "revoked a key": "revoke_key",
    "decided a report": "decide_report",
    "read feedback": "read_feedback",
    "read training data": "read_data",
}


def upgrade() -> None:
    log = sa.table("audit_log", sa.column("action", sa.Text()))
    for words, code in CODES.items():
        op.execute(sa.update(log).where(log.c.action == words).values(action=code))
