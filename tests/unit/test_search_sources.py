"""Folders, patterns, single pictures, tables: what they offer and what they refuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.sources import Found, Refused, open_source, source_name
from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputError,
    InputNotFound,
    InvalidRequest,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.core.settings import Limits

JPEG = b"\xff\xd8\xff\xe0" + b"a photo" * 10
LIMITS = Limits(max_bytes=1000)


def listed(source: object, **options: Any) -> tuple[dict[str, Found], list[Refused]]:
    offers = list(open_source(str(source), **{"limits": LIMITS, **options}))
    found = {offer.id: offer for offer in offers if isinstance(offer, Found)}
    return found, [offer for offer in offers if isinstance(offer, Refused)]


def write(path: Path, data: bytes | str = JPEG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_folder_offers_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/b/c.webp", "a.gif", "notes.txt", ".x.jpg", ".git/y.jpg"):
        write(tmp_path / name)
    found, refused = listed(tmp_path)
    assert list(found) == ["a/b/c.webp", "a/z.PNG", "a.gif", "b.jpg"]
    assert not refused
    first = found["b.jpg"]
    assert (first.path, first.size) == (str(tmp_path / "b.jpg"), len(JPEG))
    assert first.source == source_name(str(tmp_path)) == str(tmp_path)
    assert first.mtime_us == (tmp_path / "b.jpg").stat().st_mtime_ns // 1000
    assert first.read() == JPEG


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    inside = write(tmp_path / "in/a.jpg")
    outside = write(tmp_path / "out/secret.jpg")
    (tmp_path / "in/link.jpg").symlink_to(inside)
    (tmp_path / "in/escape.jpg").symlink_to(outside)
    (tmp_path / "in/folder").symlink_to(outside.parent)
    (tmp_path / "in/self").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "in/nothing")
    (tmp_path / "in/loop.jpg").symlink_to(tmp_path / "in/loop.jpg")
    found, refused = listed(tmp_path / "in")
    assert list(found) == ["a.jpg", "link.jpg"]
    assert found["link.jpg"].read() == JPEG
    assert [r.id for r in refused] == ["escape.jpg", "folder", "gone.jpg", "loop.jpg"]
    assert "leads out of" in refused[0].error.message
    assert isinstance(refused[2].error, InputNotFound)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "large.jpg", bytes(1001))
    write(tmp_path / "phone.heic")
    os.mkfifo(tmp_path / "pipe.jpg")
    found, refused = listed(tmp_path)
    assert not found
    assert [type(r.error) for r in refused] == [TooManyBytes, UnsupportedMedia, UnsupportedMedia]
    assert not any(r.partial for r in refused)


def test_a_file_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    found, _ = listed(tmp_path)
    write(a, bytes(2000))
    b.unlink()
    c.unlink()
    os.mkfifo(c)
    for name, error in (
        ("a.jpg", TooManyBytes),
        ("b.jpg", InputNotFound),
        ("c.jpg", UnsupportedMedia),
    ):
        with pytest.raises(error):
            found[name].read()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(JPEG)
    write(tmp_path / "größe.jpg")
    found, _ = listed(tmp_path)
    assert set(found) == {"caf\\xe9.jpg", "größe.jpg"}
    assert found["caf\\xe9.jpg"].read() == JPEG
    found["caf\\xe9.jpg"].path.encode()


def test_a_folder_that_cannot_be_read_leaves_the_listing_partial(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    (tmp_path / "b").mkdir()
    offers = open_source(str(tmp_path), limits=LIMITS)
    next(offers)
    (tmp_path / "b").rmdir()
    (refused,) = offers
    assert isinstance(refused, Refused)
    assert refused.partial
    assert isinstance(refused.error, InputNotFound)


def test_patterns(tmp_path: Path) -> None:
    for name in ("p/a.jpg", "p/x/b.jpg", "p/x/c.png", "p/x/notes.txt"):
        write(tmp_path / name)
    found, refused = listed(tmp_path / "p/**/*.jpg")
    assert (list(found), refused) == (["a.jpg", "x/b.jpg"], [])
    assert found["a.jpg"].source == str(tmp_path / "p/**/*.jpg")
    assert list(listed(tmp_path / "p/x/*")[0]) == ["b.jpg", "c.png"]
    with pytest.raises(InputNotFound, match="no file matches"):
        open_source(str(tmp_path / "p/*.bmp"), limits=LIMITS)
    write(tmp_path / "odd[1].jpg")
    assert list(listed(tmp_path / "odd[1].jpg")[0]) == ["odd[1].jpg"]


def test_single_pictures_and_what_is_no_source(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    write(tmp_path / "no suffix")
    assert list(listed(tmp_path / "a.jpg")[0]) == ["a.jpg"]
    assert list(listed((tmp_path / "a.jpg").as_uri())[0]) == ["a.jpg"]
    assert list(listed(tmp_path / "no suffix")[0]) == ["no suffix"]
    for name, data, error in (
        ("x.txt", "hello", UnsupportedMedia),
        ("x.heic", "hello", UnsupportedMedia),
        ("empty.csv", "", EmptyInput),
    ):
        with pytest.raises(error):
            open_source(str(write(tmp_path / name, data)), limits=LIMITS)
    for source in ("", "a\0b", "wat://x/y", "http://"):
        with pytest.raises(InvalidRequest):
            open_source(source, limits=LIMITS)
    with pytest.raises(InputNotFound):
        open_source(str(tmp_path / "nothing"), limits=LIMITS)


def test_a_csv_table_with_metadata(tmp_path: Path) -> None:
    photo = write(tmp_path / "photos/a.jpg")
    write(tmp_path / "photos/b c.jpg")
    table = write(
        tmp_path / "t.csv",
        '\ufeffID,Path,price,sku,new,title\r\n1,photos/a.jpg,9.5,007,true,"Red, ""car"""\r\n'
        f"2,photos/b c.jpg,12,12,FALSE,\r\n3,{photo},,8,true,x\r\n\r\n",
    )
    found, refused = listed(table)
    assert not refused
    assert list(found) == ["1", "2", "3"]
    assert found["1"].meta == {"price": 9.5, "sku": "007", "new": True, "title": 'Red, "car"'}
    assert found["2"].meta == {"price": 12, "sku": "12", "new": False}
    assert found["3"].path == str(photo)
    assert found["3"].read() == JPEG
    assert found["1"].size == len(JPEG)
    kept, _ = listed(table, id_column="sku", text_columns=("price",))
    assert kept["007"].meta["price"] == "9.5"


