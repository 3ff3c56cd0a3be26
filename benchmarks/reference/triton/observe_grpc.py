"""The gRPC requests that `observe` sends: right ones, and wrong ones of every kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from observe_http import RAW
from tritonclient.grpc import service_pb2 as pb


def message(**fields: Any) -> pb.ModelInferRequest:
    """Return a gRPC request for "fake" with one raw FP32 input, with something changed."""
    one = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    base = {"model_name": "fake", "inputs": [one], "raw_input_contents": [RAW]}
    return pb.ModelInferRequest(**{**base, **fields})


def tensor(**fields: Any) -> pb.ModelInferRequest.InferInputTensor:
    """Return the input "x" of a gRPC request with something changed."""
    return pb.ModelInferRequest.InferInputTensor(
        **{"name": "x", "datatype": "FP32", "shape": [1, 2], **fields}
    )


def contents(**fields: Any) -> pb.InferTensorContents:
    """Return typed contents."""
    return pb.InferTensorContents(**fields)


def parameters(**given: Any) -> dict[str, pb.InferParameter]:
    """Return gRPC parameters by their Python types."""
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return {key: pb.InferParameter(**{kind[type(value)]: value}) for key, value in given.items()}


def grpc_cases() -> Iterable[tuple[str, str, Any]]:
    """Return title, RPC and message."""
    yield "", "ServerMetadata", pb.ServerMetadataRequest()
    yield "", "ModelMetadata", pb.ModelMetadataRequest(name="fake")
    yield "unknown", "ModelMetadata", pb.ModelMetadataRequest(name="nope")
    yield "version", "ModelMetadata", pb.ModelMetadataRequest(name="fake", version="9")
    yield "version", "ModelMetadata", pb.ModelMetadataRequest(name="fake", version="abc")
    yield "no name", "ModelMetadata", pb.ModelMetadataRequest()
    for name, version in (("fake", ""), ("fake", "1"), ("fake", "9"), ("nope", "")):
        yield f"{name} {version}", "ModelReady", pb.ModelReadyRequest(name=name, version=version)
    yield "unknown", "ModelConfig", pb.ModelConfigRequest(name="nope")
    yield "", "ModelStatistics", pb.ModelStatisticsRequest(name="fake")
    yield "unknown", "ModelStatistics", pb.ModelStatisticsRequest(name="nope")
    yield "", "RepositoryIndex", pb.RepositoryIndexRequest()
    yield "ready", "RepositoryIndex", pb.RepositoryIndexRequest(ready=True)
    yield "unknown", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="nope")
    yield "", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="half")
    yield "again", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="half")
    yield "unknown", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nope")
    yield "", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="half")
    yield "", "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()
    yield "", "CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()
    yield "", "TraceSetting", pb.TraceSettingRequest()
    yield "", "LogSettings", pb.LogSettingsRequest()
    asked = pb.ModelInferRequest.InferRequestedOutputTensor
    for title, one in (
        ("raw", message()),
        ("id", message(id="a1")),
        ("version 1", message(model_version="1")),
        (
            "contents",
            message(
                inputs=[tensor(contents=contents(fp32_contents=[1, 2]))], raw_input_contents=[]
            ),
        ),
        ("raw and contents", message(inputs=[tensor(contents=contents(fp32_contents=[1, 2]))])),
        ("no data", message(raw_input_contents=[])),
        ("no inputs", message(inputs=[], raw_input_contents=[])),
        ("raw too short", message(raw_input_contents=[RAW[:4]])),
        ("raw too long", message(raw_input_contents=[RAW * 2])),
        ("two raws, one input", message(raw_input_contents=[RAW, RAW])),
        (
            "contents too short",
            message(inputs=[tensor(contents=contents(fp32_contents=[1]))], raw_input_contents=[]),
        ),
        (
            "contents of another type",
            message(inputs=[tensor(contents=contents(int_contents=[1, 2]))], raw_input_contents=[]),
        ),
        ("wrong datatype", message(inputs=[tensor(datatype="INT32")])),
        ("unknown datatype", message(inputs=[tensor(datatype="FLOAT")])),
        ("wrong shape", message(inputs=[tensor(shape=[1, 3])], raw_input_contents=[RAW + b"1234"])),
        ("wrong rank", message(inputs=[tensor(shape=[2])])),
        ("negative dim", message(inputs=[tensor(shape=[-1, 2])])),
        ("batch too large", message(inputs=[tensor(shape=[33, 2])], raw_input_contents=[RAW * 33])),
        ("batch 0", message(inputs=[tensor(shape=[0, 2])], raw_input_contents=[b""])),
        ("huge shape", message(inputs=[tensor(shape=[2**62, 2])])),
        ("product overflows", message(inputs=[tensor(shape=[2**32, 2**32])])),
        ("unknown input", message(inputs=[tensor(name="y")])),
        ("input twice", message(inputs=[tensor(), tensor()], raw_input_contents=[RAW, RAW])),
        ("requested output", message(outputs=[asked(name="x_out")])),
        ("unknown output", message(outputs=[asked(name="y")])),
        ("output twice", message(outputs=[asked(name="x_out"), asked(name="x_out")])),
        ("unknown model", message(model_name="nope")),
        ("no model", message(model_name="")),
        ("unknown version", message(model_version="9")),
        ("version abc", message(model_version="abc")),
        ("failing model", message(model_name="failing")),
        ("priority 202", message(parameters=parameters(priority=202))),
        ("priority -1", message(parameters=parameters(priority=-1))),
        ("priority uint64", message(parameters={"priority": pb.InferParameter(uint64_param=1)})),
        ("priority a string", message(parameters=parameters(priority="1"))),
        ("timeout -1", message(parameters=parameters(timeout=-1))),
        ("timeout 2**62", message(parameters=parameters(timeout=2**62))),
        ("timeout a string", message(parameters=parameters(timeout="1"))),
        ("unknown parameter", message(parameters=parameters(hello=1.5))),
        ("sequence_id", message(parameters=parameters(sequence_id=5))),
        ("sequence_id a string", message(parameters=parameters(sequence_id="five"))),
        (
            "triton_enable_empty_final_response",
            message(parameters=parameters(triton_enable_empty_final_response=True)),
        ),
        (
            "shared memory",
            message(
                inputs=[
                    tensor(
                        parameters=parameters(shared_memory_region="r", shared_memory_byte_size=8)
                    )
                ],
                raw_input_contents=[],
            ),
        ),
        (
            "classification",
            message(outputs=[asked(name="x_out", parameters=parameters(classification=1))]),
        ),
        (
            "classification 0",
            message(outputs=[asked(name="x_out", parameters=parameters(classification=0))]),
        ),
        (
            "classification -1",
            message(outputs=[asked(name="x_out", parameters=parameters(classification=-1))]),
        ),
        (
            "batch 2 of a model without batching",
            message(
                model_name="fixed", inputs=[tensor(shape=[2, 2])], raw_input_contents=[RAW * 2]
            ),
        ),
    ):
        yield title, "ModelInfer", one
    text = {"name": "text", "datatype": "BYTES", "shape": [2, 1]}
    for title, raw in (
        ("", b"\x01\0\0\0a\0\0\0\0"),
        ("cut short", b"\x09\0\0\0a"),
        ("one of two", b"\x01\0\0\0a"),
    ):
        yield (
            f"BYTES {title}",
            "ModelInfer",
            message(model_name="text", inputs=[tensor(**text)], raw_input_contents=[raw]),
        )
    typed = tensor(**text, contents=contents(bytes_contents=[b"a", b"\xff"]))
    yield (
        "BYTES contents",
        "ModelInfer",
        message(model_name="text", inputs=[typed], raw_input_contents=[]),
    )
