"""Steps that several migrations share: indexes built without blocking writers, foreign keys validated afterwards."""

from collections.abc import Sequence

from alembic import op
from sqlalchemy.exc import IntegrityError

from toolcall_pipeline.errors import StoreError

# A writer of a call locks that table first and then, for its foreign keys, these in turn. Whoever takes them in another
# order waits for a writer that waits for it.
_LOCK_ORDER = ("mem_tool_calls", "mem_user_prompts", "mem_sessions", "mem_projects")
# Whoever comes after a migration that waits for a lock waits too, hooks included: it waits briefly, lets them through, and
# tries again.
_TRY_MILLISECONDS = 1_000
_PAUSE_MILLISECONDS = 500
_TRIES = 40


def lock_tables() -> None:
    """Lock the old tables for this transaction in the order writers do; gives up when they stay locked for a minute."""
    # A failed try is rolled back with the locks it had: the block of EXCEPTION is a transaction of its own.
    locks = "".join(
        f"IF to_regclass('{table}') IS NOT NULL THEN LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; END IF; "
        for table in _LOCK_ORDER
    )
    op.execute(
        f"""
        DO $$ BEGIN
            PERFORM set_config('lock_timeout', '{_TRY_MILLISECONDS}ms', true);
            FOR attempt IN 1..{_TRIES} LOOP
                BEGIN
                    {locks}
                    PERFORM set_config('lock_timeout', '0', true);
                    RETURN;
                EXCEPTION WHEN lock_not_available THEN
                    IF attempt = {_TRIES} THEN RAISE; END IF;
                END;
                PERFORM pg_sleep({_PAUSE_MILLISECONDS} / 1000.0);
            END LOOP;
        END $$
        """
    )


def add_columns(table: str, columns: Sequence[str]) -> None:
    """Add columns (`name type default`) that are not there yet."""
    op.execute(f"ALTER TABLE {table} " + ", ".join(f"ADD COLUMN IF NOT EXISTS {column}" for column in columns))


def drop_columns(table: str, columns: Sequence[str]) -> None:
    """Drop columns by name."""
    op.execute(f"ALTER TABLE IF EXISTS {table} " + ", ".join(f"DROP COLUMN IF EXISTS {column}" for column in columns))


def add_foreign_key_unvalidated(name: str, table: str, column: str, target: str) -> None:
    """Add a foreign key that holds for new rows at once; old rows are looked at by `validate_constraint`."""
    op.execute(
        f"""
        DO $$ BEGIN
            IF NOT EXISTS (
                SELECT 1 FROM pg_constraint WHERE conname = '{name}' AND conrelid = '{table}'::regclass
            ) THEN
                ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {target} (id)
                    ON DELETE SET NULL NOT VALID;
            END IF;
        END $$
        """
    )


def validate_constraint(name: str, table: str, column: str, target: str) -> None:
    """Validate a foreign key; writers go on meanwhile. Call it outside of the migration's transaction.

    Raises:
        StoreError: Old rows name rows that are not there.
    """
    dangling = f"{column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {target} t WHERE t.id = {table}.{column})"
    try:
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    except IntegrityError as error:
        count = op.get_bind().exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {dangling}").scalar_one()
        raise StoreError(
            f"{count} rows of {table} name a row of {target} in {column} that is not there, so the foreign key {name} cannot be "
            f"validated (it holds for new rows). Put those rows of {target} back, or take the links away with UPDATE {table} "
            f"SET {column} = NULL WHERE {dangling}; then run this again: it continues."
        ) from error


def create_index_concurrently(name: str, table: str, columns: str, *, unique: bool = False) -> None:
    """Build an index while others write; what an interrupted build left behind (an invalid index) is dropped first."""
    connection = op.get_bind()
    invalid = connection.exec_driver_sql(
        "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        f"WHERE relname = '{name}' AND relnamespace = current_schema()::regnamespace AND NOT indisvalid"
    ).first()
    if invalid:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    kind = "UNIQUE INDEX" if unique else "INDEX"
    op.execute(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {table} {columns}")


def drop_indexes_concurrently(names: Sequence[str]) -> None:
    """Drop indexes while others write."""
    for name in names:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
