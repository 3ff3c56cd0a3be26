"""Every model family keeps the contract, for its own cards and for every layout that it reads."""

import pytest

from retinue.core import plugins
from retinue.models.card import Card
from retinue.testing import model_suite, tiny_outputs

FAMILIES = {key: plugins.load(plugins.MODELS, key) for key in plugins.names(plugins.MODELS)}
CASES = [
    pytest.param(key, card, check, id=f"{key}-{card.name}-{check.__name__}")
    for key, family in FAMILIES.items()
    for card in model_suite.cards_of(key, family)
    for check in model_suite.checks_of(card)
]


@pytest.mark.parametrize(("key", "card", "check"), CASES)
def test_contract(key: str, card: Card, check: model_suite.Check) -> None:
    check(key, FAMILIES[key], card, tiny_outputs.runtime_for)


def test_layouts_belong_to_one_family() -> None:
    layouts = [layout for family in FAMILIES.values() for layout in family.layouts]
    assert len(layouts) == len(set(layouts))
    assert set(layouts) == set(tiny_outputs.LAYOUTS)
