"""``filter.toml``: what it may say, what is refused and how that is told."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from retinue.apps.ar import filters
from retinue.apps.ar.filters.load import MAX_BYTES
from retinue.apps.ar.filters.problems import Lines, Problem, problems_of
from retinue.apps.ar.filters.spec import KINDS, USUAL, FilterSpec, ModelPart, PaintPart
from retinue.core.errors import FilterInvalid, InputNotFound

from .ar_folders import HEAD, PAINT, make, png


def errors(folder: Path) -> list[Problem]:
    found = filters.check(folder)
    assert all(problem.severity == "error" for problem in found), found
    with pytest.raises(FilterInvalid, match="cannot be used") as caught:
        filters.load(folder)
    assert caught.value.code == "filter_invalid"
    assert caught.value.http_status == 422
    return found


def test_a_good_filter_has_no_problems(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert filters.check(folder) == []
    found = filters.load(folder)
    assert (found.name, found.needs_iris, found.needs_background) == ("mine", False, False)
    assert [path.name for path in found.files] == ["filter.toml", "paint.png"]
    texture = found.assets[0].texture
    assert texture is not None
    assert texture.pixels[0, 0].tolist() == [255, 0, 0, 255]


def test_what_a_filter_needs_follows_from_its_parts(tmp_path: Path) -> None:
    parts = '[[parts]]\nkind = "eyes"\n[[parts]]\nkind = "background"\nmode = "blur"\n'
    found = filters.load(make(tmp_path, parts))
    assert found.needs_iris
    assert found.needs_background
    assert filters.load(make(tmp_path, head=HEAD + 'needs = ["iris"]\n')).needs_iris


def test_built_in_names_are_found_first_and_paths_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "lipstick" in filters.names()
    assert filters.folder("lipstick").parent.name == "builtin"
    (tmp_path / "lipstick").mkdir()
    folder = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert filters.folder("lipstick").parent.name == "builtin"
    assert filters.folder("mine") == Path("mine")
    assert filters.folder(folder / "filter.toml") == folder
    with pytest.raises(InputNotFound, match=r"has no filter\.toml"):
        filters.folder("./lipstick")
    with pytest.raises(InputNotFound, match="did you mean 'lipstick'"):
        filters.load("lipstik")
    with pytest.raises(InputNotFound, match="there are: "):
        filters.load("zzzzzzzz")


@pytest.mark.parametrize(
    ("parts", "key", "line", "words"),
    [
        (PAINT + "opasity = 0.5\n", "parts[0].opasity", 9, "did you mean 'opacity'?"),
        (PAINT + 'blend = "multply"\n', "parts[0].blend", 9, "did you mean 'multiply'?"),
        (PAINT + "opacity = 2\n", "parts[0].opacity", 9, "less than or equal to 1"),
        (PAINT + 'opacity = "1"\n', "parts[0].opacity", 9, "a valid number"),
        (PAINT + "opacity = nan\n", "parts[0].opacity", 9, "finite"),
        ('[[parts]]\nkind = "pant"\n', "parts[0]", 6, "did you mean 'paint'?"),
        ('[[parts]]\nfile = "paint.png"\n', "parts[0]", 6, "has no kind"),
        ('[[parts]]\nkind = "paint"\n', "parts[0].file", 6, "missing"),
        (PAINT + PAINT + '[parts.show]\nwhen = "nodd"\n', "parts[1].show.when", 13, "'nod'?"),
        (PAINT + '[parts.show]\nwhen = "smile"\nabove = 2\n', "parts[0].show", 9, "from 0 to 1"),
        (
            PAINT + '[parts.show]\nwhen = "smile"\nabove = 0.3\nuntil = 0.4\n',
            "parts[0].show", 9, "more than above",
        ),
        (PAINT + '[parts.show]\nwhen = "nod"\nabov = 9\n', "parts[0].show.abov", 11, "'above'?"),
        ('[[parts]]\nkind = "sticker"\nfile = "paint.png"\nat = 478\n', "parts[0].at[0]", 9,
         "less than 478"),
        ('[[parts]]\nkind = "sticker"\nfile = "paint.png"\nat = [1, true]\n', "parts[0].at[1]", 9,
         "valid integer"),
        ('[[parts]]\nkind = "makeup"\nregion = "lips"\ncolor = "red"\n', "parts[0].color", 9,
         '"#rrggbb"'),
        ('[[parts]]\nkind = "background"\nmode = "replace"\n', "parts[0]", 6, "go together"),
        ('[[parts]]\nkind = "distort"\npoints = [{at = 1, radius = 1, kind = "pull", '
         'direction = [0, 0]}]\n', "parts[0].points[0]", 8, "nowhere"),
        ('[[parts]]\nkind = "model"\nfile = "a.glb"\nposition = [0, 900, 0]\n',
         "parts[0].position", 9, "within 200 cm"),
        ('[[parts]]\nkind = "background"\nmode = "blur"\n' * 2, "", 0, "one background"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, parts: str, key: str, line: int, words: str
) -> None:
    (problem,) = errors(make(tmp_path, parts))
    assert (problem.file, problem.key, problem.line) == ("filter.toml", key, line)
    assert words in problem.message
    assert key in str(problem)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    parts = PAINT + "opasity = 1\n" + PAINT + 'blend = "x"\nshading = 3\n'
    assert len(errors(make(tmp_path, parts, HEAD + "colour = 1\n"))) == 4


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("format = 2\n" + HEAD.partition("\n")[2], "must be 1"),
        (HEAD.replace('"mine"', '"../mine"'), "lower-case letters"),
        (HEAD.replace('"Mine"', '""'), "at least 1 character"),
        ("format = \n", "not TOML"),
        ("x = " + "[" * 5000 + "]" * 5000 + "\n", "nested too deeply"),
        ("#" * (MAX_BYTES + 1), "the limit is"),
        (HEAD + f"occlusion = {'9' * 5000}\n", "not TOML"),
        (HEAD + f"occlusion = 0x{'f' * 5000}\n", "thousands of digits"),
        (HEAD + "parts = []\n", "at least 1 item"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(tmp_path: Path, head: str, words: str) -> None:
    (problem,) = errors(make(tmp_path, "" if "parts" in head else PAINT, head))
    assert words in problem.message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "filter.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in errors(folder)[0].message


def test_a_thousand_parts_are_too_many(tmp_path: Path) -> None:
    (problem,) = errors(make(tmp_path, PAINT * 1000))
    assert "there are 1000; at most 64" in problem.message


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\\\secret.png", "C:/a.png"]
)
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    png(tmp_path / "secret.png")
    (problem,) = errors(make(tmp_path, PAINT.replace("paint.png", name)))
    assert "leads out of the filter's folder" in problem.message
    assert (problem.key, problem.line) == ("parts[0].file", 8)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    png(tmp_path / "secret.png")
    folder = make(tmp_path, PAINT.replace("paint.png", "link.png"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    assert "link out of" in errors(folder)[0].message
    (folder / "link.png").unlink()
    (folder / "link.png").symlink_to("link.png")
    assert errors(folder)
    (folder / "link.png").unlink()
    (folder / "link.png").symlink_to("paint.png")
    assert filters.load(folder)


def test_a_missing_file_is_told_with_what_there_is(tmp_path: Path) -> None:
    (problem,) = errors(make(tmp_path, PAINT.replace("paint.png", "pain.png")))
    assert "there is no file 'pain.png'; the folder has: paint.png" in problem.message


def test_a_file_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, PAINT.replace("paint.png", "paint.gif"))
    (folder / "paint.gif").write_bytes(b"GIF89a")
    assert "wrong type" in errors(folder)[0].message


def bomb(width: int, height: int) -> bytes:
    """A PNG that announces many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(60_000, 60_000), "the limit is 16,777,216"),
        (bomb(16, 16), "cannot be read"),
        (b"", "zero bytes"),
        (b"not a picture", "paint.png: this looks like"),
        (bytes(17 * 2**20), "bytes; the limit is"),
    ],
)
def test_a_picture_that_must_not_be_decoded_is_refused(
    tmp_path: Path, data: bytes, words: str
) -> None:
    folder = make(tmp_path)
    (folder / "paint.png").write_bytes(data)
    (problem,) = errors(folder)
    assert words in problem.message


