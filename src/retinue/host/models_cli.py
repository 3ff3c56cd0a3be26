"""``retinue models``: the catalogue and the registry on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from retinue.models.card import Card
    from retinue.models.registry import Registry

models_cli = typer.Typer(no_args_is_help=True, help="Models: the catalogue and the local registry.")
Name = Annotated[str, typer.Argument(help="Name of a model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


# Columns of a terminal below which the list leaves the summaries out.
WIDE = 100


def _registry() -> Registry:
    from retinue.core.settings import load_settings
    from retinue.models.registry import Registry

    return Registry(load_settings().cache)


def _print_json(value: Any) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


@models_cli.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models of the catalogue and those imported, and which are installed."""
    from retinue.models.catalogue import cards

    registry = _registry()
    # The current version of each model comes first.
    installed = {entry.card.name: entry for entry in reversed(registry.installed())}
    for damage in registry.damaged():
        typer.echo(f"{damage.name} {damage.version} is damaged: {damage.reason}", err=True)
    known = cards() | {name: entry.card for name, entry in installed.items()}
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "task": card.task,
            "license": card.license,
            "version": installed[name].version if name in installed else None,
            "size": installed[name].size if name in installed else None,
            "summary": card.summary,
        }
        for name, card in sorted(known.items())
    ]
    if as_json:
        _print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = console.width >= WIDE
    table = Table(box=None)
    for heading in ("name", "task", "installed", "size", "license"):
        table.add_column(heading, no_wrap=heading != "license", overflow="fold")
    if wide:
        table.add_column("summary")
    for row in rows:
        size = f"{row['size'] / 2**20:.1f} MiB" if row["size"] else ""
        cells = (row["name"], row["task"], row["version"] or "-", size, row["license"])
        table.add_row(*cells, *([row["summary"]] if wide else []))
    console.print(table)


def _find(name: str) -> tuple[Card, dict[str, Any]]:
    """Return a model's card and what is installed of it."""
    from retinue.core.errors import ModelNotFound
    from retinue.models.catalogue import find

    try:
        entry = _registry().get(name)
    except ModelNotFound:
        return find(name), {"installed": False}
    where = {"installed": True, "version": entry.version, "sha256": entry.sha256}
    return entry.card, where | {"size": entry.size, "path": str(entry.path)}


@models_cli.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a model's card, and its tensors when it is installed."""
    card, where = _find(name)
    shown = card.model_dump(mode="json") | where
    if as_json:
        _print_json(shown)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in shown.items():
        if key == "classes":
            value = f"{len(value)}: {', '.join(value[:8])}{', ...' if len(value) > 8 else ''}"
        elif isinstance(value, dict):
            value = "\n".join(f"{k} = {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = "\n".join(map(str, value))
        table.add_row(key, str(value))
    Console(highlight=False).print(table)


@models_cli.command()
def pull(
    name: Name,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept a licence that binds you.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Fetch and convert anew even if it is installed.")
    ] = False,
) -> None:
    """Fetch a model of the catalogue, verify it, convert it once and keep it."""
    from retinue.host.progress import Bar
    from retinue.models.catalogue import find

    card = find(name)
    typer.echo(f"{card.name}: licence {card.license}, from {card.source.url}", err=True)
    with Bar() as bar:
        entry = _registry().pull(card, progress=bar, accept_license=accept_license, force=force)
    typer.echo(f"{entry.card.name} {entry.version} ({entry.size / 2**20:.1f} MiB) is ready")


@models_cli.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="An ONNX file.")],
    name: Annotated[str | None, typer.Option(help="Name to give it.")] = None,
    task: Annotated[str | None, typer.Option(help="What it is for: detect, classify.")] = None,
    card: Annotated[Path | None, typer.Option(help="Its card, a TOML file.")] = None,
) -> None:
    """Add an ONNX model of your own, with its card where the card cannot be derived."""
    entry = _registry().import_onnx(path, name=name, task=task, card=card)
    typer.echo(f"{entry.card.name} {entry.version} ({entry.size / 2**20:.1f} MiB) is ready")


@models_cli.command()
def remove(name: Name) -> None:
    """Remove an installed model and all its versions."""
    _registry().remove(name)
    typer.echo(f"{name} is removed")
