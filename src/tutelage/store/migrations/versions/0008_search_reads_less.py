"""A search reads less: titles from an index of their own, and a text index of fewer parts.

`usermerge` lets `search.tidy` merge two parts that are alike, where FTS5 waits for four.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_dialogues_owner_id_updated_id", "dialogues")
    columns = ["owner_id", "updated", "id", "title", "temporary", "binned"]
    op.create_index("ix_dialogues_owner_id_updated_id_title_temporary_binned", "dialogues", columns)
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO search_texts (search_texts, rank) VALUES ('usermerge', 2)")
