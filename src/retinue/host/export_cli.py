"""``retinue export``: the installed models for Triton, and a manifest for KServe."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.host.cli_parts import open_registry

if TYPE_CHECKING:
    from retinue.models.registry import Entry

export_cli = typer.Typer(no_args_is_help=True, help="Hand the models to a larger engine.")

Models = Annotated[
    list[str] | None, typer.Option("--model", help="NAME or NAME@REF; may be repeated.")
]


class Kind(StrEnum):
    """Where Triton executes models."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


def _entries(names: list[str] | None) -> list[Entry]:
    """Return the models of these names, or all that are installed: what each name means."""
    from retinue.core.errors import ModelNotFound
    from retinue.models.registry import split_ref

    registry = open_registry()
    if names is None:
        names = sorted({entry.card.name for entry in registry.installed()})
    if not names:
        raise ModelNotFound("no model is installed; fetch one with: retinue models pull NAME")
    return [registry.get(*split_ref(name)) for name in dict.fromkeys(names)]


@export_cli.command()
def triton(
    folder: Annotated[Path, typer.Argument(help="The model repository to make.")],
    model: Models = None,
    kind: Annotated[Kind, typer.Option(help="Where the models are executed.")] = Kind.AUTO,
    instances: Annotated[int, typer.Option(min=1, max=256, help="Sessions a model.")] = 4,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most items of a run.")] = 32,
    delay_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Longest wait for a fuller batch.")
    ] = 5.0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a model repository for Triton of the installed models, or of some."""
    from retinue.host.export.triton import Serving, write_repository

    entries = _entries(model)
    serving = Serving(kind.value, instances, max_batch, round(delay_ms * 1000))
    write_repository(folder, entries, serving, force=force)
    typer.echo(f"{folder} holds {', '.join(entry.card.name for entry in entries)}", err=True)
    typer.echo(f"serve it with: tritonserver --model-repository={folder.absolute()}", err=True)


@export_cli.command()
def kserve(
    model: Models = None,
    name: Annotated[str, typer.Option(help="Of the resources.")] = "retinue",
    image: Annotated[str, typer.Option(help="Container image.")] = "retinue:latest",
    storage_uri: Annotated[
        str, typer.Option(help="A copy of the cache folder; none: the image holds the models.")
    ] = "",
    keys_secret: Annotated[
        str, typer.Option(help="Secret whose `api_keys` are the server's.")
    ] = "",
    cpu: Annotated[str, typer.Option(help="CPUs of a pod.")] = "2",
    memory: Annotated[str, typer.Option(help="Memory of a pod.")] = "2Gi",
    max_batch: Annotated[int, typer.Option(min=1, max=1024, help="Most items of a run.")] = 1,
    window_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Longest wait for a fuller batch.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="A file; none: standard output.")] = None,
) -> None:
    """Print the YAML of an InferenceService for KServe that serves the models with Retinue."""
    from retinue.core.errors import storage_errors
    from retinue.host.export.kserve import Service, render

    entries = _entries(model)
    names = tuple(dict.fromkeys(model)) if model else tuple(e.card.name for e in entries)
    text = render(
        Service(name, names, image, storage_uri, keys_secret, cpu, memory, max_batch, window_ms)
    )
    if out is None:
        sys.stdout.write(text)
        return
    with storage_errors(out, "writing the manifest"):
        out.write_text(text, "utf-8")
