"""A dialogue of any length can be deleted.

Messages go with their dialogue, and with the message they answer: SQLite would follow a chain of answers one inside the
other, and gives up at a thousand. So the chain is taken apart before its dialogue goes. A later step that rebuilds
`dialogues` drops the trigger with the table, and must call `chain_trigger`.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    chain_trigger()


def chain_trigger() -> None:
    """Take the messages of a dialogue that is about to go off each other."""
    op.execute(
        "CREATE TRIGGER dialogue_goes BEFORE DELETE ON dialogues BEGIN "
        "UPDATE messages SET parent_id = NULL WHERE dialogue_id = old.id AND parent_id IS NOT NULL; END"
    )
