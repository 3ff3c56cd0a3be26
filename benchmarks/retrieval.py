"""How well the default search model finds: ``python benchmarks/retrieval.py``.

- Same class: CIFAR-10's photos by one another, on a random 2000 as queries. The 1280-d pooled
  features of EfficientNet-Lite0 are compared with the 256-d embedding made of them.
- Text: 20 everyday words over 500 ImageNet photos. What is relevant was listed by hand, below.
- Same kind: ImageNet photos by one another, of those words' kinds.
- The same photo: 200 of the ImageNet photos, changed, each to be found among the 500. This and the
  same kind are measured for the index alone and with the app's stages on the 200 nearest.

``--photos`` limits CIFAR-10's. The embedding's constants were learnt from the ImageNet and COCO
photos, without labels; the network itself was trained on ImageNet, perhaps on these photos.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

# Threads that spin while they wait take shared cores from one another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np

from assets import dataset, members, weights
from common import show
from retinue.apps.search.prepare import THUMBNAIL, reduced
from retinue.apps.search.query import Query, image_term
from retinue.apps.search.rerank import Candidates, Expansion, Geometry, PatchTokens, Stage
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Limits
from retinue.core.types import Embedding, Image
from retinue.measure.retrieval import average_precisions, mean, precision_at, recall_at
from retinue.media.decode import decode
from retinue.models.base import class_names
from retinue.models.loading import load_model
from retinue.models.text import load_text

NAME = "efficientnet-lite0-search"
BATCH = 16
QUERIES = 2000
CHANGED = 200
TOP = 200

RELEVANT = {
    "dog": "Chihuahua..Mexican hairless",
    "bird": "cock..great grey owl, black grouse..goose, black swan, white stork..albatross",
    "fish": "tench..stingray, barracouta..puffer",
    "snake": "thunder snake..sidewinder",
    "reptile": "loggerhead..American alligator, thunder snake..sidewinder",
    "insect": "tiger beetle..lycaenid",
    "monkey": "orangutan..squirrel monkey, Madagascar cat, indri",
    "car": "ambulance, beach wagon, cab, convertible, jeep, limousine, minivan, Model T, "
    "police van, racer, sports car",
    "boat": "aircraft carrier, canoe, catamaran, container ship, fireboat, gondola, lifeboat, "
    "liner, pirate, schooner, speedboat, submarine, trimaran, yawl",
    "vehicle": "airliner, airship, aircraft carrier, ambulance, amphibian, beach wagon, "
    "bicycle-built-for-two, bobsled, bullet train, cab, canoe, catamaran, container ship, "
    "convertible, dogsled, electric locomotive, fire engine, fireboat, forklift, freight car, "
    "garbage truck, go-kart, golfcart, gondola, half track, harvester, horse cart, jeep, "
    "jinrikisha, lifeboat, limousine, liner, minibus, minivan, Model T, moped, motor scooter, "
    "mountain bike, moving van, oxcart, passenger car, pickup, pirate, police van, racer, "
    "recreational vehicle, school bus, schooner, snowmobile, snowplow, space shuttle, speedboat, "
    "sports car, steam locomotive, streetcar, submarine, tank, thresher, tow truck, tractor, "
    "trailer truck, tricycle, trimaran, trolleybus, unicycle, warplane, yawl",
    "musical instrument": "accordion, acoustic guitar, banjo, bassoon, cello, chime, cornet, drum, "
    "electric guitar, flute, French horn, gong, grand piano, harmonica, harp, maraca, marimba, "
    "oboe, ocarina, organ, panpipe, sax, steel drum, trombone, upright, violin",
    "food": "guacamole..pomegranate, carbonara..espresso, eggnog",
    "fruit": "Granny Smith..pomegranate",
    "clothing": "abaya, academic gown, apron, bikini, bonnet, bow tie, brassiere, cardigan, cloak, "
    "cowboy hat, feather boa, fur coat, gown, hoopskirt, jean, jersey, kimono, lab coat, maillot, "
    "military uniform, miniskirt, mitten, overskirt, pajama, poncho, sarong, ski mask, sock, "
    "sombrero, stole, suit, sweatshirt, swimming trunks, trench coat, vestment, Windsor tie",
    "furniture": "barber chair, bassinet, bookcase, chest, chiffonier, china cabinet, cradle, "
    "crib, desk, dining table, entertainment center, file, folding chair, four-poster, "
    "medicine chest, park bench, pool table, rocking chair, studio couch, table lamp, throne, "
    "wardrobe",
    "ball": "baseball, basketball, croquet ball, golf ball, ping-pong ball, rugby ball, "
    "soccer ball, tennis ball, volleyball",
    "building": "bakery, barbershop, barn, bell cote, boathouse, bookshop, butcher shop, castle, "
    "church, cinema, cliff dwelling, dome, greenhouse, grocery store, library, lumbermill, "
    "mobile home, monastery, mosque, palace, planetarium, prison, restaurant, shoe shop, stupa, "
    "tobacco shop, toyshop, yurt",
    "tool": "broom, can opener, carpenter's kit, chain saw, cleaver, corkscrew, hammer, hatchet, "
    "lawn mower, letter opener, paintbrush, pick, plane, plow, plunger, power drill, "
    "screwdriver, shovel",
    "computer": "computer keyboard, desktop computer, hand-held computer, hard disc, laptop, "
    "modem, monitor, mouse, notebook, printer, screen, space bar",
    "sports equipment": "balance beam, barbell, baseball, basketball, bobsled, croquet ball, "
    "dumbbell, football helmet, golf ball, horizontal bar, parallel bars, ping-pong ball, puck, "
    "punching bag, racket, rugby ball, ski, soccer ball, tennis ball, volleyball",
}
"""Word to the ImageNet classes that it means; "a..b" is every class of ImageNet's list from a to b.

