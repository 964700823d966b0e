"""016: which prompts of a session are copies, under another id, of one it had before."""

from alembic import op

revision = "016"
down_revision = "015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS mem_copied_nodes (
            node_id text PRIMARY KEY,
            first_node_id text NOT NULL,
            backfill_run_id text NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX IF NOT EXISTS mem_copied_nodes_run_idx ON mem_copied_nodes (backfill_run_id)")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE IF EXISTS mem_copied_nodes")
