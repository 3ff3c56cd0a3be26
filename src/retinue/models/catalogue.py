"""The catalogue: the cards that the model families offer."""

from __future__ import annotations

import difflib

from retinue.core import plugins
from retinue.core.errors import ModelNotFound, PluginError
from retinue.models.card import Card, Family


def cards(kind: plugins.Kind = plugins.MODELS) -> dict[str, Card]:
    """Return the cards of all families by model name, sorted by name.

    Raises:
        PluginError: a family cannot be imported, is not a `Family`, or two offer the same name.
    """
    found: dict[str, Card] = {}
    owner: dict[str, str] = {}
    for key in plugins.names(kind):
        family = plugins.load(kind, key)
        if not isinstance(family, Family):
            message = f"{kind.name} plug-in {key!r}: {kind.attribute} is not a Family"
            raise PluginError(message)
        for card in family.cards:
            if card.name in found:
                raise PluginError(
                    f"model {card.name!r} is offered by both {owner[card.name]!r} and {key!r}"
                )
            found[card.name], owner[card.name] = card, key
    return dict(sorted(found.items()))


def find(name: str, kind: plugins.Kind = plugins.MODELS) -> Card:
    """Return a card by the model's name.

    Raises:
        ModelNotFound: the catalogue has no such model; the message offers similar names.
        PluginError: as `cards`.
    """
    known = cards(kind)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "retinue models list shows all"
    raise ModelNotFound(f"the catalogue has no model {name!r}; {hint}")
