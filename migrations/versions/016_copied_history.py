"""016: which prompts of a session are copies, under another id, of one it had before; lines by their counted ids."""

from alembic import op

from toolcall_pipeline.store.migration_steps import create_index_concurrently, drop_indexes_concurrently

revision = "016"
down_revision = "015"
branch_labels = None
depends_on = None

_COUNTED_INDEX = "mem_graph_nodes_counted_idx"
_COUNTED = "substring(node_id FROM '[^:]*$')"


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
    with op.get_context().autocommit_block():
        create_index_concurrently(
            _COUNTED_INDEX,
            "mem_graph_nodes",
            f"(({_COUNTED})) WHERE node_id LIKE '%:%' AND length({_COUNTED}) < 20",
        )


def downgrade() -> None:
    """Drop the index and the table."""
    with op.get_context().autocommit_block():
        drop_indexes_concurrently((_COUNTED_INDEX,))
    op.execute("DROP TABLE IF EXISTS mem_copied_nodes")
