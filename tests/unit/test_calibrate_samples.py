"""Data sets: layouts, labels, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue.calibrate.samples import Samples, open_samples
from retinue.core.errors import InputError, InputNotFound
from retinue.core.record import Record
from retinue.core.settings import Settings
from retinue.core.types import Embedding, Outcome
from retinue.models.card import Card, Input, Output, Source
from retinue.store.blobs import open_blobs
from retinue.store.records import open_records
from retinue.testing.datasets import (
    SIZE,
    class_files,
    coco_files,
    squares,
    write_folder,
    write_tar,
    write_zip,
    yolo_files,
)
from retinue.testing.onnx_models import COLOURS

PICTURES = squares(5)
PNG = PICTURES[0].png


def card(task: str = "detect", classes: tuple[str, ...] = COLOURS) -> Card:
    return Card.model_validate(
        {
            "name": "colours",
            "task": task,
            "family": "yolo",
            "license": "Apache-2.0",
            "source": Source(url="file:///m.onnx", files={"m.onnx": "0" * 64}),
            "input": Input(height=SIZE, width=SIZE),
            "output": Output(layout="yolov8"),
            "classes": classes,
        }
    )


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Samples]:
    def open_(files: Mapping[str, bytes], of: Card | None = None) -> Samples:
        folder = write_folder(tmp_path / "data", files)
        return open_samples(folder, of or card(), settings=Settings(home=tmp_path / "home"))

    return open_


def check_boxes(samples: Samples) -> None:
    assert samples.labelled == "boxes"
    assert len(samples) == len(PICTURES)
    for sample, picture in zip(samples, PICTURES, strict=True):
        assert sample.read() == picture.png
        assert sample.boxes is not None
        truth = sample.boxes.truth(SIZE, SIZE)
        np.testing.assert_allclose(truth.boxes, picture.boxes, atol=1e-9)
        assert truth.class_ids.tolist() == picture.class_ids.tolist()


@pytest.mark.parametrize("layout", [yolo_files, coco_files])
@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_boxes_are_found_in_every_layout_and_container(
    tmp_path: Path, layout: Callable[..., Mapping[str, bytes]], form: str
) -> None:
    path = tmp_path / f"data.{form}"
    write = {"folder": write_folder, "zip": write_zip}.get(form, write_tar)
    write(path, layout(PICTURES))
    check_boxes(open_samples(path, card(), settings=Settings(home=tmp_path)))


def test_a_picture_without_a_yolo_file_has_no_objects(opened: Callable[..., Samples]) -> None:
    samples = opened(yolo_files(PICTURES) | {"images/empty.png": PNG, "masks/0000.png": PNG})
    boxes = {sample.name: sample.boxes for sample in samples}
    assert "masks/0000.png" not in boxes
    empty = boxes["images/empty.png"]
    assert empty is not None
    assert empty.truth(9, 9).boxes.shape == (0, 4)


def test_yolo_beside_the_pictures_polygons_and_rounding(opened: Callable[..., Samples]) -> None:
    text = b"\n1 .25 .25 .5001 .5\n2 0 0 .5 0 .5 .5 0 .25\n0 .5 .5 0 .2\n"
    (sample,) = opened({"a.png": PNG, "a.txt": text})
    assert sample.boxes is not None
    truth = sample.boxes.truth(100, 200)
    np.testing.assert_allclose(truth.boxes, [[0, 0, 50.005, 100], [0, 0, 50, 100]])
    assert truth.class_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("dog 0 0 1 1", "not numbers"),
        ("0 .5 .5 .1", "4 numbers"),
        ("3 .5 .5 .1 .1", "class 3 does not exist: the model has 0 to 2"),
        ("-1 .5 .5 .1 .1", "class -1"),
        ("0.5 .5 .5 .1 .1", "no whole number"),
        ("nan .5 .5 .1 .1", "no whole number"),
        ("1e300 .5 .5 .1 .1", "does not exist"),
        ("0 320 240 100 50", "shares of its size"),
        ("0 nan .5 .1 .1", "reaches outside"),
        ("0 .5 .5 -.1 .1", "negative"),
        ("0 .5 .5 inf .1", "reaches outside"),
    ],
)
def test_a_wrong_yolo_line_is_named(opened: Callable[..., Samples], line: str, word: str) -> None:
    files = {"images/a.png": PNG, "labels/a.txt": f"0 .5 .5 .1 .1\n{line}\n".encode()}
    with pytest.raises(InputError, match=r"labels/a\.txt, line 2: ") as error:
        opened(files)
    assert word in error.value.message


def test_labels_that_are_no_text(opened: Callable[..., Samples]) -> None:
    with pytest.raises(InputError, match=r"a\.txt is not text"):
        opened({"a.png": PNG, "a.txt": b"\xff\xfe\0"})


def coco(**changes: Any) -> dict[str, bytes]:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1}],
        "categories": [{"id": 1, "name": "blue"}],
    }
    return {"a.png": PNG, "_annotations.coco.json": json.dumps(content | changes).encode()}


def test_coco_details(opened: Callable[..., Samples]) -> None:
    (sample,) = opened(coco() | {"not-listed.png": PNG})
    assert sample.boxes is not None
    truth = sample.boxes.truth(64, 64)
    assert truth.boxes.tolist() == [[1, 2, 4, 6]]
    assert truth.class_ids.tolist() == [2]
    assert truth.crowd is not None
    assert truth.crowd.tolist() == [True]


def test_categories_that_the_card_lacks_are_said(opened: Callable[..., Samples]) -> None:
    samples = opened(coco(categories=[{"id": 1, "name": "Red"}, {"id": 2, "name": "mauve"}]))
    assert "1 categories that the card lacks: mauve" in samples.source


def test_category_ids_are_classes_where_no_name_fits(opened: Callable[..., Samples]) -> None:
    (sample,) = opened(coco(categories=[{"id": 1, "name": "mauve"}]))
    assert sample.boxes is not None
    assert sample.boxes.class_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 1}]}, "lacks 'image_id'"),
        ({"annotations": [{"bbox": [1, 2], "category_id": 1, "image_id": 7}]}, "not [x, y"),
        ({"annotations": [{"bbox": "1234", "category_id": 1, "image_id": 7}]}, "not [x, y"),
        ({"annotations": [{"bbox": [0, 0, -1, 1], "category_id": 1, "image_id": 7}]}, "bbox"),
        ({"annotations": [{"bbox": [[], 0, 1, 1], "category_id": 1, "image_id": 7}]}, "COCO"),
        ({"annotations": [{"bbox": [0, 0, 1, 1], "category_id": [], "image_id": 7}]}, "COCO"),
        ({"images": [7]}, "COCO"),
        ({"images": None}, "COCO"),
        ({"categories": [{"id": 9, "name": "x"}], "images": [{"id": 7}]}, "lacks 'file_name'"),
        ({"categories": []}, None),
        ({"categories": [{"id": 1}]}, "lacks 'name'"),
        (
            {
                "categories": [],
                "annotations": [{"bbox": [0, 0, 1, 1], "category_id": 90, "image_id": 7}],
            },
            "class 90 does not exist",
        ),
    ],
)
def test_wrong_coco(
    opened: Callable[..., Samples], changes: dict[str, Any], word: str | None
) -> None:
    if word is None:
        assert len(opened(coco(**changes))) == 1
        return
    with pytest.raises(InputError, match=r"_annotations\.coco\.json: ") as error:
        opened(coco(**changes))
    assert word in error.value.message


def test_json_that_is_none_or_of_something_else(opened: Callable[..., Samples]) -> None:
    with pytest.raises(InputError, match=r"x\.json is not JSON"):
        opened({"a.png": PNG, "x.json": b"{"})


def test_json_of_something_else_labels_nothing(opened: Callable[..., Samples]) -> None:
    samples = opened({"a.png": PNG, "x.json": b'{"images": 3}', "y.json": b"[1]"})
    assert samples.labelled == ""


def test_one_picture_labelled_by_two_files(opened: Callable[..., Samples]) -> None:
    files = coco()
    with pytest.raises(InputError, match=r"both label a\.png"):
        opened(files | {"other.json": files["_annotations.coco.json"]})


def test_one_name_in_two_folders(opened: Callable[..., Samples]) -> None:
    files = coco()
    json_ = {"x/l.json": files["_annotations.coco.json"]}
    with pytest.raises(InputError, match=r"may be b/a\.png or c/a\.png"):
        opened({"b/a.png": PNG, "c/a.png": PNG} | json_)
    (sample,) = opened({"x/a.png": PNG} | json_)
    assert sample.name == "x/a.png"


def test_a_box_beyond_its_picture(opened: Callable[..., Samples]) -> None:
    (sample,) = opened(coco())
    assert sample.boxes is not None
    with pytest.raises(InputError, match="of another picture"):
        sample.boxes.truth(1, 1)


def test_class_folders(opened: Callable[..., Samples]) -> None:
    samples = opened(class_files(PICTURES), card("classify"))
    assert samples.labelled == "classes"
    found = {Path(sample.name).stem: sample.class_id for sample in samples}
    assert found == {p.name: p.class_ids[0] for p in PICTURES}


@pytest.mark.parametrize(
    "classes",
    [
        [{"index": 0, "wnid": "n00000001"}, {"index": 2, "wnid": "n00000003", "name": "blue"}],
        {"0": ["n00000001", "red"], "2": ["n00000003", "blue"]},
        {"n00000001": 0, "n00000003": 2},
        {"0": "n00000001", "2": "n00000003"},
        ["n00000001", "n00000002", "n00000003"],
    ],
)
@pytest.mark.parametrize("pattern", ["{}/x.png", "images/{}_x.png", "train/{}/x.png"])
def test_wordnet_ids(opened: Callable[..., Samples], classes: object, pattern: str) -> None:
    files = {pattern.format(wnid): PNG for wnid in ("n00000001", "n00000003")}
    files["classes.json"] = json.dumps(classes).encode()
    assert [s.class_id for s in opened(files, card("classify"))] == [0, 2]


def test_wordnet_ids_without_their_meaning(opened: Callable[..., Samples]) -> None:
    samples = opened({"n00000001/a.png": PNG}, card("classify"))
    assert samples.labelled == ""
    assert "no classes.json" in samples.source


def test_numbered_folders(opened: Callable[..., Samples]) -> None:
    samples = opened({"0/a.png": PNG, "2/b.png": PNG}, card("classify"))
    assert [sample.class_id for sample in samples] == [0, 2]


def test_a_folder_that_is_no_class(opened: Callable[..., Samples]) -> None:
    files = {"red/a.png": PNG, "green/b.png": PNG, "mauve/c.png": PNG}
    with pytest.raises(InputError, match="'mauve' is no class of the model"):
        opened(files, card("classify"))


def test_folders_of_other_meaning_label_nothing(opened: Callable[..., Samples]) -> None:
    samples = opened({"monday/a.png": PNG, "red/b.png": PNG, "sunday/c.png": PNG}, card("classify"))
    assert samples.labelled == ""
    assert "not called as the model's classes" in samples.source


def test_a_name_that_two_classes_have_tells_nothing(opened: Callable[..., Samples]) -> None:
    samples = opened({"crane/a.png": PNG}, card("classify", ("crane", "red", "crane")))
    assert samples.labelled == ""


@pytest.mark.parametrize("content", ["3", '{"x": {"name": "y"}}', '[{"index": [], "name": "y"}]'])
def test_a_wrong_file_of_classes(opened: Callable[..., Samples], content: str) -> None:
    with pytest.raises(InputError, match=r"classes\.json"):
        opened({"a.png": PNG, "classes.json": content.encode()}, card("classify"))


def test_a_class_beyond_the_models(opened: Callable[..., Samples]) -> None:
    with pytest.raises(InputError, match="class 3 does not exist: the model has 0 to 2"):
        opened({"a.png": PNG, "classes.json": b'{"3": "x"}'}, card("classify"))


def test_nothing_there(tmp_path: Path, opened: Callable[..., Samples]) -> None:
    with pytest.raises(InputNotFound, match="no picture in"):
        opened({"readme.txt": b"hello"})
    with pytest.raises(InputNotFound, match="no data set at"):
        open_samples(tmp_path / "no", card(), settings=Settings(home=tmp_path))


def test_some_are_the_same_each_time(opened: Callable[..., Samples]) -> None:
    samples = opened(yolo_files(PICTURES))
    names = [[s.name for s in samples.some(3, seed)] for seed in (0, 0, 1, 2, 3)]
    assert names[0] == names[1] == sorted(names[0])
    assert len({tuple(n) for n in names}) > 1
    assert samples.some(5) is samples


def test_records(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(InputNotFound, match=r"blobs\.sample"):
        open_samples("records", card(), settings=settings)
    blobs = open_blobs(settings.blobs_url)
    value = Embedding(np.zeros(1, np.float32))
    failed = Outcome(error=InputError("x"))
    kinds = [("colours", Outcome(value)), ("colours", Outcome(value)), ("other", Outcome(value))]
    records = [Record("detect", m, "1", o) for m, o in [*kinds, ("colours", failed)]]
    contents = [PNG, PNG, b"other", b"failed"]
    keys = {r.id: blobs.put(c, ".png") for r, c in zip(records, contents, strict=True)}
    store = open_records(settings.records_url)
    store.append(records, keys)
    store.close()
    samples = open_samples("records", card(), settings=settings)
    assert [sample.read() for sample in samples] == [PNG]
    assert samples.labelled == ""


def test_labels_beside_the_folder_of_images_are_found(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", yolo_files(PICTURES))
    found = open_samples(root / "images", card(), settings=Settings(home=tmp_path / "home"))
    assert found.labelled == "boxes"
    assert all(len(s.boxes.xyxy) for s in found if s.boxes is not None)


def test_a_coco_file_of_other_pictures_is_refused(opened: Callable[..., Samples]) -> None:
    content = {"images": [{"id": 1, "file_name": "other.png"}], "annotations": []}
    with pytest.raises(InputError, match=r"instances\.json lists none of the pictures"):
        opened({"a.png": PNG, "instances.json": json.dumps(content).encode()})


def test_the_name_of_a_folder_need_not_be_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d\udcff", {"a.png": PNG})
    source = open_samples(folder, card(), settings=Settings(home=tmp_path / "home")).source
    assert source == f"1 picture of {tmp_path}/d\\udcff (no labels)"
