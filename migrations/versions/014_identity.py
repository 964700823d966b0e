"""014: identity of events, runs, the ledger, the event graph, and what a later night learns about earlier rows."""

from alembic import op

from toolcall_pipeline.store.migration_steps import (
    add_columns,
    create_index_concurrently,
    drop_columns,
    drop_indexes_concurrently,
    lock_tables,
)

revision = "014"
down_revision = "013"
branch_labels = None
depends_on = None

_PLACE = [
    "event_id text",
    "node_id text",
    "agent_id text",
    "position bigint",
    "occurred_at timestamptz",
    "source_file text",
    "source_line integer",
    "has_image boolean",
]
_CALL_COLUMNS = [
    *_PLACE,
    "message_id text",
    "prompt_event_id text",
    "is_direct boolean",
    "is_error boolean",
    "is_rejected boolean",
    "is_nested boolean",
    "model text",
    "tool_input_ordered json",
]
_PROMPT_COLUMNS = [
    *_PLACE,
    "cwd text",
    "subkind text",
    "is_sub_agent boolean",
    "spawned_by_event_id text",
    "agent_version text",
    "git_branch text",
]
_SESSION_COLUMNS = ["agent_version text", "backfill_run_id text"]

_TABLES = {
    "store_identity": "store_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), created_at timestamptz NOT NULL DEFAULT now()",
    "backfill_runs": """
        backfill_run_id text PRIMARY KEY,
        freeze_number integer NOT NULL UNIQUE,
        preset text NOT NULL,
        configuration jsonb NOT NULL,
        is_sample boolean NOT NULL DEFAULT false,
        rollback_count integer NOT NULL DEFAULT 0,
        rolled_back_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
    "backfill_batches": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        backfill_run_id text NOT NULL REFERENCES backfill_runs (backfill_run_id) ON DELETE CASCADE,
        counts jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
    "mem_session_files": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        file_key text NOT NULL,
        backfill_run_id text NOT NULL REFERENCES backfill_runs (backfill_run_id) ON DELETE CASCADE,
        next_byte bigint NOT NULL,
        state jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (file_key, backfill_run_id)
    """,
    "mem_session_families": """
        session_id text NOT NULL,
        family_id text NOT NULL,
        backfill_run_id text NOT NULL,
        PRIMARY KEY (session_id, backfill_run_id)
    """,
    "mem_graph_nodes": """
        node_id text NOT NULL,
        session_id text NOT NULL,
        parent_node_id text,
        role text NOT NULL,
        source_file text NOT NULL,
        source_line integer NOT NULL,
        occurred_at text,
        message_id text,
        agent_id text,
        spawned_by_tool_use_id text,
        started_agent_id text,
        tool_use_ids text[] NOT NULL DEFAULT '{}',
        backfill_run_id text NOT NULL,
        UNIQUE NULLS NOT DISTINCT (node_id, session_id, parent_node_id)
    """,
    "mem_assistant_texts": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id text NOT NULL UNIQUE,
        node_id text NOT NULL,
        session_id text NOT NULL,
        project_id bigint REFERENCES mem_projects (id),
        prev_user_prompt_id bigint REFERENCES mem_user_prompts (id) ON DELETE SET NULL,
        prompt_event_id text,
        turn_index integer,
        turn_subindex integer,
        position bigint,
        is_direct boolean,
        message_id text,
        agent_id text,
        model text,
        text text NOT NULL,
        content_hash text NOT NULL,
        occurred_at timestamptz,
        source_file text,
        source_line integer,
        retention_class text NOT NULL DEFAULT 'live',
        backfill_run_id text,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
    "mem_late_results": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id text NOT NULL UNIQUE,
        call_event_id text NOT NULL,
        node_id text NOT NULL,
        session_id text NOT NULL,
        response text,
        is_error boolean,
        is_rejected boolean,
        has_image boolean,
        occurred_at timestamptz,
        source_file text,
        source_line integer,
        backfill_run_id text,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
    "mem_interruptions": """
        event_id text PRIMARY KEY,
        node_id text NOT NULL,
        session_id text NOT NULL,
        prompt_event_id text,
        source_file text,
        source_line integer,
        backfill_run_id text
    """,
    "mem_supersessions": """
        event_id text NOT NULL,
        node_id text NOT NULL,
        backfill_run_id text NOT NULL,
        reason text NOT NULL,
        is_superseded boolean NOT NULL,
        PRIMARY KEY (event_id, backfill_run_id)
    """,
    "mem_parked_events": """
        event_id text PRIMARY KEY,
        node_id text NOT NULL,
        session_id text NOT NULL,
        table_name text NOT NULL,
        reason text NOT NULL,
        row_data jsonb NOT NULL,
        backfill_run_id text NOT NULL,
        restored_by_run_id text
    """,
    "mem_offered_tools": """
        session_id text NOT NULL,
        agent_id text NOT NULL DEFAULT '',
        content_hash text NOT NULL,
        tools jsonb NOT NULL,
        system_prompt text,
        source_file text,
        source_line integer,
        backfill_run_id text NOT NULL,
        PRIMARY KEY (session_id, agent_id, content_hash)
    """,
    "mem_quarantine": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source_file text NOT NULL,
        source_line integer NOT NULL,
        byte_offset bigint NOT NULL,
        reason text NOT NULL,
        length_bytes bigint NOT NULL,
        backfill_run_id text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
}
_UNIQUE = {
    "mem_user_prompts_event_id_key": ("mem_user_prompts", "(event_id)"),
    "mem_tool_calls_event_id_key": ("mem_tool_calls", "(event_id)"),
}
_INDEXES = {
    "mem_user_prompts_run_idx": ("mem_user_prompts", "(backfill_run_id)"),
    "mem_tool_calls_run_idx": ("mem_tool_calls", "(backfill_run_id)"),
    "mem_tool_calls_prompt_event_idx": ("mem_tool_calls", "(prompt_event_id)"),
    "mem_assistant_texts_run_idx": ("mem_assistant_texts", "(backfill_run_id)"),
    "mem_assistant_texts_prompt_event_idx": ("mem_assistant_texts", "(prompt_event_id)"),
    "mem_assistant_texts_prev_user_prompt_id_idx": ("mem_assistant_texts", "(prev_user_prompt_id)"),
    "mem_late_results_run_idx": ("mem_late_results", "(backfill_run_id)"),
    "mem_late_results_call_event_idx": ("mem_late_results", "(call_event_id)"),
    "mem_graph_nodes_session_idx": ("mem_graph_nodes", "(session_id)"),
    "mem_graph_nodes_run_idx": ("mem_graph_nodes", "(backfill_run_id)"),
    "mem_supersessions_node_idx": ("mem_supersessions", "(node_id)"),
    "mem_parked_events_node_idx": ("mem_parked_events", "(node_id)"),
    "mem_user_prompts_node_idx": ("mem_user_prompts", "(node_id)"),
    "mem_tool_calls_node_idx": ("mem_tool_calls", "(node_id)"),
    "mem_assistant_texts_node_idx": ("mem_assistant_texts", "(node_id)"),
    "mem_session_families_family_idx": ("mem_session_families", "(family_id)"),
}


