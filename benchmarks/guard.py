"""A degraded version in production, and the live guard: ``python benchmarks/guard.py``.

``retinue up`` serves a version of NanoDet that says of itself how well it agrees with its parent,
and whose weights were damaged after that was measured. Counted are the requests and seconds from
the first one until the parent answers again, and the comparisons that the guard needed; without the
guard nothing stops it. "sound" was not damaged: the guard must leave it alone. Photos:
``coco-train128.tar``, over and over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import numpy_helper

from accuracy import coco, opened
from assets import dataset, weights
from common import show
from retinue.core.settings import Execution
from retinue.measure.agreement import agreement
from retinue.measure.paired import paired_mean
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Lineage, Registry
from retinue.runtimes.onnxruntime import OnnxRuntime
from retinue.testing.load import Answer, ask
from servers import MODEL, retinue, running


@dataclass(frozen=True)
class Damage:
    """A way to damage a version.

    Attributes:
        name: What the table calls it.
        share: Share of the layers that are hit.
        noise: Added to their weights, in standard deviations of each layer's.
    """

    name: str
    share: float
    noise: float


DAMAGES = (
    Damage("sound", 0.0, 0.0),
    Damage("slight", 1.0, 0.15),
    Damage("strong", 1.0, 0.4),
    Damage("total", 1.0, 3.0),
)
SOUND = Damage("as measured", 1.0, 0.02)


def damaged(source: Path, out: Path, damage: Damage) -> Path:
    """Write a copy of an ONNX file with noise in its weights."""
    model = onnx.load(source)
    chance = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim != 4 or values.dtype != np.float32 or chance.random() >= damage.share:
            continue
        noise = chance.normal(0, damage.noise * values.std() + 1e-12, values.shape)
        tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    onnx.save(model, out)
    return out


def agreements(entry: Entry, path: Path, photos: list[bytes]) -> np.ndarray:
    """Return how far other weights agree with an installed version, by photo."""
    here = Execution()
    parent = load_model(entry, here)
    other = type(parent)(entry.card, "other", OnnxRuntime(path))
    found = []
    for photo in photos:
        image = opened(photo, parent)
        found.append(agreement(parent.predict([image])[0], other.predict([image])[0]))
    return np.array(found)


def install(registry: Registry, entry: Entry, path: Path, lineage: Lineage) -> Entry:
    with registry.workspace(MODEL) as folder:
        made = folder / "entry" / "model.onnx"
        made.parent.mkdir(exist_ok=True)
        made.write_bytes(path.read_bytes())
        return registry.derive(entry, made, entry.card, lineage, {})


@dataclass(frozen=True)
class Found:
    """What became of a version: requests that it answered, for how long, how many compared."""

    answered: int
    seconds: float
    compared: int
    gone: bool


def serve(
    registry: Registry, cache: Path, version: Entry, photos: list[bytes], share: float, most: int
) -> Found:
    """Serve a version until the guard takes it out, or for so many requests."""
    with tempfile.TemporaryDirectory() as home:
        registry.promote(MODEL, version.version, actor="benchmark")
        server = retinue(version, cache, home, body=photos[0])
        server.environment["RETINUE_ROLLOUT__GUARD_SHARE"] = str(share)
        with running(server) as made:
            answers: list[Answer] = []
            while len(answers) < most and (not answers or not _other(answers, version)):
                answers += asyncio.run(ask(made.url, photos, 64, clients=4))
            text = httpx.get(made.url.partition("/v1")[0] + "/metrics").text
    of = [a for a in answers if json.loads(a.body)["model_version"] == version.version]
    start = min(a.at for a in answers)
    end = max(a.at + a.seconds for a in of) if of else start
    counted = re.search(
        rf'retinue_agreement_count{{.*role="guard".*version="{version.version}"}} (\S+)', text
    )
    compared = int(float(counted[1])) if counted else 0
    return Found(len(of), end - start, compared, len(of) < len(answers))


def _other(answers: list[Answer], version: Entry) -> bool:
    return any(json.loads(a.body)["model_version"] != version.version for a in answers[-64:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.05, help="of requests that are compared")
    parser.add_argument("--most", type=int, default=3000, help="requests at most")
    chosen = parser.parse_args()
    data = dataset("coco-train128.tar")
    if data is None:
        return
    photos = coco(data)[0]
    source = weights(MODEL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        registry = Registry(root / "cache")
        parent = registry.import_onnx(source.path, card=source.card)
        registry.promote(MODEL, parent.version, actor="benchmark")
        measured = agreements(parent, damaged(source.path, root / "sound.onnx", SOUND), photos)
        value = paired_mean(measured, measured).a
        lineage = Lineage(parent=parent.version, agreement=value.value, agreement_low=value.low)
        for damage in DAMAGES:
            noise = SOUND if damage.name == "sound" else damage
            file = damaged(source.path, root / f"{damage.name}.onnx", noise)
            real = agreements(parent, file, photos).mean()
            version = install(registry, parent, file, lineage)
            guarded = serve(registry, root / "cache", version, photos, chosen.share, chosen.most)
            rows.append(
                (
                    damage.name,
                    f"{real:.3f}",
                    guarded.compared,
                    guarded.answered if guarded.gone else f"all {guarded.answered}",
                    f"{guarded.seconds:.1f}" if guarded.gone else "stays",
                )
            )
            registry.promote(MODEL, parent.version, actor="benchmark")
            if damage.name == "strong":
                bare = serve(registry, root / "cache", version, photos, 0.0, chosen.most)
                rows.append(("strong, no guard", f"{real:.3f}", 0, f"all {bare.answered}", "stays"))
                registry.promote(MODEL, parent.version, actor="benchmark")
    show(
        f"A degraded {MODEL} with the live guard at {chosen.share:.0%} of the requests",
        ("version", "agreement", "compared", "answered by it", "seconds until taken out"),
        rows,
        notes=[
            f"Measured agreement {lineage.agreement:.3f}, lower end {lineage.agreement_low:.3f}; "
            "the bound is 0.05 below that; false alarms at most once in 1e6 comparisons.",
        ],
    )


if __name__ == "__main__":
    main()
