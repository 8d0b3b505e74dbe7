"""A search reads its owner's part of the text index alone, and a side bar its owner's newest dialogues.

Row numbers of the index begin with the owner's number (`search_owners`), shifted left by 32 bits, and go up. A later
step that rebuilds `messages` or `search_rows` drops the triggers with the table, and must call this step's
`search_triggers`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_INDEXED = """
    {row}.status <> 'running' AND {row}.role <> 'system' AND {row}.content <> ''
    AND NOT ({row}.role = 'assistant' AND {row}.status = 'blocked')
    AND EXISTS (SELECT 1 FROM dialogues WHERE id = {row}.dialogue_id AND owner_id IS NOT NULL)
"""
_INDEX = """
    INSERT OR IGNORE INTO search_owners (owner_id) SELECT owner_id FROM dialogues WHERE id = new.dialogue_id;
    INSERT INTO search_rows (id, message_id) SELECT 1 + coalesce((
        SELECT id FROM search_rows WHERE id BETWEEN number << 32 AND (number + 1 << 32) - 1 ORDER BY id DESC LIMIT 1
    ), number << 32), new.id
    FROM dialogues JOIN search_owners USING (owner_id) WHERE dialogues.id = new.dialogue_id;
    INSERT INTO search_texts (rowid, content) SELECT id, new.content FROM search_rows WHERE message_id = new.id;
"""


def upgrade() -> None:
    op.create_index("ix_dialogues_owner_id_updated_id", "dialogues", ["owner_id", "updated", "id"])
    op.drop_index("ix_dialogues_owner_id_id", "dialogues")
    op.create_table(
        "search_owners",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name="fk_search_owners_owner_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_search_owners"),
        sa.UniqueConstraint("owner_id", name="uq_search_owners_owner_id"),
    )
    for name in ("search_message_added", "search_message_ended", "search_row_deleted"):
        op.execute(f"DROP TRIGGER {name}")
    _index_again()
    search_triggers()


def _index_again() -> None:
    op.execute("DELETE FROM search_rows")
    op.execute("DROP TABLE search_texts")
    op.execute("CREATE VIRTUAL TABLE search_texts USING fts5(content, tokenize = 'trigram')")
    found = (
        f"FROM messages JOIN dialogues ON dialogues.id = dialogue_id WHERE {_INDEXED.format(row='messages')}"
    )
    op.execute(f"INSERT INTO search_owners (owner_id) SELECT DISTINCT owner_id {found} ORDER BY owner_id")
    place = "row_number() OVER (PARTITION BY owner_id ORDER BY messages.id)"
    found = found.replace("WHERE", "JOIN search_owners USING (owner_id) WHERE", 1)
    op.execute(
        f"INSERT INTO search_rows (id, message_id) SELECT (number << 32) + {place}, messages.id {found}"
    )
    op.execute(
        "INSERT INTO search_texts (rowid, content) SELECT search_rows.id, content "
        "FROM search_rows JOIN messages ON messages.id = search_rows.message_id ORDER BY search_rows.id"
    )


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
