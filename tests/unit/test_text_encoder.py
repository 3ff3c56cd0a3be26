"""Text models: tiny towers of the real shapes, from their own files through registry and loader."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from retinue.core.errors import InvalidRequest, ModelCorrupt, ModelRunFailed, UnsupportedModel
from retinue.core.protocols import TextEncoder as Protocol
from retinue.core.settings import Execution
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.importers import _towers
from retinue.models.importers.clip_text import END, START, build_tokenizer
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Registry
from retinue.models.text import TextEncoder, load_text
from retinue.testing import text_suite
from retinue.testing.text_towers import (
    WORDS,
    D,
    clip_tower,
    clip_vocabulary,
    random,
    siglip_tower,
    word_tokenizer,
    write_safetensors,
)

TEXTS = ("a cat", "two dogs", "cat dog cat")


# Through card, registry and loader.


def pull(folder: Path, importer: str, name: str = "tiny-text") -> Entry:
    files = {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    card = Card.model_validate(
        {
            "name": name,
            "task": "text",
            "family": "text",
            "license": "MIT",
            "source": {"url": folder.as_uri(), "files": files, "importer": importer},
        }
    )
    return Registry(folder.parent / "cache").pull(card)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hub"
    made.mkdir()
    return made


def wordllama(folder: Path, dtype: str = "f2") -> np.ndarray:
    table = random(1 + len(WORDS), D).astype(dtype)
    write_safetensors(folder / "l2_256.safetensors", table)
    word_tokenizer({"<unk>": 0}).save(str(folder / "tokenizer_config.json"))
    return table


def clip(folder: Path, **tower: object) -> None:
    vocabulary, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    clip_tower(folder / "textual" / "model.onnx", len(vocabulary), **tower)


def siglip(folder: Path) -> None:
    tokenizer = word_tokenizer({"<unk>": 0, "</s>": 1}, end="</s>")
    tokenizer.save(str(folder / "tokenizer.json"))
    siglip_tower(folder / "onnx" / "text_model.onnx", tokenizer.get_vocab_size())


MAKERS = {"wordllama": wordllama, "clip_text": clip, "siglip_text": siglip}


@pytest.mark.parametrize("check", text_suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("importer", MAKERS)
def test_contract(folder: Path, importer: str, check: text_suite.Check) -> None:
    MAKERS[importer](folder)
    encoder = load_text(pull(folder, importer), Execution())
    check(encoder, TEXTS)
    encoder.close()


def test_a_text_model_is_installed_and_named(folder: Path) -> None:
    siglip(folder)
    entry = pull(folder, "siglip_text")
    encoder = load_text(entry, Execution(threads=2))
    assert isinstance(encoder, Protocol)
    assert (encoder.name, encoder.version) == ("tiny-text", entry.version)
    assert encoder.dim == D
    assert encoder.card == entry.card
    again = Registry(folder.parent / "cache").get("tiny-text")
    assert again == entry
    assert pull(folder, "siglip_text") == entry


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_wordllama_is_the_mean_of_the_words(folder: Path, dtype: str) -> None:
    table = wordllama(folder, dtype).astype(np.float64)
    encoder = load_text(pull(folder, "wordllama"), Execution())
    found = encoder.encode(["a cat", "dog", "cat dogs unheard-of"])
    rows = [[1, 2], [5], [2, 4, 0, 0, 0]]
    means = np.stack([table[ids].mean(axis=0) for ids in rows])
    np.testing.assert_allclose(
        found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6
    )


def clip_twin(text: str) -> np.ndarray:
    """The tower in NumPy, on ids found by hand."""
    vocabulary, _ = clip_vocabulary()
    words = {"cat": ["cat</w>"], "dog": ["dog</w>"], "a": ["a</w>"], "dogs": ["do", "g", "s</w>"]}
    tokens = [START, *(token for word in text.split() for token in words[word]), END]
    x = random(len(vocabulary), D, seed=1)[[vocabulary[token] for token in tokens]]
    x = np.tanh(x @ random(D, D, seed=2))
    x = (x + x @ random(D, D, seed=3)).sum(axis=0) @ random(D, D, seed=4)
    return x / np.linalg.norm(x)


EXPORTS = {
    "transformers": {},
    "transformers-mask": {"mask": True},
    "open_clip": {
        "ids": "text",
        "kind": TensorProto.INT32,
        "shape": (1, 77),
        "output": "embedding",
    },
    "int32": {"kind": TensorProto.INT32, "mask": True},
    "no-size": {"output": "text_features"},
}


@pytest.mark.parametrize("export", EXPORTS)
def test_clip_exports_of_all_shapes_agree(folder: Path, export: str) -> None:
    clip(folder, **EXPORTS[export])
    encoder = load_text(pull(folder, "clip_text"), Execution())
    texts = ["a cat", "dog", "A  CAT\n dogs"]
    expected = np.stack([clip_twin(text.lower()) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


def test_clip_cuts_texts_off_and_keeps_the_end(folder: Path) -> None:
    clip(folder)
    encoder = load_text(pull(folder, "clip_text"), Execution())
    expected = clip_twin("cat " * 75)
    found = encoder.encode(["cat " * 75, "cat " * 75 + "dog", "cat " * 1000])
    np.testing.assert_allclose(found, np.stack([expected] * 3), atol=1e-5)


def test_clip_takes_a_whole_tokenizer_too(folder: Path) -> None:
    clip(folder)
    expected = load_text(pull(folder, "clip_text"), Execution()).encode(TEXTS)
    build_tokenizer(*clip_vocabulary()).save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    other = load_text(pull(folder, "clip_text", "other"), Execution())
    np.testing.assert_array_equal(other.encode(TEXTS), expected)


def test_siglip_sees_its_padding_and_no_case(folder: Path) -> None:
    siglip(folder)
    encoder = load_text(pull(folder, "siglip_text"), Execution())
    ids = np.ones(64, int)
    ids[:2] = (2, 3)
    x = np.tanh(random(8, D, seed=1)[ids] + random(64, D, seed=5)).mean(axis=0)
    for text in ("a cat", "A Cat"):
        (found,) = encoder.encode([text])
        np.testing.assert_allclose(found, x / np.linalg.norm(x), atol=1e-5)


@pytest.mark.parametrize("importer", ["wordllama", "siglip_text"])
def test_what_is_wholly_unknown_is_refused(folder: Path, importer: str) -> None:
    MAKERS[importer](folder)
    encoder = load_text(pull(folder, importer), Execution())
    with pytest.raises(InvalidRequest, match=r"nothing of 'xyzzy' is known .* tiny-text"):
        encoder.encode(["a cat", "xyzzy"])
    encoder.encode(["xyzzy cat"])


def test_long_texts_name_the_limit(folder: Path) -> None:
    wordllama(folder)
    encoder = load_text(pull(folder, "wordllama"), Execution())
    with pytest.raises(InvalidRequest, match="10001 characters, and at most 10000"):
        encoder.encode(["a" * 10_001])
    with pytest.raises(InvalidRequest, match="empty"):
        encoder.encode(["  "])


def test_a_vector_without_direction_is_an_error(folder: Path) -> None:
    table = wordllama(folder)
    table[1] = 0
    write_safetensors(folder / "l2_256.safetensors", table)
    encoder = load_text(pull(folder, "wordllama"), Execution())
    with pytest.raises(ModelRunFailed, match="'a' a vector without a direction"):
        encoder.encode(["cat", "a"])


def test_a_closed_encoder_says_so(folder: Path) -> None:
    wordllama(folder)
    encoder = load_text(pull(folder, "wordllama"), Execution())
    encoder.close()
    encoder.close()
    with pytest.raises(ModelRunFailed, match="closed"):
        encoder.encode(["a cat"])


def test_changed_bytes_are_found(folder: Path) -> None:
    wordllama(folder)
    entry = pull(folder, "wordllama")
    data = bytearray(entry.path.read_bytes())
    data[len(data) // 2] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(ModelCorrupt, match="sha256"):
        load_text(entry, Execution())


def test_other_models_are_no_text_models(folder: Path) -> None:
    wordllama(folder)
    entry = pull(folder, "wordllama")
    with pytest.raises(UnsupportedModel, match="takes texts, not pictures"):
        load_model(entry, Execution())
    detector = entry.card.model_copy(update={"task": "detect"})
    with pytest.raises(UnsupportedModel, match="is for detect"):
        load_text(replace(entry, card=detector), Execution())


def test_an_onnx_file_without_a_tokenizer_is_refused(folder: Path) -> None:
    clip_tower(folder / "model.onnx", 9)
    with pytest.raises(UnsupportedModel, match="no tokenizer"):
        load_text(pull(folder, ""), Execution())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (_towers.TOKENIZER_KEY, "{}"),
        (_towers.OPTIONS_KEY, '{"length": 1}'),
        (_towers.OPTIONS_KEY, "["),
    ],
)
def test_a_damaged_tokenizer_is_found(folder: Path, key: str, value: str) -> None:
    wordllama(folder)
    made = pull(folder, "wordllama")
    model = onnx.load(str(made.path))
    kept = {pair.key: pair.value for pair in model.metadata_props} | {key: value}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)
    file = folder / "model.onnx"
    onnx.save(model, str(file))
    entry = replace(made, path=file, sha256=sha256_of(file), size=file.stat().st_size)
    with pytest.raises(ModelCorrupt, match="tokenizer is damaged"):
        load_text(entry, Execution())


def test_a_tower_of_another_length_is_refused(folder: Path) -> None:
    clip(folder, shape=("N", 30))
    with pytest.raises(UnsupportedModel, match="takes 30 tokens, and its tokenizer gives 77"):
        load_text(pull(folder, "clip_text"), Execution())


# Files that are not what they should be.


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", ModelCorrupt, "not a safetensors file"),
        (b"\xff" * 64, ModelCorrupt, "not a safetensors file"),
        (struct.pack("<Q", 2) + b"{}", UnsupportedModel, "no embedding.weight"),
        (struct.pack("<Q", 2) + b"[]", ModelCorrupt, "not a safetensors file"),
    ],
)
def test_bad_tables(folder: Path, content: bytes, error: type[Exception], says: str) -> None:
    wordllama(folder)
    (folder / "l2_256.safetensors").write_bytes(content)
    with pytest.raises(error, match=says):
        pull(folder, "wordllama")


def test_tables_of_another_kind(folder: Path) -> None:
    table = wordllama(folder)
    file = folder / "l2_256.safetensors"
    write_safetensors(file, np.zeros((9, 4), np.int64))
    with pytest.raises(UnsupportedModel, match="I64"):
        pull(folder, "wordllama")
    write_safetensors(file, table[:3])
    with pytest.raises(UnsupportedModel, match="7 tokens, and 3 have vectors"):
        pull(folder, "wordllama")
    write_safetensors(file, table)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match="cut short"):
        pull(folder, "wordllama")
    table[0, 0] = np.nan
    write_safetensors(file, table)
    with pytest.raises(ModelCorrupt, match="NaN"):
        pull(folder, "wordllama")


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", b'{"model": 1}'])
@pytest.mark.parametrize("importer", ["wordllama", "siglip_text"])
def test_bad_tokenizers(folder: Path, importer: str, content: bytes) -> None:
    MAKERS[importer](folder)
    (file,) = folder.glob("*.json")
    file.write_bytes(content)
    with pytest.raises(ModelCorrupt, match="no tokenizer's JSON"):
        pull(folder, importer)


def test_tokenizers_of_another_model(folder: Path) -> None:
    siglip(folder)
    word_tokenizer({"<unk>": 0}).save(str(folder / "tokenizer.json"))
    with pytest.raises(UnsupportedModel, match="not SigLIP's"):
        pull(folder, "siglip_text")
    with pytest.raises(UnsupportedModel, match="not CLIP's"):
        pull(folder, "clip_text")


def test_vocabularies_of_another_model(folder: Path) -> None:
    clip(folder)
    (folder / "merges.txt").write_text("q z\n")
    with pytest.raises(UnsupportedModel, match="merges do not fit"):
        pull(folder, "clip_text")
    for content, error in (("[]", ModelCorrupt), ("{", ModelCorrupt), ("{}", UnsupportedModel)):
        (folder / "vocab.json").write_text(content)
        with pytest.raises(error):
            pull(folder, "clip_text")


def test_towers_with_other_inputs_or_outputs(folder: Path) -> None:
    clip(folder, ids="pixel_values")
    with pytest.raises(UnsupportedModel, match=r"takes pixel_values; a text tower takes input_ids"):
        pull(folder, "clip_text")
    (folder / "textual" / "model.onnx").write_bytes(b"\x00not onnx")
    with pytest.raises(ModelCorrupt):
        pull(folder, "clip_text")
    (folder / "textual" / "model.onnx").unlink()
    with pytest.raises(ModelCorrupt, match=r"one \.onnx file is needed, not none"):
        pull(folder, "clip_text")


def test_a_text_card_needs_no_input_and_no_output() -> None:
    values = {
        "name": "t",
        "task": "text",
        "family": "text",
        "license": "MIT",
        "source": {"url": "file:///x", "files": {"x": "0" * 64}},
    }
    card = Card.model_validate(values)
    assert Card.model_validate_json(card.model_dump_json()) == card
    with pytest.raises(ValueError, match="input"):
        Card.model_validate(values | {"task": "embed"})


def test_the_encoder_is_exported() -> None:
    from retinue.models import text

    assert set(text.__all__) == {"MAX_CHARACTERS", "MODEL", "TextEncoder", "load_text"}
    assert TextEncoder.encode.__doc__
