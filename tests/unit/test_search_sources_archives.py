"""ZIP and tar files as sources: what is offered, and what a hostile or damaged one may not do."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.sources import Found, Refused, open_source
from retinue.core.errors import (
    CorruptMedia,
    InputError,
    RetinueError,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.core.settings import Limits

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256))
LIMITS = Limits(max_bytes=100_000)
HOSTILE = ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "C:/x.jpg", "a\\x.jpg", "n\nl.jpg"]


def listed(source: Path, **options: Any) -> tuple[dict[str, Found], list[Refused]]:
    offers = list(open_source(str(source), **{"limits": LIMITS, **options}))
    found = {offer.id: offer for offer in offers if isinstance(offer, Found)}
    return found, [offer for offer in offers if isinstance(offer, Refused)]


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {
    "./a.jpg": JPEG,
    "b/c.png": JPEG * 2,
    "b/notes.txt": b"x",
    "b/inner.zip": b"PK\3\4",
    "__MACOSX/b/._c.png": b"x",
    ".hidden/x.jpg": b"x",
    "größe.jpg": JPEG,
}


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_members_are_offered_and_read_in_any_order(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photos.{kind}"
    if kind.endswith("zip"):
        stored = kind.startswith("stored")
        make_zip(path, MEMBERS, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    else:
        make_tar(path, MEMBERS, f"w:{kind[4:]}")
    found, refused = listed(path)
    assert not refused
    assert list(found) == [f"photos.{kind}/{n}" for n in ("a.jpg", "b/c.png", "größe.jpg")]
    one = found[f"photos.{kind}/b/c.png"]
    assert (one.path, one.size) == (f"{path}!b/c.png", len(JPEG) * 2)
    assert one.mtime_us == path.stat().st_mtime_ns // 1000
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda offer: offer.read(), [*found.values()] * 20))
    assert read == [JPEG, JPEG * 2, JPEG] * 20


def test_an_archive_is_told_by_its_content(tmp_path: Path) -> None:
    made = make_zip(tmp_path / "no suffix", {"a.jpg": JPEG})
    assert list(listed(made)[0]) == ["no suffix/a.jpg"]
    with pytest.raises(UnsupportedMedia, match="gzip"):
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"path\na.jpg\n"))
        open_source(str(tmp_path / "t.csv.gz"), limits=LIMITS)


def test_a_pattern_opens_archives(tmp_path: Path) -> None:
    make_tar(tmp_path / "0.tar", {"a.jpg": JPEG})
    make_zip(tmp_path / "1.zip", {"a.jpg": JPEG})
    found, refused = listed(tmp_path / "*.*")
    assert (list(found), refused) == (["0.tar/a.jpg", "1.zip/a.jpg"], [])
    assert {f.source for f in found.values()} == {str(tmp_path / "*.*")}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out_are_refused(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    path = make(tmp_path / "x", {**dict.fromkeys(HOSTILE, JPEG), "ok.jpg": JPEG})
    found, refused = listed(path.rename(tmp_path / "x.tar") if make is make_tar else path)
    assert [f.rpartition("/")[2] for f in found] == ["ok.jpg"]
    assert len(refused) == len(HOSTILE)
    assert all(type(r.error) is InputError and not r.partial for r in refused)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    tar, zipped = tmp_path / "x.tar", tmp_path / "x.zip"
    with tarfile.open(tar, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with zipfile.ZipFile(zipped, "w") as made:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    for path, count in ((tar, 4), (zipped, 1)):
        found, refused = listed(path)
        assert not found
        assert [type(r.error) for r in refused] == [UnsupportedMedia] * count


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_large_and_too_many_members(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    path = make(tmp_path / "x.tar", {"large.jpg": bytes(100_001), "a.jpg": JPEG, "b.jpg": JPEG})
    found, refused = listed(path)
    assert (len(found), [type(r.error) for r in refused]) == (2, [TooManyBytes])
    _, refused = listed(path, max_members=2)
    assert "members" in refused[-1].error.message
    assert refused[-1].partial


def forged_zip(path: Path, data: bytes, announced: int, **changes: int) -> Path:
    """Write a ZIP file whose directory and local header announce another size."""
    make_zip(path, {"a.jpg": data})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\1\2")
    for start, flags, method, size in ((0, 6, 8, 22), (at, 8, 10, 24)):
        struct.pack_into("<L", raw, start + size, announced)
        raw[start + flags] |= changes.get("flags", 0)
        raw[start + method] = changes.get("method", 8)
    path.write_bytes(raw)
    return path


def test_a_zip_member_that_is_larger_than_announced_is_not_inflated(tmp_path: Path) -> None:
    bomb = forged_zip(tmp_path / "x.zip", bytes(50_000_000), 10)
    found, _ = listed(bomb)
    with pytest.raises(TooManyBytes):
        found["x.zip/a.jpg"].read()
    small = forged_zip(tmp_path / "y.zip", bytes(50), 10)
    with pytest.raises(CorruptMedia, match="size or checksum"):
        listed(small)[0]["y.zip/a.jpg"].read()


def test_encrypted_and_unusually_packed_zip_members_are_refused(tmp_path: Path) -> None:
    (refused,) = listed(forged_zip(tmp_path / "x.zip", JPEG, len(JPEG), flags=1))[1]
    assert "encrypted" in refused.error.message
    (refused,) = listed(forged_zip(tmp_path / "y.zip", JPEG, len(JPEG), method=9))[1]
    assert "packed by method 9" in refused.error.message


def test_a_damaged_zip_member_fails_alone(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.jpg": JPEG, "b.jpg": JPEG}, zipfile.ZIP_STORED)
    raw = path.read_bytes()
    path.write_bytes(raw[:100] + b"\0\0\0" + raw[103:])
    found, _ = listed(path)
    with pytest.raises(CorruptMedia):
        found["x.zip/a.jpg"].read()
    assert found["x.zip/b.jpg"].read() == JPEG


def test_a_cut_zip_offers_what_is_whole(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {f"{n}.jpg": JPEG for n in range(5)})
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"PK\1\2") - 10])
    found, refused = listed(path)
    assert list(found) == [f"x.zip/{n}.jpg" for n in range(4)]
    assert all(offer.read() == JPEG for offer in found.values())
    assert [(type(r.error), r.partial) for r in refused] == [(CorruptMedia, True)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_cut_tar_offers_what_is_whole(tmp_path: Path, mode: str) -> None:
    whole = make_tar(tmp_path / "x.tar", {f"{n}.jpg": JPEG for n in range(6)}, mode).read_bytes()
    for cut in (len(whole) - 30, len(whole) * 2 // 3, len(whole) // 3, 3 * 1024 + 100, 30, 3):
        if cut >= len(whole) or (mode == "w" and cut > 6 * 1024 + 512):
            continue
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        found, refused = listed(tmp_path / "x.tar")
        assert all(offer.read() == JPEG for offer in found.values())
        # What follows the end marker may be missing: no picture can be in it.
        if refused or len(found) < 6:
            assert [(type(r.error), r.partial) for r in refused] == [(CorruptMedia, True)]
    (tmp_path / "x.tar").write_bytes(whole)
    assert len(listed(tmp_path / "x.tar")[0]) == 6


def test_a_tar_cut_between_members_is_noticed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {f"{n}.jpg": JPEG for n in range(4)})
    path.write_bytes(path.read_bytes()[: 2 * 1024 + 1024])
    found, refused = listed(path)
    assert len(found) == 3
    assert "end marker" in refused[0].error.message


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_bomb_stops_early(
    tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.apps.search.sources.tars.FREE_BYTES", 1 << 20)
    make_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "z.txt": bytes(30 << 20), "b.jpg": JPEG})
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(pack((tmp_path / "x.tar").read_bytes()))
    found, refused = listed(packed)
    assert list(found) == ["x.tar.gz/a.jpg"]
    assert [type(r.error) for r in refused] == [TooManyBytes]
    assert refused[0].partial


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [2 << 30, -512])
def test_a_tar_header_may_not_announce_any_size(tmp_path: Path, kind: bytes, size: int) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, size
    data = info.tobuf(tarfile.GNU_FORMAT)
    make_tar(tmp_path / "ok.tar", {"a.jpg": JPEG})
    ok = (tmp_path / "ok.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(ok[:1024] + data + bytes(10240))
    found, refused = listed(tmp_path / "x.tar")
    assert list(found) == ["x.tar/a.jpg"]
    assert "announces" in refused[0].error.message


def test_a_tar_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.jpg": JPEG})
    found, _ = listed(path)
    make_tar(path, {"other.txt": bytes(100), "a.jpg": bytes(20_000)})
    with pytest.raises(InputError, match="changed meanwhile"):
        found["x.tar/a.jpg"].read()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as archive:
        info = tarfile.TarInfo("é.jpg")
        archive.addfile(info)
    make_zip(tmp_path / "x.zip", {"AAAA.jpg": JPEG})
    raw = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(raw.replace(b"AAAA.jpg", "éé.jpg".encode()))
    (tmp_path / "y.zip").write_bytes(raw.replace(b"AAAA", b"\x82AAA"))
    (name,) = listed(tmp_path / "x.tar")[0]
    assert name == "x.tar/\\xe9.jpg"
    assert listed(tmp_path / "x.zip")[0]["x.zip/éé.jpg"].read() == JPEG
    assert listed(tmp_path / "y.zip")[0]["y.zip/éAAA.jpg"].read() == JPEG


def test_random_damage_never_leaves_the_error_tree(tmp_path: Path) -> None:
    import random

    rng = random.Random(7)
    for name in ("x.zip", "x.tar", "x.tar.gz", "x.tar.xz"):
        make: Any = make_zip if name == "x.zip" else make_tar
        args = () if name in ("x.zip",) else (f"w:{name[6:]}",)
        whole = make(tmp_path / name, {f"{n}.jpg": JPEG for n in range(4)}, *args).read_bytes()
        for _ in range(150):
            raw = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            (tmp_path / name).write_bytes(raw)
            try:
                found, _ = listed(tmp_path / name)
            except RetinueError:
                continue
            for offer in found.values():
                with contextlib.suppress(RetinueError):
                    offer.read()
