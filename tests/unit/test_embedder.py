"""Embedders: unit vectors, tokens packed to bits, and networks that do not fit."""

import numpy as np
import pytest

from retinue.core.errors import ConfigError, ModelRunFailed
from retinue.core.types import Array, Embedding, Image, Prepared, TensorSpec
from retinue.models.embedder import EFFICIENTNET_LITE0_SEARCH, MODEL, Embedder, unit_vector
from retinue.testing import tiny_outputs
from retinue.testing.function_runtime import FunctionRuntime

CARD = EFFICIENTNET_LITE0_SEARCH
PICTURE = Image(np.zeros((9, 9, 3), np.uint8), 9, 9)


def embedder(*specs: tuple[str, tuple[int, ...]], **rows: Array) -> Embedder:
    """Return one on a network with these outputs, which answers these rows."""
    inputs = (TensorSpec("x", "float32", (-1, 3, 224, 224)),)
    outputs = tuple(TensorSpec(name, "float32", shape) for name, shape in specs)
    answers = {name: row.astype(np.float32) for name, row in rows.items()}
    return Embedder(CARD, "v", FunctionRuntime(inputs, outputs, lambda row: answers))


def value(model: Embedder) -> Embedding:
    found = model.predict([PICTURE])[0].unwrap()
    assert isinstance(found, Embedding)
    return found


def test_the_only_flat_output_is_the_vector() -> None:
    specs = (("last_hidden_state", (-1, 5, 8)), ("pooled", (-1, 3)))
    states, pooled = np.zeros((5, 8)), np.array([3.0, 0, -4])
    model = embedder(*specs, last_hidden_state=states, pooled=pooled)
    found = value(model)
    np.testing.assert_allclose(found.vector, [0.6, 0, -0.8], rtol=1e-6)
    assert found.vector.dtype == np.float32
    assert found.tokens is None
    assert found.semantic is None
    assert found.grid == (0, 0)


def test_of_several_flat_outputs_the_named_one_is_the_vector() -> None:
    vector, others = np.array([0.0, 2.0]), np.array([1.0, 1.0, 1.0])
    specs = (("logits", (-1, 3)), ("embedding", (-1, 2)), ("semantic", (-1, 3)))
    found = value(embedder(*specs, logits=others, embedding=vector, semantic=others))
    assert found.vector.tolist() == [0, 1]
    assert found.semantic is not None
    np.testing.assert_allclose(found.semantic, 3**-0.5, rtol=1e-6)


def test_signs_become_bits_in_reading_order() -> None:
    tokens = np.full((4, 16), -1.0)
    tokens[1, 0] = tokens[3, 15] = 0.25
    tokens[2] = 0
    specs = (("embedding", (-1, 1)), ("tokens", (-1, -1, -1)))
    found = value(embedder(*specs, embedding=np.ones(1), tokens=tokens))
    assert found.grid == (2, 2)
    assert found.tokens is not None
    assert found.tokens.dtype == np.uint8
    assert found.tokens.tolist() == [[0, 0], [128, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("name", ["embedding", "semantic"])
def test_a_zero_vector_is_its_items_own_error(name: str) -> None:
    model = MODEL.build(CARD, "v", tiny_outputs.runtime_for(CARD))
    rows = {
        "embedding": np.ones(4, np.float32),
        "tokens": np.ones((4, 8), np.float32),
        "semantic": np.ones(4, np.float32),
    }
    assert model.postprocess(Prepared({}), rows).error is None
    error = model.postprocess(Prepared({}), {**rows, name: np.zeros(4, np.float32)}).error
    assert isinstance(error, ModelRunFailed)
    assert repr(name) in error.message
    assert "all zeros" in error.message


def test_extreme_vectors_have_unit_length() -> None:
    largest, least = np.finfo(np.float32).max, np.float32(1e-45)
    for scale in (largest, least, 1.0):
        found = unit_vector(np.array([scale, -scale, scale, scale], np.float32))
        assert found is not None
        assert found.tolist() == [0.5, -0.5, 0.5, 0.5]
    assert unit_vector(np.zeros(3)) is None
    assert unit_vector(np.zeros(0)) is None


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ([("a", (-1, 2)), ("b", (-1, 2))], r"'embedding', but the network's outputs are 'a'"),
        ([("tokens", (-1, 4, 8))], "reads one"),
        ([("embedding", (-1, 2, 2))], "reads one"),
        ([("embedding", (-1, 2)), ("tokens", (-1, 8))], "3 dimensions are expected"),
        ([("embedding", (-1, 2)), ("semantic", (-1, 2, 2))], "2 dimensions are expected"),
        ([("embedding", (-1, 2)), ("tokens", (-1, 50, 8))], "50 tokens are no square grid"),
        ([("embedding", (-1, 2)), ("tokens", (-1, 0, 8))], "0 tokens are no square grid"),
        ([("embedding", (-1, 2)), ("tokens", (-1, 49, 12))], "12 features"),
    ],
)
def test_networks_that_do_not_fit(specs: list[tuple[str, tuple[int, ...]]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        embedder(*specs)


@pytest.mark.parametrize(("shape", "says"), [((50, 8), "50 tokens"), ((49, 12), "12 features")])
def test_tokens_that_do_not_fit_are_seen_late_too(shape: tuple[int, int], says: str) -> None:
    specs = (("embedding", (-1, 1)), ("tokens", (-1, -1, -1)))
    outcome = embedder(*specs, embedding=np.ones(1), tokens=np.ones(shape)).predict([PICTURE])[0]
    assert isinstance(outcome.error, ConfigError)
    assert says in outcome.error.message


def test_the_default_search_model_names_its_text_model() -> None:
    assert (CARD.task, CARD.text) == ("embed", "wordllama-text")
    assert not CARD.binding_license