@pytest.mark.parametrize(("name", "mark"), [("t.tsv", "\t"), ("t.csv", ";"), ("t.csv", "|")])
def test_other_delimiters(tmp_path: Path, name: str, mark: str) -> None:
    write(tmp_path / "a.jpg")
    found, _ = listed(write(tmp_path / name, f"file{mark}n\na.jpg{mark}3\n"))
    assert found["a.jpg"].meta == {"n": 3}


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    table = str(write(tmp_path / "t.csv", "id,picture,colour\n1,a.jpg,red\n"))
    with pytest.raises(InvalidRequest, match=r"it has id, picture, colour; say which one"):
        open_source(table, limits=LIMITS)
    with pytest.raises(InvalidRequest, match=r"no column 'pictur'.*did you mean 'picture'"):
        open_source(table, limits=LIMITS, path_column="pictur")
    twice = str(write(tmp_path / "u.csv", "path,path\na,b\n"))
    with pytest.raises(InvalidRequest, match="two columns 'path'"):
        open_source(twice, limits=LIMITS)


def test_rows_may_not_lead_out_of_the_tables_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg")
    write(tmp_path / "t/a.jpg")
    (tmp_path / "t/link.jpg").symlink_to(tmp_path / "secret.jpg")
    rows = ["../secret.jpg", "x/../../secret.jpg", "link.jpg", "gopher://h/a.jpg", "no.jpg", "."]
    table = write(tmp_path / "t/t.csv", "\n".join(["path", *rows, "x/../a.jpg"]))
    found, refused = listed(table)
    assert list(found) == ["x/../a.jpg"]
    assert len(refused) == len(rows)
    assert "leads out of the table's folder" in refused[0].error.message
    assert refused[0].path == f"{table}, line 2"
    assert isinstance(refused[4].error, InputNotFound)


