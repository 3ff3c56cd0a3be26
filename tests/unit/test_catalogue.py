"""The catalogue, over the real families and over a package of families that the test writes."""

import sys
from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.core.errors import ModelNotFound, PluginError
from retinue.models import catalogue
from retinue.models.sources import SOURCES

FAMILY = """
from retinue.models.card import Card, Family
MODEL = Family(build=lambda card, version, runtime: None, cards=({cards}))
"""
CARD = """Card.model_validate(dict(name="{name}", task="detect", family="{family}", license="MIT",
    source=dict(url="file:///x", files={{"x": "0" * 64}}), input=dict(height=8, width=8),
    output=dict(layout="a"))),"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(package: str, modules: dict[str, str]) -> plugins.Kind:
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return plugins.Kind(f"models-{package}", package, "MODEL")

    yield write
    for name in [name for name in sys.modules if name.startswith("retinue_test_families")]:
        del sys.modules[name]


def family(key: str, *names: str) -> str:
    return FAMILY.format(cards="".join(CARD.format(name=name, family=key) for name in names))


def test_every_card_of_the_catalogue_can_be_pulled_and_built() -> None:
    cards = catalogue.cards()
    assert {"nanodet-g-416", "efficientnet-lite0"} <= cards.keys()
    assert list(cards) == sorted(cards)
    for name, card in cards.items():
        assert name == card.name
        assert card.family in plugins.names(plugins.MODELS)
        assert card.source.url.partition(":")[0] in plugins.names(SOURCES)
        assert catalogue.find(name) is card


def test_default_models_bind_nobody() -> None:
    assert not any(card.binding_license for card in catalogue.cards().values())


def test_a_near_miss_is_offered() -> None:
    with pytest.raises(ModelNotFound, match="did you mean nanodet-g-416"):
        catalogue.find("nanodet")
    with pytest.raises(ModelNotFound, match="retinue models list"):
        catalogue.find("zzz")


def test_cards_of_all_families_are_collected(make) -> None:
    kind = make("retinue_test_families_a", {"one": family("one", "b", "a"), "two": family("two")})
    assert list(catalogue.cards(kind)) == ["a", "b"]
    assert catalogue.find("b", kind).family == "one"


def test_a_name_offered_twice_names_both(make) -> None:
    kind = make("retinue_test_families_b", {"one": family("one", "a"), "two": family("two", "a")})
    with pytest.raises(PluginError, match="both 'one' and 'two'"):
        catalogue.cards(kind)


@pytest.mark.parametrize(
    ("text", "word"),
    [("MODEL = 1", "not a Family"), ("", "no MODEL"), ("import gone_away", "gone")],
)
def test_a_broken_family_is_named(make, text: str, word: str) -> None:
    kind = make("retinue_test_families_c", {"broken": text})
    with pytest.raises(PluginError, match=word) as caught:
        catalogue.cards(kind)
    assert "broken" in caught.value.message
