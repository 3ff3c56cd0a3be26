"""``retinue models quantize``: a faster version of a model, if one loses no more than it may."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.host.cli_parts import AsJson, NameRef, print_json

if TYPE_CHECKING:
    from retinue.calibrate.quantize import Quantized
    from retinue.calibrate.quantize_findings import Findings

Data = Annotated[
    str, typer.Option(help='Folder, .tar or .zip of representative pictures, or "records".')
]
MaxDrop = Annotated[float, typer.Option(help="Points of the metric that may be lost.")]
Metric = Annotated[
    str, typer.Option(help="map, top1, cosine or agreement; by the labels if left out.")
]
Calibration = Annotated[int, typer.Option(help="Pictures to calibrate with.")]
Runtimes = Annotated[list[str] | None, typer.Option(help="A runtime to try; may be repeated.")]
Budget = Annotated[float, typer.Option(help="Seconds that the search may take.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for report.json and report.html, written when it refuses too."),
]
TensorRT = Annotated[
    Path | None, typer.Option(help="Write an explicitly quantised ONNX file for TensorRT too.")
]
Seed = Annotated[int, typer.Option(help="Decides which pictures are held out.")]
Promote = Annotated[bool, typer.Option("--promote", help="Put the version in production.")]
Config = Annotated[Path | None, typer.Option(help="A settings file.")]


def quantize(
    name: NameRef,
    data: Data,
    max_drop: MaxDrop = 0.5,
    metric: Metric = "",
    calibration: Calibration = 512,
    runtime: Runtimes = None,
    budget: Budget = 1800.0,
    out: Out = None,
    tensorrt: TensorRT = None,
    seed: Seed = 0,
    promote: Promote = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Quantise a model: install the fastest variant that loses no more than it may."""
    from retinue.calibrate.quantize import RUNTIMES, Wish
    from retinue.calibrate.quantize import quantize as search
    from retinue.calibrate.samples import open_samples
    from retinue.core.settings import load_settings
    from retinue.host.counting import Counter
    from retinue.models.registry import Registry, Target, split_ref

    settings = load_settings(config)
    runtimes = tuple(dict.fromkeys(runtime)) if runtime else RUNTIMES
    wish = Wish(max_drop, metric, calibration, runtimes, budget, tensorrt, seed)
    registry = Registry(settings.cache)
    entry = registry.get(*split_ref(name))
    if out is not None:
        _make(out)
    # What the bare name means now: where the ledger does not say it yet, it will once a version is
    # made.
    before = Target(registry.get(entry.card.name).version)
    samples = open_samples(data, entry.card, settings=settings)
    heard = partial(_tell, out=out, as_json=as_json)
    with Counter() as bar:
        made = search(
            entry, samples, wish, settings=settings, registry=registry, progress=bar, heard=heard
        )
    version = made.entry.version
    # Told first: a promotion that is refused leaves the version installed.
    _tell_installed(made, as_json=as_json)
    if promote:
        reason = f"made from {entry.version} by quantize"
        registry.promote(entry.card.name, version, reason=reason, expect={"prod": before})
    if not as_json:
        serve = f"serve it with:\n  retinue models promote {entry.card.name} {version}"
        typer.echo("it is in production" if promote else serve)


def _make(out: Path) -> None:
    """Make the report's folder: refused now, rather than after an hour's work."""
    from retinue.core.errors import storage_errors

    with storage_errors(out, "making the report's folder"):
        out.mkdir(parents=True, exist_ok=True)


def _tell(findings: Findings, *, out: Path | None, as_json: bool) -> None:
    """Tell what was found; as JSON only a refusal, as a version has no name yet."""
    if out is not None:
        _write(findings, out)
    if not as_json:
        _show(findings)
    elif findings.refusal:
        print_json({"version": None, **findings.to_dict()})


def _tell_installed(made: Quantized, *, as_json: bool) -> None:
    entry = made.entry
    if as_json:
        print_json({"version": entry.version, **made.findings.to_dict()})
    else:
        typer.echo(f"{entry.card.name} {entry.version} is installed")


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
