"""Campaigns for feedback, their entries and winners."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("prize", sa.Text(), nullable=False),
        sa.Column("weight", sa.Text(), nullable=False),
        sa.Column("opens", sa.DateTime(), nullable=False),
        sa.Column("closes", sa.DateTime(), nullable=False),
        sa.Column("seed", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name="fk_campaigns_created_by", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_campaigns"),
    )
    op.create_table(
        "campaign_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Text(), nullable=False),
        sa.Column("rating_id", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_campaign_entries_campaign_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rating_id"], ["ratings.id"], name="fk_campaign_entries_rating_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_campaign_entries"),
        sa.UniqueConstraint("campaign_id", "rating_id", name="uq_campaign_entries_campaign_id_rating_id"),
    )
    op.create_index("ix_campaign_entries_rating_id", "campaign_entries", ["rating_id"])
    op.create_table(
        "campaign_winners",
        sa.Column("campaign_id", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("winner_id", sa.Text(), nullable=True),
        sa.Column("lot", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name="fk_campaign_winners_campaign_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["winner_id"], ["users.id"], name="fk_campaign_winners_winner_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "place", name="pk_campaign_winners"),
        sa.UniqueConstraint("campaign_id", "winner_id", name="uq_campaign_winners_campaign_id_winner_id"),
    )
    op.create_index("ix_campaign_winners_winner_id", "campaign_winners", ["winner_id"])
