"""Importing a user's own ONNX: derived cards, given cards, and the template where in doubt."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from retinue.core.errors import (
    ChecksumMismatch,
    ConfigError,
    InputNotFound,
    ModelCorrupt,
    UnsupportedModel,
)
from retinue.core.settings import Execution
from retinue.core.types import TensorSpec
from retinue.models._derive import card_template, derive_card
from retinue.models._onnxfile import Facts
from retinue.models.card import Card, Source, read_card
from retinue.models.loading import load_model
from retinue.models.registry import Registry
from retinue.testing import onnx_models

SOURCE = Source(url="file:///m.onnx", files={"m.onnx": "0" * 64})
COCO = 80
ULTRALYTICS = {
    "names": "{0: 'cat', 1: 'dog', 2: \"it's\"}",
    "stride": "32",
    "imgsz": "[640, 640]",
    "task": "detect",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "description": "Ultralytics YOLO11n model",
    "args": "{'dynamic': False, 'nms': False}",
}


def facts(
    shape: tuple[int, ...],
    picture: tuple[int, ...] = (1, 3, 640, 640),
    tensors: tuple[str, str] = ("images", "output0"),
    dtype: str = "float32",
    **metadata: str,
) -> Facts:
    given_, found = TensorSpec(tensors[0], dtype, picture), TensorSpec(tensors[1], "float32", shape)
    return Facts((given_,), (found,), metadata)


def derive(known: Facts, task: str = "detect") -> Card:
    return derive_card(known, name="mine", task=task, source=SOURCE)


def test_ultralytics_detector() -> None:
    card = derive(facts((1, 7, 8400), **ULTRALYTICS))
    assert (card.family, card.output.layout) == ("yolo", "yolov8")
    assert card.classes == ("cat", "dog", "it's")
    assert card.license == "AGPL-3.0-only"
    assert card.binding_license
    assert (card.input.height, card.input.width) == (640, 640)
    assert (card.input.resize, card.input.anchor, card.input.color) == (
        "letterbox",
        "center",
        "rgb",
    )
    assert card.input.std == (255.0, 255.0, 255.0)


def test_a_dynamic_export_takes_its_size_from_the_metadata() -> None:
    told = {**ULTRALYTICS, "imgsz": "[384, 640]"}
    card = derive(facts((-1, 7, -1), (-1, 3, -1, -1), **told))
    assert (card.input.height, card.input.width) == (384, 640)


def test_an_enormous_input_is_no_card() -> None:
    side = 1 << 20
    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    known = facts((1, 7, cells), (1, 3, side, side), **ULTRALYTICS)
    with pytest.raises(ConfigError, match="a side may have 8192 pixels"):
        derive(known)


def test_channels_last() -> None:
    known = facts((1, 7, 8400), (1, 640, 640, 3), **ULTRALYTICS)
    assert derive(known).input.layout == "nhwc"


def test_end_to_end_and_older_exports() -> None:
    ends = {**ULTRALYTICS, "end2end": "True"}
    assert derive(facts((1, 300, 6), **ends)).output.layout == "yolov10"
    nms = {**ULTRALYTICS, "args": "{'nms': True}"}
    assert derive(facts((1, 300, 6), **nms)).output.layout == "yolov10"
    old = {"names": "['a', 'b', 'c']", "stride": "32"}
    assert derive(facts((1, 25200, 8), **old)).output.layout == "yolov5"


def test_shapes_alone() -> None:
    card = derive(facts((1, 4 + COCO, 3549), (1, 3, 416, 416)))
    assert card.output.layout == "yolov8"
    assert card.classes[:2] == ("class 0", "class 1")
    assert len(card.classes) == COCO


def test_yolox() -> None:
    card = derive(facts((1, 3549, 5 + COCO), (1, 3, 416, 416), ("images", "output")))
    assert card.output.layout == "yolox"
    assert (card.input.color, card.input.anchor, card.input.std) == ("bgr", "top_left", (1, 1, 1))
    assert len(card.classes) == COCO


def test_ultralytics_classifier() -> None:
    card = derive(
        facts((1, 3), (1, 3, 224, 224), **{**ULTRALYTICS, "task": "classify"}), "classify"
    )
    assert (card.output.layout, card.input.resize) == ("classifier", "center_crop")


@pytest.mark.parametrize(
    ("known", "task", "word"),
    [
        (facts((1, 56, 8400)), "detect", "17 key points"),
        (facts((1, 8400, 85)), "detect", "YOLOv6"),
        (facts((1, 84, 8399)), "detect", "fits no grid"),
        (facts((1, 84)), "detect", "has the shape"),
        (facts((4, 84, 8400)), "detect", "has the shape"),
        (facts((1, 84, 8400), (1, 3, -1, -1)), "detect", "left open"),
        (facts((1, 84, 8400), (1, 3, 640)), "detect", "batch of pictures"),
        (facts((1, 84, 8400), dtype="float16"), "detect", "float16"),
        (facts((1, 8, 8400), **ULTRALYTICS), "detect", "3 classes"),
        (facts((1, 300, 6), **ULTRALYTICS), "detect", "3 classes"),
        (facts((1, 56, 8400), **{**ULTRALYTICS, "task": "pose"}), "detect", "'pose'"),
        (facts((1, 1000), (1, 3, 224, 224)), "classify", "logits"),
        (facts((1, 512), (1, 3, 224, 224)), "embed", "embed"),
        (facts((1, 84, 8400)), "juggle", "juggle"),
        (Facts(facts((1, 2)).inputs * 2, facts((1, 2)).outputs, {}), "detect", "2 inputs"),
        (Facts(facts((1, 2)).inputs, facts((1, 2)).outputs * 2, {}), "detect", "2 outputs"),
    ],
)
def test_doubt_is_said_and_a_template_shown(known: Facts, task: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        derive(known, task)
    message = caught.value.message
    doubt, _, template = message.partition("\n\n")
    assert word in doubt
    assert "--card" in doubt
    values = tomllib.loads(template)
    assert values["name"] == "mine"
    assert values["source"]["files"] == SOURCE.files
    assert not values["family"]
    assert not values["output"]["layout"]


def test_the_filled_in_template_is_a_card(tmp_path: Path) -> None:
    text = card_template(
        facts((1, 8400, 85)), name="mine", task="detect", source=SOURCE, doubt="which?"
    )
    assert text.count("FILL IN") == 2
    text = re.sub(r'family = ""', 'family = "yolo"', text)
    text = re.sub(r'layout = ""', 'layout = "yolov5"', text)
    (tmp_path / "card.toml").write_text(text, "utf-8")
    card = read_card(tmp_path / "card.toml")
    assert card.input.height == 640
    assert card.source == SOURCE


@given(
    name=st.text(max_size=20),
    classes=st.lists(st.text(max_size=10), max_size=4),
    file=st.text(min_size=1, max_size=20),
)
def test_a_template_is_toml_whatever_the_file_says(
    name: str, classes: list[str], file: str
) -> None:
    known = facts((1, 2), tensors=(name, "o"), names=repr(classes))
    source = Source(url=f"file:///{file}", files={file: "0" * 64})
    values = tomllib.loads(card_template(known, name="mine", task="detect", source=source))
    assert values["classes"] == classes
    assert values["source"] == {"url": source.url, "files": source.files}


@pytest.mark.parametrize(
    "text", ["", "[", "{0: 'a', 2: 'b'}", "__import__('os')", "(" * 10_000, "1", "None"]
)
def test_strange_metadata_is_no_metadata(text: str) -> None:
    assert len(derive(facts((1, 84, 8400), names=text)).classes) == COCO


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "cache")


def exported(path: Path, **metadata: str) -> Path:
    """Write a detector whose grid of one level leaves doubt, so that it needs a card."""
    onnx_models.color_detector(path)
    if metadata:
        model = onnx.load(str(path))
        helper.set_model_props(model, metadata)
        onnx.save_model(model, str(path))
    return path


CARD = """
family = "yolo"
license = "MIT"
classes = ["red", "green", "blue"]
[input]
height = 64
width = 64
[output]
layout = "yolov8"
"""


def test_a_short_card_is_enough(registry: Registry, tmp_path: Path) -> None:
    file = exported(tmp_path / "m.onnx")
    (tmp_path / "card.toml").write_text(CARD)
    entry = registry.import_onnx(file, name="mine", task="detect", card=tmp_path / "card.toml")
    assert entry == registry.get("mine")
    assert entry.path.read_bytes() == file.read_bytes()
    assert entry.card.source.url == file.as_uri()
    load_model(entry, Execution()).close()
    file.unlink()
    assert registry.pull(entry.card) == entry


def test_a_derived_card_loads(registry: Registry, tmp_path: Path) -> None:
    outputs = {"output0": ("float32", (1, 7, 84))}
    node = helper.make_node("Mul", ["w", "w"], ["output0"])
    keep = helper.make_node("ReduceSum", ["images"], ["s"])
    file = onnx_models.save(
        tmp_path / "m.onnx",
        [keep, node],
        {"images": ("float32", (1, 3, 64, 64))},
        outputs,
        {"w": np.zeros((1, 7, 84), np.float32)},
    )
    model = onnx.load(str(file))
    helper.set_model_props(model, {**ULTRALYTICS, "imgsz": "[64, 64]"})
    onnx.save_model(model, str(file))
    entry = registry.import_onnx(file, name="mine", task="detect")
    assert entry.card.classes == ("cat", "dog", "it's")
    load_model(entry, Execution()).close()


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('family = "yolo"', 'family = "none"', "no family"),
        ('"yolov8"', '"yolov99"', "known: yolox"),
        (
            "height = 64",
            "height = 32",
            r"rows of \(3, 32, 64\), but the network takes \(3, 64, 64\)",
        ),
        ('classes = ["red", "green", "blue"]', "", "a detector needs classes"),
        ('"green", ', "", "correct output.layout or classes"),
        ("[output]", "[output]\nstrides = [8, 0]", "greater than 0"),
        ("[input]", "[input]\nmean = [nan, 0, 0]", "finite"),
        ("[input]", "[input]\nstd = [1, 1, inf]", "finite"),
        ("[input]", 'task = "classify"\n[input]', "asked for"),
        ("[input]", 'name = "other"\n[input]', "asked for"),
        ("[input]", "extra = 1\n[input]", "extra"),
        ("[input]", "[input", "cannot read"),
    ],
)
def test_a_wrong_card_is_refused(
    registry: Registry, tmp_path: Path, old: str, new: str, word: str
) -> None:
    (tmp_path / "card.toml").write_text(CARD.replace(old, new))
    with pytest.raises(ConfigError, match=word):
        registry.import_onnx(
            exported(tmp_path / "m.onnx"), name="mine", task="detect", card=tmp_path / "card.toml"
        )
    assert registry.installed() == []


def test_a_card_of_another_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    zeros = "0" * 64
    text = (
        CARD + f'[source]\nurl = "https://x.example/m.onnx"\nfiles = {{ "m.onnx" = "{zeros}" }}\n'
    )
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(ChecksumMismatch, match=zeros):
        registry.import_onnx(
            exported(tmp_path / "m.onnx"), name="mine", task="detect", card=tmp_path / "card.toml"
        )


def test_bad_files(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        registry.import_onnx(tmp_path / "none.onnx", name="mine", task="detect")
    whole = exported(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelCorrupt):
        registry.import_onnx(tmp_path / "cut.onnx", name="mine", task="detect")
    with pytest.raises(ConfigError, match="lower-case"):
        registry.import_onnx(tmp_path / "m.onnx", name="../Mine", task="detect")
    with pytest.raises(ConfigError, match="needs a name and a task"):
        registry.import_onnx(tmp_path / "m.onnx")
    assert not (tmp_path / "cache").exists()


def test_weights_in_other_files_are_refused(registry: Registry, tmp_path: Path) -> None:
    file = exported(tmp_path / "m.onnx")
    model = onnx.load(str(file))
    weight = numpy_helper.from_array(np.zeros(100_000, np.float32), "far")
    model.graph.initializer.append(weight)
    onnx.save_model(model, str(file), save_as_external_data=True, location="data")
    with pytest.raises(UnsupportedModel, match="other files"):
        registry.import_onnx(file, name="mine", task="detect")
