"""Vision transformers of the hub: their preprocessing, and tiny towers of the same shapes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as PillowImage
from typer.testing import CliRunner

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.core.settings import Execution, Limits
from retinue.core.types import Embedding, Image, TensorSpec
from retinue.host.cli import cli
from retinue.media.decode import decode
from retinue.models import _text_cards, catalogue, vit
from retinue.models.card import Card, Input, Output
from retinue.models.fetch import sha256_of
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Registry
from retinue.testing.function_runtime import FunctionRuntime

D = 8
SIZES = ((224, 224), (300, 451), (640, 427), (50, 31), (1000, 225), (257, 256), (231, 700))


# What the originals do, step by step.


def twin(pixels: NDArray[np.uint8], card: Card) -> NDArray[np.float64]:
    """Resize the whole picture by Pillow, cut, scale to [0, 1], normalise: (3, 224, 224)."""
    picture = PillowImage.fromarray(pixels)
    width, height = picture.size
    if card.name.startswith("siglip"):
        picture = picture.resize((224, 224), PillowImage.Resampling.BICUBIC)
        mean = std = np.array([0.5, 0.5, 0.5])
    else:
        short = 256 if card.name.startswith("dinov2") else 224
        scaled = (
            (short, short * height // width)
            if width <= height
            else (short * width // height, short)
        )
        picture = picture.resize(scaled, PillowImage.Resampling.BICUBIC)
        left, top = (scaled[0] - 224) // 2, (scaled[1] - 224) // 2
        picture = picture.crop((left, top, left + 224, top + 224))
        mean = np.array([0.48145466, 0.4578275, 0.40821073])
        std = np.array([0.26862954, 0.26130258, 0.27577711])
        if card.name.startswith("dinov2"):
            mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    values = np.asarray(picture, np.float64) / 255
    return ((values - mean) / std).transpose(2, 0, 1)


def scene(width: int, height: int, contrast: float = 0.6) -> NDArray[np.uint8]:
    """Soft shapes, sharp edges and noise; with full contrast, much is black or white."""
    y, x = np.mgrid[0:height, 0:width]
    random = np.random.default_rng(width)
    planes = [127 + 127 * np.sin(x / 9 + k) * np.cos(y / (7 + k)) for k in range(3)]
    planes[1][(x // 16 + y // 16) % 2 == 0] = 255
    noisy = np.stack(planes, axis=2) + random.normal(0, 20, (height, width, 3))
    return np.clip(127 + contrast * (noisy - 127), 0, 255).astype(np.uint8)


def embedder(card: Card) -> vit.VitEmbedder:
    row = {"embedding": np.ones(D, np.float32)}
    inputs = (TensorSpec("pixel_values", "float32", (-1, 3, -1, -1)),)
    outputs = (TensorSpec("embedding", "float32", (-1, D)),)
    return vit.VitEmbedder(card, "v", FunctionRuntime(inputs, outputs, lambda tensors: row))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("card", vit.CARDS, ids=lambda card: card.name)
def test_preprocessing_is_the_originals(card: Card, size: tuple[int, int]) -> None:
    for contrast, most, mean in ((0.5, 2.01, 0.35), (1.0, 20, 0.5)):
        pixels = scene(*size, contrast)
        row = embedder(card).preprocess(Image(pixels, *size)).tensors["pixel_values"]
        assert row.shape == (3, 224, 224)
        assert row.dtype == np.float32
        std = np.array(card.input.std).reshape(3, 1, 1) / 255
        levels = np.abs(row - twin(pixels, card)) * std * 255
        # Pillow rounds to whole levels, and cuts off at black and white, between its two passes,
        # and which of them comes first depends on the size.
        assert levels.max() < most
        assert levels.mean() < mean


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 900), (900, 1), (3, 2), (224, 225), (8000, 3)]
)
@pytest.mark.parametrize("crop", [1.0, 224 / 256, 0.33])
def test_boxes_lie_in_the_picture(width: int, height: int, crop: float) -> None:
    spec = vit.CLIP_INPUT.model_copy(update={"crop": crop})
    left, top, right, bottom = vit.crop_box(width, height, spec)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left + right == pytest.approx(width, abs=width / 224 + 1e-6)
    card = vit.CLIP_VIT_B_32.model_copy(update={"input": spec})
    picture = Image(np.zeros((height, width, 3), np.uint8), width, height)
    assert embedder(card).preprocess(picture).tensors["pixel_values"].shape == (3, 224, 224)


def test_letterboxes_are_as_in_other_families() -> None:
    card = vit.CLIP_VIT_B_32.model_copy(update={"input": Input(height=224, width=224)})
    prepared = embedder(card).preprocess(Image(np.zeros((10, 20, 3), np.uint8), 20, 10))
    assert prepared.context is not None
    assert prepared.tensors["pixel_values"][:, 0].max() == np.float32(114 / 255)


# Towers.


def patches(path: Path, outputs: dict[str, tuple[int | str, ...]], size: int | str = "N") -> None:
    """Write a tower: 32 x 32 patches, a class token before them, one layer, three views of it."""
    random = np.random.default_rng(3)
    weights = {
        "kernel": random.normal(size=(D, 3, 32, 32)).astype(np.float32) / 50,
        "class": random.normal(size=(1, 1, D)).astype(np.float32),
        "w": random.normal(size=(D, D)).astype(np.float32),
        "flat": np.array([0, D, -1], np.int64),
        "zero": np.array(0, np.int64),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["pixel_values", "kernel"], ["grid"], strides=[32, 32]),
        helper.make_node("Reshape", ["grid", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens_in"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["tokens_in"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["mean", "class"], ["first"]),
        helper.make_node("Concat", ["first", "tokens_in"], ["tokens"], axis=1),
        helper.make_node("Tanh", ["tokens"], ["last_hidden_state"]),
        helper.make_node("Gather", ["last_hidden_state", "zero"], ["pooler_output"], axis=1),
        helper.make_node("MatMul", ["pooler_output", "w"], ["image_embeds"]),
    ]
    last = next(iter(outputs))
    if last not in ("last_hidden_state", "pooler_output", "image_embeds"):
        nodes.append(helper.make_node("Identity", ["image_embeds"], [last]))
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", float32, (size, 3, "H", "W"))],
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def tower_twin(row: NDArray[np.float64], *, project: bool) -> NDArray[np.float64]:
    random = np.random.default_rng(3)
    kernel = random.normal(size=(D, 3, 32, 32)).astype(np.float32) / 50
    first = random.normal(size=(1, 1, D)).astype(np.float32)[0, 0]
    w = random.normal(size=(D, D)).astype(np.float32)
    cut = row.reshape(3, 7, 32, 7, 32)
    features = np.tanh(np.einsum("chywx,dcyx->hwd", cut, kernel).reshape(-1, D).mean(0) + first)
    vector = features @ w if project else features
    return vector / np.linalg.norm(vector)


def pull(tmp_path: Path, file: str, like: Card) -> Entry:
    source = {
        "url": (tmp_path / "hub").as_uri(),
        "files": {file: sha256_of(tmp_path / "hub" / file)},
        "importer": like.source.importer,
    }
    card = Card.model_validate(like.model_dump() | {"source": source})
    return Registry(tmp_path / "cache").pull(card)


TOWERS = {
    "clip-vit-b-32": (
        "onnx/vision_model.onnx",
        {"last_hidden_state": ("N", "T", D), "image_embeds": ("N", "D")},
        "N",
    ),
    "clip-vit-l-14": ("visual/model.onnx", {"embedding": (1, D)}, 1),
    "openclip-vit-b-32": ("visual/model.onnx", {"unnamed": (1, D)}, 1),
    "siglip-base-patch16-224": (
        "onnx/vision_model.onnx",
        {"last_hidden_state": ("N", "T", D), "pooler_output": ("N", D)},
        "N",
    ),
    "dinov2-small": ("onnx/model.onnx", {"last_hidden_state": ("N", "T", D)}, "N"),
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_goes_from_its_file_to_a_vector(tmp_path: Path, name: str) -> None:
    file, outputs, size = TOWERS[name]
    card = catalogue.find(name)
    patches(tmp_path / "hub" / file, outputs, size)
    entry = pull(tmp_path, file, card)
    (made,) = onnx.load(str(entry.path)).graph.output
    assert made.name == "embedding"
    model = load_model(entry, Execution())
    pictures = [scene(*size) for size in SIZES[:3]]
    found = model.predict([Image(p, p.shape[1], p.shape[0]) for p in pictures])
    project = name not in ("siglip-base-patch16-224", "dinov2-small")
    for pixels, outcome in zip(pictures, found, strict=True):
        value = outcome.unwrap()
        assert isinstance(value, Embedding)
        assert value.tokens is None
        expected = tower_twin(twin(pixels, card), project=project)
        np.testing.assert_allclose(value.vector, expected, atol=2e-3)
        assert np.linalg.norm(value.vector) == pytest.approx(1, abs=1e-6)
    model.close()


def test_a_photo_decoded_small_gives_nearly_the_same_vector(tmp_path: Path) -> None:
    patches(tmp_path / "hub" / "onnx" / "model.onnx", {"last_hidden_state": ("N", "T", D)})
    model = load_model(pull(tmp_path, "onnx/model.onnx", vit.DINOV2_SMALL), Execution())
    file = tmp_path / "photo.jpg"
    smooth = PillowImage.fromarray(scene(300, 200)).resize((2400, 1600))
    smooth.save(file, quality=95)
    whole = Image(np.asarray(smooth), 2400, 1600)
    small = decode(file.read_bytes(), limits=Limits(), target=model.decode_size)
    assert small.pixels.shape[0] < 1600
    one, other = (model.predict([image])[0].unwrap() for image in (whole, small))
    assert isinstance(one, Embedding)
    assert isinstance(other, Embedding)
    assert float(one.vector @ other.vector) > 0.999


def test_towers_that_fit_no_importer(tmp_path: Path) -> None:
    file = tmp_path / "hub" / "model.onnx"
    patches(file, {"last_hidden_state": ("N", "T", D)})
    with pytest.raises(UnsupportedModel, match=r"0 outputs of 2 dimensions, .* last_hidden_state"):
        pull(tmp_path, "model.onnx", vit.CLIP_VIT_B_32)
    patches(file, {"image_embeds": ("N", D)})
    with pytest.raises(UnsupportedModel, match="0 outputs of 3 dimensions"):
        pull(tmp_path, "model.onnx", vit.DINOV2_SMALL)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelCorrupt):
        pull(tmp_path, "model.onnx", vit.DINOV2_SMALL)


# The catalogue.


@pytest.mark.parametrize("card", [*vit.CARDS, *_text_cards.CARDS], ids=lambda card: card.name)
def test_cards_name_one_version_of_their_files(card: Card) -> None:
    assert catalogue.find(card.name) == card
    assert re.fullmatch(r"hf:[\w./-]+@[0-9a-f]{40}|wheel:wordllama@[\w.]+", card.source.url)
    assert sum(name.endswith((".onnx", ".safetensors")) for name in card.source.files) == 1


@pytest.mark.parametrize("card", vit.CARDS, ids=lambda card: card.name)
def test_text_towers_are_of_the_same_revision(card: Card) -> None:
    if card.name == "dinov2-small":
        assert not card.text
        return
    text = catalogue.find(card.text)
    assert text.task == "text"
    assert text.source.url == card.source.url
    assert text.license == card.license


def test_cards_of_the_users_own() -> None:
    card = vit.CLIP_VIT_B_32.model_copy(update={"output": Output(layout="vit"), "name": "mine"})
    assert isinstance(vit.MODEL.build(card, "v", embedder(card).runtime), vit.VitEmbedder)


def test_the_command_line_shows_text_models() -> None:
    run = CliRunner()
    listed = run.invoke(cli, ["models", "list", "--json"])
    assert listed.exit_code == 0
    assert '"wordllama-text"' in listed.stdout
    shown = run.invoke(cli, ["models", "show", "siglip-base-patch16-224-text"])
    assert shown.exit_code == 0
    assert "Apache-2.0" in shown.stdout
