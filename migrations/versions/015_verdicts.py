"""015: what the gates said, what was measured, and which model is in production."""

from alembic import op

revision = "015"
down_revision = "014"
branch_labels = None
depends_on = None

_TABLES = {
    "gate_verdicts": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        gate text NOT NULL,
        asset text NOT NULL,
        partition text NOT NULL,
        artifact_sha256 text NOT NULL,
        rule_sha256 text NOT NULL,
        suite_sha256 text NOT NULL DEFAULT '',
        profile text NOT NULL,
        verdict text NOT NULL CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'overridden')),
        result jsonb NOT NULL,
        overridden_reason text CHECK (verdict <> 'overridden' OR overridden_reason IS NOT NULL),
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (gate, artifact_sha256, rule_sha256, suite_sha256)
    """,
    "eval_results": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        partition text NOT NULL,
        subject text NOT NULL,
        model_sha256 text NOT NULL,
        suite_sha256 text NOT NULL,
        artifact_sha256 text,
        profile text,
        results jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    """,
    "production_history": """
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        gguf_sha256 text NOT NULL,
        action text NOT NULL CHECK (action IN ('ship', 'retract', 'adopt', 'rollback')),
        partition text,
        path text,
        name text,
        reason text,
        previous_gguf_sha256 text,
        details jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT now()
    """,
}


def upgrade() -> None:
    """Create the tables."""
    for table, columns in _TABLES.items():
        op.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    op.execute("CREATE INDEX IF NOT EXISTS gate_verdicts_partition_idx ON gate_verdicts (partition, asset)")
    op.execute("CREATE INDEX IF NOT EXISTS eval_results_model_idx ON eval_results (model_sha256, suite_sha256)")


def downgrade() -> None:
    """Drop the tables."""
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE IF EXISTS {table}")
