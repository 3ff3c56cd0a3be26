"""The remote runtime: addresses, keys, connections, what a server may answer."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinue.core.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidTensor,
    ModelNotFound,
    ModelRunFailed,
    RetinueError,
    Unavailable,
    UnsupportedModel,
)
from retinue.core.settings import Server, Settings, load_settings
from retinue.core.types import TensorSpec
from retinue.host.access import digest, new_key
from retinue.runtimes import _remote
from retinue.runtimes._remote import API_KEY, parse
from retinue.runtimes.triton import TritonRuntime
from retinue.testing import onnx_models, remote, web
from retinue.testing.web import Answer

METADATA = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
}
X = {"x": np.array([[1, 2], [3, 4]], np.float32)}
PATH = "/v2/models/m"


def binary(values: list[int], **changes: object) -> Answer:
    """Return a server's answer of one output ``y``, INT64, with what is changed of it."""
    data = np.array(values, "<i8").tobytes()
    output = {
        "name": "y",
        "datatype": "INT64",
        "shape": [len(values)],
        "parameters": {"binary_data_size": len(data)},
        **changes,
    }
    head = json.dumps({"outputs": [output]}).encode()
    return Answer(head + data, headers={"Inference-Header-Content-Length": str(len(head))})


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serve() as found:
        found.pages[PATH] = json.dumps(METADATA).encode()
        found.pages[f"{PATH}/infer"] = binary([5, 6])
        yield found


@pytest.fixture
def connect(site: web.Site) -> Iterator[Callable[..., TritonRuntime]]:
    made: list[TritonRuntime] = []

    def make(query: str = "", **options: str) -> TritonRuntime:
        made.append(TritonRuntime(Path("x"), device=f"{site.url}/m{query}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


@pytest.mark.parametrize(
    ("url", "server", "path", "timeout_s"),
    [
        ("triton://gpu", "http://gpu:8000", "/v2/models/local", 60),
        ("http://gpu:81/", "http://gpu:81", "/v2/models/local", 60),
        ("https://gpu/other", "https://gpu:443", "/v2/models/other", 60),
        ("http://[::1]:9/a%20b/7", "http://[::1]:9", "/v2/models/a%20b/versions/7", 60),
        ("http://gpu/m?timeout_s=2.5", "http://gpu:80", "/v2/models/m", 2.5),
    ],
)
def test_addresses(url: str, server: str, path: str, timeout_s: float) -> None:
    address = parse(url, "local")
    assert (address.server, address.path, address.timeout_s) == (server, path, timeout_s)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "needs the server's address"),
        ("gpu:8000", "is no address of a model"),
        ("ftp://gpu/m", "is no address of a model"),
        ("http:///m", "is no address of a model"),
        ("http://gpu/m/1/2", "is no address of a model"),
        ("http://gpu/m?wait=3", "is no address of a model"),
        ("http://gpu:99999/m", "Port out of range"),
        ("http://gpu/m?timeout_s=long", "is no address"),
        ("http://gpu/m?timeout_s=nan", "timeout_s must be above 0"),
        ("http://gpu/m?timeout_s=4000", "timeout_s must be above 0"),
        ("grpc://gpu:8001", "give the server's HTTP port"),
        ("http://user:hunter2@gpu/m", "set the variable RETINUE_TRITON_API_KEY"),
    ],
)
def test_wrong_addresses_are_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        TritonRuntime(Path("x"), device=url, name="m")
    assert "hunter2" not in caught.value.message


def test_a_run_is_one_request_of_raw_tensors(
    site: web.Site, connect: Callable[..., TritonRuntime]
) -> None:
    runtime = connect()
    assert runtime.inputs == (TensorSpec("x", "float32", (-1, 2)),)
    assert runtime.outputs == (TensorSpec("y", "int64", (-1,)),)
    values = runtime.run(X)["y"]
    np.testing.assert_array_equal(values, [5, 6])
    assert values.flags.writeable
    assert values.flags.aligned
    request = site.requests[-1]
    size = int(request.headers["inference-header-content-length"])
    assert request.body[size:] == X["x"].tobytes()
    assert json.loads(request.body[:size])["inputs"][0]["shape"] == [2, 2]
    assert "authorization" not in request.headers


def test_answers_in_json_are_read_too(
    site: web.Site, connect: Callable[..., TritonRuntime]
) -> None:
    output = {"name": "y", "datatype": "INT64", "shape": [3], "data": [7, 8, 9]}
    site.pages[f"{PATH}/infer"] = json.dumps({"outputs": [output]}).encode()
    np.testing.assert_array_equal(connect().run(X)["y"], [7, 8, 9])


def test_a_key_is_asked_for_by_name_and_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    with remote.serving(Settings(server=Server(api_keys=(digest(key),)))) as host:
        path = onnx_models.aliases(tmp_path / "m.onnx")
        with pytest.raises(ConfigError, match="set the variable RETINUE_TRITON_API_KEY"):
            host.connect(path)
        monkeypatch.setenv(API_KEY, key)
        load_settings()  # the variable is none of the settings, and not refused as a wrong one
        with closing(host.connect(path)) as runtime:
            assert runtime.run({"x": np.ones((1, 3), np.float32)})["doubled"][0, 0] == 2
        monkeypatch.setenv(API_KEY, "a key\nX-Other: header")
        with pytest.raises(ConfigError, match="characters that no key has"):
            host.connect(path)