def test_damaged_csv_rows_are_refused_and_the_others_follow(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    lines = [
        b"path,note",
        b"a.jpg,caf\xe9",
        b"a.jpg,nul\0",
        b"a.jpg,1,2,3",
        b"a.jpg," + b"x" * 200_000,
        b"a.jpg," + b"y" * 2_000_000,
        b",empty",
        b"a.jpg,fine",
        b'a.jpg,"never closed',
    ]
    found, refused = listed(write(tmp_path / "t.csv", b"\n".join(lines)))
    assert found["a.jpg"].meta == {"note": "fine"}
    said = [r.error.message for r in refused]
    for message, words in zip(
        said,
        (
            "line 2: the line is in another encoding",
            "line 3: the line has NUL bytes",
            "line 4: it has 4 fields, but the header has 2",
            "line 5: field larger than field limit",
            "line 6: the line is longer than",
            "line 7: column 'path' is empty",
            "line 9: unexpected end of data",
        ),
        strict=True,
    ):
        assert words in message
    assert all(r.partial for r in refused)


def test_encodings(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    body = "path,note\na.jpg,café\n"
    for name, encoding, given in (("l", "latin-1", "latin-1"), ("w", "utf-16", "")):
        table = write(tmp_path / f"{name}.csv", body.encode(encoding))
        assert listed(table, encoding=given)[0]["a.jpg"].meta == {"note": "café"}
    cut = write(tmp_path / "cut.csv", body.encode("utf-16")[:-1])
    assert listed(cut)[1][0].partial
    with pytest.raises(InvalidRequest, match="no encoding 'klingon'"):
        listed(table, encoding="klingon")
    binary = str(write(tmp_path / "b.csv", bytes(range(256)) * 9))
    with pytest.raises(InputError):
        open_source(binary, limits=LIMITS)


def test_json_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    table = write(
        tmp_path / "t.jsonl",
        '{"id": 7, "image": "a.jpg", "price": 1.5, "tags": ["x", "y"], "none": null}\n\n'
        '{"id": 8}\n[1]\nnot json\n{"id": true, "image": "a.jpg"}\n',
    )
    found, refused = listed(table)
    assert found["7"].meta == {"price": 1.5, "tags": '["x","y"]', "none": None}
    assert [r.path.rpartition(", ")[2] for r in refused] == ["line 3", "line 4", "line 5", "line 6"]
    assert [type(r.error) for r in refused][1:3] == [CorruptMedia, CorruptMedia]
    assert refused[0].id == "8"


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.jpg")
    when = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns"))
    columns = {"path": ["a.jpg", None], "n": [1, 2], "when": when, "skip": [b"x", b"y"]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found, refused = listed(tmp_path / "t.parquet")
    assert found["a.jpg"].meta == {"n": 1, "when": "2023-11-14T22:13:20.123456"}
    assert refused[0].path.endswith("row 2")
    images = [{"bytes": JPEG, "path": "x.jpg"}, {"bytes": bytes(1001), "path": "y.jpg"}]
    parquet.write_table(pa.table({"image": images}), tmp_path / "u.parquet")
    found, refused = listed(tmp_path / "u.parquet")
    assert found["x.jpg"].read() == JPEG
    assert isinstance(refused[0].error, TooManyBytes)
    data = (tmp_path / "u.parquet").read_bytes()
    for bad in (b"PAR1", data[:-20], data[: len(data) // 2] + bytes(len(data) // 2)):
        with pytest.raises(CorruptMedia, match="Parquet"):
            open_source(str(write(tmp_path / "bad.parquet", bad)), limits=LIMITS)
