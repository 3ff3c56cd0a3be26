"""Turns ``results.json`` into Markdown: ``python benchmarks/gpu/report.py results.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

GRAPH = "CUDA graph, on the device"
EAGER = "eager, on the device"
EAGER_HOST = "eager, host to host"
RUNTIME = "Retinue's runtime, host to host"


def number(value: Any, digits: int = 0) -> str:
    """Format a figure; nothing for none."""
    if not isinstance(value, (int, float)) or value != value:
        return ""
    return f"{value:,.{digits}f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; the first column is text."""
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join(['---', *['---:'] * (len(columns) - 1)])}|",
    ]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def counter(row: Row | None, name: str) -> str:
    """Format one of the GPU's counters."""
    return number((row or {}).get("counters", {}).get(name))


def names(rows: Sequence[Row], key: str) -> list[Any]:
    """Return the values of a key, each once, in order."""
    return list(dict.fromkeys(row[key] for row in rows if key in row))


def curves(rows: Sequence[Row]) -> list[str]:
    """Return images a second and SM activity by batch size."""
    lines = ["## Batch size", ""]
    lines += [f"GPU counters are missing: {why}.\n" for why in names(rows, "why") if why]
    for network in names(rows, "network"):
        found = {(row["way"], row["batch"]): row for row in rows if row["network"] == network}
        plateau = max(
            (row["images_per_s"] for (way, _), row in found.items() if way in (GRAPH, EAGER)),
            default=1,
        )
        lines += [f"{network}; images a second, and SMs active in percent of the time:", ""]
        columns = ["batch", "eager", "SM", "CUDA graph", "of the plateau", "SM", "tensor cores"]
        columns += [
            "any kernel",
            "eager, host to host",
            "Retinue's runtime",
            "of the plateau",
            "SM",
        ]
        body = []
        for batch in names(rows, "batch"):

            def at(way: str, batch: int = batch, found: dict[Any, Row] = found) -> Row:
                return found.get((way, batch), {})

            def share(way: str, at: Any = at, plateau: float = plateau) -> str:
                rate = at(way).get("images_per_s")
                return f"{100 * rate / plateau:.0f} %" if rate else ""

            speeds = {
                way: number(at(way).get("images_per_s"))
                for way in (EAGER, GRAPH, EAGER_HOST, RUNTIME)
            }
            body.append(
                [
                    str(batch),
                    speeds[EAGER],
                    counter(at(EAGER), "sm_active"),
                    speeds[GRAPH],
                    share(GRAPH),
                    counter(at(GRAPH), "sm_active"),
                    counter(at(GRAPH), "tensor_active"),
                    counter(at(GRAPH), "any_kernel"),
                    speeds[EAGER_HOST],
                    speeds[RUNTIME],
                    share(RUNTIME),
                    counter(at(RUNTIME), "sm_active"),
                ]
            )
        lines += table(columns, body)
    return lines


def serving(rows: Sequence[Row]) -> list[str]:
    """Return each server's figures at each offered load."""
    lines: list[str] = []
    for network in names(rows, "network"):
        mine = [row for row in rows if row["network"] == network and "server" in row]
        lines += [f"## Server: {network}", ""]
        lines += [f"- {row['error'][:300]}" for row in rows if "error" in row]
        columns = ["server", "offered/s", "answered/s", "in time/s", "p50 ms", "p99 ms", "batch"]
        columns += ["SM %", "any kernel %", "cores", "refused/s", "lost/s", "generator late ms"]
        lines += table(
            columns,
            (
                [
                    row["server"],
                    number(row["offered_per_s"]),
                    number(row["throughput_per_s"]),
                    number(row["goodput_per_s"]),
                    number(row["p50_ms"], 1),
                    number(row["p99_ms"], 1),
                    number(row["mean_batch"], 1),
                    counter(row, "sm_active"),
                    counter(row, "any_kernel"),
                    number(row["cores"], 1),
                    number(sum(row["refused"].values()) / row["seconds"]),
                    number(sum(row["lost"].values()) / row["seconds"]),
                    number(row["lag_p99_ms"], 1),
                ]
                for row in mine
            ),
        )
        lines += _ratios(mine) + _reasons(mine)
    return lines


def _ratios(rows: Sequence[Row]) -> list[str]:
    """Return how many times a Flask server's best throughput and goodput Retinue's is."""
    best = {
        server: (
            max(row["throughput_per_s"] for row in rows if row["server"] == server),
            max(row["goodput_per_s"] for row in rows if row["server"] == server),
        )
        for server in names(rows, "server")
    }
    first = next((best[server] for server in best if server.startswith("Retinue")), None)
    if first is None:
        return []
    return [
        *(
            f"- Best of Retinue over best of {server}: {first[0] / max(1e-9, most):.1f} times the "
            f"answers, {first[1] / max(1e-9, good):.1f} times those in time."
            for server, (most, good) in best.items()
            if not server.startswith("Retinue")
        ),
        "",
    ]


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Return what Retinue's own metrics counted at each load."""
    found = [row for row in rows if row.get("counts")]
    keys = sorted({key for row in found for key in row["counts"]})
    if not found:
        return []
    return [
        "Retinue's own counts:",
        "",
        *table(
            ["offered/s", *keys],
            (
                [number(row["offered_per_s"]), *(number(row["counts"].get(k)) for k in keys)]
                for row in found
            ),
        ),
    ]


def scheduling(rows: Sequence[Row]) -> list[str]:
    """Return the pipeline's figures without HTTP."""
    lines = ["## The pipeline without HTTP", ""]
    kinds = {
        "ceiling": (["instances"], "Requests kept under way:"),
        "window": (["window_ms"], "Windows, at the same Poisson arrivals:"),
        "sharing": (["threads", "window_ms"], "Two models on the device at once:"),
    }
    for what, (keys, title) in kinds.items():
        mine = [row for row in rows if row["what"] == what]
        columns = ["network", *keys, "offered/s", "answered/s", "in time/s", "p50 ms", "p99 ms"]
        columns += ["refused", "batch", "SM %", "CPU us"]
        lines += [title, ""]
        lines += table(
            columns,
            (
                [
                    row["network"],
                    *(f"{row[key]:g}" if key != "threads" else row[key] for key in keys),
                    number(row.get("rate")),
                    number(row["throughput_per_s"]),
                    number(row["goodput_per_s"]),
                    number(row["p50_ms"], 1),
                    number(row["p99_ms"], 1),
                    number(sum(row["errors"].values())),
                    number(row["mean_batch"], 1),
                    counter(row, "sm_active"),
                    number(row.get("cpu_us")),
                ]
                for row in mine
            ),
        )
    return lines


def render(results: dict[str, Any]) -> str:
    """Return the whole report."""
    about, sections = results["about"], results["sections"]
    lines = [
        "# Measured on a GPU",
        "",
        f"{about['date']}: {about['device']}; {about['processor']}; ",
    ]
    lines[-1] += f"{about['software']}."
    lines.append("")
    for name, section in sections.items():
        if section["failure"]:
            lines += [f"Section {name} did not finish: {section['failure'][:200]}".strip(), ""]
        rows = section["rows"]
        if not rows or name == "prepare":
            continue
        if name == "curves":
            lines += curves(rows)
        elif name == "scheduling":
            lines += scheduling(rows)
        else:
            lines += serving(rows)
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    print(render(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
