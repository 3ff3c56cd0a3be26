"""From what a client asks to a `Query`: parsing, limits, and who makes which vector."""

from __future__ import annotations

import base64
import binascii
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from retinue.apps.search.filters import parse_where
from retinue.apps.search.prepare import Box
from retinue.apps.search.query import Query, Term, check_page, check_weight, image_term
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.space import OpenSpace
from retinue.core.errors import InvalidRequest
from retinue.core.types import Embedding

MAX_TEXT: Final = 2000
MAX_ASKED: Final = 16
MAX_DEADLINE_MS: Final = 60_000.0

Pixels = NDArray[np.uint8]
Seen: TypeAlias = "tuple[Embedding, Callable[[], Pixels]]"
Given: TypeAlias = "Seen | NDArray[np.float32] | None"
"""What a term became: a picture's embedding and its pixels, a text's vector, None for an id."""

NAMES: Final = (
    *("image", "text", "id", "box", "terms", "where", "k", "offset", "model"),
    *("rerank", "dedupe", "deadline_ms"),
)
_KINDS: Final = ("image", "text", "id")
_TERM_NAMES: Final = ("image", "text", "id", "box", "weight")


@dataclass(frozen=True, slots=True)
class AskedTerm:
    """One thing that the results should be like, or unlike; exactly one of three is given.

    Attributes:
        image: An encoded image file; empty if it is another kind.
        text: A text.
        id: An item of the collection.
        box: Region of the picture, in pixels of its upright original.
        weight: Negative for "not this".
    """

    image: bytes = b""
    text: str = ""
    id: str = ""
    box: Box | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as it was asked; see `retinue.apps.search.query.Query`.

    Attributes:
        model: Whose vectors are compared; "" for the collection's first.
        deadline_ms: For the stages; None for the settings'.
        where: The condition as it was given, JSON.
    """

    terms: tuple[AskedTerm, ...]
    where: Any = None
    k: int = 20
    offset: int = 0
    model: str = ""
    rerank: bool = True
    dedupe: bool = True
    deadline_ms: float | None = None
    started: float = field(default_factory=time.monotonic, compare=False)

    def __post_init__(self) -> None:
        check_page(self.k, self.offset)
        parse_where(self.where)
        if not self.terms:
            raise InvalidRequest("nothing is asked: give an image, a text, an id, or terms of them")
        if len(self.terms) > MAX_ASKED:
            raise InvalidRequest(f"a query has at most {MAX_ASKED} terms, not {len(self.terms)}")
        if not any(term.weight > 0 for term in self.terms):
            raise InvalidRequest("a query needs a term with a positive weight: what to look for")

    def key(self) -> bytes:
        """Return what tells this query from others, apart from its pictures' bytes."""
        terms = [(t.text, t.id, t.box, t.weight) for t in self.terms]
        options = (self.k, self.offset, self.model, self.rerank, self.dedupe)
        return orjson.dumps([terms, self.where, *options], option=orjson.OPT_SORT_KEYS)


def parse_asked(fields: Mapping[str, Any], image: bytes = b"") -> Asked:
    """Read a query from names and values, as of a JSON object, a form or a query string.

    Args:
        fields: Texts are read as what their name needs, so that a form may give them.
        image: A picture that came as a file.

    Raises:
        InvalidRequest: a name is unknown, or a value is out of its limits.
    """
    fields = _given(fields)
    unknown = sorted(set(fields) - set(NAMES))
    if unknown:
        raise InvalidRequest(f"no field {unknown[0][:60]!r}; a query has: {', '.join(NAMES)}")
    terms = _terms(fields, image)
    return Asked(
        terms=terms,
        where=_json(fields.get("where"), "where"),
        k=_whole(fields.get("k", 20), "k"),
        offset=_whole(fields.get("offset", 0), "offset"),
        model=_text(fields.get("model", ""), "model", 128),
        rerank=_flag(fields.get("rerank", True), "rerank"),
        dedupe=_flag(fields.get("dedupe", True), "dedupe"),
        deadline_ms=_deadline(fields.get("deadline_ms")),
    )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    # JSON's null is as good as nothing.
    return {name: value for name, value in fields.items() if value is not None}


def _terms(fields: Mapping[str, Any], image: bytes) -> tuple[AskedTerm, ...]:
    given = {name: fields[name] for name in _KINDS if fields.get(name, "") != ""}
    if image and "image" in given:
        raise InvalidRequest("the image is given twice: as a file and as a field")
    box = _box(fields.get("box"))
    found: list[AskedTerm] = []
    if image:
        found.append(AskedTerm(image=image, box=box))
    for name, value in given.items():
        found.append(_term({name: value, **({"box": box} if box and name != "text" else {})}))
    if box and not any(term.box for term in found):
        raise InvalidRequest("box is a region of the image or of the item with the id; give one")
    more = _json(fields.get("terms"), "terms") or []
    if not isinstance(more, list) or not all(isinstance(one, dict) for one in more):
        raise InvalidRequest("terms must be a list of objects, each with image, text or id")
    return (*found, *(_term(one) for one in more[: MAX_ASKED + 1]))


