"""`db`: the PostgreSQL server, its migrations and its backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolcall_pipeline.commands.output import console, print_counts, print_json
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.settings import load_settings

app = typer.Typer(help="Start, stop, migrate, back up and restore the PostgreSQL server.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add the `db` group."""
    parent.add_typer(app, name="db")


@app.command()
def start() -> None:
    """Start the embedded server (or reach DATABASE_URL), create both databases and apply the migrations."""
    from toolcall_pipeline.store import migrate, server

    settings = load_settings()
    urls = server.start(settings)
    migrate.upgrade(urls.store_url)
    status = server.status(settings)
    console.print(f"PostgreSQL {status.version} is running, schema {migrate.current(urls.store_url)}.")
    console.print(f"store    {status.url}\ndata in  {status.data_dir or '(a server of your own)'}", highlight=False)


@app.command()
def stop() -> None:
    """Stop the embedded server; a server named by DATABASE_URL is left alone."""
    from toolcall_pipeline.store import server

    stopped = server.stop(load_settings())
    console.print("Stopped." if stopped else "Nothing to stop: no embedded server is running.")


@app.command("status")
def status_command(json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say whether the server runs, where, and at which schema revision."""
    from toolcall_pipeline.store import migrate, server

    settings = load_settings()
    state = server.status(settings)
    urls = server.find(settings)
    values = {
        "running": state.running,
        "url": state.url,
        "version": state.version,
        "data_dir": str(state.data_dir) if state.data_dir else None,
        "is_embedded": state.is_embedded,
        "schema_revision": migrate.current(urls.store_url) if state.running and urls else None,
    }
    if json_:
        print_json(values)
    else:
        print_counts("PostgreSQL", values)


@app.command()
def upgrade(revision: Annotated[str, typer.Argument(help="Revision to migrate up to.")] = "head") -> None:
    """Apply migrations up to a revision; a second time changes nothing."""
    from toolcall_pipeline.store import migrate, server

    migrate.check_revision(revision)
    urls = server.start(load_settings())
    migrate.upgrade(urls.store_url, revision)
    console.print(f"Schema is at {migrate.current(urls.store_url)}.")


@app.command()
def downgrade(
    revision: Annotated[
        str, typer.Argument(help="Revision to go back to, such as 013, or `base` for an empty schema.")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; columns and tables of later revisions are dropped.")
    ] = False,
) -> None:
    """Undo migrations down to a revision. What later revisions added is dropped with its data."""
    from toolcall_pipeline.store import migrate, server

    migrate.check_revision(revision)
    if not yes and not _confirmed(f"Drop everything that revisions after {revision} added?"):
        raise UsageError("Nothing was undone. Answer yes, or give --yes.")
    urls = server.start(load_settings())
    migrate.downgrade(urls.store_url, revision)
    console.print(f"Schema is at {migrate.current(urls.store_url) or 'base'}.")


@app.command()
def backup(
    name: Annotated[
        str, typer.Option(help="`daily` dumps are rotated (newest three kept); any other name never is.")
    ] = "manual",
) -> None:
    """Write a compressed dump below the state directory."""
    from toolcall_pipeline.store import backups, server

    settings = load_settings()
    urls = server.start(settings)
    report = backups.backup(settings, urls.store_url, kind=name)
    console.print(f"{report.path} ({report.size_bytes:,} bytes)", highlight=False)


@app.command()
def restore(
    dump: Annotated[Path, typer.Argument(help="A dump made by `db backup`.")],
    into: Annotated[str, typer.Option(help="Name of a database to create and fill; it must not exist yet.")],
) -> None:
    """Restore a dump into a new database beside the running one; docs/how-to/backups.md says how to switch over."""
    from toolcall_pipeline.store import backups, databases, server

    settings = load_settings()
    backups.check_dump(dump)
    urls = server.start(settings)
    target = databases.create_database(urls, into)
    try:
        report = backups.restore(dump, target)
    except BaseException:
        databases.drop_database(urls, into)
        raise
    console.print(f"Restored {dump.name} into {into}: {report.tables} tables, {report.rows:,} rows.", highlight=False)


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:  # the input ended, or Ctrl-C
        return False
