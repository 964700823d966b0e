"""012: which prompt a call answers, which run brought a row in, what was cut.

Columns without a rewrite, the foreign key NOT VALID and validated afterwards, indexes built concurrently: hook posts
and backfills go on while this runs.
"""

from alembic import op

from toolcall_pipeline.store.migration_steps import (
    add_columns,
    add_foreign_key_unvalidated,
    create_index_concurrently,
    drop_columns,
    drop_indexes_concurrently,
    lock_tables,
    validate_constraint,
)

revision = "012"
down_revision = "011"
branch_labels = None
depends_on = None

_FOREIGN_KEY = "mem_tool_calls_prev_user_prompt_fk"
_INDEXES = {
    "mem_tool_calls_prev_user_prompt_id_idx": "(prev_user_prompt_id)",
    "mem_tool_calls_session_turn_idx": "(session_id, turn_index, turn_subindex)",
}


def upgrade() -> None:
    """Add columns, then, outside of the transaction, indexes and the validation."""
    lock_tables()
    add_columns("mem_projects", ["git_remote text"])
    add_columns(
        "mem_tool_calls",
        [
            "turn_index integer",
            "turn_subindex integer",
            "prev_user_prompt_id bigint",
            "truncated_at_bytes integer",
            "backfill_run_id text",
            "retention_class text DEFAULT 'live'",
            "content_hash text",
        ],
    )
    add_columns(
        "mem_user_prompts",
        [
            "retention_class text DEFAULT 'live'",
            "backfill_run_id text",
            "turn_index integer",
            "content_hash text",
        ],
    )
    add_foreign_key_unvalidated(_FOREIGN_KEY, "mem_tool_calls", "prev_user_prompt_id", "mem_user_prompts")
    with op.get_context().autocommit_block():
        for name, columns in _INDEXES.items():
            create_index_concurrently(name, "mem_tool_calls", columns)
        validate_constraint(_FOREIGN_KEY, "mem_tool_calls", "prev_user_prompt_id", "mem_user_prompts")


def downgrade() -> None:
    """Drop the indexes, the key and the columns."""
    with op.get_context().autocommit_block():
        drop_indexes_concurrently(tuple(_INDEXES))
    lock_tables()
    op.execute(f"ALTER TABLE mem_tool_calls DROP CONSTRAINT IF EXISTS {_FOREIGN_KEY}")
    drop_columns("mem_user_prompts", ["retention_class", "backfill_run_id", "turn_index", "content_hash"])
    drop_columns(
        "mem_tool_calls",
        [
            "turn_index",
            "turn_subindex",
            "prev_user_prompt_id",
            "truncated_at_bytes",
            "backfill_run_id",
            "retention_class",
            "content_hash",
        ],
    )
    drop_columns("mem_projects", ["git_remote"])
