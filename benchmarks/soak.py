"""A long run at high load with bad inputs and clients that leave: nothing leaks, nothing is lost.

    python benchmarks/soak.py [--minutes 30] [--share 0.8]

`retinue up` with its defaults and two instances, open-loop Poisson load at a share of the capacity
that is measured first: photos to ``/v1/detect``, raw tensors over ``/v2``, both through gRPC too
(`tritonclient`), 1 % bad inputs of seven kinds, and clients that hang up in the middle of their
upload or of their wait. Exits with 1 when one of these does not hold:

- every request sent was answered, with a status that its kind allows, or its client hung up;
- the server's own counts of requests by route are those of the clients, and every photo that was
  answered 200 over HTTP has a record in the database;
- the memory (RSS) at the end is within 5 % of that after the warm-up;
- after the load, there are as many open files and threads as before it;
- the 99th percentile of no window is above twice the median of the windows'.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import tritonclient.grpc as triton
from prometheus_client.parser import text_string_to_metric_families

import servers
from assets import weights
from common import show
from mixture import Kind, kinds, shots
from open_loop import Outcome, fire, hurry, quantile
from retinue.core.settings import load_settings
from servers import CLIENTS, MODEL, PHOTO, Running, closed, warm_up

WINDOWS = 6
RSS_WITHIN = 0.05
P99_WITHIN = 2.0
SPARE_FILES, SPARE_THREADS = 8, 4
GRPC_EVERY_S = 1.0
CALM_S = 5.0


@dataclass
class Grpc:
    """A client over gRPC, with NVIDIA's library, in a thread of its own.

    Attributes:
        address: Where the server is.
        side: Height and width of the model's input.
        seen: How often each end was seen: "OK", or the status' name.
        sent: How many requests it sent.
        bad: How many of them were bad on purpose.
    """

    address: str
    side: int
    seen: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    bad: int = 0

    def run(self, stop: threading.Event) -> None:
        """Send a request now and then; every twentieth is bad."""
        with contextlib.closing(triton.InferenceServerClient(self.address)) as client:
            while not stop.wait(GRPC_EVERY_S):
                self.sent += 1
                wrong = self.sent % 20 == 0
                self.bad += wrong
                try:
                    client.infer(MODEL, [_input(1 if wrong else self.side)], client_timeout=30)
                    self.seen["OK"] += 1
                except triton.InferenceServerException as error:
                    self.seen[str(error.status()).rpartition(".")[2]] += 1


def _input(side: int) -> triton.InferInput:
    found = triton.InferInput("images", [1, 3, side, side], "FP32")
    found.set_data_from_numpy(np.zeros((1, 3, side, side), np.float32))
    return found


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    minute: float
    rss_mb: float
    files: int
    threads: int


def sample(pid: int, began: float) -> Sample:
    """Look at the server."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Sample(
            (time.monotonic() - began) / 60,
            process.memory_info().rss / 1e6,
            process.num_fds(),
            process.num_threads(),
        )


def watch(pid: int, every_s: float, stop: threading.Event, found: list[Sample]) -> None:
    """Look at the server again and again."""
    began = time.monotonic()
    while not stop.wait(every_s):
        found.append(sample(pid, began))


@dataclass(frozen=True)
class Books:
    """What the server itself has counted.

    Attributes:
        requests: POST requests by route and status, in its metrics.
        records: Photos over HTTP that succeeded, in its database.
    """

    requests: Counter[tuple[str, int]]
    records: int

    def since(self, before: Books) -> Books:
        """Return what was added."""
        added = Counter(self.requests)
        added.subtract(before.requests)
        return Books(added, self.records - before.records)


def books(base: str, home: Path) -> Books:
    """Read the server's metrics and its database."""
    requests: Counter[tuple[str, int]] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{base}/metrics").text):
        for one in family.samples:
            if one.name == "retinue_http_requests_total" and one.labels["method"] == "POST":
                requests[one.labels["route"], int(one.labels["status"])] += int(one.value)
    with contextlib.closing(sqlite3.connect(home / "records.sqlite3")) as database:
        query = "select count(*) from retinue_records where app = 'detect' and code = ''"
        ((records,),) = database.execute(query).fetchall()
    return Books(requests, records)


