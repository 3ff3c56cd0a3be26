"""The requests of `soak.py`: good ones, bad ones, and clients that hang up."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from http_load import encode_request
from open_loop import Shot, times
from servers import MODEL, PHOTO

JPEG = ("Content-Type: image/jpeg",)


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        share: Of all requests.
        data: Its bytes.
        route: What the server's metrics call where it goes.
        statuses: What it may be answered.
        cut: Bytes after which its client hangs up.
        leave_s: How long its client waits before it hangs up.
    """

    share: float
    data: bytes
    route: str
    statuses: frozenset[int] = frozenset({200})
    cut: int | None = None
    leave_s: float | None = None


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG file that announces a picture of this size."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + b"\x08\x02\x00\x00\x00" + b"\x00" * 64


def tensors(url: str, shape: Sequence[int], values: bytes) -> bytes:
    """Return a binary tensor request of the Open Inference Protocol."""
    size = {"binary_data_size": len(values)}
    one = {"name": "images", "datatype": "FP32", "shape": list(shape), "parameters": size}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    return encode_request(url, head + values, ["Content-Type: application/octet-stream", length])


def kinds(base: str, side: int) -> dict[str, Kind]:
    """Return all kinds of HTTP requests."""
    detect, infer = "/v1/detect", "/v2/models/{model}/infer"
    photo = PHOTO.read_bytes()
    row = np.zeros((1, 3, side, side), np.float32).tobytes()
    v2 = f"{base}/v2/models/{MODEL}/infer"

    def image(body: bytes) -> bytes:
        return encode_request(f"{base}{detect}", body, JPEG)

    def bad(data: bytes, *statuses: int, route: str = detect) -> Kind:
        return Kind(0.01 / 7, data, route, frozenset(statuses))

    whole = image(photo)
    return {
        "photo": Kind(0.93, whole, detect),
        "tensors": Kind(0.02, tensors(v2, (1, 3, side, side), row), infer),
        "leaves, uploading": Kind(0.02, whole, detect, cut=len(whole) // 2),
        "leaves, waiting": Kind(0.02, whole, detect, leave_s=0.01),
        "bad: cut off": bad(image(photo[: len(photo) // 2]), 400),
        "bad: text": bad(image(b"This is not an image. " * 50), 415),
        "bad: nothing": bad(image(b""), 400),
        "bad: zeros": bad(image(b"\x00" * 1000), 415, 400),
        "bad: a bomb": bad(image(png_header(60_000, 60_000)), 413, 400, 422),
        "bad: short tensor": bad(tensors(v2, (1, 3, side, side), row[:1000]), 400, route=infer),
        "bad: wrong shape": bad(tensors(v2, (1, 3, 1, 1), row[:12]), 400, 422, route=infer),
    }


def shots(
    chosen: Mapping[str, Kind], rate: float, seconds: float, give_up_s: float
) -> Iterator[Shot]:
    """Yield requests at Poisson times, of random kinds."""
    source = random.Random(1)
    names, shares = list(chosen), [kind.share for kind in chosen.values()]
    for at in times(rate, seconds):
        (name,) = source.choices(names, shares)
        kind = chosen[name]
        leave_s = give_up_s if kind.leave_s is None else kind.leave_s
        yield Shot(at, kind.data, name, kind.cut, leave_s)