def upgrade() -> None:
    """Create tables and columns, then, outside of the transaction, the indexes."""
    lock_tables()
    add_columns("mem_sessions", _SESSION_COLUMNS)
    add_columns("mem_user_prompts", _PROMPT_COLUMNS)
    add_columns("mem_tool_calls", _CALL_COLUMNS)
    for table, columns in _TABLES.items():
        op.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    op.execute("INSERT INTO store_identity SELECT gen_random_uuid() WHERE NOT EXISTS (SELECT 1 FROM store_identity)")
    with op.get_context().autocommit_block():
        for name, (table, columns) in _UNIQUE.items():
            create_index_concurrently(name, table, columns, unique=True)
        for name, (table, columns) in _INDEXES.items():
            create_index_concurrently(name, table, columns)


def downgrade() -> None:
    """Drop the indexes, the tables and the columns."""
    with op.get_context().autocommit_block():
        drop_indexes_concurrently((*_UNIQUE, *_INDEXES))
    lock_tables()
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE IF EXISTS {table}")
    drop_columns("mem_tool_calls", [column.split()[0] for column in _CALL_COLUMNS])
    drop_columns("mem_user_prompts", [column.split()[0] for column in _PROMPT_COLUMNS])
    drop_columns("mem_sessions", [column.split()[0] for column in _SESSION_COLUMNS])