def test_a_connection_that_the_server_dropped_is_opened_anew(
    site: web.Site, connect: Callable[..., TritonRuntime]
) -> None:
    runtime = connect()
    answer = binary([5, 6])
    site.pages[f"{PATH}/infer"] = Answer(answer.body, 200, answer.headers, cut=len(answer.body))
    for _ in range(3):
        assert list(runtime.run(X)["y"]) == [5, 6]
    assert len(site.requests) == 4


def test_half_an_answer_is_unavailable(
    site: web.Site, connect: Callable[..., TritonRuntime]
) -> None:
    runtime = connect()
    answer = binary([5, 6])
    site.pages[f"{PATH}/infer"] = Answer(answer.body, 200, answer.headers, cut=20)
    with pytest.raises(Unavailable, match="cannot reach"):
        runtime.run(X)
    site.pages[f"{PATH}/infer"] = answer
    assert list(runtime.run(X)["y"]) == [5, 6]


def test_a_silent_server_is_unavailable(
    site: web.Site, connect: Callable[..., TritonRuntime]
) -> None:
    runtime = connect("?timeout_s=0.2")
    hold = threading.Event()
    site.pages[f"{PATH}/infer"] = Answer(b"late", cut=2, hold=hold)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        runtime.run(X)
    hold.set()


def test_a_server_that_is_away_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match="is it up, and the address right"):
        TritonRuntime(Path("x"), device=f"http://127.0.0.1:{port}/m")
    with pytest.raises(Unavailable, match="cannot reach"):
        TritonRuntime(Path("x"), device="http://a..b/m")


def test_another_protocol_s_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as one:
                one.recv(1000)
                one.sendall(b"\0\0\x06\4\0\0\0\0\0\0\5\0\0@\0")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable, match=r"does not speak HTTP \(gRPC has a port"):
            TritonRuntime(Path("x"), device=f"http://127.0.0.1:{listener.getsockname()[1]}/m")
        thread.join()


def test_an_answer_may_not_be_boundless(
    site: web.Site, connect: Callable[..., TritonRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = connect()
    monkeypatch.setattr(_remote, "MAX_ANSWER", 50)
    with pytest.raises(Unavailable, match="over 50"):
        runtime.run(X)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidTensor),
        (404, ModelNotFound),
        (413, ModelRunFailed),
        (429, Unavailable),
        (500, ModelRunFailed),
        (503, Unavailable),
        (504, DeadlineExceeded),
    ],
)
def test_refusals_keep_the_server_s_words(
    site: web.Site, connect: Callable[..., TritonRuntime], status: int, kind: type[RetinueError]
) -> None:
    runtime = connect()
    site.pages[f"{PATH}/infer"] = Answer(b'{"error": "no\\nsuch luck"}', status)
    with pytest.raises(kind, match=rf"model 'm' at .*: no such luck \(HTTP {status}\)") as caught:
        runtime.run(X)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (Answer(b'{"error": "?"}', 404), ModelNotFound),
        (Answer(b'{"error": "?"}', 400), ModelNotFound),
        (Answer(b"", 503), Unavailable),
        (Answer(b"<html>hello</html>"), ConfigError),
        (Answer(b'{"inputs": [], "outputs": [{"name": 3}]}'), ConfigError),
        (Answer(json.dumps(METADATA).replace("FP32", "BYTES").encode()), UnsupportedModel),
    ],
)
def test_no_such_model_there(
    site: web.Site, connect: Callable[..., TritonRuntime], page: Answer, kind: type[RetinueError]
) -> None:
    site.pages[PATH] = page
    with pytest.raises(kind):
        connect()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b""),
        Answer(b"[]"),
        Answer(b'{"outputs": []}'),
        binary([1, 2], shape=[3]),
        binary([1, 2], shape=[-1, -2]),
        binary([1, 2], shape=[2**62, 2**62]),
        binary([1, 2], datatype="FP64"),
        binary([1, 2], datatype="BYTES"),
        binary([1, 2], parameters={"binary_data_size": 99}),
        binary([1, 2], name="z"),
        binary([], data=[1, "x"], shape=[2]),
        binary([], data=[[1], [2, 3]], shape=[3]),
    ],
)
def test_nonsense_is_a_failed_run(
    site: web.Site, connect: Callable[..., TritonRuntime], answer: Answer
) -> None:
    runtime = connect()
    site.pages[f"{PATH}/infer"] = answer
    with pytest.raises(ModelRunFailed, match="answered nonsense"):
        runtime.run(X)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["outputs", "name", "datatype", "shape", "data", "parameters"]), inner
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    _JSON.map(lambda value: json.dumps({"outputs": [{"name": "y", "data": value}]}).encode())
    | st.binary(max_size=60),
    st.integers(-1, 80),
)
def test_no_answer_does_harm(
    site: web.Site, connect: Callable[..., TritonRuntime], body: bytes, head: int
) -> None:
    runtime = connect()
    with closing(runtime):
        headers = {"Inference-Header-Content-Length": str(head)}
        site.pages[f"{PATH}/infer"] = Answer(body, headers=headers)
        with pytest.raises(ModelRunFailed):
            runtime.run(X)
