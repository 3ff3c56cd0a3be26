"""The gRPC messages: descriptors like the public protocol's, tensors there and back, refusals."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import grpc_tools
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import model_config_pb2, service_pb2

from retinue.core.errors import InvalidRequest, InvalidTensor
from retinue.core.statistics import BatchTotal, Statistics, Total
from retinue.core.types import Array
from retinue.host.oip import messages
from retinue.host.oip.inference import ModelStatistics, Response
from retinue.host.oip.tensors import DATATYPES, datatype, objects, to_binary

PROTOS = resources.files("retinue.host.oip") / "protos"
TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _all_messages(file: str) -> list[Descriptor]:
    found: list[Descriptor] = []
    todo = list(messages.POOL.FindFileByName(file).message_types_by_name.values())
    while todo:
        one = todo.pop()
        found.append(one)
        todo += one.nested_types
    return found


def _theirs(name: str) -> Descriptor:
    outer, *inner = name.removeprefix("inference.").split(".")
    module = service_pb2 if hasattr(service_pb2, outer) else model_config_pb2
    found: Descriptor = getattr(module, outer).DESCRIPTOR
    for one in inner:
        found = found.nested_types_by_name[one]
    return found


def _kind(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    group = field.containing_oneof
    return (
        field.number,
        field.type,
        field.is_repeated,
        kind.full_name if kind else None,
        group.name if group else None,
    )


def test_the_shipped_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    compiled = tmp_path / "set"
    folder = Path(str(PROTOS))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(one.name for one in folder.glob("*.proto"))
    arguments = [f"-I{folder}", f"-I{well_known}", "--include_imports"]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={compiled}", *files]) == 0
    made = FileDescriptorSet.FromString(compiled.read_bytes())
    shipped = FileDescriptorSet.FromString((PROTOS / "inference.binpb").read_bytes())
    assert {one.name: one for one in made.file} == {one.name: one for one in shipped.file}


@pytest.mark.parametrize("file", ["grpc_service.proto", "model_config.proto"])
def test_every_field_is_that_of_tritons_client(file: str) -> None:
    for ours in _all_messages(file):
        theirs = _theirs(ours.full_name)
        for field in ours.fields:
            assert _kind(field) == _kind(theirs.fields_by_name[field.name]), field.full_name
        for kind in ours.enum_types:
            their_kind = theirs.enum_types_by_name[kind.name]
            assert {v.name: v.number for v in kind.values} == {
                v.name: v.number for v in their_kind.values
            }


def test_every_enum_and_method_is_that_of_tritons_client() -> None:
    ours = messages.POOL.FindEnumTypeByName("inference.DataType")
    assert {v.name: v.number for v in ours.values} == dict(model_config_pb2.DataType.items())
    service = messages.POOL.FindServiceByName("inference.GRPCInferenceService")
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in service.methods:
        known = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == known.input_type.full_name
        assert method.output_type.full_name == known.output_type.full_name
        assert method.client_streaming == known.client_streaming


def _request(**fields: Any) -> Any:
    return messages.new("ModelInferRequest", model_name="m", **fields)


def _tensor(kind: str = "FP32", shape: tuple[int, ...] = (1, 2), **more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": kind, "shape": shape, **more}


def _arrays(kind: str, data: st.DataObject) -> Array:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if kind == "BYTES":
        values = data.draw(
            st.lists(
                st.binary(max_size=5), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
            )
        )
        return objects(values, shape)
    return data.draw(hnp.arrays(DATATYPES[kind], shape))


@given(st.sampled_from(sorted(DATATYPES)), st.data())
def test_every_datatype_survives_both_ways(kind: str, data: st.DataObject) -> None:
    array = _arrays(kind, data)
    raw = _request(inputs=[_tensor(kind, array.shape)], raw_input_contents=[to_binary(array)])
    wire = raw.SerializeToString()
    found = messages.infer_request(messages.parse("ModelInferRequest", wire))
    assert found.inputs[0].shape == array.shape
    np.testing.assert_array_equal(found.inputs[0].data, array)
    if kind in TYPED:
        contents = {TYPED[kind]: array.reshape(-1).tolist()}
        typed = _request(inputs=[_tensor(kind, array.shape, contents=contents)])
        np.testing.assert_array_equal(messages.infer_request(typed).inputs[0].data, array)
    response = Response("m", "1", "id", {"y": array, "z": array.T})
    answer = service_pb2.ModelInferResponse.FromString(messages.infer_response(response))
    assert [tuple(one.shape) for one in answer.outputs] == [array.shape, array.T.shape]
    assert [one.datatype for one in answer.outputs] == [kind, kind]
    assert list(answer.raw_output_contents) == [to_binary(array), to_binary(array.T)]
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "id")
    streamed = service_pb2.ModelStreamInferResponse.FromString(messages.stream_response(response))
    assert streamed.infer_response.parameters["triton_final_response"].bool_param
    del streamed.infer_response.parameters["triton_final_response"]
    assert streamed.infer_response == answer


def test_parameters_and_outputs_arrive() -> None:
    request = _request(
        model_version="v",
        id="7",
        parameters={
            "timeout": {"int64_param": 5},
            "priority": {"uint64_param": 2},
            "a": {"bool_param": True},
            "b": {"string_param": "s"},
            "c": {"double_param": 0.5},
        },
        outputs=[
            {"name": "y", "parameters": {"classification": {"int64_param": 3}}},
            {"name": "z"},
        ],
    )
    found = messages.infer_request(request, "me", 12.5)
    assert found.parameters == {"timeout": 5, "priority": 2, "a": True, "b": "s", "c": 0.5}
    assert (found.outputs, found.classification) == (("y", "z"), {"y": 3})
    assert (found.model, found.version, found.id) == ("m", "v", "7")
    assert (found.client, found.deadline) == ("me", 12.5)


EIGHT = b"\0" * 8
SHARED = {"shared_memory_region": {"string_param": "r"}}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"inputs": [_tensor()], "raw_input_contents": [EIGHT, EIGHT]}, "2 elements for 1 inputs"),
        ({"inputs": [], "raw_input_contents": [EIGHT]}, "1 elements for 0 inputs"),
        (
            {
                "inputs": [_tensor(contents={"fp32_contents": [1, 2]})],
                "raw_input_contents": [EIGHT],
            },
            "not both",
        ),
        ({"inputs": [_tensor()], "raw_input_contents": [EIGHT[:7]]}, "takes 8 bytes"),
        ({"inputs": [_tensor()]}, "there are 0"),
        ({"inputs": [_tensor(contents={"fp32_contents": [1, 2, 3]})]}, "there are 3"),
        ({"inputs": [_tensor(contents={"fp64_contents": [1, 2]})]}, "belongs into fp32_contents"),
        ({"inputs": [_tensor("FP16", contents={"fp32_contents": [1, 2]})]}, "raw_input_contents"),
        ({"inputs": [_tensor("INT8", contents={"int_contents": [1, 200]})]}, "range of INT8"),
        ({"inputs": [_tensor("UINT8", contents={"uint_contents": [1, 256]})]}, "range of UINT8"),
        ({"inputs": [_tensor("BF16")], "raw_input_contents": [EIGHT]}, "BF16"),
        ({"inputs": [_tensor("")], "raw_input_contents": [EIGHT]}, "datatype"),
        ({"inputs": [_tensor(shape=(-1, 2))], "raw_input_contents": [EIGHT]}, "0 or more"),
        ({"inputs": [_tensor(shape=(2**62, 2))], "raw_input_contents": [EIGHT]}, "more elements"),
        ({"inputs": [_tensor(shape=(1,) * 33)], "raw_input_contents": [EIGHT]}, "dimensions"),
        (
            {"inputs": [_tensor("BYTES")], "raw_input_contents": [b"\xff\xff\xff\xff" + EIGHT]},
            "BYTES",
        ),
    ],
)
def test_tensors_that_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidTensor, match=text):
        messages.infer_request(_request(**fields))


@pytest.mark.parametrize("field", ["inputs", "outputs", "parameters", "raw_input_contents"])
def test_very_many_fields_are_refused_before_they_take_memory(field: str) -> None:
    number = _request().DESCRIPTOR.fields_by_name[field].number
    one = bytes([number << 3 | 2, 0])
    assert messages.parse("ModelInferRequest", one * messages.MAX_FIELDS)
    with pytest.raises(InvalidRequest, match="more than 4096 fields"):
        messages.parse("ModelInferRequest", one * (messages.MAX_FIELDS + 1))


@pytest.mark.parametrize(
    "unknown",
    [
        b"\xf8\x07\x96\x01",
        b"\xf9\x07" + b"\xff" * 8,
        b"\xfa\x07\x82\x01" + b"\xff" * 130,
        b"\xfb\x07\x08\x01\xfc\x07",
        b"\xfd\x07" + b"\xff" * 4,
    ],
    ids=["varint", "64 bits", "length", "group", "32 bits"],
)
def test_fields_are_counted_behind_those_of_every_wire_type(unknown: bytes) -> None:
    one = b"\x2a\0"
    assert len(messages.parse("ModelInferRequest", unknown + one * 9).inputs) == 9
    with pytest.raises(InvalidRequest, match="more than 4096 fields"):
        messages.parse("ModelInferRequest", unknown + one * messages.MAX_FIELDS)


def test_what_is_read_element_by_element_is_known() -> None:
    eight = {"raw_input_contents": [EIGHT]}
    assert not messages.is_slow(_request(inputs=[_tensor()], **eight))
    assert messages.is_slow(_request(inputs=[_tensor(), _tensor("BYTES")], **eight))
    contents = {"fp32_contents": [1.0, 2.0]}
    assert messages.is_slow(_request(inputs=[_tensor(contents=contents)]))


def test_many_parameters_of_a_tensor_are_refused() -> None:
    many = {str(i): {"int64_param": i} for i in range(messages.MAX_FIELDS + 1)}
    with pytest.raises(InvalidRequest, match="more than 4096 parameters"):
        messages.infer_request(_request(outputs=[{"name": "y", "parameters": many}]))


def test_many_typed_elements_are_refused() -> None:
    count = messages.MAX_TYPED_ELEMENTS + 1
    tensor = _tensor("BOOL", (count,), contents={"bool_contents": [True] * count})
    with pytest.raises(InvalidTensor, match="send raw_input_contents"):
        messages.infer_request(_request(inputs=[tensor]))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"parameters": {"timeout": {}}}, "'timeout' has no value"),
        ({"inputs": [_tensor(parameters=SHARED)]}, "shared memory"),
        ({"outputs": [{"name": "y", "parameters": SHARED}]}, "shared memory"),
        (
            {"outputs": [{"name": "y", "parameters": {"classification": {"int64_param": 0}}}]},
            "1 or more",
        ),
        (
            {"outputs": [{"name": "y", "parameters": {"classification": {"string_param": "3"}}}]},
            "whole number",
        ),
    ],
)
def test_parameters_that_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        messages.infer_request(_request(**fields))


@pytest.mark.parametrize("raw", [b"\x0a", b"\xff" * 20, b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no ModelInferRequest message"):
        messages.parse("ModelInferRequest", raw)


def test_statistics_arrive_in_their_fields() -> None:
    done = Statistics(
        inference_count=5,
        execution_count=2,
        last_inference_ms=99,
        success=Total(3, 30),
        cache_miss=Total(1, 7),
        batches={4: BatchTotal(compute_infer=Total(1, 8)), 1: BatchTotal()},
    )
    answer = messages.statistics([ModelStatistics("m", "1", done)]).model_stats[0]
    assert (answer.inference_count, answer.execution_count, answer.last_inference) == (5, 2, 99)
    assert (answer.inference_stats.success.count, answer.inference_stats.success.ns) == (3, 30)
    assert answer.inference_stats.cache_miss.ns == 7
    assert [one.batch_size for one in answer.batch_stats] == [1, 4]
    assert answer.batch_stats[1].compute_infer.ns == 8


def test_errors_of_a_stream_name_their_request() -> None:
    raw = messages.stream_error("no such model", "7")
    answer = service_pb2.ModelStreamInferResponse.FromString(raw)
    assert (answer.error_message, answer.infer_response.id) == ("no such model", "7")


def test_every_datatype_has_its_name() -> None:
    assert {datatype(dtype.name) for dtype in DATATYPES.values()} == set(DATATYPES)
