"""`retinue up` with the real models: answers, bad input, /v2, keys; alive after all of it."""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import skimage
from PIL import Image
from tests.e2e import conftest

from retinue.host.access import digest, new_key

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

PHOTO = Path(skimage.__file__).parent / "data" / "motorcycle_left.png"
MODEL = "nanodet-g-416"


def _encoded(kind: str, **more: Any) -> bytes:
    with Image.open(PHOTO) as photo:
        mode = more.pop("mode", "RGB")
        buffer = io.BytesIO()
        photo.convert(mode).save(buffer, kind, **more)
        return buffer.getvalue()


def _png_16_bit() -> bytes:
    with Image.open(PHOTO) as photo:
        grey = np.asarray(photo.convert("L"), np.uint16) * 257
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def _animated_gif() -> bytes:
    with Image.open(PHOTO) as photo:
        frames = [photo.convert("P"), photo.convert("L").convert("P")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


def _png_bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(autouse=True)
def alive_afterwards(server: Program) -> Iterator[None]:
    yield
    assert server.is_alive()


def _names(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {detection["class"] for detection in answer.json()["detections"]}


def test_a_photo_is_answered_with_boxes_in_its_own_pixels(server: Program) -> None:
    answer = server.post("/v1/detect", content=PHOTO.read_bytes(), params={"conf": 0.3})
    assert "motorcycle" in _names(answer)
    body = answer.json()
    assert (body["width"], body["height"]) == (741, 500)
    assert body["model"] == MODEL
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["retinue-recorded"] == "true"
    assert {"decode", "preprocess", "run", "postprocess", "total"} <= set(body["timings_ms"])
    best = body["detections"][0]
    assert best["class"] == "motorcycle"
    x1, y1, x2, y2 = best["box"]
    assert 0 <= x1 < x2 <= 741
    assert 0 <= y1 < y2 <= 500
    assert (x2 - x1) * (y2 - y1) > 0.3 * 741 * 500


def test_a_form_gives_the_same_answer_and_keeps_the_name(server: Program) -> None:
    data = PHOTO.read_bytes()
    raw = server.post("/v1/detect", content=data).json()
    form = server.post("/v1/detect", files={"file": ("moto.png", data, "image/png")}).json()
    assert form["path"] == "moto.png"
    assert form["detections"] == raw["detections"]


@pytest.mark.parametrize(
    "data",
    [
        _encoded("JPEG"),
        _encoded("JPEG", mode="CMYK"),
        _encoded("JPEG", mode="L"),
        _encoded("WEBP"),
        _encoded("BMP"),
        _encoded("PNG", mode="RGBA"),
        _png_16_bit(),
        _animated_gif(),
    ],
    ids=["jpeg", "cmyk", "grey", "webp", "bmp", "alpha", "16 bit", "animated gif"],
)
def test_every_kind_of_photo_is_read(server: Program, data: bytes) -> None:
    assert "motorcycle" in _names(server.post("/v1/detect", content=data, params={"conf": 0.2}))


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_input"),
        (_encoded("JPEG")[:20_000], 400, "corrupt_media"),
        (b"this is not a photo\n" * 50, 415, "unsupported_media"),
        (b"\0" * 1000, 415, "unsupported_media"),
        (_png_bomb(), 413, "too_many_pixels"),
        (b"x" * 100_000_000, 413, "too_many_bytes"),
    ],
    ids=["empty", "truncated", "text", "zeros", "bomb", "100 MB"],
)
def test_bad_photos(server: Program, data: bytes, status: int, code: str) -> None:
    before = server.rss_bytes
    files = {"file": ("photo.jpg", data, "image/jpeg")}
    for answer in (server.post("/v1/detect", content=data), server.post("/v1/detect", files=files)):
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"]
    assert server.rss_bytes - before < 150e6


