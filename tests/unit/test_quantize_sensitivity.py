"""Which layers lose most, and in which order they are left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from retinue.calibrate.sensitivity import (
    CEILING_DB,
    FLOOR_DB,
    Sensitivity,
    head,
    measure,
    snr_db,
    steps,
)
from retinue.calibrate.variants import Network
from retinue.models.fetch import Quiet


def network(tmp_path: Path) -> Network:
    """Two heads behind a stem: stem -> a -> relu -> out_a; stem -> b -> b2 -> out_b -> sigmoid."""
    conv = "Conv"
    nodes = [
        helper.make_node(conv, ["x", "w"], ["s"], "stem"),
        helper.make_node(conv, ["s", "w"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["out_a"], "relu"),
        helper.make_node(conv, ["s", "w"], ["b"], "b"),
        helper.make_node("Relu", ["b"], ["br"], "between"),
        helper.make_node(conv, ["br", "w"], ["b2"], "b2"),
        helper.make_node("Sigmoid", ["b2"], ["out_b"], "sigmoid"),
    ]
    values = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, 4, 4])
        for n in ("x", "out_a", "out_b")
    ]
    path = tmp_path / "ready.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])), str(path))
    return Network(path, tmp_path, ("stem", "a", "b", "b2"), lambda number: iter(()))


def test_the_head_is_what_no_layer_follows(tmp_path: Path) -> None:
    last, behind = head(network(tmp_path))
    assert last == {"a", "b2"}
    assert behind == {"relu", "sigmoid"}


def test_signal_to_noise() -> None:
    random = np.random.default_rng(0)
    clean = [{"y": random.normal(size=1000)} for _ in range(4)]
    noisy = [{"y": row["y"] + 0.1 * random.normal(size=1000)} for row in clean]
    assert snr_db(clean, noisy) == pytest.approx(20, abs=0.5)
    assert snr_db(clean, clean) == CEILING_DB
    assert snr_db(clean, [{"y": np.full(1000, np.nan)}] * 4) == FLOOR_DB


def test_outputs_count_alike_whatever_their_scale() -> None:
    random = np.random.default_rng(0)
    small = random.normal(size=500)
    clean = [{"small": small, "large": 1000 * random.normal(size=500)}]
    broken = [{"small": -small, "large": clean[0]["large"]}]
    assert snr_db(clean, broken) < 0
    assert snr_db([{"y": np.ones(3)}], [{"y": np.ones(3)}]) == CEILING_DB


def test_layers_are_ordered_by_what_they_cost(tmp_path: Path) -> None:
    figures = {"stem": 10.0, "a": 30.0, "b": None, "b2": 20.0, "relu": 5.0}

    def alone(layers: Sequence[str]) -> float | None:
        return figures[layers[0]]

    found = measure(network(tmp_path), alone, late=lambda: False, progress=Quiet())
    assert [s.layers[0] for s in found] == ["relu", "stem", "b2", "a", "b"]
    assert found[0] == Sensitivity(("relu", "sigmoid"), 5.0, head=True)
    assert [s.head for s in found] == [True, False, True, True, False]


def test_what_there_is_no_time_for_comes_last(tmp_path: Path) -> None:
    left = iter([False, False, True, True, True])
    found = measure(
        network(tmp_path), lambda layers: 7.0, late=lambda: next(left), progress=Quiet()
    )
    assert [s.snr_db for s in found] == [7.0, 7.0, None, None, None]


def test_each_step_leaves_out_more() -> None:
    found = [Sensitivity((f"n{i}",), float(i), head=False) for i in range(20)]
    found.append(Sensitivity(("unknown",), None, head=False))
    chain = steps(found, 4)
    assert chain[0] == ("n0",)
    assert [len(step) for step in chain] == sorted({len(step) for step in chain})
    assert len(chain[-1]) == 10
    assert all(set(a) < set(b) for a, b in pairwise(chain))
    assert steps(found[:1], 4) == steps([], 4) == []
