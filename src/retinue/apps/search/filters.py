"""Conditions on metadata: read from JSON, checked, and answered from columns.

The language: ``{"colour": "red"}`` equals, ``{"colour": ["red", "blue"]}`` any of, ``{"price":
{"gte": 1, "lt": 5}}``, ``{"title": {"prefix": "a"}}``, ``{"title": {"contains": "a"}}``, ``{"x":
{"ne": 3}}``, ``{"x": {"exists": true}}``; ``{"any": [...]}``, ``{"all": [...]}``, ``{"not":
{...}}``. Several fields of one object must all hold. A field that holds a list of texts equals each
of them.
"""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search.columns import BUILT_IN, Columns
from retinue.core.errors import InvalidRequest

MAX_DEPTH: Final = 8
MAX_CONDITIONS: Final = 64
MAX_VALUES: Final = 1000
MAX_TEXT: Final = 1000
MAX_NAME: Final = 128
RANGES: Final = ("gte", "gt", "lte", "lt")
OPERATORS: Final = (*RANGES, "ne", "in", "prefix", "contains", "exists")

Mask: TypeAlias = NDArray[np.bool_]
Scalar: TypeAlias = str | float | bool | None


@dataclass(frozen=True, slots=True)
class Test:
    """One field, one operator, one value (or several, for "in")."""

    field: str
    operator: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Junction:
    """ "all" or "any" of some conditions, or "not" of one."""

    kind: str
    parts: tuple[Condition, ...]


Condition: TypeAlias = "Test | Junction"


def parse_where(where: Any) -> Condition | None:
    """Read a condition; None when all items are meant.

    Raises:
        InvalidRequest: it is not of the language above, or too large.
    """
    if where is None or where == {}:
        return None
    condition = _parse(where, 0)
    if sum(1 for _ in tests(condition)) > MAX_CONDITIONS:
        raise InvalidRequest(f"where has more than {MAX_CONDITIONS} conditions; ask for fewer")
    return condition


def tests(condition: Condition) -> Iterator[Test]:
    """Yield the tests that a condition is made of."""
    if isinstance(condition, Test):
        yield condition
    else:
        for part in condition.parts:
            yield from tests(part)


def _parse(where: Any, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"where is nested more than {MAX_DEPTH} deep; make it flatter")
    if not isinstance(where, dict) or not where:
        raise InvalidRequest(f"where must be an object of fields, not {reprlib.repr(where)}")
    parts: list[Condition] = []
    for name, value in where.items():
        if not isinstance(name, str) or len(name) > MAX_NAME:
            shown = reprlib.repr(name)
            raise InvalidRequest(f"{shown} is no field's name: a text of at most {MAX_NAME}")
        if name in ("any", "all") and isinstance(value, list) and _objects(value):
            parts.append(Junction(name, tuple(_parse(one, depth + 1) for one in value)))
        elif name == "not" and isinstance(value, dict):
            parts.append(Junction("not", (_parse(value, depth + 1),)))
        else:
            parts += _field(name, value)
    return parts[0] if len(parts) == 1 else Junction("all", tuple(parts))


def _objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(one, dict) for one in values)


def _field(name: str, value: Any) -> Iterator[Condition]:
    if isinstance(value, dict):
        if not value:
            raise InvalidRequest(f"where {name!r} is an empty object; give an operator")
        for operator, operand in value.items():
            yield _operator(name, operator, operand)
    elif isinstance(value, list):
        yield Test(name, "in", _values(name, value))
    else:
        yield Test(name, "in", (_scalar(name, value),))


def _operator(name: str, operator: str, operand: Any) -> Condition:
    if operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise InvalidRequest(
            f"where {name!r}: no operator {reprlib.repr(operator)}; there are {known}"
        )
    if operator == "exists":
        if not isinstance(operand, bool):
            raise InvalidRequest(f"where {name!r}: exists takes true or false")
        return Test(name, "exists", operand)
    if operator == "in":
        return Test(name, "in", _values(name, operand))
    if operator == "ne":
        return Junction("not", (Test(name, "in", (_scalar(name, operand),)),))
    value = _scalar(name, operand)
    text = operator in ("prefix", "contains")
    if value is None or isinstance(value, bool) or (text and not isinstance(value, str)):
        wanted = "text" if text else "a number or a text"
        raise InvalidRequest(f"where {name!r}: {operator} takes {wanted}")
    return Test(name, operator, value)


def _values(name: str, values: Any) -> tuple[Scalar, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise InvalidRequest(f"where {name!r}: give a list of 1 to {MAX_VALUES} values")
    return tuple(_scalar(name, value) for value in values)


def _scalar(name: str, value: Any) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not abs(value) <= sys.float_info.max:
            raise InvalidRequest(f"where {name!r}: a number must be finite")
        return float(value)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InvalidRequest(
            f"where {name!r}: a value is a text of at most {MAX_TEXT} characters, a number, true, "
            "false or null"
        )
    return value


def check_fields(condition: Condition, known: Mapping[str, str]) -> None:
    """Refuse a condition on a field that no item has.

    Raises:
        InvalidRequest: it names the nearest fields.
    """
    for test in tests(condition):
        if test.field in known or test.field in BUILT_IN:
            continue
        names = [*known, *BUILT_IN]
        near = difflib.get_close_matches(test.field, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        listed = ", ".join(names[:20])
        raise InvalidRequest(
            f"no item has a field {test.field[:60]!r}; {hint or f'there are: {listed}'}"
        )


def evaluate(condition: Condition, columns: Columns) -> Mask:
    """Return (numbers,) bool: which items, by number, a condition holds for."""
    if isinstance(condition, Test):
        return _test(condition, columns)
    masks = [evaluate(part, columns) for part in condition.parts]
    match condition.kind:
        case "not":
            return ~masks[0]
        case "any":
            return np.asarray(np.logical_or.reduce(masks), np.bool_)
        case _:
            return np.asarray(np.logical_and.reduce(masks), np.bool_)


def _test(test: Test, columns: Columns) -> Mask:
    column = columns.column(test.field)
    if test.operator == "exists":
        present = column.present()
        return present if test.value else ~present
    if test.operator == "in":
        assert isinstance(test.value, tuple)
        return column.equal(test.value)
    if isinstance(test.value, str):
        return column.texts_where(_PREDICATES[test.operator], test.value)
    assert isinstance(test.value, float)
    return column.numbers_where(test.operator, test.value)


_PREDICATES: Final = {
    "prefix": lambda text, value: text.startswith(value),
    "contains": lambda text, value: value in text,
    "gte": lambda text, value: text >= value,
    "gt": lambda text, value: text > value,
    "lte": lambda text, value: text <= value,
    "lt": lambda text, value: text < value,
}
