"""Alembic's entry: run the migrations on the database whose address `toolcall_pipeline.store.migrate` hands over."""

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool


def run() -> None:
    """Apply migrations one transaction each, so that one may step outside of it for CREATE INDEX CONCURRENTLY."""
    engine = create_engine(context.config.attributes["store_url"], poolclass=NullPool)
    try:
        with engine.connect() as connection:
            context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