def _term(fields: Mapping[str, Any]) -> AskedTerm:
    fields = _given(fields)
    unknown = sorted(set(fields) - set(_TERM_NAMES))
    if unknown:
        known = ", ".join(_TERM_NAMES)
        raise InvalidRequest(f"no field {unknown[0][:60]!r}; a term has: {known}")
    kinds = [name for name in _KINDS if fields.get(name, "") != ""]
    if len(kinds) != 1:
        raise InvalidRequest("a term has exactly one of image, text and id")
    text = _text(fields.get("text", ""), "text", MAX_TEXT).strip()
    if kinds == ["text"] and not text:
        raise InvalidRequest("the text is empty; say what to look for")
    weight = fields.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise InvalidRequest(f"weight must be a number, not {reprlib.repr(weight)}")
    box = _box(fields.get("box"))
    if box and text:
        raise InvalidRequest("a text has no box; a box is a region of an image or of an item")
    return AskedTerm(
        image=_base64(fields.get("image", "")),
        text=text,
        id=_text(fields.get("id", ""), "id", 512),
        box=box,
        weight=float(check_weight(weight)),
    )


def _base64(value: Any) -> bytes:
    if value == "":
        return b""
    if not isinstance(value, str):
        raise InvalidRequest("image must be the file in base64")
    try:
        data = base64.b64decode(
            value.partition(",")[2] if value[:5] == "data:" else value, validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"image is no base64: {error}") from error
    if not data:
        raise InvalidRequest("the image is empty; send the whole file in base64")
    return data


def _text(value: Any, name: str, limit: int) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text")
    if len(value) > limit:
        raise InvalidRequest(f"{name} has {len(value):,} characters; at most {limit:,} are read")
    return value


def _whole(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{name} must be a whole number, not {reprlib.repr(value)}") from None


def _flag(value: Any, name: str) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    if not isinstance(value, bool | str) or value not in known:
        raise InvalidRequest(f"{name} must be true or false, not {reprlib.repr(value)}")
    return known[value]


def _deadline(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not 0 < number <= MAX_DEADLINE_MS:
        raise InvalidRequest(f"deadline_ms must be more than 0 and at most {MAX_DEADLINE_MS:g}")
    return number


def _box(value: Any) -> Box | None:
    if value is None or (isinstance(value, str) and not value):
        return None
    parts = value.split(",") if isinstance(value, str) else value
    try:
        x1, y1, x2, y2 = (float(part) for part in (() if isinstance(parts, dict) else parts))
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest("box must be four numbers: x1, y1, x2, y2 in pixels") from None
    if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1:
        raise InvalidRequest("a box is x1, y1, x2, y2 in pixels, with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _json(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{name} is no JSON: {error}") from error


def to_query(
    asked: Asked,
    opened: OpenCollection,
    space: OpenSpace,
    given: Sequence[Given],
    deadline_ms: float,
) -> Query:
    """Return the query of what was asked.

    Args:
        asked: The question.
        opened: The collection; it knows the items that are searched by.
        space: Where it is answered.
        given: What each of its terms became.
        deadline_ms: The settings' deadline for the stages.

    Raises:
        NotFound: an item that is searched by is not there.
        InvalidRequest: the model cannot compare what was asked, or the item has no vectors of it.
    """
    terms = [
        _query_term(term, one, opened, space) for term, one in zip(asked.terms, given, strict=True)
    ]
    wait = deadline_ms if asked.deadline_ms is None else asked.deadline_ms
    return Query(
        terms=terms,
        where=parse_where(asked.where),
        k=asked.k,
        offset=asked.offset,
        rerank=asked.rerank,
        dedupe=asked.dedupe,
        without=[term.id for term in asked.terms if term.id and term.weight > 0],
        deadline=asked.started + wait / 1000,
    )


def _query_term(term: AskedTerm, given: Given, opened: OpenCollection, space: OpenSpace) -> Term:
    if isinstance(given, tuple):
        _check_length(given[0].vector, space, "image")
        return image_term(given[0], term.weight, given[1])
    if given is None:
        return opened.item_term(term.id, space, term.weight)
    name = "text" if "text" in space.fields else "image"
    _check_length(given, space, name)
    return Term({name: given}, term.weight)


def _check_length(vector: NDArray[np.float32], space: OpenSpace, name: str) -> None:
    width = space.fields[name].rows.width
    if len(vector) != width:
        raise InvalidRequest(
            f"the model gave {len(vector)} numbers, and the collection's vectors of "
            f"{space.space.model!r} have {width}: they are of another model"
        )
