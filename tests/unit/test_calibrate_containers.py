"""Archives and folders that are damaged, huge or malicious: refused, never a crash."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.calibrate import _containers
from retinue.calibrate._containers import File, files
from retinue.core.errors import (
    CorruptMedia,
    RetinueError,
    StorageError,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.testing.datasets import write_folder, write_tar, write_zip

CONTENT = {"a.png": b"first", "b/c.png": b"second" * 200, "d.png": b""}
LIMIT = 2000


def wanted(name: str) -> int:
    return LIMIT if name.endswith(".png") else 0


def found(path: Path) -> dict[str, File]:
    return {file.name: file for file in files(path, wanted)}


def read(path: Path) -> dict[str, bytes]:
    return {name: file.read() for name, file in found(path).items()}


def tar(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "/etc/passwd"
    return info


def test_hidden_files_and_other_kinds_do_not_count(tmp_path: Path) -> None:
    more = {"._a.png": b"x", ".git/x.png": b"x", "__MACOSX/a.png": b"x", "readme.md": b"x"}
    for write, name in ((write_folder, "f"), (write_tar, "t.tar"), (write_zip, "z.zip")):
        assert read(write(tmp_path / name, CONTENT | more)) == CONTENT


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_and_devices_are_named_not_followed(tmp_path: Path, mode: str) -> None:
    kinds = {
        "symbolic.png": tarfile.SYMTYPE,
        "hard.png": tarfile.LNKTYPE,
        "device.png": tarfile.CHRTYPE,
        "pipe.png": tarfile.FIFOTYPE,
        "folder.png": tarfile.DIRTYPE,
    }
    path = tar(tmp_path / "t", *(member(n, kind) for n, kind in kinds.items()), mode=mode)
    listed = found(path)
    assert listed.keys() == kinds.keys()
    for name, file in listed.items():
        for _ in range(2):
            with pytest.raises(UnsupportedMedia, match=name):
                file.read()


def test_names_lead_nowhere(tmp_path: Path) -> None:
    names = ["/etc/a.png", "../../b.png", "./c/../d.png", "e\udcff.png", "f\x1b[2J.png"]
    path = tar(tmp_path / "t.tar", *(member(name, size=1) for name in names))
    assert read(path).keys() == {"etc/a.png", "b.png", "c/d.png", r"e\udcff.png", r"f\x1b[2J.png"}


@pytest.mark.parametrize("write", [write_folder, write_tar, write_zip])
def test_a_file_beyond_the_limit_is_named(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "data", {"ok.png": b"x" * LIMIT, "big.png": b"x" * (LIMIT + 1)})
    listed = found(path)
    assert len(listed["ok.png"].read()) == LIMIT
    with pytest.raises(TooManyBytes, match=r"big\.png has 2,001 bytes"):
        listed["big.png"].read()


def test_a_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"bomb.png": bytes(10**6)})
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = content.index(magic) + offset
        content[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(RetinueError, match=r"bomb\.png"):
        found(path)["bomb.png"].read()


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.png": b"x"})
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        content[content.index(magic) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(CorruptMedia, match="encrypted"):
        found(path)["a.png"].read()


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsupportedMedia, match=r"link\.png is a link"):
        found(tmp_path / "z.zip")["link.png"].read()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_one_name_the_last_file_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for content in ("old", "new"):
            archive.writestr("a.png", content)
    assert read(tmp_path / "z.zip") == {"a.png": b"new"}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_compressed_tar_that_is_cut_short(tmp_path: Path, suffix: str) -> None:
    content = {f"{i}.png": os.urandom(1500) for i in range(9)}
    path = write_tar(tmp_path / f"t.tar{suffix}", content)
    assert read(path) == content
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises((CorruptMedia, StorageError)):
        files(path, wanted)


def test_a_tar_that_is_cut_short_or_damaged_in_the_middle(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {f"{i}.png": b"x" * 1500 for i in range(9)})
    whole = path.read_bytes()
    for size in (700, 1024, 2048 + 700, 2048 + 100):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptMedia):
            files(path, wanted)
    path.write_bytes(whole[:2048] + b"garbage" + whole[2055:])
    with pytest.raises(CorruptMedia, match="after 1 files"):
        files(path, wanted)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_containers, "MAX_UNPACKED", 10**6)
    monkeypatch.setattr(_containers, "MAX_HELD", 3000)
    path = tar(tmp_path / "t.tar.gz", member("skipped.bin", size=10**7), mode="w:gz")
    with pytest.raises(TooManyBytes, match="unfolds to more"):
        files(path, wanted)
    path = write_tar(tmp_path / "u.tar.gz", {f"{i}.png": bytes(1900) for i in range(3)})
    with pytest.raises(TooManyBytes, match="unpack it"):
        files(path, wanted)
    # A header of ten megabytes, which a reader would take in whole.
    header = member("pax", tarfile.XHDTYPE, 10**7).tobuf(tarfile.USTAR_FORMAT)
    path = tmp_path / "v.tar.gz"
    path.write_bytes(gzip.compress(header + bytes(10**7)))
    with pytest.raises(CorruptMedia, match="header of"):
        files(path, wanted)


def test_names_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    for name in (b"a\xfe.jpg", b"a\xff.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    found = [(file.name, file.read()) for file in files(tmp_path, lambda _: 99)]
    assert found == [("a\\udcfe.jpg", b"a\xfe.jpg"), ("a\\udcff.jpg", b"a\xff.jpg")]


def test_a_linked_folder_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    found = [file.name for file in files(tmp_path / "data", lambda _: 99)]
    assert found == ["images/a.jpg"]


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_containers, "MAX_FILES", 2)
    for write, name in ((write_folder, "f"), (write_tar, "t.tar"), (write_zip, "z.zip")):
        with pytest.raises(TooManyBytes, match="more than 2 files"):
            files(write(tmp_path / name, CONTENT), wanted)


def test_a_folders_odd_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": b"x"})
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    listed = found(tmp_path)
    assert listed.keys() == {"a.png", "gone.png", "pipe.png"}
    with pytest.raises(UnsupportedMedia, match="pipe"):
        listed["pipe.png"].read()
    with pytest.raises(StorageError):
        listed["gone.png"].read()
    with pytest.raises(UnsupportedMedia, match="device or a pipe"):
        files(tmp_path / "pipe.png", wanted)


@pytest.mark.parametrize("content", [b"hello", b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises((UnsupportedMedia, CorruptMedia, StorageError)):
        files(tmp_path / "x", wanted)


ARCHIVES = [("t.tar", write_tar), ("t.tar.gz", write_tar), ("t.tar.xz", write_tar)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*ARCHIVES, ("z.zip", write_zip)]), st.data())
def test_damage_of_any_kind_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory,
    archive: tuple[str, Callable[..., Path]],
    data: st.DataObject,
) -> None:
    name, write = archive
    path = write(tmp_path_factory.mktemp("fuzz") / name, CONTENT)
    content = bytearray(path.read_bytes())
    positions = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(positions, st.integers(0, 255)), max_size=8)):
        content[at] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        listed = files(path, wanted)
    except RetinueError:
        return
    for file in listed:
        try:
            file.read()
        except RetinueError:
            continue
