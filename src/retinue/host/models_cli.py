"""``retinue models``: the catalogue and the registry on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.host import life_cli
from retinue.host.cli_parts import AsJson, Name, NameRef, open_registry, print_json
from retinue.host.compare_cli import compare
from retinue.host.quantize_cli import quantize

if TYPE_CHECKING:
    from retinue.models.card import Card

models_cli = typer.Typer(no_args_is_help=True, help="Models: the catalogue and the local registry.")

# Columns of a terminal below which the list leaves the summaries out.
WIDE = 100


@models_cli.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the models of the catalogue and those imported, and which are installed."""
    from retinue.models.catalogue import cards

    registry = open_registry()
    # What each bare name means comes first.
    installed = {entry.card.name: entry for entry in reversed(registry.installed())}
    for damage in registry.damaged():
        typer.echo(damage.reason, err=True)
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
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
        # As text: a card may hold what rich would take for markup.
        table.add_row(*map(Text, (*cells, *([row["summary"]] if wide else []))))
    console.print(table)


def _find(model: str) -> tuple[Card, dict[str, Any]]:
    """Return a model's card and what is installed of it."""
    from retinue.models.catalogue import find
    from retinue.models.registry import split_ref

    registry, (name, ref) = open_registry(), split_ref(model)
    if not ref and not registry.versions(name):
        return find(name), {"installed": False}
    entry = registry.get(name, ref)
    where = {
        "installed": True,
        "version": entry.version,
        "lineage": entry.lineage and entry.lineage.model_dump(),
        "sha256": entry.sha256,
        "size": entry.size,
        "path": str(entry.path),
    }
    return entry.card, where


@models_cli.command()
def show(model: NameRef, as_json: AsJson = False) -> None:
    """Show a model's card, and which version of it is installed."""
    card, where = _find(model)
    shown = card.model_dump(mode="json") | where
    if as_json:
        print_json(shown)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

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
        table.add_row(key, Text(str(value)))
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
    registry = open_registry()
    with Bar() as bar:
        entry = registry.pull(card, progress=bar, accept_license=accept_license, force=force)
    life_cli.say_arrival(registry, entry)


@models_cli.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="An ONNX file.")],
    name: Annotated[str | None, typer.Option(help="Name to give it.")] = None,
    task: Annotated[str | None, typer.Option(help="What it is for: detect, classify.")] = None,
    card: Annotated[Path | None, typer.Option(help="Its card, a TOML file.")] = None,
) -> None:
    """Add an ONNX model of your own, with its card where the card cannot be derived."""
    registry = open_registry()
    life_cli.say_arrival(registry, registry.import_onnx(path, name=name, task=task, card=card))


for _command in (
    life_cli.versions,
    compare,
    quantize,
    life_cli.promote,
    life_cli.rollback,
    life_cli.alias,
    life_cli.history,
    life_cli.remove,
):
    models_cli.command()(_command)
