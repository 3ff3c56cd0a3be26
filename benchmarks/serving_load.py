"""Goodput under load: Retinue, Flask + gunicorn, LitServe, mosec and pytriton on the same cores.

    python benchmarks/serving_load.py [--seconds 8] [--deadline-ms 500] [--json FILE]

The same detector for all: one ONNX file, ONNX Runtime f32, two sessions of one thread, one JPEG.
Each server has the batching that did best for it, and is told the deadline in the way that it
understands. The load is open-loop (`open_loop.py`): the same Poisson arrivals for all, at shares of
one capacity, that of the fastest server with a few clients that wait for their answers. An answer
is good when it is a 200 within the deadline by the client's clock, from the planned time on.

Only one server exists at a time: each is started anew for each level and warmed up, in an order
that rotates with the levels. mosec is there twice: as it comes, and with its queue bounded by hand,
which needs to know the speed of the model beforehand. At the end, what each server costs without a
model: CPU time a request with a model that does nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import servers
from assets import install_nothing, small_photo, weights
from common import machine, show
from retinue.core.settings import load_settings
from retinue.models.registry import Entry
from servers import CLIENTS, MODEL, PHOTO, Figures, Server, check_same, closed, generate, warm_up

LOADS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
NOOP_CLIENTS = 16


def capacities(made: Sequence[Server], seconds: float) -> dict[str, Figures]:
    """Check that all servers give the same answer, and measure what each can do at most."""
    answers, rates = {}, {}
    for server in made:
        with servers.running(server) as running:
            answers[server.name] = servers.detections(server, running.ask())
            warm_up(running)
            rates[server.name] = closed(running, CLIENTS, seconds)
            rates[server.name]["memory_mb"] = running.memory_mb()
        print(f"{server.name}: {rates[server.name]['per_s']:.1f}/s", file=sys.stderr, flush=True)
    check_same(answers)
    return rates


def level(server: Server, rate: float, given: argparse.Namespace) -> Figures:
    """Measure a fresh server at one rate."""
    with servers.running(server) as running:
        warm_up(running)
        found = generate(
            "open_loop.py",
            running,
            *("--rate", str(rate), "--seconds", str(given.seconds)),
            *("--deadline-ms", str(given.deadline_ms), "--give-up", str(given.give_up)),
        )
    print(
        f"{server.name} at {rate:.1f}/s: {found['good_per_s']:.1f} good/s",
        file=sys.stderr,
        flush=True,
    )
    return found


def levels(
    made: Sequence[Server], capacity: float, given: argparse.Namespace
) -> dict[str, dict[float, Figures]]:
    """Measure all servers at all rates; the order rotates."""
    found: dict[str, dict[float, Figures]] = {server.name: {} for server in made}
    for turn, load in enumerate(given.loads):
        at = turn % len(made)
        for server in (*made[at:], *made[:at]):
            found[server.name][load] = level(server, load * capacity, given)
    return found


def all_servers(
    entry: Entry, cache: Path, home: str, *, body: bytes, noop: bool, deadline_ms: float | None
) -> list[Server]:
    """Return the servers in the order of the tables."""
    bounded = servers.mosec_bounded
    peers = (servers.flask, servers.litserve, servers.mosec, bounded, servers.pytriton)
    served = None if noop else entry
    return [
        servers.retinue(entry, cache, home, body=body, deadline_ms=deadline_ms),
        *(peer(served, body=body, deadline_ms=deadline_ms) for peer in peers),
    ]


def chosen(made: Sequence[Server], names: Sequence[str]) -> list[Server]:
    """Return the servers of these names, all if none is named."""
    return [s for s in made if not names or s.name.lower().partition(" ")[0] in names]


def alone(made: Sequence[Server], seconds: float) -> dict[str, Figures]:
    """Measure what the servers cost with a model that does nothing."""
    found = {}
    for server in made:
        with servers.running(server) as running:
            warm_up(running, NOOP_CLIENTS)
            found[server.name] = closed(running, NOOP_CLIENTS, seconds)
    return found


def report_levels(found: Mapping[str, Mapping[float, Figures]], notes: Sequence[str]) -> None:
    """Print the table of the open loop."""

    def cell(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rows = []
    for load in next(iter(found.values())):
        for name, by_load in found.items():
            one = by_load[load]
            refused = " ".join(f"{n} x {status}" for status, n in one["refused"].items())
            cpu_ms = 1e3 * one["cpu_s"] / one["good"] if one["good"] else None
            rows.append(
                (
                    name,
                    f"{load:g}",
                    cell(one["offered_per_s"], 1),
                    cell(one["good_per_s"], 1),
                    cell(one["p50_ms"]),
                    cell(one["p99_ms"]),
                    cell(cpu_ms, 1),
                    one["late"],
                    refused or 0,
                    one["gave_up"],
                    sum(one["broken"].values()),
                )
            )
    columns = ("server", "load", "offered/s", "good/s", "p50 ms", "p99 ms", "CPU ms/good")
    show("Open loop", (*columns, "late", "refused", "gave up", "broken"), rows, notes=notes)


def report_servers(
    found: Mapping[str, Mapping[float, Figures]],
    capacity: Mapping[str, Figures],
    noop: Mapping[str, Figures],
) -> None:
    """Print the table of one line a server."""
    rows = []
    for name, by_load in found.items():
        peak = max(one["good_per_s"] for one in by_load.values())
        last = by_load[max(by_load)]["good_per_s"]
        own = noop.get(name)
        rows.append(
            (
                name,
                f"{capacity[name]['per_s']:.1f}",
                f"{capacity[name]['cpu_ms']:.1f}",
                f"{capacity[name]['memory_mb']:.0f}",
                f"{peak:.1f}",
                f"{100 * last / peak:.0f} %" if peak else "-",
                f"{1e3 * own['cpu_ms']:.0f}" if own else "-",
                f"{own['per_s']:.0f}" if own else "-",
            )
        )
    columns = ("server", "capacity/s", "CPU ms/request", "memory MB", "peak good/s")
    highest = f"at {max(next(iter(found.values()))):g}x"
    more = ("no model: CPU us/request", "no model: requests/s")
    notes = [
        f"Capacity: {CLIENTS} clients that wait; no model: {NOOP_CLIENTS} clients, a JPEG of 16 x "
        "16; Retinue decodes it, runs a network of one cell and writes a durable record, the "
        "others answer at once.",
    ]
    show("Servers", (*columns, highest, *more), rows, notes=notes)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--deadline-ms", type=float, default=500.0)
    parser.add_argument("--give-up", type=float, default=2.0, help="in deadlines")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="in capacities")
    parser.add_argument("--servers", nargs="+", default=(), help="first words of names")
    parser.add_argument("--json", type=Path, help="write all figures there too")
    return parser.parse_args()


def main() -> None:
    """Measure everything and print the tables."""
    given = arguments()
    entry = weights(MODEL)
    with ExitStack() as stack:
        home, empty, small = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(3))
        deadline_ms = given.deadline_ms
        cache = load_settings().cache
        body = PHOTO.read_bytes()
        made = all_servers(entry, cache, home, body=body, noop=False, deadline_ms=deadline_ms)
        made = chosen(made, given.servers)
        # Without a deadline: with enough clients that wait, none of them would be late otherwise.
        capacity = capacities(
            chosen(
                all_servers(entry, cache, home, body=body, noop=False, deadline_ms=None),
                given.servers,
            ),
            given.seconds / 2,
        )
        reference = max(one["per_s"] for one in capacity.values())
        found = levels(made, reference, given)
        free = install_nothing(Path(empty))
        idle = all_servers(
            free, Path(empty), small, body=small_photo(), noop=True, deadline_ms=None
        )
        noop = alone(chosen(idle, given.servers), given.seconds / 2)
    notes = [
        f"{MODEL} on {PHOTO.name}; all find the same boxes. Load 1 is {reference:.1f}/s.",
        f"Good: 200 within {deadline_ms:g} ms of the planned time; Poisson arrivals, the same for "
        f"all; clients give up after {given.give_up:g} deadlines; {given.seconds:g} s a line.",
        *(f"{server.name}: {server.settings}." for server in made),
    ]
    report_levels(found, notes)
    report_servers(found, capacity, noop)
    if given.json:
        value = {
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
            "deadline_ms": deadline_ms,
            "seconds": given.seconds,
            "load_1_per_s": reference,
            "capacity": capacity,
            "open_loop": found,
            "no_model": noop,
        }
        given.json.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
