"""A chat to feel at home in: search, shares, archive and bin, custom instructions, invites, quotas, audit.

`search_texts` is a full-text index kept by triggers: messages of people's own chats, once they are whole. Step 0005
numbers its rows anew and puts other triggers in the place of these.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INDEXED = """
    {row}.status <> 'running' AND {row}.role <> 'system' AND {row}.content <> ''
    AND NOT ({row}.role = 'assistant' AND {row}.status = 'blocked')
    AND EXISTS (SELECT 1 FROM dialogues WHERE id = {row}.dialogue_id AND owner_id IS NOT NULL)
"""
_INDEX = """
    INSERT INTO search_rows (message_id) VALUES (new.id);
    INSERT INTO search_texts (rowid, content) SELECT id, new.content FROM search_rows WHERE message_id = new.id;
"""


def upgrade() -> None:
    _columns()
    _tables()
    _search()


def search_triggers() -> None:
    """Keep the index in step with the messages."""
    new = _INDEXED.format(row="new")
    op.execute(f"CREATE TRIGGER search_message_added AFTER INSERT ON messages WHEN {new} BEGIN {_INDEX} END")
    op.execute(
        "CREATE TRIGGER search_message_ended AFTER UPDATE OF status ON messages "
        f"WHEN old.status = 'running' AND {new} BEGIN {_INDEX} END"
    )
    op.execute(
        "CREATE TRIGGER search_row_deleted AFTER DELETE ON search_rows "
        "BEGIN DELETE FROM search_texts WHERE rowid = old.id; END"
    )


def _columns() -> None:
    op.add_column("dialogues", sa.Column("archived", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("dialogues", sa.Column("binned", sa.DateTime(), nullable=True))
    op.create_index("ix_dialogues_binned", "dialogues", ["binned"])
    op.add_column("users", sa.Column("instructions", sa.Text(), nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("agent", sa.Text(), nullable=False, server_default=""))


def _tables() -> None:
    op.create_table(
        "shares",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("dialogue_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dialogue_id"], ["dialogues.id"], name="fk_shares_dialogue_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token", name="pk_shares"),
        sa.UniqueConstraint("dialogue_id", name="uq_shares_dialogue_id"),
    )
    op.create_table(
        "invites",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("used_by", sa.Text(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("expires", sa.DateTime(), nullable=False),
        sa.Column("used", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name="fk_invites_created_by", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["used_by"], ["users.id"], name="fk_invites_used_by", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("token_hash", name="pk_invites"),
        sa.UniqueConstraint("id", name="uq_invites_id"),
    )
    op.create_table(
        "usage",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_usage_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "day", name="pk_usage"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name="fk_audit_log_actor_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_actor_id", "audit_log", ["actor_id"])
    op.create_index("ix_audit_log_action", "audit_log", ["action"])


def _search() -> None:
    op.create_table(
        "search_rows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name="fk_search_rows_message_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_search_rows"),
        sa.UniqueConstraint("message_id", name="uq_search_rows_message_id"),
    )
    op.execute("CREATE VIRTUAL TABLE search_texts USING fts5(content, tokenize = 'trigram')")
    old = _INDEXED.format(row="messages")
    op.execute(f"INSERT INTO search_rows (message_id) SELECT id FROM messages WHERE {old}")
    op.execute(
        "INSERT INTO search_texts (rowid, content) SELECT search_rows.id, content "
        "FROM search_rows JOIN messages ON messages.id = search_rows.message_id"
    )
    search_triggers()
