"""What is wrong with a filter, said so that its author can put it right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from retinue.apps.ar.filters.spec import KINDS, FilterSpec, Point, Show

Where = tuple[str | int, ...]

FILE: Final = "filter.toml"
_HEADER = re.compile(r"^\s*(\[\[?)\s*([\w.\-\"' ]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*([\w\-]+|\"[^\"]*\"|'[^']*')\s*[=.]")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right.

    Attributes:
        severity: "error" where the filter cannot be used, else "warning".
        file: In which file, below the filter's folder.
        message: What is wrong, with what, and what to do.
        key: Where in ``filter.toml``, for example "parts[0].blend"; "" for the whole.
        line: Its line there, from 1; 0 where it has none.
    """

    severity: Literal["error", "warning"]
    file: str
    message: str
    key: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        return f"{self.severity}: {place}: {key}{self.message}"


def near(given: str, known: Sequence[str]) -> str:
    """Return "; did you mean 'x'?" for what is nearly known, else what is known."""
    close = difflib.get_close_matches(given, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def spell(where: Where) -> str:
    """Return a place as people write it: ("parts", 0, "file") is "parts[0].file"."""
    spelt = ""
    for step in where:
        dot = "." if spelt else ""
        spelt += f"[{step}]" if isinstance(step, int) else f"{dot}{step}"
    return spelt


class Lines:
    """Finds the line of a key in a TOML file; what it cannot tell is the table's line, or 0.

    Args:
        text: Of a file that is valid TOML.
    """

    def __init__(self, text: str) -> None:
        self._known: dict[Where, int] = {}
        counts: dict[Where, int] = {}
        table: Where = ()
        for number, line in enumerate(text.splitlines(), 1):
            if header := _HEADER.match(line):
                table = self._table(header[1] == "[[", header[2], counts)
                self._known.setdefault(table, number)
            elif key := _KEY.match(line):
                self._known.setdefault((*table, key[1].strip("\"'")), number)

    def _table(self, array: bool, name: str, counts: dict[Where, int]) -> Where:
        steps = [step.strip().strip("\"'") for step in name.split(".")]
        where: Where = ()
        for index, step in enumerate(steps):
            where = (*where, step)
            last = index == len(steps) - 1
            if last and array:
                counts[where] = counts.get(where, -1) + 1
            if where in counts:
                where = (*where, counts[where])
        return where

    def of(self, where: Where) -> int:
        """Return the line of a place, or of what it lies in."""
        while where:
            if where in self._known:
                return self._known[where]
            where = where[:-1]
        return 0


def problems_of(error: ValidationError, said: Mapping[str, Any], lines: Lines) -> list[Problem]:
    """Return what a file's check found, in the order of the file."""
    found = []
    for item in error.errors(include_url=False):
        where = _real(item["loc"], said)
        # Where an item of a list is wrong, pydantic also counts it as missing.
        if item["type"] == "too_short" and _at(said, where) != []:
            continue
        message = _message(item["type"], where, item, said)
        found.append(Problem("error", FILE, message, spell(where), lines.of(where)))
    return sorted(found, key=lambda problem: problem.line)


def _real(loc: Where, said: Mapping[str, Any]) -> Where:
    """Take out the kind that pydantic puts behind a part's number."""
    if len(loc) > 2 and loc[0] == "parts" and loc[2] in KINDS:
        return (*loc[:2], *loc[3:])
    return loc


def _at(said: Any, where: Where) -> Any:
    for step in where:
        try:
            said = said[step]
        except (KeyError, IndexError, TypeError):
            return None
    return said


def _message(kind: str, where: Where, item: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    value = item["input"]
    context: Mapping[str, Any] = item.get("ctx", {})
    if kind == "extra_forbidden":
        keys = sorted(_table(where[:-1], said).model_fields)
        return f"there is no such key{near(str(where[-1]), keys)}"
    if kind == "missing":
        return "it is missing; give it"
    if kind == "union_tag_not_found":
        return f"the part has no kind; there are: {', '.join(KINDS)}"
    if kind == "union_tag_invalid":
        return f"there is no kind {context['tag']!r}{near(str(context['tag']), sorted(KINDS))}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        if isinstance(value, str) and known:
            return f"{_short(value)} is not known{near(value, known)}"
        return f"{_short(value)} is not known; it must be {context['expected']}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_long":
        return f"there are {context['actual_length']}; at most {context['max_length']} may be"
    if kind == "string_pattern_mismatch" and where[-1] == "color":
        return f'{_short(value)} is no colour; write it as "#rrggbb"'
    if kind == "string_pattern_mismatch":
        return f"{_short(value)}; use lower-case letters, digits and hyphens"
    wanted = str(item["msg"]).removeprefix("Input should ").removeprefix("String should ")
    return f"{_short(value)} is wrong: it should {wanted}"


def _table(where: Where, said: Mapping[str, Any]) -> type[BaseModel]:
    """Return the model of a table, for its keys."""
    if "show" in where:
        return Show
    if "points" in where:
        return Point
    if where[:1] == ("parts",) and len(where) == 2:
        return KINDS.get(str(_at(said, (*where, "kind"))), FilterSpec)
    return FilterSpec


def _short(value: Any) -> str:
    try:
        spelt = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return spelt if len(spelt) <= 60 else f"{spelt[:57]}..."
