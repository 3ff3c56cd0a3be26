"""A tiny embedding model with a text model beside it, and photos that it tells apart.

Both are real: an ONNX network and a table of word vectors, installed through cards, registry and
importers like any others, so that a whole system searches with them in milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import helper
from tokenizers import Tokenizer, models, pre_tokenizers

from retinue.core.settings import Settings
from retinue.core.types import Array
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.registry import Entry, Registry
from retinue.testing.onnx_models import save
from retinue.testing.text_towers import write_safetensors

EMBEDDER: Final = "tiny-search"
TEXT: Final = "tiny-text"
SIDE: Final = 32
GRID: Final = 4
DIM: Final = 48
TOKEN_BITS: Final = 16

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
}
"""What the text model knows the words of, as RGB."""

Floats = NDArray[np.float32]


def corners() -> Floats:
    """Return the colours as corners of the RGB cube: (8, 3), each element -1 or 1."""
    return np.array(list(COLOURS.values()), np.float32) / 127.5 - 1


def embedder(path: Path, *, turned: bool = False) -> Path:
    """Write the network: colours of a grid of 4 x 4 cells, in three forms.

    ``images`` float32 (N, 3, 32, 32), RGB in [0, 1] -> ``embedding`` (N, 48), the cells' mean
    colours turned by a fixed rotation; ``tokens`` (N, 16, 16), random contrasts of each cell;
    ``semantic`` (N, 8), how much the mean colour leans to each of `COLOURS`.

    Args:
        path: Where to.
        turned: Whether the rotation is another one: the same network to the eye, not to a digest.
    """
    draw = np.random.default_rng(int(turned))
    rotation = np.linalg.qr(draw.normal(size=(DIM, DIM)))[0]
    contrasts = draw.normal(size=(TOKEN_BITS, 3))
    contrasts -= contrasts.mean(axis=1, keepdims=True)
    weights: dict[str, Array] = {
        "middle": np.array(0.5, np.float32),
        # Middle grey must have a direction too.
        "least": np.full(DIM, 0.01, np.float32),
        "slightly": np.linspace(0.01, 0.02, len(COLOURS), dtype=np.float32),
        "rotation": rotation.astype(np.float32),
        "contrasts": contrasts.astype(np.float32)[:, :, None, None],
        "corners": np.ascontiguousarray(corners().T),
        "cells": np.array([0, TOKEN_BITS, -1], np.int64),
    }
    cell = SIDE // GRID
    pool: dict[str, Any] = {"kernel_shape": [cell, cell], "strides": [cell, cell]}
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], **pool),
        helper.make_node("Sub", ["means", "middle"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("MatMul", ["flat", "rotation"], ["rotated"]),
        helper.make_node("Add", ["rotated", "least"], ["embedding"]),
        helper.make_node("Conv", ["centred", "contrasts"], ["maps"]),
        helper.make_node("Reshape", ["maps", "cells"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["centred"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "corners"], ["leaning"]),
        helper.make_node("Add", ["leaning", "slightly"], ["semantic"]),
    ]
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "embedding": ("float32", ("N", DIM)),
        "tokens": ("float32", ("N", GRID * GRID, TOKEN_BITS)),
        "semantic": ("float32", ("N", len(COLOURS))),
    }
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "images": ("float32", ("N", 3, SIDE, SIDE))
    }
    return save(path, nodes, inputs, outputs, weights)


def install(
    cache: Path,
    folder: Path,
    *,
    turned: bool = False,
    name: str = EMBEDDER,
    words: int = len(COLOURS),
) -> Entry:
    """Install the embedding model, and the text model that its card names.

    Args:
        cache: The registry's folder.
        folder: Where the files are made that are installed; made when there is none.
        turned: See `embedder`.
        name: Of the embedding model.
        words: Length of the text model's vectors; another one fits no picture's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(cache)
    registry.pull(_text_card(folder / f"text-{words}", words))
    file = embedder(folder / f"{name}-{int(turned)}.onnx", turned=turned)
    return registry.pull(
        _card(
            {
                "name": name,
                "task": "embed",
                "family": "embedder",
                "text": TEXT,
                "source": {"url": file.absolute().as_uri(), "files": {file.name: sha256_of(file)}},
                "input": {"height": SIDE, "width": SIDE, "resize": "stretch"},
                "output": {"layout": "embedder"},
            }
        )
    )


def _text_card(folder: Path, words: int) -> Card:
    """Write the word vectors, one an exact colour each, and return their card."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.concatenate([np.zeros((1, words)), (corners() @ corners().T)[:, :words]])
    write_safetensors(folder / "l2_256.safetensors", table.astype("f2"))
    vocabulary = {"<unk>": 0} | {word: i for i, word in enumerate(COLOURS, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer_config.json"))
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    source = {"url": folder.absolute().as_uri(), "files": files, "importer": "wordllama"}
    return _card({"name": TEXT, "task": "text", "family": "text", "source": source})


def _card(fields: dict[str, Any]) -> Card:
    return Card.model_validate({"license": "MIT", **fields})


def settings(folder: Path, **fields: Any) -> Settings:
    """Return settings whose state and models are in a folder; the app's model is the tiny one.

    Args:
        folder: Where to; the models are installed there if they are not yet.
        fields: Replace the settings' own; "search" is the app's table.
    """
    install(folder / "cache", folder / "made")
    search = {"model": EMBEDDER, **fields.pop("search", {})}
    given: dict[str, Any] = {
        "home": folder / "home",
        "cache": folder / "cache",
        "apps": {"search": search},
    }
    return Settings(**(given | fields))


def photo(number: int, colour: str = "", *, quality: int = 92, width: int = 160) -> bytes:
    """Return a made-up photo as JPEG: the same for the same number, unlike all others.

    Args:
        number: Which.
        colour: One of `COLOURS` that it leans to; "" for none.
        quality: Of the JPEG.
        width: In pixels; the height is three quarters of it.
    """
    draw = np.random.default_rng(number)
    rough = draw.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    pixels = cv2.resize(rough, (160, 120), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    if colour:
        pixels = 0.5 * pixels + 0.5 * np.array(COLOURS[colour], np.float32)
    picture = np.clip(pixels, 0, 255).astype(np.uint8)
    height = round(width * 0.75)
    if width != picture.shape[1]:
        picture = np.asarray(cv2.resize(picture, (width, height)), np.uint8)
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)
