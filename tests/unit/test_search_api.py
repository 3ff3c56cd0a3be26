"""The Python API with a real, tiny model: adding, finding, deleting, and all that is wrong."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.api import Collection, app_settings
from retinue.apps.search.ask import parse_asked
from retinue.core.errors import (
    ConfigError,
    Conflict,
    EmptyInput,
    InputError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    UnsupportedMedia,
)
from retinue.core.settings import Settings
from retinue.testing.embedders import COLOURS, EMBEDDER, TEXT, install, photo, settings

NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a collection of 16 items is that all tests share, or start from."""
    made = tmp_path_factory.mktemp("stock")
    with Collection.open("shop", settings=settings(made)) as shop:
        for number in range(16):
            colour = NAMES[number % 8]
            meta = {"colour": colour, "price": number, "tags": ["new"] if number > 8 else []}
            shop.add(photo(number, colour), id=f"p{number}", meta=meta)
    return made


@pytest.fixture(scope="module")
def stock(folder: Path) -> Iterator[Collection]:
    """For tests that only ask."""
    with Collection.open("shop", settings=settings(folder)) as opened:
        yield opened


@pytest.fixture
def given(tmp_path: Path) -> Settings:
    return settings(tmp_path)


@pytest.fixture
def shop(given: Settings) -> Iterator[Collection]:
    with Collection.open("shop", settings=given) as opened:
        yield opened


@pytest.fixture
def full(folder: Path, given: Settings) -> Iterator[Collection]:
    """A copy for one test."""
    shutil.copytree(folder / "home", given.home)
    with Collection.open("shop", settings=given) as opened:
        yield opened


def ids(hits: Any) -> list[str]:
    return [hit.item.id for hit in hits]


def test_a_picture_by_bytes_and_by_path(shop: Collection, tmp_path: Path) -> None:
    file = tmp_path / "a b.jpg"
    file.write_bytes(photo(1))
    assert shop.add(file) == str(file)
    digest = shop.add(photo(2))
    assert len(digest) == 64
    assert shop.add(photo(3), id="third", path="s3://far/away.jpg") == "third"
    assert len(shop) == 3
    assert [item.id for item in shop.items()] == [str(file), digest, "third"]
    assert shop.get("third").path == "s3://far/away.jpg"
    assert (shop.get("third").width, shop.get("third").height) == (160, 120)
    assert ids(shop.search(str(file), k=1)) == [str(file)]
    assert ids(shop.search(file, k=1)) == [str(file)]
    assert ids(shop.search(photo(2), k=1)) == [digest]
    assert (shop.name, shop.model) == ("shop", EMBEDDER)


