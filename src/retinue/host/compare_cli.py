"""``retinue models compare``: two models, or two versions of one, on the same pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retinue.calibrate.comparison import Comparison

Ref = Annotated[str, typer.Argument(help="NAME, NAME@VERSION or NAME@ALIAS.")]


def compare(
    a: Ref,
    b: Ref,
    data: Annotated[
        str, typer.Option(help="Folder, tar or zip of pictures; or `records`: the inputs kept.")
    ],
    metric: Annotated[
        str, typer.Option(help="map, top1, cosine or agreement; what the labels allow if left out.")
    ] = "",
    limit: Annotated[
        int, typer.Option(min=1, help="Most pictures; more are drawn from at random.")
    ] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Write report.json and report.html to this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Compare two models on the same pictures: agreement, accuracy, speed."""
    from retinue.calibrate.compare import compare as run
    from retinue.calibrate.samples import open_samples
    from retinue.core.errors import storage_errors
    from retinue.core.settings import load_settings
    from retinue.host.counting import Counter
    from retinue.models.registry import Registry, split_ref

    settings = load_settings(config)
    registry = Registry(settings.cache)
    one, other = (registry.get(*split_ref(ref)) for ref in (a, b))
    samples = open_samples(data, one.card, settings=settings).some(limit)
    typer.echo(samples.source, err=True)
    if out is not None:
        # Before the work: it would be lost.
        with storage_errors(out, "making the report's folder"):
            out.mkdir(parents=True, exist_ok=True)
    with Counter() as progress:
        result = run(one, other, samples, settings, metric=metric, progress=progress)
    if out is not None:
        _write(out, result)
    if as_json:
        sys.stdout.write(_json(result) + "\n")
    else:
        _print(result)


def _json(result: Comparison) -> str:
    import orjson

    return orjson.dumps(result.to_dict(), option=orjson.OPT_INDENT_2).decode()


def _write(folder: Path, result: Comparison) -> None:
    from retinue.core.errors import storage_errors

    for name, text in (("report.json", _json(result)), ("report.html", result.to_html())):
        with storage_errors(folder / name, "writing the report"):
            (folder / name).write_text(text, "utf-8")
    typer.echo(f"the report is in {folder / 'report.html'}", err=True)


def _print(result: Comparison) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from retinue.calibrate.comparison import NAMES

    table = Table(box=None)
    for heading in ("", "A", "B", "B against A"):
        table.add_column(heading, overflow="fold")
    a, b, accuracy = result.a, result.b, result.accuracy
    table.add_row("model", escape(a.name), escape(b.name), "")
    runs = (f"{side.runtime} {side.precision}" for side in (a, b))
    table.add_row("runs on", *runs, "")
    points = (f"{100 * value:.2f}" for value in (accuracy.a.value, accuracy.b.value))
    change = accuracy.difference
    span = f"{100 * change.low:+.2f} to {100 * change.high:+.2f}"
    table.add_row(NAMES[result.metric], *points, f"{100 * change.value:+.2f} ({span}) points")
    same = result.agreement
    span = f"{100 * same.low:.1f} to {100 * same.high:.1f}"
    table.add_row("agreement", "", "", f"{100 * same.value:.1f} % ({span})")
    speed = result.speedup
    span = f"{speed.low:.2f} to {speed.high:.2f}"
    times = (f"{ms.median:.2f} ms" for ms in result.speed.ms.values())
    table.add_row("one run", *times, f"{speed.median:.2f} times as fast ({span})")
    table.add_row("size", *(f"{side.entry.size / 2**20:.1f} MiB" for side in (a, b)), "")
    failed = [len(side.failures) for side in (a, b)]
    if any(failed):
        table.add_row("failed", *(f"{number:,}" for number in failed), "")
    console = Console(highlight=False)
    console.print(table)
    console.print(escape(f"{result.data}; {len(result.unreadable)} left out"), style="dim")
    for sentence in result.says:
        console.print(escape(sentence))
