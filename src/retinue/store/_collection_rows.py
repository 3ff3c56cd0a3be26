"""What the collections' tables hold, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Row

MAX_ID = 512
# NUL, and surrogates that do not stand for a byte of a file name.
_REFUSED = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of items.

    Attributes:
        key: Its number in the database.
        tenant: Whose it is; "" where there is one tenant only.
        name: Unique for its tenant.
        folder: Name of the folder of its files; never used again.
        created_us: Microseconds since 1970.
        generation: Raised by each write.
        count: Items.
    """

    key: int
    tenant: str
    name: str
    folder: str
    created_us: int
    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class Space:
    """What one version of a model makes of a collection's items.

    Attributes:
        model: Name of the embedding model.
        version: Its version.
        image_dim: Length of the vectors.
        text_dim: Length of the vectors that texts are compared with; 0 if they are the same or
            there are none.
        grid_rows: Rows of the patch tokens' grid; 0 without tokens.
        grid_columns: Columns of it.
        token_bytes: Bytes of one token.
        key: Its number in the database.
        count: Items that have vectors here.
        next_slot: Slots given so far: as many rows of the files count.
        floor: What was dropped up to this generation is not known in detail.
    """

    model: str
    version: str
    image_dim: int
    text_dim: int = 0
    grid_rows: int = 0
    grid_columns: int = 0
    token_bytes: int = 0
    key: int = -1
    count: int = 0
    next_slot: int = 0
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """An item to be written.

    Attributes:
        id: What its owner calls it; at most 512 characters.
        path: Where the original is.
        source: What it was indexed from, so that what vanishes there can be removed.
        sha256: Digest of the file, hex.
        size: Bytes of the file.
        mtime_us: When it was modified, microseconds since 1970; 0 if unknown.
        etag: Whatever else tells a change.
        width: Of the upright original, in pixels.
        height: Of the upright original, in pixels.
        meta: Text, numbers, flags and lists of text by field name.
        pdq: 256-bit perceptual hash; None if the picture has none.
        thumbnail: Key in the blob store.
        vectors: Space's key to the slot of its vectors.
    """

    id: str
    path: str
    sha256: str
    size: int
    width: int
    height: int
    source: str = ""
    mtime_us: int = 0
    etag: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    pdq: bytes | None = None
    thumbnail: str = ""
    vectors: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """An item as the database knows it; see `Put`.

    Attributes:
        number: Its number in the collection, given once, never again.
        added_us: When it was written, microseconds since 1970.
        duplicate_of: Number of the first item of its group of duplicates; its own if it is alone.
    """

    number: int
    id: str
    path: str
    source: str
    sha256: str
    size: int
    width: int
    height: int
    added_us: int
    meta: Mapping[str, Any]
    pdq: bytes | None
    thumbnail: str
    duplicate_of: int


@dataclass(frozen=True, slots=True)
class Known:
    """What tells whether a file must be indexed again.

    Attributes:
        meta: As JSON.
        spaces: Keys of the spaces that have its vectors.
    """

    number: int
    id: str
    source: str
    size: int
    mtime_us: int
    etag: str
    sha256: str
    meta: str
    spaces: frozenset[int]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed, and why."""

    source: str
    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What happened to the slots of a space.

    Attributes:
        generation: Up to which.
        slots: (N,) int64, given since then and still in use, ascending.
        numbers: (N,) int64, the items that they belong to.
        dropped: (M,) int64, no longer in use.
        whole: All slots in use are given, whatever was known before.
    """

    generation: int
    slots: NDArray[np.int64]
    numbers: NDArray[np.int64]
    dropped: NDArray[np.int64]
    whole: bool


def clean(text: str) -> str:
    """Return a text that any database can hold: file names need not be UTF-8."""
    plain = _REFUSED.sub("�", text)
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def item_of(row: Row[Any]) -> Item:
    """Return the item of a row of the table."""
    return Item(
        number=row.number,
        id=row.id,
        path=row.path,
        source=row.source,
        sha256=row.sha256,
        size=row.size,
        width=row.width,
        height=row.height,
        added_us=row.added_us,
        meta=orjson.loads(row.meta),
        pdq=None if row.pdq is None else bytes(row.pdq),
        thumbnail=row.thumbnail,
        duplicate_of=row.duplicate_of,
    )
