"""Versions that take each other's place under load: ``python benchmarks/hot_swap.py``.

``retinue up`` serves NanoDet over HTTP at a steady share of what it can do, first without and then
with promotions. The two versions are the same weights with another card (the second one keeps the
five best boxes), so they cost the same and each answer shows which version made it. Counted are
requests that were not answered, and answers that are not, to the last digit, what the version that
they name gives for that photo. Photos: ``coco-train128.tar``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from accuracy import coco
from assets import dataset, weights
from common import show
from retinue.models.registry import Registry
from retinue.testing.load import Answer, ask
from servers import MODEL, retinue, running

NAME = MODEL
FEW = 5


def versions(cache: Path) -> list[str]:
    """Install both versions; the first one is promoted."""
    entry = weights(NAME)
    registry = Registry(cache)
    few = entry.card.output.model_copy(update={"max_detections": FEW})
    cards = [entry.card, entry.card.model_copy(update={"output": few})]
    found = [registry.import_onnx(entry.path, card=card).version for card in cards]
    registry.promote(NAME, found[0], actor="benchmark")
    return found


def percentile(answers: list[Answer], share: float) -> float:
    ordered = sorted(answer.seconds for answer in answers)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def mixtures(answers: list[Answer], photos: int, both: list[str]) -> int:
    """Count answers that are not what their version gives for their photo."""
    first: dict[tuple[str, int], object] = {}
    wrong = 0
    for answer in answers:
        body = json.loads(answer.body)
        key = (body["model_version"], answer.number % photos)
        wrong += first.setdefault(key, body["detections"]) != body["detections"]
    for photo in range(photos):
        whole, few = (first.get((version, photo)) for version in both)
        if isinstance(whole, list) and isinstance(few, list):
            wrong += few != whole[:FEW]
    return wrong


def swap(registry: Registry, both: list[str], times: list[float], moments: list[float]) -> None:
    """Promote the other version at each of some moments."""
    for turn, moment in enumerate(times):
        time.sleep(max(0.0, moment - time.monotonic()))
        moments.append(time.monotonic())
        registry.promote(NAME, both[(turn + 1) % 2], actor="benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity")
    chosen = parser.parse_args()
    path = dataset("coco-train128.tar")
    if path is None:
        return
    photos = coco(path)[0][:16]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        both = versions(cache)
        registry = Registry(cache)
        server = retinue(registry.get(NAME), cache, folder, body=photos[0], deadline_ms=60_000)
        server.environment["RETINUE_ROLLOUT__FOLLOW_S"] = "0.2"
        with running(server) as made:
            measure(chosen, made.url, photos, registry, both)


def measure(
    chosen: argparse.Namespace,
    url: str,
    photos: list[bytes],
    registry: Registry,
    both: list[str],
) -> None:
    began = time.monotonic()
    capacity_count = 300
    asyncio.run(ask(url, photos, capacity_count, clients=4))
    rate = chosen.load * capacity_count / (time.monotonic() - began)
    clients = 64
    steady = asyncio.run(
        ask(url, photos, max(500, chosen.requests // 5), clients=clients, rate=rate)
    )
    moments: list[float] = []
    length = chosen.requests / rate
    times = [
        time.monotonic() + length * (turn + 0.5) / chosen.swaps for turn in range(chosen.swaps)
    ]
    thread = threading.Thread(target=swap, args=(registry, both, times, moments))
    thread.start()
    swapping = asyncio.run(ask(url, photos, chosen.requests, clients=clients, rate=rate))
    thread.join()
    near = [a for a in swapping if any(0 <= a.at - moment < 3 for moment in moments)]
    rows = []
    for name, answers in (("steady", steady), ("20 swaps", swapping), ("3 s after each", near)):
        good = [a for a in answers if a.status == 200]
        p50, p99 = (1000 * percentile(good, share) for share in (0.5, 0.99))
        worst = 1000 * max(a.seconds for a in good)
        lost = len(answers) - len(good)
        rows.append((name, len(answers), lost, f"{p50:.0f}", f"{p99:.0f}", f"{worst:.0f}"))
    everything = [a for a in steady + swapping if a.status == 200]
    seen = Counter(json.loads(a.body)["model_version"] for a in swapping if a.status == 200)
    ratio = percentile(swapping, 0.99) / percentile(steady, 0.99)
    show(
        f"{chosen.requests} requests at {rate:.1f}/s during {len(moments)} swaps of {NAME}",
        ("phase", "requests", "lost", "p50 ms", "p99 ms", "worst ms"),
        rows,
        notes=[
            f"Answers by a mixture: {mixtures(everything, len(photos), both)}. "
            f"Answers by version: {', '.join(f'{v} {n}' for v, n in sorted(seen.items()))}.",
            f"p99 with swaps is {ratio:.2f} times the steady one.",
            f"Swaps were {length / chosen.swaps:.1f} s apart; "
            f"the load is {chosen.load:.0%} of what 4 clients got.",
        ],
    )


if __name__ == "__main__":
    main()