def test_bad_requests(server: Program) -> None:
    data = PHOTO.read_bytes()

    def code(answer: httpx.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["error"]["code"]

    post = server.post
    assert code(post("/v1/detect?model=nope", content=data)) == (404, "model_not_found")
    assert code(post("/v1/detect?conf=2", content=data)) == (400, "invalid_request")
    assert code(post("/v1/detect?priority=1.5", content=data)) == (400, "invalid_request")
    assert code(post("/v1/detect?konf=0.2", content=data)) == (400, "invalid_request")
    assert code(server.get("/v1/detect")) == (405, "invalid_request")
    garbage = {"content-type": "multipart/form-data; boundary=x"}
    assert code(post("/v1/detect", content=data, headers=garbage)) == (400, "invalid_request")
    late = code(post("/v1/detect?deadline_ms=0.001", content=data))
    assert late == (504, "deadline_exceeded")


def test_32_at_once_each_get_their_own_answer(server: Program) -> None:
    with Image.open(PHOTO) as photo:
        sizes = [(640 + 8 * i, 480) for i in range(32)]
        bodies = []
        for size in sizes:
            buffer = io.BytesIO()
            photo.resize(size).save(buffer, "JPEG")
            bodies.append(buffer.getvalue())
    answers: dict[int, httpx.Response] = {}

    def ask(i: int) -> None:
        answers[i] = server.post("/v1/detect", content=bodies[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, size in enumerate(sizes):
        body = answers[i].json()
        assert (body["width"], body["height"]) == size


def _tensor(**change: Any) -> dict[str, Any]:
    size = 3 * 416 * 416 * 4
    tensor = {
        "name": "images",
        "datatype": "FP32",
        "shape": [1, 3, 416, 416],
        "parameters": {"binary_data_size": size},
        **change,
    }
    return {key: value for key, value in tensor.items() if value is not None}


def _infer(server: Program, tensor: dict[str, Any], data: bytes, **more: Any) -> httpx.Response:
    head = json.dumps({"id": "a", "inputs": [tensor], **more}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return server.post(f"/v2/models/{MODEL}/infer", content=head + data, headers=headers)


def test_v2_metadata_and_inference(server: Program) -> None:
    model = server.get(f"/v2/models/{MODEL}").json()
    name = model["inputs"][0]["name"]
    array = np.random.default_rng(0).normal(size=(1, 3, 416, 416)).astype(np.float32)
    output = model["outputs"][2]
    more = {"outputs": [{"name": output["name"], "parameters": {"binary_data": True}}]}
    answer = _infer(server, _tensor(name=name), array.tobytes(), **more)
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.content[:size])
    assert head["id"] == "a"
    assert head["model_version"] == model["versions"][0]
    assert [entry["name"] for entry in head["outputs"]] == [output["name"]]
    shape = head["outputs"][0]["shape"]
    binary = np.frombuffer(answer.content[size:], np.float32).reshape(shape)
    assert np.isfinite(binary).all()
    as_json = {"inputs": [_tensor(name=name, parameters=None, data=array.tolist())]}
    text = server.post(f"/v2/models/{MODEL}/versions/{model['versions'][0]}/infer", json=as_json)
    assert text.status_code == 200, text.text
    found = next(entry for entry in text.json()["outputs"] if entry["name"] == output["name"])
    np.testing.assert_allclose(np.reshape(found["data"], shape), binary, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"shape": [1, 3, 416, 415]}, 3 * 416 * 415 * 4),
        ({"shape": [3, 416, 416]}, None),
        ({"datatype": "FP16"}, None),
        ({"datatype": "INT8"}, None),
        ({"name": "other"}, None),
        ({}, 17),
        ({"shape": [0, 3, 416, 416], "parameters": {"binary_data_size": 0}}, 0),
    ],
)
def test_v2_refuses_wrong_tensors(
    server: Program, change: dict[str, Any], size: int | None
) -> None:
    data = b"\0" * (3 * 416 * 416 * 4 if size is None else size)
    answer = _infer(server, _tensor(**change), data)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]


def test_v2_unknown_model(server: Program) -> None:
    for path in ("/v2/models/nope", "/v2/models/nope/ready", f"/v2/models/{MODEL}/versions/0"):
        answer = server.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]


def test_other_sites_and_rebound_names_are_refused(server: Program) -> None:
    data = PHOTO.read_bytes()
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        answer = server.post("/v1/detect", content=data, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"


def test_health_metrics_and_documents(server: Program) -> None:
    server.post("/v1/detect", content=PHOTO.read_bytes())
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json() == {"status": "ok"}
    metrics = server.get("/metrics").text
    assert 'route="/v1/detect"' in metrics
    assert MODEL in metrics
    assert server.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert server.get("/docs").status_code == 200
    assert server.get("/v1/status").json()["models"][0]["name"] == MODEL


def test_memory_stays_under_400_mb(server: Program) -> None:
    for _ in range(10):
        server.post("/v1/detect", content=PHOTO.read_bytes())
    assert server.rss_bytes < 400e6


def test_keys_over_a_settings_file(model_cache_dir: Path, tmp_path: Path) -> None:
    key = new_key()
    settings = tmp_path / "retinue.toml"
    settings.write_text(f'[server]\nhost = "0.0.0.0"\napi_keys = ["{digest(key)}"]\n')
    program = conftest.start(
        ["-m", "retinue", "up", "--port", "0", "--config", str(settings)],
        tmp_path / "log",
        RETINUE_HOME=str(tmp_path / "home"),
        RETINUE_CACHE=str(model_cache_dir),
    )
    try:
        data = PHOTO.read_bytes()
        assert program.post("/v1/detect", content=data).status_code == 401
        wrong = {"authorization": f"Bearer {new_key()}"}
        assert program.post("/v1/detect", content=data, headers=wrong).status_code == 401
        right = {"authorization": f"Bearer {key}"}
        assert program.post("/v1/detect", content=data, headers=right).status_code == 200
        assert program.get("/readyz").status_code == 200
        assert program.stop() == 0
        assert key not in program.log.read_text()
    finally:
        conftest.end(program)
