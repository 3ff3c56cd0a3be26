"""Runs MediaPipe's own inference on the integer pattern and keeps a sample of every output.

MediaPipe has the custom operators of its models; LiteRT alone has not. See README.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mediapipe as mp
import numpy as np
from google.protobuf import text_format
from mediapipe.calculators.core import split_vector_calculator_pb2  # noqa: F401
from mediapipe.calculators.tensor import (  # noqa: F401
    image_to_tensor_calculator_pb2,
    inference_calculator_pb2,
)
from mediapipe.framework import calculator_pb2
from mediapipe.python import packet_creator, packet_getter
from mediapipe.python._framework_bindings import calculator_graph, resource_util
from patterns import pattern

MOST = 1500
"""Numbers that are kept of an output, evenly spaced."""


@dataclass(frozen=True)
class Case:
    """A model's file below ``mediapipe/modules``, its input, and its outputs in order."""

    path: str
    width: int
    height: int
    low: float
    outputs: tuple[str, ...]


CASES = {
    "blazeface-short-range": Case(
        "face_detection/face_detection_short_range.tflite",
        128,
        128,
        -1.0,
        ("regressors", "classificators"),
    ),
    "blazeface-full-range": Case(
        "face_detection/face_detection_full_range_sparse.tflite",
        192,
        192,
        -1.0,
        ("Identity", "Identity_1"),
    ),
    "face-mesh": Case(
        "face_landmark/face_landmark.tflite", 192, 192, 0.0, ("conv2d_21", "conv2d_31")
    ),
    "face-mesh-attention": Case(
        "face_landmark/face_landmark_with_attention.tflite",
        192,
        192,
        0.0,
        (
            "output_mesh_identity",
            "output_lips",
            "output_left_eye",
            "output_right_eye",
            "output_left_iris",
            "output_right_iris",
            "conv_faceflag",
        ),
    ),
    "selfie-segmentation": Case(
        "selfie_segmentation/selfie_segmentation.tflite", 256, 256, 0.0, ("activation_10",)
    ),
    "selfie-segmentation-landscape": Case(
        "selfie_segmentation/selfie_segmentation_landscape.tflite",
        256,
        144,
        0.0,
        ("segment_back",),
    ),
}

GRAPH = """
input_stream: "image"
node {{
  calculator: "ImageToTensorCalculator"
  input_stream: "IMAGE:image"
  output_stream: "TENSORS:input"
  options {{ [mediapipe.ImageToTensorCalculatorOptions.ext] {{
    output_tensor_width: {case.width}
    output_tensor_height: {case.height}
    output_tensor_float_range {{ min: {case.low} max: 1.0 }}
  }} }}
}}
node {{
  calculator: "TfLiteCustomOpResolverCalculator"
  output_side_packet: "OP_RESOLVER:operators"
}}
node {{
  calculator: "InferenceCalculator"
  input_side_packet: "OP_RESOLVER:operators"
  input_stream: "TENSORS:input"
  output_stream: "TENSORS:outputs"
  options {{ [mediapipe.InferenceCalculatorOptions.ext] {{
    model_path: "mediapipe/modules/{case.path}"
    delegate {{ xnnpack {{}} }}
  }} }}
}}
"""
SPLIT = """
node {{
  calculator: "SplitTensorVectorCalculator"
  input_stream: "outputs"
  {streams}
  options {{ [mediapipe.SplitVectorCalculatorOptions.ext] {{ {ranges} }} }}
}}
"""
FLOATS = """
node {{
  calculator: "TensorsToFloatsCalculator"
  input_stream: "TENSORS:{name}"
  output_stream: "FLOATS:floats_{name}"
}}
"""


def run(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """Return every output of a model, flat."""
    names = [f"part{index}" for index in range(len(case.outputs))]
    text = GRAPH.format(case=case)
    text += SPLIT.format(
        streams=" ".join(f'output_stream: "{name}"' for name in names),
        ranges=" ".join(f"ranges: {{ begin: {i} end: {i + 1} }}" for i in range(len(names))),
    )
    text += "".join(FLOATS.format(name=name) for name in names)
    config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
    graph = calculator_graph.CalculatorGraph(graph_config=config)
    found: dict[str, np.ndarray[Any, Any]] = {}

    def keep(stream: str, packet: Any) -> None:
        found[stream] = np.array(packet_getter.get_float_list(packet), np.float32)

    for name in names:
        graph.observe_output_stream(f"floats_{name}", keep)
    graph.start_run()
    image = packet_creator.create_image_frame(
        data=pattern(case.height, case.width), image_format=mp.ImageFormat.SRGB
    )
    graph.add_packet_to_input_stream("image", image.at(0))
    graph.close_all_packet_sources()
    graph.wait_until_done()
    return {o: found[f"floats_{n}"] for o, n in zip(case.outputs, names, strict=True)}


def main(output: Path) -> None:
    """Write the fixture."""
    resource_util.set_resource_dir(str(Path(mp.__file__).parents[1]))
    golden = {}
    for model, case in CASES.items():
        for name, values in run(case).items():
            golden[f"{model}/{name}"] = values[:: 1 + len(values) // MOST]
            print(model, name, values.shape, float(np.abs(values).max()))
    np.savez_compressed(output, **golden)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
