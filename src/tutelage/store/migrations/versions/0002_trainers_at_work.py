"""Trainers at work: random draws by index, gold tasks, adjudication, guidelines, picks, experiments, settings."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _labelling()
    _chat()
    _operations()


def _labelling() -> None:
    op.add_column("demonstrations", sa.Column("topic", sa.Text(), nullable=False, server_default=""))
    op.add_column("demonstrations", sa.Column("guidelines", sa.Integer(), nullable=True))
    op.add_column("demonstrations", sa.Column("flag", sa.Text(), nullable=False, server_default=""))
    op.add_column("demonstrations", sa.Column("handed_in", sa.JSON(), nullable=True))
    op.add_column("labelling_tasks", sa.Column("remaining", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("labelling_tasks", sa.Column("gold", sa.JSON(), nullable=True))
    op.execute(
        "UPDATE labelling_tasks SET remaining = max(0, overlap - "
        "(SELECT count(*) FROM rankings WHERE rankings.task_id = labelling_tasks.id))"
    )
    op.create_index("ix_labelling_tasks_remaining", "labelling_tasks", ["remaining"])
    op.add_column("leases", sa.Column("flagged", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(
        "rankings", sa.Column("as_it_came", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "rankings", sa.Column("adjudication", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_table(
        "writing_prompts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_writing_prompts"),
        sa.UniqueConstraint("topic", "content_hash", name="uq_writing_prompts_topic_content_hash"),
    )
    op.create_table(
        "guidelines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Text(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["author_id"], ["users.id"], name="fk_guidelines_author_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_guidelines"),
        sa.UniqueConstraint("place", "version", name="uq_guidelines_place_version"),
    )


def _chat() -> None:
    op.add_column("dialogues", sa.Column("lot", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE dialogues SET lot = random() & 9223372036854775807")
    op.create_index(
        "ix_dialogues_origin_consent_temporary_lot", "dialogues", ["origin", "consent", "temporary", "lot"]
    )
    op.create_table(
        "picks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("first_id", sa.Text(), nullable=False),
        sa.Column("second_id", sa.Text(), nullable=False),
        sa.Column("rater_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("consent", sa.Boolean(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["first_id"], ["messages.id"], name="fk_picks_first_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["second_id"], ["messages.id"], name="fk_picks_second_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["rater_id"], ["users.id"], name="fk_picks_rater_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_picks"),
        sa.UniqueConstraint("first_id", "second_id", "rater_id", name="uq_picks_first_id_second_id_rater_id"),
    )
    op.create_index("ix_picks_second_id", "picks", ["second_id"])
    op.create_index("ix_picks_rater_id", "picks", ["rater_id"])


def _operations() -> None:
    op.add_column("run_requests", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "experiments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("control", sa.Text(), nullable=False),
        sa.Column("treatment", sa.Text(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["started_by"], ["users.id"], name="fk_experiments_started_by", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
    )
    op.create_index("ix_experiments_status", "experiments", ["status"])
    op.create_table(
        "settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