def test_half_a_picture_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    made = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        made, "PNG"
    )
    (folder / "paint.png").write_bytes(made.getvalue()[: len(made.getvalue()) // 2])
    assert errors(folder)


def test_pictures_that_are_too_much_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.apps.ar.filters.assets.MAX_PIXELS", 100)
    folder = make(tmp_path, PAINT + PAINT + PAINT.replace("paint.png", "other.png"))
    png(folder / "other.png")
    (problem,) = errors(folder)
    assert problem.key == "parts[2].file"
    assert "together" in problem.message


def test_large_pictures_are_made_smaller_and_transparent_colours_do_not_bleed(
    tmp_path: Path,
) -> None:
    folder = make(tmp_path)
    pixels = np.zeros((8, 4096, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[:, ::2] = (200, 0, 0, 255)
    Image.fromarray(pixels).save(folder / "paint.png")
    texture = filters.load(folder).assets[0].texture
    assert texture is not None
    assert texture.pixels.shape == (4, 2048, 4)
    assert np.abs(texture.pixels[1, 100].astype(int) - (200, 0, 0, 128)).max() <= 2


def test_a_broken_model_is_told_by_its_name(tmp_path: Path) -> None:
    folder = make(tmp_path, '[[parts]]\nkind = "model"\nfile = "a.glb"\n')
    (folder / "a.glb").write_bytes(b"glTF\x02\0\0\0")
    (problem,) = errors(folder)
    assert problem.message.startswith("a.glb")


def test_an_animation_that_is_not_there_is_told(tmp_path: Path) -> None:
    made = filters.new("mine", tmp_path)
    text = (made / "filter.toml").read_text()
    model = 'file = "horn.glb"\n'
    (made / "filter.toml").write_text(
        text.replace(model, model + 'animation = "wave"\nshow = {when = "nod", play = "up"}\n')
    )
    found = errors(made)
    assert [problem.key for problem in found] == ["parts[1].animation", "parts[1].show.play"]
    assert "no animation 'wave'; it has: none" in found[0].message


def test_a_morph_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path)
    shutil.copy(filters.folder("dog") / "dog.glb", folder)
    part = '[[parts]]\nkind = "model"\nfile = "dog.glb"\n'
    part += 'morphs = {perk = "brow_raise", wag = "smile"}\n'
    text = (folder / "filter.toml").read_text()
    (folder / "filter.toml").write_text(text + part)
    (problem,) = errors(folder)
    assert (problem.key, problem.line) == ("parts[1].morphs.wag", 12)
    assert problem.message == "dog.glb has no morph target 'wag'; it has: perk"
    with pytest.raises(FilterInvalid, match="no morph target 'wag'"):
        filters.load(folder)


def test_what_only_the_full_model_has_may_be_named(tmp_path: Path) -> None:
    part = '[[parts]]\nkind = "model"\nfile = "dog.glb"\nsimple = "crown-simple.glb"\n'
    folder = make(tmp_path, PAINT + part + 'morphs = {perk = "smile"}\n')
    shutil.copy(filters.folder("dog") / "dog.glb", folder)
    shutil.copy(filters.folder("crown") / "crown-simple.glb", folder)
    assert filters.check(folder) == []


def test_warnings_do_not_stop_a_filter(tmp_path: Path) -> None:
    head = 'occlusion = true\nformat = 1\nname = "other"\ntitle = "Other"\n'
    folder = make(tmp_path, head=head)
    png(folder / "paint.png", 1100)
    (folder / "left-over.png").write_bytes(b"")
    found = filters.check(folder)
    assert filters.load(folder)
    assert {problem.severity for problem in found} == {"warning"}
    words = " ".join(str(problem) for problem in found)
    for part in ("licence", "author", "'other' is not the folder's", "hides 3D models",
                 "1100 x 1100", "left-over.png: no part uses it"):  # fmt: skip
        assert part in words


def test_every_key_of_every_kind_is_in_the_reference() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ar-filters.md").read_text("utf-8")
    for model in (*KINDS.values(), FilterSpec):
        for key in model.model_fields:
            assert f"`{key}`" in page, f"{model.__name__}.{key}"
    for name in (*KINDS, *USUAL):
        assert f"`{name}`" in page, name


def test_lines_of_nested_tables_are_found() -> None:
    lines = Lines('a = 1\n[[parts]]\nx = 1\n[parts.show]\ny = 2\n[[parts]]\n"x" = 1\n')
    places: list[tuple[Any, ...]] = [("a",), ("parts", 0, "x"), ("parts", 0, "show", "y"),
                                     ("parts", 1, "x"), ("parts", 1, "z"), ("no",)]  # fmt: skip
    assert [lines.of(place) for place in places] == [1, 3, 5, 7, 6, 0]


VALUES = st.recursive(
    st.one_of(
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=8),
        st.booleans(),
        st.sampled_from([*KINDS, *USUAL, "normal", "lips", "#123456", "blur", "head", "a.png"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from([*PaintPart.model_fields, *ModelPart.model_fields, "points", "when"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
PARTS = st.dictionaries(
    st.sampled_from(sorted({key for kind in KINDS.values() for key in kind.model_fields})),
    VALUES,
    max_size=8,
)


@given(
    st.fixed_dictionaries({"kind": st.one_of(st.sampled_from(sorted(KINDS)), VALUES)}),
    PARTS,
)
@settings(max_examples=150, deadline=None)
def test_any_values_are_either_a_part_or_told(kind: dict[str, Any], rest: dict[str, Any]) -> None:
    said = {"format": 1, "name": "x", "title": "X", "parts": [{**rest, **kind}]}
    try:
        FilterSpec.model_validate(said)
    except ValidationError as error:
        found = problems_of(error, said, Lines(""))
        assert found
        for problem in found:
            assert str(problem).startswith("error: filter.toml: ")


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_has_lines(text: str) -> None:
    assert Lines(text).of(("parts", 0, "file")) >= 0
