"""013: projects have a root, a kind and a parent; calls have the branch they were made on."""

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

revision = "013"
down_revision = "012"
branch_labels = None
depends_on = None

_FOREIGN_KEY = "mem_projects_parent_project_fk"
_PROJECT_INDEXES = ("canonical_root_path", "git_remote", "source_kind", "parent_project_id")
_CALL_INDEX = "mem_tool_calls_git_branch_idx"


def upgrade() -> None:
    """Add columns, then, outside of the transaction, indexes and the validation."""
    lock_tables()
    add_columns(
        "mem_projects",
        ["canonical_root_path text", "source_kind text DEFAULT 'git'", "parent_project_id bigint"],
    )
    add_columns("mem_tool_calls", ["git_branch text", "git_sha text"])
    add_foreign_key_unvalidated(_FOREIGN_KEY, "mem_projects", "parent_project_id", "mem_projects")
    with op.get_context().autocommit_block():
        for column in _PROJECT_INDEXES:
            create_index_concurrently(f"mem_projects_{column}_idx", "mem_projects", f"({column})")
        create_index_concurrently(_CALL_INDEX, "mem_tool_calls", "(git_branch)")
        validate_constraint(_FOREIGN_KEY, "mem_projects", "parent_project_id", "mem_projects")


def downgrade() -> None:
    """Drop the indexes, the key and the columns."""
    with op.get_context().autocommit_block():
        drop_indexes_concurrently((*(f"mem_projects_{column}_idx" for column in _PROJECT_INDEXES), _CALL_INDEX))
    lock_tables()
    op.execute(f"ALTER TABLE mem_projects DROP CONSTRAINT IF EXISTS {_FOREIGN_KEY}")
    drop_columns("mem_projects", ["canonical_root_path", "source_kind", "parent_project_id"])
    drop_columns("mem_tool_calls", ["git_branch", "git_sha"])
