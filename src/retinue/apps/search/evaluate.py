"""How well a collection is searched: against known answers, and its index against the truth."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from retinue.apps.search.api import Collection, read_picture
from retinue.apps.search.ask import parse_asked
from retinue.apps.search.query import check_page
from retinue.apps.search.space import Field, OpenSpace
from retinue.core.errors import InputNotFound, InvalidRequest, RetinueError, storage_errors
from retinue.core.protocols import TextEncoder
from retinue.index.tuning import TIE, exact_neighbours
from retinue.index.tuning import tune as choose
from retinue.measure.retrieval import average_precisions, mean, recall_at
from retinue.models.base import class_names

MAX_TRUTH: Final = 64 * 2**20
SEED: Final = 0
RECALL: Final = {"image": 0.98, "text": 0.95}
"""Recall@10 that an index is tuned to, by the kind of query."""
LATENCY_MS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Truth:
    """A query and the ids that it should find.

    Attributes:
        fields: "text", "id", "box", "where", as of a query.
        image: Path of a picture; None if it is none.
        relevant: Ids.
    """

    fields: Mapping[str, Any]
    image: Path | None
    relevant: tuple[str, ...]


def read_truth(path: Path) -> list[Truth]:
    """Read known answers: JSONL, or CSV with the relevant ids separated by "|".

    Raises:
        InputNotFound: there is no such file.
        InvalidRequest: a line is not of this form.
    """
    if not path.is_file():
        raise InputNotFound(f"there is no file {path}; give one with a query a line")
    with storage_errors(path, "reading"):
        if path.stat().st_size > MAX_TRUTH:
            raise InvalidRequest(f"{path} has more than {MAX_TRUTH:,} bytes; split it")
        # Spreadsheets mark the start of what they save as UTF-8.
        text = path.read_text("utf-8-sig", errors="replace")
    found = []
    for number, row in _lines(path, text):
        relevant = row.pop("relevant", None)
        if isinstance(relevant, str):
            relevant = [one for one in relevant.split("|") if one]
        asked = [name for name in ("image", "text", "id") if row.get(name)]
        if not isinstance(relevant, list) or not relevant or len(asked) != 1:
            raise InvalidRequest(
                f"{path}, line {number}: a query has one of image, text and id, and relevant, a "
                "list of ids (in CSV separated by |)"
            )
        image = row.pop("image", None)
        place = path.parent / str(image) if image else None
        fields = {name: value for name, value in row.items() if value not in ("", None)}
        found.append(Truth(fields, place, tuple(map(str, relevant))))
    if not found:
        raise InvalidRequest(f"{path} has no query")
    return found


def _lines(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() == ".csv":
        return _table(path, text)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidRequest(f"{path}, line {number} is no JSON object")
        found.append((number, row))
    return found


def _table(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text))
    found = []
    try:
        for row in rows:
            if None in row:
                names = len(rows.fieldnames or ())
                raise InvalidRequest(
                    f"{path}, line {rows.line_num} has more values than the {names} columns; quote "
                    'a value that has a comma: "a, b"'
                )
            found.append((rows.line_num, dict(row)))
    except csv.Error as error:
        raise InvalidRequest(f"{path}, line {rows.line_num + 1} is no CSV: {error}") from error
    return found


def evaluate(
    collection: Collection, queries: Sequence[Truth], *, k: int = 10, rerank: bool = True
) -> dict[str, Any]:
    """Ask all queries one by one, and measure.

    Returns:
        recall@k and mAP@k with their 95 % intervals, milliseconds at the median and the 95th
        percentile (the model's time included), and queries none of whose ids is in the collection.

    Raises:
        RetinueError: a query cannot be asked.
    """
    check_page(k, 0)
    numbers: dict[str, int] = {}
    found = np.full((len(queries), k), -1, np.int64)
    taken = []
    for row, query in enumerate(queries):
        data = b"" if query.image is None else read_picture(query.image)
        start = time.perf_counter()
        fields = {**query.fields, "k": k, "rerank": rerank, "dedupe": False, "deadline_ms": 60_000}
        try:
            hits = collection.ask(parse_asked(fields, data)).hits
        except RetinueError as error:
            which = f"query {row + 1}" + (f", {query.image}" if query.image else "")
            raise type(error)(f"{which}: {error.message}") from error
        taken.append((time.perf_counter() - start) * 1000)
        for place, hit in enumerate(hits):
            found[row, place] = numbers.setdefault(hit.item.id, len(numbers))
    relevant = [{numbers.setdefault(i, len(numbers)) for i in q.relevant} for q in queries]
    width = max(len(ids) for ids in relevant)
    truth = np.full((len(queries), width), -1, np.int64)
    for row, ids in enumerate(relevant):
        truth[row, : len(ids)] = sorted(ids)
    return {
        "queries": len(queries),
        f"recall@{k}": _interval(recall_at(found, truth, k)),
        f"mAP@{k}": _interval(average_precisions(found, relevant, k)),
        **_latency(taken),
    }


def _interval(values: NDArray[np.float64]) -> dict[str, float]:
    summed = mean(values)
    return {
        "value": round(summed.value, 4),
        "low": round(summed.low, 4),
        "high": round(summed.high, 4),
    }


def _latency(taken: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(taken, [50, 95])
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


def probes(collection: Collection, space: OpenSpace, count: int) -> dict[str, NDArray[np.float32]]:
    """Return vectors to measure an index with, by the kind of query.

    "image": items of the collection, slightly turned, so that none is its own nearest by nature;
    "text": everyday words, where the model compares texts.
    """
    draw = np.random.default_rng(SEED)
    slots = space.slots()
    if not len(slots):
        raise InvalidRequest(f"collection {collection.name!r} is empty; index something first")
    image = space.fields["image"]
    vectors = image.exact(np.sort(draw.choice(slots, min(count, len(slots)), replace=False)))
    noise = draw.normal(size=vectors.shape).astype(np.float32)
    noise *= 0.3 / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = vectors + noise
    found = {"image": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}
    encoder = collection.text_encoder()
    if encoder is not None:
        words = [*class_names("coco"), *class_names("imagenet")]
        known = _encoded(encoder, (words[i] for i in draw.permutation(len(words))), count)
        if known:
            found["text"] = np.stack(known)
    return found


def _encoded(encoder: TextEncoder, names: Iterable[str], count: int) -> list[NDArray[np.float32]]:
    """Return vectors of the first names that the model's vocabulary has."""
    known: list[NDArray[np.float32]] = []
    for name in names:
        if len(known) == count:
            break
        with suppress(InvalidRequest):
            known.append(encoder.encode([name.partition(",")[0]])[0])
    return known


def _field_of(space: OpenSpace, kind: str) -> Field:
    return space.fields["text" if kind == "text" and "text" in space.fields else "image"]


def bench(collection: Collection, *, queries: int = 200, k: int = 10) -> dict[str, Any]:
    """Compare the index with an exact search, by kind of query.

    Returns:
        For "image" and "text": recall@k with its interval, milliseconds of the index alone, and
        what the index is.
    """
    check_page(k, 0)
    space = collection.open_space()
    report: dict[str, Any] = {"collection": collection.name, "items": len(space)}
    for kind, vectors in probes(collection, space, queries).items():
        field = _field_of(space, kind)
        near = min(k, len(space))
        _, true = exact_neighbours(field.exact, space.slots(), vectors, near)
        taken = []
        shares = np.empty(len(vectors))
        for row, vector in enumerate(vectors):
            start = time.perf_counter()
            with field.lock:
                assert field.index is not None
                distances = field.index.query(vector[None], near)[1][0]
            taken.append((time.perf_counter() - start) * 1000)
            # Of equally good neighbours any will do.
            shares[row] = (distances <= true[row, -1] + TIE).mean()
        report[kind] = {
            f"recall@{k}": _interval(shares),
            **_latency(taken),
            **space.statistics()[field.name],
        }
    return report


def tune(
    collection: Collection, *, recall: float = 0.0, latency_ms: float = LATENCY_MS
) -> dict[str, Any]:
    """Choose the parameters of each index, and save them with it.

    Bulk indexing does this by itself when it has built an index that approximates.

    A field that answers both pictures and texts is tuned for the harder of the two.

    Args:
        collection: Whose indexes.
        recall: Least lower 95 % bound of recall@10; 0 for `RECALL`.
        latency_ms: Most milliseconds of 95 in 100 queries.

    Returns:
        By kind of query, what was chosen and measured.
    """
    space = collection.open_space()
    report: dict[str, Any] = {"collection": collection.name, "items": len(space)}
    for kind, vectors in probes(collection, space, 400).items():
        field = _field_of(space, kind)
        index: Any = field.index
        before = getattr(index, "nprobe", 0), getattr(index, "rescore", 0)
        if not getattr(index, "trained", False):
            report[kind] = {"kind": "flat", "why": "exact search needs no tuning"}
            continue
        truth = exact_neighbours(field.exact, space.slots(), vectors, 10)
        with field.lock:
            wanted = recall or RECALL[kind]
            tuned = choose(index, vectors, truth, recall=wanted, latency_ms=latency_ms)
            if kind == "text" and field.name == "image":
                index.nprobe = max(before[0], index.nprobe)
                index.rescore = max(before[1], index.rescore)
        report[kind] = {
            "nprobe": tuned.nprobe,
            "rescore": tuned.rescore,
            "recall@10": tuned.recall,
            "p50_ms": tuned.p50_ms,
            "p95_ms": tuned.p95_ms,
            "reached": tuned.reached,
            "why": tuned.why,
        }
    space.trained_anew = False
    space.save(again=True)
    return report
