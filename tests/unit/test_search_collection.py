"""A collection against the obvious truth, through every change."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from retinue.apps.search.filters import parse_where
from retinue.apps.search.library import Library
from retinue.apps.search.query import Query, Term, image_term
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.writer import Entry, space_of
from retinue.core.errors import Conflict, InvalidRequest, NotFound
from retinue.core.types import Embedding
from retinue.testing.search import DIM, MODEL, VERSION, item, library, made_up, put_all


@pytest.fixture
def place(tmp_path: Path):
    opened = library(tmp_path, flat_up_to=256)
    yield opened
    opened.close()


@pytest.fixture
def shop(place: Library) -> OpenCollection:
    return place.create("", "shop")


def plain(number: int, **options) -> Query:
    return Query([image_term(made_up(number))], rerank=False, **options)


def found(shop: OpenCollection, query: Query) -> list[str]:
    shop.refresh()
    return [hit.item.id for hit in shop.search(query, shop.space(MODEL)).hits]


def truth(numbers: dict[int, int], asked: int, k: int) -> list[str]:
    """The k nearest ids; ``numbers`` says whose embedding each item has."""
    vectors = np.stack([made_up(n).vector for n in numbers.values()]).astype(np.float16)
    cosines = vectors.astype(np.float32) @ made_up(asked).vector
    ids = [f"i{n}" for n in numbers]
    return [ids[place] for place in np.argsort(-cosines, kind="stable")[:k]]


def test_what_was_written_is_found(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(100)})
    for asked in range(0, 100, 9):
        assert found(shop, plain(asked, k=5)) == truth({n: n for n in range(100)}, asked, 5)


def test_many_changes_leave_what_they_say(place: Library, shop: OpenCollection) -> None:
    draw = random.Random(3)
    alive: dict[int, int] = {}
    put_all(place, shop.collection, {0: item(0)})
    alive[0] = 0
    for _ in range(30):
        with place.writer(shop.collection) as writer:
            space = writer.add_space(space_of(MODEL, VERSION, made_up(0)))
            chosen = draw.sample(range(60), 6)
            puts = {n: draw.randrange(1000) for n in chosen[:4]}
            entries = [
                Entry(item(n, sha256=f"{look:064x}"), {space.key: made_up(look)})
                for n, look in puts.items()
            ]
            gone = [n for n in chosen[4:] if n in alive]
            writer.write(entries, [f"i{n}" for n in gone])
        alive |= puts
        for n in gone:
            del alive[n]
        asked = draw.randrange(1000)
        assert set(found(shop, plain(asked, k=10))) == set(truth(alive, asked, 10))
        assert shop.refresh().count == len(alive)


def test_another_process_sees_the_writes(place: Library, shop: OpenCollection, tmp_path) -> None:
    put_all(place, shop.collection, {0: item(0)})
    assert found(shop, plain(7, k=3)) == ["i0"]
    code = (
        "import sys; from pathlib import Path; from retinue.testing.search import *\n"
        "place = library(Path(sys.argv[1])); shop = place.create('', 'shop')\n"
        "put_all(place, shop.collection, {7: item(7)}); place.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert found(shop, plain(7, k=3)) == ["i7", "i0"]


def test_grows_out_of_exact_search_while_it_answers(place: Library, shop: OpenCollection) -> None:
    for start in range(0, 1500, 100):
        put_all(place, shop.collection, {n: item(n) for n in range(start, start + 100)})
        assert found(shop, plain(start + 5, k=1)) == [f"i{start + 5}"]
    space = shop.space(MODEL)
    space.wait()
    space.catch_up()
    assert space.statistics()["image"]["vectors"] == 1500
    assert space.fields["image"].index.trained
    wanted = {n: n for n in range(1500)}
    shares = [
        len(set(found(shop, plain(n, k=10))) & set(truth(wanted, n, 10))) / 10
        for n in range(0, 1500, 100)
    ]
    assert np.mean(shares) > 0.95


def test_the_index_is_loaded_again_and_follows(tmp_path: Path) -> None:
    first = library(tmp_path, flat_up_to=256)
    shop = first.create("", "shop")
    put_all(first, shop.collection, {n: item(n) for n in range(400)})
    space = shop.space(MODEL)
    space.catch_up()
    space.save()
    put_all(first, shop.collection, {n: item(n) for n in range(400, 420)})
    with first.writer(shop.collection) as writer:
        writer.write(removes=["i3"])
    first.close()
    second = library(tmp_path, flat_up_to=256)
    shop = second.collection("", "shop")
    assert found(shop, plain(410, k=1)) == ["i410"]
    assert "i3" not in found(shop, plain(3, k=20))
    second.close()


def test_an_index_is_built_anew_when_much_of_it_is_hidden(tmp_path: Path) -> None:
    place = library(tmp_path, flat_up_to=256)
    shop = place.create("", "shop")
    put_all(place, shop.collection, {n: item(n) for n in range(800)})
    space = shop.space(MODEL)
    space.catch_up()
    for removed, hidden in ((range(100), 100), (range(100, 250), 0)):
        with place.writer(shop.collection) as writer:
            writer.write(removes=[f"i{n}" for n in removed])
        space.catch_up()
        assert {field.index.hidden for field in space.fields.values()} == {hidden}
    put_all(place, shop.collection, {n: item(n) for n in range(800, 850)})
    assert found(shop, plain(820, k=1)) == ["i820"]
    assert "i3" not in found(shop, plain(3, k=20))
    place.close()


@pytest.mark.parametrize("damage", ["cut", "bytes", "empty", "other version"])
def test_a_damaged_index_is_built_anew_and_said(tmp_path, damage: str, caplog) -> None:
    first = library(tmp_path)
    shop = first.create("", "shop")
    put_all(first, shop.collection, {n: item(n) for n in range(50)})
    shop.space(MODEL).save()
    first.close()
    (file,) = (tmp_path / "search").rglob("*.image.*.index")
    data = file.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "bytes": data[:300] + b"\xff" * 9 + data[309:],
        "empty": b"",
        "other version": data.replace(b'"format": 1', b'"format": 9'),
    }
    file.write_bytes(changed[damage])
    second = library(tmp_path)
    shop = second.collection("", "shop")
    assert found(shop, plain(9, k=1)) == ["i9"]
    assert "built anew" in caplog.text
    (again,) = (tmp_path / "search").rglob("*.image.*.index")
    assert again.read_bytes() != changed[damage]
    second.close()


def test_a_second_writer_is_refused_by_name(place: Library, shop: OpenCollection) -> None:
    with (
        place.writer(shop.collection),
        pytest.raises(Conflict, match=r"'shop' is being written .* \(process \d+\)"),
    ):
        place.writer(shop.collection, wait_s=0.05)
    place.writer(shop.collection).close()


def test_another_length_of_vectors_is_refused(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {0: item(0)})
    long = Embedding(np.ones(DIM + 1, np.float32))
    with place.writer(shop.collection) as writer, pytest.raises(Conflict, match="another length"):
        writer.add_space(space_of(MODEL, VERSION, long))


def test_conditions_narrow_what_is_found(place: Library, shop: OpenCollection) -> None:
    colours = ["red", "green", "blue"]
    puts = {n: item(n, {"colour": colours[n % 3], "price": n}) for n in range(90)}
    put_all(place, shop.collection, puts)
    where = parse_where({"colour": "red", "price": {"lt": 30}})
    wanted = {n: n for n in range(0, 30, 3)}
    assert found(shop, plain(5, k=20, where=where)) == truth(wanted, 5, 20)
    shop.refresh()
    assert shop.search(plain(5, where=where), shop.space(MODEL)).count == 10
    with place.writer(shop.collection):
        place.store.set_meta(shop.collection, "i0", {"colour": "blue"})
    assert "i0" not in found(shop, plain(0, k=20, where=where))
    with pytest.raises(InvalidRequest, match="did you mean 'colour'"):
        found(shop, plain(0, where=parse_where({"color": "red"})))
    nothing = parse_where({"colour": "pink"})
    assert found(shop, plain(0, where=nothing)) == []


def test_pages_follow_one_another(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(300)})
    whole = found(shop, plain(4, k=250))
    parts = [found(shop, plain(4, k=25, offset=start)) for start in range(0, 250, 25)]
    assert [one for part in parts for one in part] == whole
    ranks = [hit.rank for hit in shop.search(plain(4, k=5, offset=10), shop.space(MODEL)).hits]
    assert ranks == [11, 12, 13, 14, 15]


def test_pages_follow_one_another_when_ranked_again(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(600)})

    def ask(k: int, offset: int = 0) -> list[str]:
        return found(shop, Query([image_term(made_up(4))], k=k, offset=offset))

    whole = ask(500)
    assert len(set(whole)) == 500
    assert whole[0] == "i4"


def test_of_duplicates_the_best_is_shown(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(20)})
    numbers = {place.store.item(shop.collection, f"i{n}").number: n for n in range(20)}
    first = min(numbers)
    place.store.set_duplicates(shop.collection, dict.fromkeys(list(numbers)[:5], first))
    shop.refresh()
    hits = shop.search(plain(2, k=20), shop.space(MODEL)).hits
    assert hits[0].item.id == "i2"
    assert hits[0].duplicates == 4
    assert len(hits) == 16
    assert len(found(shop, plain(2, k=20, dedupe=False))) == 20


def test_terms_pull_and_push(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(50)})
    both = Query([image_term(made_up(1)), image_term(made_up(2))], k=2, rerank=False)
    assert set(found(shop, both)) == {"i1", "i2"}
    without = Query([image_term(made_up(1)), image_term(made_up(2), -1.0)], k=50, rerank=False)
    ranked = found(shop, without)
    assert ranked[0] == "i1"
    assert ranked[-1] == "i2"
    with pytest.raises(InvalidRequest, match="cancel"):
        found(shop, Query([image_term(made_up(1)), image_term(made_up(1), -1.0)], rerank=False))


def test_a_text_is_compared_as_a_text(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(50)})
    semantic = made_up(9).semantic
    assert semantic is not None
    assert found(shop, Query([Term({"text": semantic})], k=1)) == ["i9"]
    mixed = Query([Term({"text": semantic}), image_term(made_up(4))], k=2)
    assert set(found(shop, mixed)) == {"i9", "i4"}


def test_an_item_is_a_query(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(50)})
    shop.refresh()
    space = shop.space(MODEL)
    query = Query([shop.item_term("i4", space, 1.0)], k=5, without=["i4"])
    wanted = [one for one in truth({n: n for n in range(50)}, 4, 6) if one != "i4"]
    ids = [hit.item.id for hit in shop.search(query, space).hits]
    assert "i4" not in ids
    assert set(ids[:2]) & set(wanted[:3])
    with pytest.raises(NotFound, match="'i99'"):
        shop.item_term("i99", space, 1.0)


def test_scores_and_stages_say_why(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(50)})
    shop.refresh()
    answer = shop.search(Query([image_term(made_up(4))], k=50), shop.space(MODEL))
    first, last = answer.hits[0], answer.hits[-1]
    assert first.item.id == "i4"
    assert first.relevance == pytest.approx(1, abs=0.01)
    assert first.stages["ann"] == pytest.approx(1, abs=0.001)
    assert first.stages["tokens"] == pytest.approx(1)
    assert set(first.stages) == {"ann", "diffusion", "tokens"}
    assert 0 <= last.relevance <= 0.05
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert first.regions
    assert all(0 <= x <= 640 for hit in answer.hits for x in (r[0] for r in hit.regions))


def test_a_deadline_that_is_over_skips_the_stages(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(50)})
    shop.refresh()
    late = Query([image_term(made_up(4))], k=5, deadline=0.0)
    answer = shop.search(late, shop.space(MODEL))
    assert answer.skipped == ("diffusion", "tokens")
    assert answer.hits[0].item.id == "i4"


def test_tenants_do_not_meet(place: Library) -> None:
    one, other = place.create("a", "shop"), place.create("b", "shop")
    put_all(place, one.collection, {1: item(1)})
    put_all(place, other.collection, {2: item(2)})
    assert found(one, plain(2)) == ["i1"]
    assert found(other, plain(1)) == ["i2"]
    assert place.delete("a", "shop") == 1
    with pytest.raises(NotFound):
        place.collection("a", "shop")
    assert found(place.collection("b", "shop"), plain(1)) == ["i2"]


def test_a_collection_of_an_old_name_is_another_one(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {1: item(1)})
    place.delete("", "shop")
    again = place.create("", "shop")
    put_all(place, again.collection, {2: item(2)})
    assert found(place.collection("", "shop"), plain(1)) == ["i2"]


def test_two_versions_of_a_model_side_by_side(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(5)})
    with place.writer(shop.collection) as writer:
        newer = writer.add_space(space_of(MODEL, "2", made_up(0)))
        writer.write([Entry(item(0), {newer.key: made_up(100)})])
    shop.refresh()
    assert shop.space(MODEL).space.version == VERSION  # most items have it
    assert len(shop.space(MODEL)) == 5  # the same content keeps its other vectors
    assert len(shop.space(MODEL, "2")) == 1
    with pytest.raises(InvalidRequest, match="made-up@1, made-up@2"):
        shop.space("other")


def test_readers_and_a_writer_at_once(place: Library, shop: OpenCollection) -> None:
    put_all(place, shop.collection, {n: item(n) for n in range(300)})
    shop.space(MODEL)
    failures: list[BaseException] = []
    ended = threading.Event()

    def ask() -> None:
        try:
            while not ended.is_set():
                for n in range(0, 300, 50):
                    assert found(shop, plain(n, k=1)) == [f"i{n}"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(300, 1300, 50):
        put_all(place, shop.collection, {n: item(n) for n in range(start, start + 50)})
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures


FULL = """
import resource, signal, sys
from pathlib import Path
from retinue.core.errors import RetinueError
from retinue.testing.search import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
place = library(Path(sys.argv[1]))
shop = place.create("", "shop")
put_all(place, shop.collection, {n: item(n) for n in range(10)})
rows = next((Path(sys.argv[1]) / "search").rglob("*.image.rows")).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (rows + 40, rows + 40))
try:
    put_all(place, shop.collection, {n: item(n) for n in range(10, 60)})
