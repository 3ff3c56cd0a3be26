"""A record as a row of plain values, and back, without loss.

Arrays are stored as little-endian bytes, the rest that is not searched as one JSON text. Text that
a database may refuse or cannot index (NUL, lone surrogates as in undecodable file names, very long
text) is searched by a key made of it, and kept exactly in the JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import RetinueError, StorageError
from retinue.core.record import Record
from retinue.core.types import Detections, Embedding, Landmarks, Mask, Outcome, Scores, Value
from retinue.store.interface import StoredRecord

Row = dict[str, Any]

KEY_LENGTH = 255
TEXTS = ("id", "app", "model", "version", "source", "input_sha256")
NUMBERS = ("width", "height", "batch_size", "queue_depth")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_to_json = json.JSONEncoder(separators=(",", ":")).encode


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970-01-01 UTC; a moment without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // _MICROSECOND


def searchable(text: str) -> str:
    """Return the text itself where any database can store and index it, else a key made of it."""
    plain = len(text) <= KEY_LENGTH and "\0" not in text
    if plain and (text.isascii() or not _surrogates(text)):
        return text
    raw = text.encode("utf-8", "surrogatepass")
    head = raw[:120].decode("utf-8", "ignore").replace("\0", "")
    return f"{head}~sha256:{hashlib.sha256(raw).hexdigest()}"


def _surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _floats(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def _integers(array: NDArray[Any]) -> bytes:
    """The narrowest signed width that holds all: most class ids take one byte each."""
    low, high = (int(array.min()), int(array.max())) if len(array) else (0, 0)
    for width in (1, 2, 4):
        if -(1 << (8 * width - 1)) <= low and high < 1 << (8 * width - 1):
            return array.astype(f"<i{width}").tobytes()
    return array.astype("<i8").tobytes()


def _encode_value(value: Value) -> tuple[str, int, bytes, dict[str, Any]]:
    """Return kind, number of items, bytes, and what belongs in the JSON."""
    match value:
        case Detections(boxes, scores, class_ids, keypoints):
            packed = _floats(boxes) + _floats(scores) + _integers(class_ids)
            if keypoints is None:
                return "detections", len(value), packed, {}
            more = {"keypoints": keypoints.shape[1]}
            return "detections", len(value), _floats(keypoints) + packed, more
        case Scores(values):
            return "scores", len(values), _floats(values), {}
        case Embedding(vector):
            return "embedding", len(vector), _floats(vector), {}
        case Landmarks(points, score):
            return "landmarks", len(points), _floats(points), {"score": float(score)}
        case Mask(alpha, width, height):
            sizes = {"shape": list(alpha.shape), "size": [int(width), int(height)]}
            return "mask", alpha.size, np.ascontiguousarray(alpha).tobytes(), sizes


def _whole(name: str, value: int) -> int:
    if not 0 <= value < 2**31:
        raise ValueError(f"a record's {name} must be 0 to {2**31 - 1}, not {value!r}")
    return int(value)


def to_row(record: Record, blob: str = "") -> Row:
    """Return a record as column values.

    Raises:
        TypeError, ValueError: a field is not of the type that `Record` documents.
    """
    outcome = record.outcome
    row: Row = {name: searchable(getattr(record, name)) for name in TEXTS}
    exact = {name: getattr(record, name) for name in TEXTS if getattr(record, name) != row[name]}
    row |= {name: _whole(name, getattr(record, name)) for name in NUMBERS}
    meta: dict[str, Any] = {"timings": {str(k): float(v) for k, v in outcome.timings_ms.items()}}
    if record.tags:
        meta["tags"] = {str(key): str(text) for key, text in record.tags.items()}
    if exact:
        meta["exact"] = exact
    if outcome.error is not None:
        meta["message"] = outcome.error.message
        row |= {"code": searchable(outcome.error.code), "kind": "error", "items": 0, "value": None}
    elif outcome.value is not None:
        kind, items, packed, more = _encode_value(outcome.value)
        meta |= more
        row |= {"code": "", "kind": kind, "items": items, "value": packed}
    vector = None if outcome.embedding is None else _floats(outcome.embedding.vector)
    row |= {"created_us": microseconds(record.created_at), "embedding": vector, "blob": blob}
    row["meta"] = _to_json(meta)
    return row


def _read_floats(packed: bytes) -> NDArray[np.float32]:
    return np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False)


def _decode_value(row: Mapping[str, Any], meta: Mapping[str, Any]) -> Value:
    packed, items = bytes(row["value"]), int(row["items"])
    match row["kind"]:
        case "detections":
            keypoints = None
            if (count := meta.get("keypoints")) is not None:
                end = items * count * 8
                keypoints = _read_floats(packed[:end]).reshape(items, count, 2)
                packed = packed[end:]
            floats = _read_floats(packed[: items * 20])
            ids = packed[items * 20 :]
            width = len(ids) // items if items else 8
            return Detections(
                boxes=floats[: items * 4].reshape(items, 4),
                scores=floats[items * 4 :],
                class_ids=np.frombuffer(ids, dtype=f"<i{width}").astype(np.int64, copy=False),
                keypoints=keypoints,
            )
        case "scores":
            return Scores(_read_floats(packed))
        case "embedding":
            return Embedding(_read_floats(packed))
        case "landmarks":
            return Landmarks(_read_floats(packed).reshape(items, 3), float(meta["score"]))
        case "mask":
            alpha = np.frombuffer(packed, np.uint8).reshape(meta["shape"])
            return Mask(alpha, *meta["size"])
        case kind:
            raise ValueError(f"outcomes of kind {kind!r} are not known")


@lru_cache(maxsize=256)
def _foreign_error(code: str) -> type[RetinueError]:
    return type("ForeignError", (RetinueError,), {"code": code, "__doc__": "Of another program."})


@cache
def _known_errors() -> dict[str, type[RetinueError]]:
    found: dict[str, type[RetinueError]] = {}
    level: list[type[RetinueError]] = [RetinueError]
    while level:
        for error in level:
            found.setdefault(error.code, error)
        level = [child for error in level for child in error.__subclasses__()]
    return found


def error_class(code: str) -> type[RetinueError]:
    """Return the error of a code; for one that this program does not know, a stand-in."""
    return _known_errors().get(code) or _foreign_error(code)


def from_row(row: Mapping[str, Any]) -> StoredRecord:
    """Return the record of a row.

    Raises:
        StorageError: the row is damaged, or a newer program wrote it.
    """
    try:
        meta = json.loads(row["meta"])
        timings = meta["timings"]
        vector = None if row["embedding"] is None else Embedding(_read_floats(row["embedding"]))
        if row["kind"] == "error":
            error = error_class(row["code"])(meta["message"])
            outcome = Outcome(error=error, embedding=vector, timings_ms=timings)
        else:
            value = _decode_value(row, meta)
            outcome = Outcome(value=value, embedding=vector, timings_ms=timings)
        fields = {name: row[name] for name in (*TEXTS, *NUMBERS)} | meta.get("exact", {})
        created_at = EPOCH + row["created_us"] * _MICROSECOND
        tags = meta.get("tags", {})
        record = Record(outcome=outcome, created_at=created_at, tags=tags, **fields)
    except (ValueError, TypeError, KeyError) as error:
        message = f"record {row['id']!r} cannot be read: {error}; it is damaged, or newer"
        raise StorageError(message) from error
    return StoredRecord(record, row["blob"])
