"""An answer that goes on where it was cut off leaves the text index, and comes back at its next end.

On SQLite, beside the triggers of step 0005; a later step that rebuilds `messages` makes this one again, too.
PostgreSQL's index leaves running messages out by itself.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER search_message_reopened AFTER UPDATE OF status ON messages "
            "WHEN old.status <> 'running' AND new.status = 'running' "
            "BEGIN DELETE FROM search_rows WHERE message_id = new.id; END"
        )