@dataclass(frozen=True)
class Seen:
    """All that was seen of a run.

    Attributes:
        kinds: The kinds of requests that were sent.
        outcomes: How each ended.
        grpc: The client over gRPC.
        books: What the server counted of them.
        before: The server before the load.
        during: The server now and then.
        after: The server after the load.
    """

    kinds: Mapping[str, Kind]
    outcomes: Sequence[Outcome]
    grpc: Grpc
    books: Books
    before: Sample
    during: Sequence[Sample]
    after: Sample


@dataclass
class Verdict:
    """What was found wrong, and what is worth a line."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def hold(self, true: bool, text: str) -> None:
        """Note a bound and whether it holds."""
        self.notes.append(f"{'held' if true else 'BROKEN'}: {text}")
        if not true:
            self.wrong.append(text)


def judge_answers(verdict: Verdict, seen: Seen) -> None:
    """Every request ended in a way that its kind allows."""
    strange: Counter[str] = Counter()
    for outcome in seen.outcomes:
        kind = seen.kinds[outcome.shot.kind]
        leaves = kind.cut is not None or kind.leave_s is not None
        if outcome.status not in kind.statuses and not (leaves and outcome.left):
            end = outcome.why or outcome.status or "no answer"
            strange[f"{outcome.shot.kind}: {end}"] += 1
    sent, left = len(seen.outcomes), sum(outcome.left for outcome in seen.outcomes)
    text = f"{sent} requests sent: {sent - left} answered as they should, {left} hung up"
    verdict.hold(not strange, f"{text}; otherwise: {dict(strange) or 'none'}")
    grpc = seen.grpc
    verdict.hold(
        grpc.seen == +Counter({"OK": grpc.sent - grpc.bad, "INVALID_ARGUMENT": grpc.bad}),
        f"{grpc.sent} calls over gRPC, {grpc.bad} of them bad: {dict(grpc.seen)}",
    )


def judge_books(verdict: Verdict, seen: Seen) -> None:
    """The server counted what its clients saw; who hung up may have been answered all the same."""
    server = seen.books.requests
    routes = {name: kind.route for name, kind in seen.kinds.items()}
    clients = Counter((routes[o.shot.kind], o.status) for o in seen.outcomes if not o.left)
    sent = Counter(routes[o.shot.kind] for o in seen.outcomes if o.sent)
    for route in sorted(sent):
        theirs = sum(n for (at, _), n in server.items() if at == route)
        verdict.hold(
            sent[route] == theirs, f"{route}: {sent[route]} sent, the server counted {theirs}"
        )
    missing = {key: n - server[key] for key, n in clients.items() if n > server[key]}
    verdict.hold(not missing, f"answers that its metrics lack: {missing or 'none'}")
    answered = server["/v1/detect", 200]
    text = f"{answered} photos answered with 200, {seen.books.records} records of them"
    verdict.hold(seen.books.records == answered, text)


def judge_server(verdict: Verdict, seen: Seen) -> None:
    """Nothing grew."""
    first, last = seen.during[0], seen.during[-1]
    growth = last.rss_mb / first.rss_mb - 1
    verdict.hold(
        growth <= RSS_WITHIN,
        f"RSS {first.rss_mb:.1f} MB after {first.minute:.1f} minutes, {last.rss_mb:.1f} MB after "
        f"{last.minute:.1f}: {100 * growth:+.1f} %, at most {100 * RSS_WITHIN:g} %",
    )
    files, more_files = seen.before.files, seen.after.files - seen.before.files
    verdict.hold(more_files <= SPARE_FILES, f"open files: {files} before, {more_files:+d} after")
    threads, more = seen.before.threads, seen.after.threads - seen.before.threads
    verdict.hold(more <= SPARE_THREADS, f"threads: {threads} before, {more:+d} after")


def judge_windows(verdict: Verdict, seen: Seen, seconds: float) -> list[tuple[str, ...]]:
    """The waiting times stay what they were; return the table's rows."""
    rows: list[tuple[str, ...]] = []
    p99s: list[float] = []
    for number in range(WINDOWS):
        low, high = number * seconds / WINDOWS, (number + 1) * seconds / WINDOWS
        here = [o for o in seen.outcomes if low <= o.shot.at < high]
        waits = [o.seconds for o in here if o.status == 200 and o.shot.kind == "photo"]
        p99s.append(quantile(waits, 0.99))
        figures = (quantile(waits, 0.5), p99s[-1], quantile([o.lag_s for o in here], 0.99))
        window = f"minutes {low / 60:.1f} to {high / 60:.1f}"
        rows.append((window, str(len(here)), *(f"{1e3 * s:.0f}" for s in figures)))
    bound = P99_WITHIN * statistics.median(p99s)
    text = f"p99 of each window at most {1e3 * bound:.0f} ms: {1e3 * max(p99s):.0f} ms"
    verdict.hold(max(p99s) <= bound, text)
    return rows


