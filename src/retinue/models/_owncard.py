"""The card of a user's own ONNX file: as given, or derived from the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retinue.core.errors import ChecksumMismatch, ConfigError
from retinue.core.settings import explain
from retinue.models._derive import check_card, derive_card
from retinue.models._onnxfile import Facts
from retinue.models.card import NAME, Card, Source


def own_card(
    facts: Facts,
    source: Source,
    *,
    name: str | None,
    task: str | None,
    card: Card | Path | None,
) -> Card:
    """Return the checked card of a user's ONNX file.

    Args:
        facts: What the file says of itself.
        source: The file itself.
        name: The model's name; may be None when the card has it.
        task: The task; may be None when the card has it.
        card: The card, its TOML file, or None to derive it.

    Raises:
        ConfigError: the card is wrong for the file, contradicts ``name`` or ``task``, or none can
            be derived.
        ChecksumMismatch: the card names another file.
    """
    if card is None:
        if name is None or task is None:
            raise ConfigError("a model without a card needs a name and a task")
        _check_name(name)
        return derive_card(facts, name=name, task=task, source=source)
    whole = card if isinstance(card, Card) else _read_partial(card, name, task, source)
    for what, said, asked in (("name", whole.name, name), ("task", whole.task, task)):
        if asked is not None and asked != said:
            raise ConfigError(f"the card's {what} is {said!r}, but {asked!r} was asked for")
    check_card(whole, facts)
    (digest,) = source.files.values()
    stated = whole.source.files.values()
    if not whole.source.importer and digest not in stated:
        raise ChecksumMismatch(
            f"the card of {whole.name} names a file of sha256 {', '.join(stated)}, but this one "
            f"has {digest}; correct the card's [source.files] or leave [source] out"
        )
    return whole.model_copy(update={"source": source})


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a model's name: use lower-case letters, digits, '.', '_' or '-', "
            "at most 64, beginning with a letter or digit"
        )


def _read_partial(path: Path, name: str | None, task: str | None, source: Source) -> Card:
    """Read a card in which name, task and source may be left out."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read model card {path}: {error}") from error
    for key, value in (("name", name), ("task", task), ("source", source.model_dump())):
        if value is not None:
            values.setdefault(key, value)
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"model card {path}: {explain(error)}") from error
