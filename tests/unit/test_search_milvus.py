"""A collection whose indexes are in Milvus."""

from __future__ import annotations

from pathlib import Path

from pymilvus import MilvusClient

from retinue.apps.search.query import Query, image_term
from retinue.apps.search.searcher import OpenCollection
from retinue.testing.search import MODEL, item, library, made_up, put_all


def found(shop: OpenCollection, number: int, k: int) -> list[str]:
    shop.refresh()
    query = Query([image_term(made_up(number))], k=k, rerank=False)
    return [hit.item.id for hit in shop.search(query, shop.space(MODEL)).hits]


def test_the_vectors_may_be_in_milvus(tmp_path: Path) -> None:
    url = f"milvus://{tmp_path / 'vectors.db'}"
    place = library(tmp_path, vectors=url)
    shop = place.create("", "shop")
    put_all(place, shop.collection, {n: item(n) for n in range(60)})
    assert found(shop, 5, 5)[0] == "i5"
    with place.writer(shop.collection) as writer:
        writer.write(removes=["i5"])
    assert "i5" not in found(shop, 5, 20)
    shop.space(MODEL).save()
    place.close()
    again = library(tmp_path, vectors=url)
    shop = again.collection("", "shop")
    assert found(shop, 7, 1) == ["i7"]
    shop.space(MODEL).rebuild()
    assert found(shop, 7, 1) == ["i7"]
    again.delete("", "shop")
    again.close()
    assert MilvusClient(str(tmp_path / "vectors.db")).list_collections() == []
