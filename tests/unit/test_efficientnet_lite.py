"""Classifiers: probabilities, logits, embeddings."""

import numpy as np
import pytest

from retinue.core.errors import ConfigError
from retinue.core.types import Array, Embedding, Image, Prepared, Scores, TensorSpec
from retinue.models.efficientnet_lite import EFFICIENTNET_LITE0, Classifier, softmax
from retinue.testing import tiny_outputs
from retinue.testing.function_runtime import FunctionRuntime


def small(scores: str = "probabilities") -> Classifier:
    card = EFFICIENTNET_LITE0.model_copy(
        update={
            "classes": ("cat", "dog", "owl"),
            "output": EFFICIENTNET_LITE0.output.model_copy(update={"scores": scores}),
        }
    )
    return Classifier(card, "v", tiny_outputs.runtime_for(card))


def outputs(*values: float) -> dict[str, Array]:
    return {
        "probabilities": np.array(values, np.float32),
        "embedding": np.arange(16, dtype=np.float32),
    }


def test_probabilities_and_the_embedding_are_passed_on() -> None:
    rows = outputs(0.1, 0.7, 0.2)
    outcome = small().postprocess(Prepared({}), rows)
    value = outcome.unwrap()
    assert isinstance(value, Scores)
    np.testing.assert_allclose(value.values, [0.1, 0.7, 0.2])
    assert isinstance(outcome.embedding, Embedding)
    np.testing.assert_array_equal(outcome.embedding.vector, np.arange(16))
    assert not np.shares_memory(outcome.embedding.vector, rows["embedding"])


def test_rounding_beyond_one_is_clipped() -> None:
    value = small().postprocess(Prepared({}), outputs(1.0000001, -1e-9, 0)).unwrap()
    assert isinstance(value, Scores)
    assert value.values.tolist() == [1, 0, 0]


def test_logits_become_probabilities() -> None:
    value = small("logits").postprocess(Prepared({}), outputs(1000, 999, -1000)).unwrap()
    assert isinstance(value, Scores)
    np.testing.assert_allclose(value.values, [0.7310586, 0.2689414, 0], atol=1e-6)


def test_softmax_is_the_formula() -> None:
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    exact = np.exp(values.astype(np.float64))
    np.testing.assert_allclose(softmax(values), exact / exact.sum(), rtol=1e-5)


def test_a_network_without_embedding_is_served_too() -> None:
    card = EFFICIENTNET_LITE0.model_copy(update={"classes": ("cat", "dog")})
    inputs = (TensorSpec("x", "float32", (-1, 3, 224, 224)),)
    spec = (TensorSpec("anything", "float32", (-1, 2)),)
    model = Classifier(
        card,
        "v",
        FunctionRuntime(inputs, spec, lambda row: {"anything": np.array([0.5, 0.5], np.float32)}),
    )
    outcome = model.predict([Image(np.zeros((9, 9, 3), np.uint8), 9, 9)])[0]
    assert outcome.embedding is None
    assert isinstance(outcome.unwrap(), Scores)


def test_the_number_of_classes_is_checked() -> None:
    card = EFFICIENTNET_LITE0.model_copy(update={"classes": ("cat", "dog")})
    inputs = (TensorSpec("x", "float32", (-1, 3, 224, 224)),)
    for width in (3, -1):
        outputs = (TensorSpec("y", "float32", (-1, width)),)
        runtime = FunctionRuntime(inputs, outputs, lambda row: {"y": np.zeros(3, np.float32)})
        with pytest.raises(ConfigError, match="2 classes"):
            model = Classifier(card, "v", runtime)
            model.postprocess(Prepared({}), {"y": np.zeros(3, np.float32)}).unwrap()
    with pytest.raises(ConfigError, match="needs classes"):
        Classifier(card.model_copy(update={"classes": ()}), "v", runtime)


def test_preprocess_is_what_the_network_was_trained_on() -> None:
    pixels = np.full((300, 400, 3), [10, 127, 255], np.uint8)
    row = small().preprocess(Image(pixels, 400, 300)).tensors["images"]
    assert row.shape == (3, 224, 224)
    assert row[:, 7, 9] == pytest.approx([(10 - 127) / 128, 0, 1])