Only a class that is listed counts: a photo of a trilobite is never right for "fish".
"""

Row = tuple[object, ...]


def classes(listing: str) -> set[int]:
    """Return the indices of the classes of an entry of `RELEVANT`."""
    names = class_names("imagenet")
    found: set[int] = set()
    for part in listing.split(", "):
        # Two classes of ImageNet may have one name.
        first, _, last = part.partition("..")
        found |= set(range(names.index(first), names.index(last or first) + 1))
        found |= {i for i, name in enumerate(names) if name == part}
    return found


def embedded(model: Model, pictures: Iterable[Image]) -> list[Embedding]:
    found: list[Embedding] = []
    batch: list[Image] = []

    def flush() -> None:
        for outcome in model.predict(batch):
            value = outcome.embedding or outcome.unwrap()
            assert isinstance(value, Embedding)
            found.append(value)
        batch.clear()

    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH:
            flush()
    flush()
    return found


def opened(content: bytes, model: Model) -> Image:
    return decode(content, limits=Limits(), target=model.decode_size)


def unit(vectors: Iterable[np.ndarray]) -> np.ndarray:
    rows = np.stack(list(vectors))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def figure(values: np.ndarray) -> str:
    found = mean(values)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def same_class(path: Path, plain: Model, model: Model, limit: int) -> list[Row]:
    files = [(name, content) for name, content in members(path) if name.endswith(".jpg")]
    random = np.random.default_rng(0)
    files = [files[i] for i in random.permutation(len(files))[:limit]]
    labels = np.array([name.split("/")[0] for name, _ in files])
    queries = random.permutation(len(files))[:QUERIES]
    same = {label: set(np.flatnonzero(labels == label).tolist()) for label in set(labels)}
    relevant = [same[labels[query]] - {int(query)} for query in queries]
    cells: list[tuple[str, str]] = []
    for one in (plain, model):
        vectors = unit(e.vector for e in embedded(one, (opened(c, one) for _, c in files)))
        precisions, first = [], []
        # A part at a time: whole rankings of all queries would take a gigabyte.
        for start in range(0, len(queries), 100):
            part = queries[start : start + 100]
            scores = vectors[part] @ vectors.T
            scores[np.arange(len(part)), part] = -np.inf
            found = np.argsort(-scores, axis=1)[:, :-1].astype(np.int64)
            truth = relevant[start : start + 100]
            precisions.append(average_precisions(found, truth, found.shape[1]))
            first.append(precision_at(found, truth, 10))
        cells.append((figure(np.concatenate(precisions)), figure(np.concatenate(first))))
    name = f"CIFAR-10, same class of {len(files):,}"
    return [
        (name, len(queries), "mAP", cells[0][0], cells[1][0]),
        ("", "", "precision@10", cells[0][1], cells[1][1]),
    ]


def text(photos: Sequence[Embedding], labels: Sequence[int]) -> list[Row]:
    encoder = load_text(weights("wordllama-text"), Execution())
    space = np.stack([e.semantic for e in photos if e.semantic is not None])
    scores = encoder.encode(list(RELEVANT)) @ space.T
    found = np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
    wanted = [classes(listing) for listing in RELEVANT.values()]
    relevant = [{i for i, label in enumerate(labels) if label in one} for one in wanted]
    precision = precision_at(found, relevant, 10)
    for word, ids, value in zip(RELEVANT, relevant, precision, strict=True):
        print(f"  {word}: {len(ids)} photos, precision@10 {value:.1f}")
    best = np.mean([min(len(ids), 10) / 10 for ids in relevant])
    ap = average_precisions(found, relevant, found.shape[1])
    return [
        (
            f"text, ImageNet-{len(photos)}",
            len(relevant),
            f"precision@10 of {best:.2f}",
            "",
            figure(precision),
        ),
        ("", "", "mAP", "", figure(ap)),
    ]


def jpeg(photo: np.ndarray) -> np.ndarray:
    _, coded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 30])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def recoloured(photo: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 60) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def cropped(photo: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = (int(side * 0.5**0.5) for side in photo.shape[:2])
    top = random.integers(0, photo.shape[0] - height + 1)
    left = random.integers(0, photo.shape[1] - width + 1)
    return np.ascontiguousarray(photo[top : top + height, left : left + width])


def pasted(
    photo: np.ndarray, ground: np.ndarray, share: float, random: np.random.Generator
) -> np.ndarray:
    """Put a photo somewhere onto another one, on a share of its area."""
    height, width = ground.shape[:2]
    scale = (share * ground.size / photo.size) ** 0.5
    scale = min(scale, height / photo.shape[0], width / photo.shape[1])
    size = max(int(photo.shape[1] * scale), 1), max(int(photo.shape[0] * scale), 1)
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    top = random.integers(0, height - small.shape[0] + 1)
    left = random.integers(0, width - small.shape[1] + 1)
    result = ground.copy()
    result[top : top + small.shape[0], left : left + small.shape[1]] = small
    return result


class Photos:
    """The photos as an open space of a collection: what the stages of the app ask of one."""

    def __init__(self, photos: Sequence[Embedding], pixels: Sequence[np.ndarray]) -> None:
        self.vectors = unit(photo.vector for photo in photos)
        self.fields = {"image": self}
        self.tokens = self
        self.space = SimpleNamespace(token_bytes=photos[0].tokens.shape[1])
        self._tokens = np.stack([photo.tokens.reshape(-1) for photo in photos])
        self._pixels = pixels

    def exact(self, slots: np.ndarray) -> np.ndarray:
        return self.vectors[slots]

    def read(self, slots: np.ndarray) -> np.ndarray:
        return self._tokens[slots]

    def pictures(self, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        return {n: reduced(self._pixels[n], THUMBNAIL) for n in numbers}

    def ranked(self, query: Embedding, pixels: np.ndarray, stages: Sequence[Stage]) -> np.ndarray:
        """Return all ids, the nearest `TOP` in the order that some stages of the app give them."""
        cosines = self.vectors @ query.vector
        order = np.argsort(-cosines, kind="stable")
        top = order[:TOP]
        asked = Query([image_term(query, pixels=lambda: pixels)], deadline=float("inf"))
        found = Candidates(
            asked, self, {"image": query.vector}, top, top, cosines[top], self.pictures
        )
        for stage in stages:
            if stage.applies(found):
                stage.run(found)
        return np.concatenate([top[np.argsort(-found.scores, kind="stable")], order[TOP:]])


SETS: dict[str, tuple[Stage, ...]] = {
    "index alone": (),
    "+ diffusion": (Expansion(),),
    "+ tokens": (PatchTokens(),),
    "+ geometric": (Geometry(),),
    "all three": (Expansion(), PatchTokens(), Geometry()),
}


def same_photo(
    model: Model, photos: Sequence[Embedding], pixels: Sequence[np.ndarray], grounds: list[bytes]
) -> list[Row]:
    random = np.random.default_rng(11)
    chosen = random.permutation(len(photos))[:CHANGED]
    others = [opened(content, model).pixels for content in grounds]

    def ground() -> np.ndarray:
        return others[random.integers(len(others))]

    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "JPEG at quality 30": jpeg,
        "half of its area": lambda p: cropped(p, random),
        "hue turned by 120 degrees": recoloured,
    }
    if others:
        ways |= {
            f"on {share:.0%} of another photo": lambda p, s=share: pasted(p, ground(), s, random)
            for share in (0.25, 0.12)
        }
    space = Photos(photos, pixels)
    truth = chosen[:, None].astype(np.int64)
    rows: list[Row] = []
    for way, change in ways.items():
        changed = [change(pixels[i]) for i in chosen]
        queries = embedded(model, (Image(p, p.shape[1], p.shape[0]) for p in changed))
        found = {
            name: np.stack(
                [space.ranked(q, p, stages) for q, p in zip(queries, changed, strict=True)]
            ).astype(np.int64)
            for name, stages in SETS.items()
        }
        for k in (1, 10):
            cells = [figure(recall_at(one, truth, k)) for one in found.values()]
            head = (way, len(chosen)) if k == 1 else ("", "")
            rows.append((*head, f"recall@{k}", *cells))
    return rows


def same_kind(
    photos: Sequence[Embedding], pixels: Sequence[np.ndarray], labels: Sequence[int]
) -> list[Row]:
    """Search by each photo for others of its kind; of kinds that share photos, the first's."""
    kinds: dict[int, int] = {}
    for kind, listing in enumerate(RELEVANT.values()):
        for label in classes(listing):
            kinds.setdefault(label, kind)
    found_kinds = [kinds.get(label, -1) for label in labels]
    members_of = [
        {i for i, one in enumerate(found_kinds) if one == kind} for kind in range(len(RELEVANT))
    ]
    queries = [i for i, kind in enumerate(found_kinds) if kind >= 0 and len(members_of[kind]) > 5]
    space = Photos(photos, pixels)
    relevant = [members_of[found_kinds[query]] - {query} for query in queries]
    cells = []
    for stages in SETS.values():
        ranked = (space.ranked(photos[q], pixels[q], stages) for q in queries)
        found = np.stack([order[order != q] for order, q in zip(ranked, queries, strict=True)])
        cells.append(figure(precision_at(found.astype(np.int64), relevant, 5)))
    return [("same kind, ImageNet", len(queries), "precision@5", *cells)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=20_000, help="of CIFAR-10; 0 for none")
    options = parser.parse_args()
    model = load_model(weights(NAME), Execution())
    rows: list[Row] = []
    stages: list[Row] = []
    if options.photos and (path := dataset("cifar10-train20k.tar.gz")):
        plain = load_model(weights("efficientnet-lite0"), Execution())
        rows += same_class(path, plain, model, options.photos)
    if path := dataset("imagenet-500.tar"):
        files = [(name, content) for name, content in members(path) if name.endswith(".JPEG")]
        images = [opened(content, model) for _, content in files]
        photos = embedded(model, images)
        names = [Path(name).stem.partition("_")[2].replace("_", " ") for name, _ in files]
        labels = [class_names("imagenet").index(name) for name in names]
        rows += text(photos, labels)
        pixels = [image.pixels for image in images]
        stages += same_kind(photos, pixels, labels)
        coco = dataset("coco-train128.tar")
        grounds = [c for n, c in members(coco) if n.endswith(".jpg")] if coco else []
        stages += same_photo(model, photos, pixels, grounds)
    notes = ("in brackets: 95 % intervals",)
    if rows:
        columns = ("", "queries", "", "1280-d, pooled", "256-d")
        show(f"{NAME}: what it finds", columns, rows, notes=notes)
    if stages:
        show(f"{NAME}: what each stage adds", ("", "queries", "", *SETS), stages, notes=notes)


if __name__ == "__main__":
    main()
