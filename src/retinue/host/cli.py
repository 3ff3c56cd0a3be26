"""The command line. Modules that a command needs are imported when it runs, so help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import retinue
from retinue.core.errors import RetinueError, StorageError
from retinue.core.plugins import APPS, load, names, resolve
from retinue.host.export_cli import export_cli
from retinue.host.models_cli import models_cli

cli = typer.Typer(
    name="retinue",
    help="Turn a computer-vision model into a running production system on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys_cli = typer.Typer(no_args_is_help=True, help="API keys of the server.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retinue {retinue.__version__}")
        raise typer.Exit


@cli.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a computer-vision model into a running production system on one machine."""

    def opened(app: str, *, config: Path | None, models: tuple[str, ...], record: bool) -> object:
        from retinue.host.services import open_services

        return open_services(app, config=config, models=models, record=record)

    ctx.obj = opened


@cli.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8900].")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port for gRPC; 0 takes a free one [the port's next].")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without API keys.")
    ] = False,
) -> None:
    """Serve the apps over HTTP, with a console in the browser, and the models over gRPC too."""
    from retinue.core.settings import load_settings
    from retinue.host import serve

    settings = load_settings(config)
    given = {"host": host, "port": port, "grpc_port": grpc_port, "insecure": insecure or None}
    server = settings.server.model_dump() | {k: v for k, v in given.items() if v is not None}
    serve.run(load_settings(config, server=server), on_ready=_ready)


def _ready(url: str, grpc: str) -> None:
    typer.echo(f"Retinue is ready at {url}" + (f"\ngRPC is at {grpc}" if grpc else ""))
    sys.stdout.flush()


@cli.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    import json
    from dataclasses import asdict

    from retinue.core.settings import load_settings
    from retinue.host.doctor import facts

    for part, fact in facts(load_settings(config)):
        if as_json:
            typer.echo(json.dumps({"part": part, **asdict(fact)}))
            continue
        typer.echo(f"{'ok ' if fact.ok else '-- '} {part:8} {fact.name}: {fact.words}")
        if not fact.ok and fact.advice:
            typer.echo(f"    {'':8} {fact.advice}")


@keys_cli.command("new")
def keys_new() -> None:
    """Make an API key: the key is for the client, the digest for the settings."""
    from retinue.host.access import digest, new_key

    key = new_key()
    typer.echo(f"key (give it to the client; it is shown only now):\n  {key}")
    typer.echo(f'digest (put it in retinue.toml):\n  [server]\n  api_keys = ["{digest(key)}"]')


def _add_app_commands() -> None:
    for name in names(APPS):
        for command in load(APPS, name).commands:
            handler = resolve(command.handler)
            if isinstance(handler, typer.Typer):
                cli.add_typer(handler, name=command.name)
            else:
                cli.command(command.name)(handler)


cli.add_typer(models_cli, name="models")
cli.add_typer(export_cli, name="export")
cli.add_typer(keys_cli, name="keys")


def _fail(error: RetinueError) -> NoReturn:
    print(f"retinue: [{error.code}] {error.message}", file=sys.stderr)
    sys.exit(error.exit_code)


def _fill_closed_streams() -> None:
    """Give a closed standard stream to the null device; a database must not become file 1 or 2."""
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(unused)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def main() -> NoReturn:
    """Run the command line; a failure exits with its error's own code."""
    _fill_closed_streams()
    try:
        _add_app_commands()
        cli()
    except RetinueError as error:
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # What no part foresaw; mostly standard output on a full disk, which cannot be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = error.filename or "writing to standard output"
        _fail(StorageError(f"{where}: {error.strerror or error}"))
    sys.exit(0)
