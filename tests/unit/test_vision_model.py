"""What all families share: normalisation, cards that do not fit, loading."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import (
    ConfigError,
    MissingExtra,
    ModelCorrupt,
    ModelRunFailed,
    PluginError,
    UnsupportedModel,
)
from retinue.core.settings import Execution
from retinue.core.types import Image, TensorSpec
from retinue.models.base import Normalizer, class_names
from retinue.models.card import Card, Input, Output, Source
from retinue.models.fetch import sha256_of
from retinue.models.loading import load_model
from retinue.models.registry import Entry
from retinue.models.yolo import Yolo
from retinue.runtimes.isolated import Isolated
from retinue.testing import onnx_models, tiny_outputs
from retinue.testing.function_runtime import FunctionRuntime

TRIPLES = st.tuples(*[st.floats(-200, 300, width=16)] * 3)
SPREADS = st.tuples(*[st.floats(0.5, 300, width=16)] * 3)


def card(**fields: object) -> Card:
    base = {
        "name": "colours",
        "task": "detect",
        "family": "yolo",
        "license": "MIT",
        "source": Source(url="file:///colours.onnx", files={"colours.onnx": "0" * 64}),
        "input": Input(height=64, width=64, pad=0),
        "output": Output(layout="yolov8"),
        "classes": onnx_models.COLOURS,
    }
    return Card.model_validate({**base, **fields})


def entry(path: Path, **fields: object) -> Entry:
    digest = sha256_of(path)
    return Entry(card(**fields), digest[:12], path, digest, path.stat().st_size)


@given(
    mean=TRIPLES,
    std=SPREADS,
    color=st.sampled_from(["rgb", "bgr"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_normalisation_is_the_formula(
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str,
    layout: str,
    seed: int,
) -> None:
    spec = Input.model_validate(
        {"height": 5, "width": 7, "mean": mean, "std": std, "color": color, "layout": layout}
    )
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = pixels[:, :, ::-1] if color == "bgr" else pixels
    expected = ((expected.astype(np.float64) - mean) / std).astype(np.float32)
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    row = Normalizer(spec)(pixels)
    assert row.flags.c_contiguous
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, expected)


def test_normalisation_takes_a_view() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    view = pixels[3:11, 5:15]
    for layout in ("nchw", "nhwc"):
        normalize = Normalizer(Input.model_validate({"height": 8, "width": 10, "layout": layout}))
        np.testing.assert_array_equal(normalize(view), normalize(view.copy()))


def test_class_names_ship_complete() -> None:
    coco, imagenet = class_names("coco"), class_names("imagenet")
    assert (len(coco), len(imagenet)) == (80, 1000)
    assert (coco[0], coco[16], coco[79]) == ("person", "dog", "toothbrush")
    assert (imagenet[0], imagenet[281], imagenet[999]) == ("tench", "tabby", "toilet tissue")


@pytest.mark.parametrize("resize", ["center_crop", "stretch"])
def test_other_resizes_ask_the_decoder_for_their_short_side(resize: str) -> None:
    spec = Input.model_validate({"height": 224, "width": 224, "resize": resize, "crop": 0.875})
    own = card(
        task="classify",
        family="efficientnet_lite",
        input=spec,
        output=Output(layout="classifier"),
    )
    from retinue.models.efficientnet_lite import Classifier

    model = Classifier(own, "v", tiny_outputs.runtime_for(own))
    # A 2:1 picture letterboxed into this has a short side of at least the crop's.
    assert min(model.decode_size) / 2 >= (256 if resize == "center_crop" else 224)


def test_cards_that_do_not_fit_are_refused_with_the_reason() -> None:
    runtime = tiny_outputs.runtime_for(card())
    with pytest.raises(ConfigError, match=r"rows of \(3, 32, 64\).*takes \(3, 64, 64\)"):
        Yolo(card(input=Input(height=32, width=64)), "v", runtime)
    with pytest.raises(ConfigError, match="needs classes"):
        Yolo(card(classes=()), "v", runtime)
    with pytest.raises(ConfigError, match="center_crop"):
        Yolo(card(input=Input(height=64, width=64, resize="center_crop")), "v", runtime)
    with pytest.raises(ConfigError, match=r"'yolov8' with 2 classes reads \(N, 6, any\).*output"):
        Yolo(card(classes=("a", "b")), "v", runtime)


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("a", "uint8", (-1, 3, 64, 64)),),
        (TensorSpec("a", "float32", (-1, 64)),),
        (TensorSpec("a", "float32", (-1, 3, 64, 64)), TensorSpec("b", "float32", (-1, 2))),
    ],
)
def test_weights_that_take_no_picture_are_refused(inputs: tuple[TensorSpec, ...]) -> None:
    outputs = (TensorSpec("output", "float32", (-1, 7, 10)),)
    runtime = FunctionRuntime(inputs, outputs, lambda row: {})
    with pytest.raises(UnsupportedModel):
        Yolo(card(), "v", runtime)


def test_outputs_without_the_batch_first_are_an_error() -> None:
    inputs = (TensorSpec("images", "float32", (-1, 3, 64, 64)),)
    outputs = (TensorSpec("output", "float32", (-1, 7, 10)),)

    class Flat(FunctionRuntime):
        def run(self, tensors: object) -> dict[str, np.ndarray]:
            return {"output": np.zeros((1, 7, 10), np.float32)}

    model = Yolo(card(), "v", Flat(inputs, outputs, lambda row: {}))
    row = {"images": np.zeros((3, 64, 64), np.float32)}
    with pytest.raises(ModelRunFailed, match="first dimension must be the batch"):
        model.run([row, row])


def square(x: int, y: int, colour: int, size: tuple[int, int] = (64, 64)) -> Image:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[y : y + 16, x : x + 16, colour] = 255
    return Image(pixels, *size)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_network_finds_real_squares(runtime: str, tmp_path: Path) -> None:
    model = load_model(
        entry(onnx_models.color_detector(tmp_path / "c.onnx")), Execution(runtime=runtime)
    )
    outcomes = model.predict([square(16, 32, 0), square(48, 0, 2), square(0, 48, 1, (128, 64))])
    found = [outcome.unwrap() for outcome in outcomes]
    assert [d.class_ids[0] for d in found] == [0, 2, 1]  # type: ignore[union-attr]
    np.testing.assert_allclose(found[0].boxes[0], [16, 32, 32, 48], atol=1e-4)  # type: ignore[union-attr]
    np.testing.assert_allclose(found[1].boxes[0], [48, 0, 64, 16], atol=1e-4)  # type: ignore[union-attr]
    # Half the size and 16 rows down in the frame: a cell there is 32 pixels here.
    np.testing.assert_allclose(found[2].boxes[0], [0, 32, 32, 64], atol=1e-4)  # type: ignore[union-attr]
    model.close()


def test_a_model_is_isolated_by_a_setting(tmp_path: Path) -> None:
    installed = entry(onnx_models.color_detector(tmp_path / "c.onnx"))
    with closing(load_model(installed, Execution(isolate=True))) as model:
        assert isinstance(model.runtime, Isolated)
        found = model.predict([square(16, 32, 0)])[0].unwrap()
        assert found.class_ids[0] == 0  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="'abacus:1'"):
        load_model(installed, Execution(isolate=True, device="abacus:1"))


def test_a_changed_or_missing_file_is_not_loaded(tmp_path: Path) -> None:
    path = onnx_models.color_detector(tmp_path / "c.onnx")
    installed = entry(path)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelCorrupt, match=r"colours version .*damaged.*sha256"):
        load_model(installed, Execution())
    path.unlink()
    with pytest.raises(ModelCorrupt, match="cannot be read"):
        load_model(installed, Execution())


def test_a_card_that_does_not_fit_closes_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = entry(onnx_models.color_detector(tmp_path / "c.onnx"), classes=("a", "b"))
    made: list[FunctionRuntime] = []

    def factory(path: Path, **options: object) -> FunctionRuntime:
        made.append(tiny_outputs.runtime_for(card()))
        return made[0]

    import retinue.runtimes.onnxruntime as module

    monkeypatch.setattr(module, "RUNTIME", factory)
    with pytest.raises(ConfigError, match="2 classes"):
        load_model(installed, Execution())
    assert made[0].closed == 1


def test_unknown_runtimes_and_families_are_named(tmp_path: Path) -> None:
    path = onnx_models.color_detector(tmp_path / "c.onnx")
    with pytest.raises(PluginError, match="'abacus'"):
        load_model(entry(path), Execution(runtime="abacus"))
    with pytest.raises(PluginError, match="'yeti'"):
        load_model(entry(path, family="yeti"), Execution())


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    from retinue.runtimes import openvino

    def hide() -> None:
        for name in ("openvino", "openvino.frontend"):
            monkeypatch.setitem(__import__("sys").modules, name, None)
        openvino._engine.cache_clear()

    return hide


def test_a_missing_engine_names_its_extra(
    tmp_path: Path, without_openvino: Callable[[], None]
) -> None:
    installed = entry(onnx_models.color_detector(tmp_path / "c.onnx"))
    without_openvino()
    with pytest.raises(MissingExtra, match=r"pip install 'retinue\[openvino\]'"):
        load_model(installed, Execution(runtime="openvino"))