except RetinueError as error:
    print(error.code)
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    run = [sys.executable, "-c", FULL, str(tmp_path)]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert said.strip() in ("disk_full", "storage_error")
    place = library(tmp_path)
    shop = place.collection("", "shop")
    assert shop.refresh().count == 10
    assert found(shop, plain(3, k=1)) == ["i3"]
    put_all(place, shop.collection, {n: item(n) for n in range(10, 60)})
    assert found(shop, plain(33, k=1)) == ["i33"]
    place.close()


def test_many_copies_leave_enough_others(place: Library, shop: OpenCollection) -> None:
    with place.writer(shop.collection) as writer:
        space = writer.add_space(space_of(MODEL, VERSION, made_up(0)))
        copies = [Entry(item(n), {space.key: made_up(0)}) for n in range(40)]
        others = [Entry(item(n), {space.key: made_up(n)}) for n in range(40, 50)]
        writer.write([*copies, *others])
    numbers = [place.store.item(shop.collection, f"i{n}").number for n in range(40)]
    place.store.set_duplicates(shop.collection, dict.fromkeys(numbers, min(numbers)))
    shop.refresh()
    hits = shop.search(plain(0, k=5), shop.space(MODEL)).hits
    assert len(hits) == 5
    assert [hit.duplicates for hit in hits] == [39, 0, 0, 0, 0]
