"""``retinue models quantize``: a faster version of a model, if one loses no more than it may."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.host.cli_parts import AsJson, NameRef, print_json

if TYPE_CHECKING:
    from retinue.calibrate.quantize_findings import Findings

_DATA = 'Folder, .tar or .zip of representative pictures, or "records".'
_OUT = "Folder for report.json and report.html, written when it refuses too."


def quantize(
    name: NameRef,
    data: Annotated[str, typer.Option(help=_DATA)],
    max_drop: Annotated[float, typer.Option(help="Points of the metric that may be lost.")] = 0.5,
    metric: Annotated[
        str, typer.Option(help="map, top1, cosine or agreement; by the labels if left out.")
    ] = "",
    calibration: Annotated[int, typer.Option(help="Pictures to calibrate with.")] = 512,
    runtime: Annotated[
        list[str] | None, typer.Option(help="A runtime to try; may be repeated.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds that the search may take.")] = 1800.0,
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
    tensorrt: Annotated[
        Path | None, typer.Option(help="Write an explicitly quantised ONNX file for TensorRT too.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which pictures are held out.")] = 0,
    promote: Annotated[bool, typer.Option("--promote", help="Put the version in production.")] = (
        False
    ),
    as_json: AsJson = False,
    config: Annotated[Path | None, typer.Option(help="A settings file.")] = None,
) -> None:
    """Quantise a model: install the fastest variant that loses no more than it may."""
    from retinue.calibrate.quantize import RUNTIMES, Wish
    from retinue.calibrate.quantize import quantize as search
    from retinue.calibrate.samples import open_samples
    from retinue.core.errors import storage_errors
    from retinue.core.settings import load_settings
    from retinue.host.counting import Counter
    from retinue.models.registry import Registry, Target, split_ref

    settings = load_settings(config)
    runtimes = tuple(dict.fromkeys(runtime)) if runtime else RUNTIMES
    wish = Wish(max_drop, metric, calibration, runtimes, budget, tensorrt, seed)
    registry = Registry(settings.cache)
    entry = registry.get(*split_ref(name))
    if out is not None:
        # Refused now, rather than after an hour's work.
        with storage_errors(out, "making the report's folder"):
            out.mkdir(parents=True, exist_ok=True)
    # What the bare name means now: where the ledger does not say it yet, it will once a version is
    # made.
    before = Target(registry.get(entry.card.name).version)
    samples = open_samples(data, entry.card, settings=settings)

    def heard(findings: Findings) -> None:
        if out is not None:
            _write(findings, out)
        if not as_json:
            _show(findings)
        elif findings.refusal:
            print_json({"version": None, **findings.to_dict()})

    with Counter() as progress:
        made = search(
            entry,
            samples,
            wish,
            settings=settings,
            registry=registry,
            progress=progress,
            heard=heard,
        )
    version = made.entry.version
    # Told first: a promotion that is refused leaves the version installed.
    if as_json:
        print_json({"version": version, **made.findings.to_dict()})
    else:
        typer.echo(f"{entry.card.name} {version} is installed")
    if promote:
        reason = f"made from {entry.version} by quantize"
        registry.promote(entry.card.name, version, reason=reason, expect={"prod": before})
    if not as_json:
        serve = f"serve it with:\n  retinue models promote {entry.card.name} {version}"
        typer.echo("it is in production" if promote else serve)


def _write(findings: Findings, out: Path) -> None:
    import orjson

    from retinue.core.errors import storage_errors

    with storage_errors(out, "writing the report"):
        content = orjson.dumps(findings.to_dict(), option=orjson.OPT_INDENT_2)
        (out / "report.json").write_bytes(content)
        (out / "report.html").write_text(findings.to_html(), "utf-8")


def _show(findings: Findings) -> None:
    """Show the variants that were examined, a count of the others, and what can be told."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from retinue.calibrate.quantize_findings import outcome, ranked
    from retinue.calibrate.report import number

    table = Table(box=None)
    for heading in ("variant", "runtime", "ms", "speed-up", "lost", "agreement", "outcome"):
        numeric = heading in ("ms", "speed-up", "lost", "agreement")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    others: Counter[str] = Counter()
    for candidate in ranked(findings):
        look, drop, agreement = candidate.look, candidate.drop, candidate.agreement
        if look is None or drop is None or agreement is None:
            others[outcome(candidate)] += 1
            continue
        figures = (f"{look.ms:.2f}", f"{look.speedup:.2f}", number(drop), f"{agreement:.3f}")
        style = "bold green" if candidate is findings.chosen and not findings.refusal else ""
        runtime = candidate.run_with.runtime
        table.add_row(candidate.label, runtime, *figures, outcome(candidate), style=style)
    console = Console(highlight=False, markup=False)
    console.print(table)
    if others:
        console.print("others:", ", ".join(f"{n} {state}" for state, n in others.items()))
    console.print()
    for sentence in findings.says:
        console.print(sentence)