def soak(running: Running, home: Path, grpc: Grpc, rate: float, given: argparse.Namespace) -> Seen:
    """Load the server, and watch it meanwhile."""
    base = running.url.removesuffix(running.server.path)
    seconds = given.minutes * 60
    chosen = kinds(base, grpc.side)
    stop = threading.Event()
    during: list[Sample] = []
    every_s = min(60.0, seconds / 10)
    threads = [
        threading.Thread(target=watch, args=(running.pid, every_s, stop, during)),
        threading.Thread(target=grpc.run, args=(stop,)),
    ]
    begun, before = books(base, home), sample(running.pid, time.monotonic())
    for thread in threads:
        thread.start()
    try:
        outcomes = fire(base, shots(chosen, rate, seconds, given.give_up_s))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    time.sleep(CALM_S)
    after = sample(running.pid, time.monotonic())
    added = books(base, home).since(begun)
    return Seen(chosen, outcomes, grpc, added, before, during, after)


def main() -> None:
    """Soak, print the tables, exit with 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the measured capacity")
    parser.add_argument("--give-up-s", type=float, default=30.0, help="then an answer is lost")
    given = parser.parse_args()
    entry = weights(MODEL)
    with tempfile.TemporaryDirectory() as home:
        server = servers.retinue(entry, load_settings().cache, home, body=PHOTO.read_bytes())
        port = str(servers.free_port())
        environment = {**server.environment, "RETINUE_SERVER__GRPC_PORT": port}
        with servers.running(replace(server, environment=environment)) as running:
            warm_up(running)
            capacity = closed(running, CLIENTS, 8)["per_s"]
            time.sleep(CALM_S)
            hurry()
            grpc = Grpc(f"127.0.0.1:{port}", entry.card.input.height)
            seen = soak(running, Path(home), grpc, given.share * capacity, given)
    report(seen, capacity, given)


def report(seen: Seen, capacity: float, given: argparse.Namespace) -> None:
    """Judge and print what was seen; exit with 1 when a bound is broken."""
    verdict = Verdict()
    rows = judge_windows(verdict, seen, given.minutes * 60)
    judge_answers(verdict, seen)
    judge_books(verdict, seen)
    judge_server(verdict, seen)
    columns = ("minute", "RSS MB", "open files", "threads")
    samples = [(f"{s.minute:.1f}", f"{s.rss_mb:.1f}", s.files, s.threads) for s in seen.during]
    show("The server", columns, samples)
    load = f"Capacity {capacity:.1f}/s, load {given.share:g} of it, {given.minutes:g} minutes."
    waits = ("window", "requests", "photo p50 ms", "photo p99 ms", "generator late p99 ms")
    show("Soak", waits, rows, notes=[load, *verdict.notes])
    if verdict.wrong:
        sys.exit(f"{len(verdict.wrong)} bounds are broken: {'; '.join(verdict.wrong)}")


if __name__ == "__main__":
    main()
