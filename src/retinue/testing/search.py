"""Collections with made-up embeddings: near one another where their items are meant to be alike."""

from __future__ import annotations

import random
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from retinue.apps.search.library import Library
from retinue.apps.search.settings import SearchSettings
from retinue.apps.search.writer import Entry, space_of
from retinue.core.types import Embedding
from retinue.store.collections import Collection, Put

DIM = 16
MODEL = "made-up"
VERSION = "1"


def made_up(number: int, *, topic: int = -1, text: int = 8) -> Embedding:
    """Return the embedding of a number: always the same; near those of the same topic.

    Args:
        number: Which.
        topic: Items of a topic have cosines of about .8; -1 for none.
        text: Length of the vector for texts; 0 for none.
    """
    draw = np.random.default_rng(number + 1)
    vector = draw.normal(size=DIM)
    if topic >= 0:
        vector = np.random.default_rng(10**6 + topic).normal(size=DIM) + 0.5 * vector
    semantic = draw.normal(size=max(text, 1))
    return Embedding(
        (vector / np.linalg.norm(vector)).astype(np.float32),
        draw.integers(0, 256, (4, 2), dtype=np.uint8),
        (2, 2),
        (semantic / np.linalg.norm(semantic)).astype(np.float32) if text else None,
    )


def item(number: int, meta: Mapping[str, Any] | None = None, **fields: Any) -> Put:
    """Return an item without a picture, called "i" and its number."""
    defaults: dict[str, Any] = {
        "id": f"i{number}",
        "path": f"/photos/{number}.jpg",
        "sha256": f"{number:064x}",
        "size": 1000 + number,
        "width": 640,
        "height": 480,
        "meta": dict(meta or {}),
    }
    return Put(**(defaults | fields))


def library(folder: Path, **settings: Any) -> Library:
    """Open a library below a folder."""
    return Library(
        SearchSettings(**settings),
        url=f"sqlite:///{folder / 'records.sqlite3'}",
        blobs_url=(folder / "blobs").as_uri(),
        folder=folder / "search",
    )


def put_all(place: Library, collection: Collection, puts: Mapping[int, Put]) -> int:
    """Write items with the made-up embeddings of their numbers; return the generation."""
    with place.writer(collection) as writer:
        space = writer.add_space(space_of(MODEL, VERSION, made_up(0)))
        return writer.write(
            [Entry(put, {space.key: made_up(number)}) for number, put in puts.items()]
        )


def write_for_ever(folder: str, seed: int, told: Connection) -> None:
    """Write and remove items at random until killed, saying before and after each write which."""
    draw = random.Random(seed)  # noqa: S311 (a test that can be repeated)
    place = library(Path(folder), flat_up_to=256)
    shop = place.create("", "shop")
    told.send("ready")
    while True:
        with place.writer(shop.collection) as writer:
            space = writer.add_space(space_of(MODEL, VERSION, made_up(0)))
            chosen = draw.sample(range(1000), 8)
            gone, puts = chosen[:2], chosen[2:]
            told.send((puts, gone))
            entries = [
                Entry(item(n, sha256=f"{seed * 1000 + n:064x}"), {space.key: made_up(n)})
                for n in puts
            ]
            writer.write(entries, [f"i{n}" for n in gone])
        told.send("done")
        opened = place.collection("", "shop").space(MODEL)
        opened.refresh(shop.refresh().generation)
        if draw.random() < 0.3:
            opened.catch_up()
            opened.save()
