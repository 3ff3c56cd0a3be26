"""INT8 against f32 and bf16, on every runtime: ``python benchmarks/int8.py``.

NanoDet on ``coco-train128.tar`` and EfficientNet-Lite0 on ``imagenet-500.tar``. Every recipe that
``retinue models quantize`` knows is made from one half of the photos; the accuracy is of the other
half, with the paired interval of the difference to f32. All variants are timed in one race, one
thread, a batch of one. Then ``quantize`` itself chooses. ``--nudenet`` also pulls NudeNet (or takes
a file of it; AGPL-3.0, read its licence first), whose INT8 is said to lose most detections: such a
version must be refused.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from contextlib import ExitStack
from pathlib import Path

from accuracy import coco as labelled_photos
from assets import dataset, weights
from common import ms, show
from retinue.calibrate.evaluate import Exam
from retinue.calibrate.machine import this_machine
from retinue.calibrate.quantize import Wish, quantize
from retinue.calibrate.quantize_bench import Bench, feeds
from retinue.calibrate.quantize_search import Kitchen
from retinue.calibrate.samples import Samples, open_samples
from retinue.calibrate.select import split
from retinue.calibrate.speed import race
from retinue.calibrate.variants import prepare, recipes, saturates
from retinue.core.errors import GateRefused, RetinueError
from retinue.core.settings import Execution, Settings, load_settings
from retinue.host.counting import Counter
from retinue.models.card import Card, Input, Output, RunWith, Source
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Registry

RUNTIMES = ("onnxruntime", "openvino")
DATA = {"nanodet-g-416": "coco-train128.tar", "efficientnet-lite0": "imagenet-500.tar"}
SEED = 7
"""Not the command's own, which the search was developed on."""
NUDENET = Card(
    name="nudenet-320n",
    task="detect",
    family="yolo",
    license="AGPL-3.0-only",
    homepage="https://github.com/notAI-tech/NudeNet",
    source=Source(
        url="wheel:nudenet@3.4.2",
        files={
            "nudenet/320n.onnx": "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
        },
    ),
    input=Input(height=320, width=320, anchor="top_left", pad=0, color="bgr"),
    output=Output(layout="yolov8", nms_iou=0.45),
    classes=tuple(f"class {n}" for n in range(18)),
)


def table(entry: Entry, samples: Samples, folder: Path, settings: Settings) -> None:
    """Time and examine every recipe on every runtime."""
    machine = this_machine()
    execution = Execution()
    with Counter() as progress, ExitStack() as stack:
        parts = split(
            samples, calibration=512, limits=settings.limits, seed=SEED, progress=progress
        )
        model = load_model(entry, execution)
        bench = Bench(entry, execution, model)
        bench.show(parts.calibration, settings.limits)
        network = prepare(entry.path, folder, feeds(model, parts.calibration, settings.limits))
        kitchen = Kitchen(network, len(parts.calibration), progress)
        judged = (*parts.held_out, *parts.spare)
        exam = Exam(judged, "", card=entry.card, limits=settings.limits)
        made: list[tuple[str, RunWith, Path]] = []
        failed: list[str] = []
        made += [(f"{r} f32", RunWith(runtime=r), entry.path) for r in RUNTIMES]
        made.append(("openvino bf16", RunWith(runtime="openvino", precision="bf16"), entry.path))
        for recipe in recipes(saturates=saturates(platform.machine(), machine.instructions)):
            try:
                path = kitchen.make(recipe)
            except RetinueError as error:
                failed.append(f"{recipe.label}: {error.message[:100]}")
                continue
            made += [(f"{r}: {recipe.label}", RunWith(runtime=r), path) for r in RUNTIMES]
        loaded = {}
        for label, run_with, path in made:
            try:
                loaded[label] = stack.enter_context(bench.loaded(path, run_with))
            except RetinueError as error:
                failed.append(f"{label}: {error.message[:100]}")
        speed = race(loaded, bench.rows, rounds=9, seconds=60, progress=progress)
        sittings = {label: exam.sit(one, progress) for label, one in loaded.items()}
    rows = []
    for label in loaded:
        own = f"{label.partition(' ')[0].rstrip(':')} f32"
        paired = exam.compare(sittings[own], sittings[label])
        d = paired.difference
        rows.append(
            (
                label,
                ms(speed.ms[label].median / 1000),
                f"{speed.ratio(own, label).median:.2f}",
                f"{100 * paired.b.value:.2f}",
                f"{100 * d.value:+.2f} ({100 * d.low:+.2f} .. {100 * d.high:+.2f})",
                f"{exam.agreement(sittings[own], sittings[label]).value:.3f}",
            )
        )
    show(
        f"{entry.card.name}: {exam.metric} on {len(judged)} photos, "
        f"calibrated with {len(parts.calibration)} others",
        ("variant", "ms", "times own f32", exam.metric, "difference, points", "agreement"),
        rows,
        notes=[f"Instructions: {', '.join(machine.instructions)}.", *failed],
    )


def choose(entry: Entry, samples: Samples, settings: Settings, registry: Registry) -> None:
    """Let ``quantize`` choose, and print what it says."""
    lines: list[str] = []
    try:
        with Counter() as progress:
            made = quantize(
                entry,
                samples,
                Wish(budget_s=900, seed=SEED),
                settings=settings,
                registry=registry,
                progress=progress,
                heard=lambda findings: lines.extend(findings.says),
            )
        print(f"{entry.card.name}: chosen and installed as {made.entry.version}")
    except GateRefused as error:
        print(f"{entry.card.name}: refused: {error.message}")
    for line in lines:
        print(f"  {line}")


def nudenet(registry: Registry, file: str) -> Entry:
    """Install NudeNet from a file, or from its package."""
    if file:
        return registry.import_onnx(Path(file), card=NUDENET)
    return registry.pull(NUDENET, accept_license=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(DATA), help="models to try")
    parser.add_argument("--no-table", action="store_true", help="only let quantize choose")
    parser.add_argument(
        "--nudenet", nargs="?", const="", metavar="FILE", help="accept AGPL-3.0, and try NudeNet"
    )
    chosen = parser.parse_args()
    settings = load_settings()
    with tempfile.TemporaryDirectory() as home:
        registry = Registry(Path(home) / "cache")

        def run(entry: Entry, samples: Samples) -> None:
            folder = Path(home) / entry.card.name
            folder.mkdir()
            if not chosen.no_table:
                table(entry, samples, folder, settings)
            choose(entry, samples, settings, registry)

        for name in chosen.models:
            data = dataset(DATA[name])
            if data is not None:
                source = weights(name)
                entry = registry.import_onnx(source.path, card=source.card)
                run(entry, open_samples(data, entry.card, settings=settings))
        photos = dataset(DATA["nanodet-g-416"]) if chosen.nudenet is not None else None
        if photos is not None:
            entry = nudenet(registry, chosen.nudenet)
            unlabelled = Path(home) / "photos"
            unlabelled.mkdir()
            for number, photo in enumerate(labelled_photos(photos)[0]):
                (unlabelled / f"{number}.jpg").write_bytes(photo)
            run(entry, open_samples(unlabelled, entry.card, settings=settings))


if __name__ == "__main__":
    main()