def test_hits_say_what_they_are(stock: Collection) -> None:
    first, *others = stock.search(photo(3, NAMES[3]), k=5)
    assert (first.rank, first.item.id) == (1, "p3")
    assert first.item.meta == {"colour": "blue", "price": 3, "tags": []}
    assert first.relevance > 0.99
    assert {"ann", "tokens"} <= set(first.stages)
    assert [hit.rank for hit in others] == [2, 3, 4, 5]
    scores = [hit.score for hit in (first, *others)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("colour", NAMES)
def test_a_text_finds_its_colour(stock: Collection, colour: str) -> None:
    found = stock.search(text=colour, k=2)
    assert {hit.item.meta["colour"] for hit in found} == {colour}


def test_an_item_finds_what_is_like_it(stock: Collection) -> None:
    found = stock.search(id="p1", k=15)
    assert "p1" not in ids(found)
    assert found[0].item.id == "p9"
    with pytest.raises(NotFound, match="'p99'"):
        stock.search(id="p99")


def test_a_region(stock: Collection) -> None:
    whole = stock.search(photo(5, NAMES[5]), box=(0, 0, 160, 120), k=1)
    assert ids(whole) == ["p5"]
    assert ids(stock.search(photo(5, NAMES[5]), box=[-50, -50, 1000, 1000], k=1)) == ["p5"]
    part = stock.search(photo(5, NAMES[5]), box=(0, 0, 80, 60), k=16)
    assert part[0].relevance < whole[0].relevance
    assert "p5" not in ids(stock.search(id="p5", box=(10, 10, 150, 110), k=16))
    assert stock.search(id="p5", box=(0, 0, 80, 60), k=1)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((500, 500, 600, 600), "outside"),
        ((10, 10, 10, 20), "x1 < x2"),
        ((20, 10, 10, 20), "x1 < x2"),
        ((0, 0, float("nan"), 5), "x1 < x2"),
        ((0, 0, 5), "four numbers"),
        ((3.2, 3.2, 3.3, 3.3), "outside"),
    ],
)
def test_boxes_that_are_none(stock: Collection, box: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        stock.search(photo(5), box=box)
    if box[0] != 3.2:  # of an item, only its thumbnail is left
        with pytest.raises(InvalidRequest, match=says):
            stock.search(id="p5", box=box)


def test_a_box_needs_a_picture(stock: Collection) -> None:
    with pytest.raises(InvalidRequest, match="region of the image"):
        stock.search(text="red", box=(0, 0, 5, 5))


def test_terms_are_added_up(stock: Collection) -> None:
    mixed = stock.search(text="red", terms=[{"text": "green", "weight": -1}], k=16)
    colours = [hit.item.meta["colour"] for hit in mixed]
    assert set(colours[:2]) <= {"red", "magenta"}
    assert set(colours[-2:]) <= {"green", "cyan"}
    picture = base64.b64encode(photo(4, NAMES[4])).decode()
    assert ids(stock.search(terms=[{"image": picture}], k=1)) == ["p4"]
    both = stock.search(photo(1, "red"), terms=[{"id": "p2", "weight": 0.5}], k=3)
    assert both[0].item.id in ("p1", "p9")
    assert "p2" not in ids(both)


def test_conditions(stock: Collection) -> None:
    assert ids(stock.search(text="red", where={"colour": "red"})) in (["p1", "p9"], ["p9", "p1"])
    cheap = stock.search(text="red", where={"price": {"lt": 3}})
    assert sorted(ids(cheap)) == ["p0", "p1", "p2"]
    new = {"all": [{"tags": "new"}, {"not": {"price": {"gte": 11}}}]}
    assert sorted(ids(stock.search(text="red", where=new))) == ["p10", "p9"]
    assert stock.search(text="red", where={"colour": "pink"}) == []
    with pytest.raises(InvalidRequest, match="did you mean 'colour'"):
        stock.search(text="red", where={"color": "red"})


def test_the_same_id_replaces(full: Collection) -> None:
    before = len(full)
    assert full.add(photo(40), id="p3", meta={"colour": "none"}) == "p3"
    assert len(full) == before
    assert ids(full.search(photo(40), k=1)) == ["p3"]
    assert full.search(photo(3, NAMES[3]), k=1)[0].item.id != "p3"
    assert full.get("p3").meta == {"colour": "none"}
    full.add(photo(40), id="p3", meta={"colour": "again"})
    assert ids(full.search(text="red", where={"colour": "again"})) == ["p3"]


def test_items_are_deleted(full: Collection) -> None:
    assert full.delete("p3", "p3", "p4", "nobody") == 2
    assert full.delete("p3") == 0
    assert len(full) == 14
    assert not {"p3", "p4"} & set(ids(full.search(photo(3, NAMES[3]), k=20)))
    with pytest.raises(NotFound, match="'p3'"):
        full.get("p3")
    full.add(photo(3, NAMES[3]), id="p3")
    assert ids(full.search(photo(3, NAMES[3]), k=1)) == ["p3"]


def test_a_collection_is_dropped(full: Collection, given: Settings) -> None:
    folders = set((given.home / "search").iterdir())
    assert full.drop() == 16
    assert not any(folder.exists() for folder in folders)
    for use in (lambda: full.search(text="red"), lambda: len(full), full.drop):
        with pytest.raises(NotFound):
            use()
    with pytest.raises(NotFound):
        Collection.open("shop", settings=given, make=False)
    with Collection.open("shop", settings=given) as again:
        assert len(again) == 0
        again.add(photo(77), id="new")
        assert ids(again.search(photo(3, NAMES[3]))) == ["new"]


def test_adding_to_what_was_dropped_leaves_nothing(full: Collection, given: Settings) -> None:
    assert list((given.home / "search").iterdir())
    full.drop()
    with pytest.raises(NotFound):
        full.add(photo(1))
    with pytest.raises(NotFound):
        full.delete("p1")
    assert not list((given.home / "search").iterdir())


def test_duplicates_are_seen_at_once(full: Collection) -> None:
    assert full.duplicates() == []
    full.add(photo(2, NAMES[2], quality=60), id="near")
    full.add(photo(2, NAMES[2]), id="exact")
    assert [[item.id for item in group] for group in full.duplicates()] == [["p2", "near", "exact"]]
    best = full.search(photo(2, NAMES[2]), k=10)
    assert best[0].duplicates == 2
    assert len({"p2", "near", "exact"} & set(ids(best))) == 1
    assert {"p2", "near", "exact"} < set(ids(full.search(id="p10", k=20, dedupe=False)))
    full.delete("p2")
    assert sorted(item.id for group in full.duplicates() for item in group) == ["exact", "near"]


def test_all_is_there_when_it_is_opened_again(full: Collection, given: Settings) -> None:
    full.close()
    with Collection.open("shop", settings=given, make=False) as again:
        assert len(again) == 16
        assert ids(again.search(photo(7, NAMES[7]), k=1)) == ["p7"]
        assert again.search(text="cyan", k=1)[0].item.meta["colour"] == "cyan"


def test_two_programs_see_each_other(full: Collection, given: Settings) -> None:
    with Collection.open("shop", settings=given) as other:
        assert ids(other.search(photo(1, "red"), k=1)) == ["p1"]
        other.add(photo(60), id="theirs")
        assert ids(full.search(photo(60), k=1)) == ["theirs"]
        full.delete("theirs")
        assert "theirs" not in ids(other.search(photo(60), k=20))
        with (
            full._library.writer(full._opened.collection),
            pytest.raises(Conflict, match="being written"),
        ):
            other.add(photo(61))


def test_an_empty_collection(shop: Collection) -> None:
    assert shop.search(text="red") == []
    assert shop.search(photo(1)) == []
    assert shop.duplicates() == shop.failures() == list(shop.items()) == []
    with pytest.raises(NotFound):
        shop.get("x")
    shop.add(photo(1), id="a")
    shop.delete("a")
    assert shop.search(text="red") == []
    assert shop.search(photo(1)) == []


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (b"", EmptyInput),
        (b"no picture", UnsupportedMedia),
        (photo(1)[:300], InputError),
        ("no such file.jpg", InvalidRequest),
        ("", InputError),
    ],
)
def test_pictures_that_are_none(stock: Collection, picture: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        stock.add(picture, id="bad")
    with pytest.raises(error):
        stock.search(picture)
    assert len(stock) == 16


def test_an_empty_file_and_a_folder(shop: Collection, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(EmptyInput):
        shop.add(tmp_path / "empty.jpg")
    with pytest.raises(InputError):
        shop.add(tmp_path)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"k": 0}, "k"),
        ({"k": -1}, "k"),
        ({"k": 1001}, "k"),
        ({"k": 10**6}, "k"),
        ({"k": 2.5}, "whole number"),
        ({"k": "many"}, "whole number"),
        ({"offset": -1}, "offset"),
        ({"k": 1000, "offset": 9001}, "9000 for k = 1000"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"text": "x" * 10_000_000}, "10,000,000 characters"),
        ({"text": "   "}, "empty"),
        ({"text": ""}, "nothing is asked"),
        ({"text": "unheard of"}, "known to the vocabulary"),
        ({"terms": [{"weight": 1}]}, "exactly one"),
        ({"terms": [{"text": "a", "weight": float("inf")}]}, "weight"),
        ({"where": {"n": {"gt": []}}}, "n"),
    ],
)
def test_questions_out_of_their_limits(stock: Collection, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        stock.search(**{"text": "red", **asked})


def test_k_may_be_as_large_as_allowed(stock: Collection) -> None:
    assert len(stock.search(text="red", k=1000, offset=0)) == 16
    assert len(stock.search(text="red", k=1, offset=9999)) == 0
    pages = [ids(stock.search(text="red", k=4, offset=start)) for start in (0, 4, 8, 12)]
    assert sorted(one for page in pages for one in page) == sorted(f"p{n}" for n in range(16))


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 65, "späti", "a b", ".hidden"])
def test_names_that_are_none(given: Settings, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no collection's name"):
        Collection.open(name, settings=given)


def test_ids_and_metadata_out_of_their_limits(shop: Collection) -> None:
    with pytest.raises(InvalidRequest, match="512"):
        shop.add(photo(1), id="x" * 513)
    for meta in ({"a": {}}, {"a": [1]}, {"": 1}, {"a": "x" * 20_000}, {"a": float("nan")}):
        with pytest.raises(InvalidRequest):
            shop.add(photo(1), id="x", meta=meta)
    assert len(shop) == 0
    assert shop.add(photo(1), id="ünï/cødé %41 'q\"", meta={"käse": "ja"}) == "ünï/cødé %41 'q\""
    assert shop.get("ünï/cødé %41 'q\"").meta == {"käse": "ja"}


def test_models_that_do_not_fit(full: Collection, given: Settings, tmp_path: Path) -> None:
    with (
        Collection.open("shop", model="nobody", settings=given) as unknown,
        pytest.raises(ModelNotFound),
    ):
        unknown.add(photo(1))
    with (
        Collection.open("shop", model=TEXT, settings=given) as text,
        pytest.raises(InvalidRequest, match="not for embed"),
    ):
        text.search(photo(1))
    install(given.cache, tmp_path / "made", name="other", turned=True)
    with Collection.open("shop", model="other", settings=given) as other:
        with pytest.raises(InvalidRequest, match=rf"it has: {EMBEDDER}@"):
            other.search(photo(1))
        other.add(photo(50), id="theirs")
        assert ids(other.search(photo(50))) == ["theirs"]
    assert len(full) == 17
    assert "theirs" not in ids(full.search(photo(50), k=30))


def test_a_text_model_of_another_length(full: Collection, given: Settings, tmp_path: Path) -> None:
    full.close()
    install(given.cache, tmp_path / "made", words=5)
    with (
        Collection.open("shop", settings=given) as again,
        pytest.raises(InvalidRequest, match=r"gave 5 numbers, .* have 8"),
    ):
        again.search(text="red")


def test_questions_from_several_threads_of_one_model(stock: Collection) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for number in range(16):
                asked = parse_asked({"k": 1}, photo(number, NAMES[number % 8]))
                assert ids(stock.ask(asked).hits) == [f"p{number}"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    for table in ({"model": 3}, {"modle": "x"}, {"tenants": "many"}, {"deadline_ms": 0}):
        with pytest.raises(ConfigError, match=r"\[apps.search\]"):
            app_settings(Settings(home=tmp_path, apps={"search": table}))
