"""The bytes of a glTF file: its container, buffers, accessors and pictures, within limits."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from retinue.apps.ar.gltf.document import KNOWN, Accessor, Document
from retinue.core.errors import FilterInvalid, InputError, storage_errors
from retinue.core.settings import Limits, explain
from retinue.media.decode import probe

MAGIC: Final = b"glTF"
JSON_CHUNK, BIN_CHUNK = 0x4E4F534A, 0x004E4942
DTYPES: Final = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
PARTS: Final = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MAX_JSON: Final = 8 * 2**20
DECODED: Final = 4
"""Values that a model may have in memory, in multiples of the limit of its files' bytes. Values
that are not in the file, or that are referred to many times, cost memory all the same."""

Item = TypeVar("Item")


def item(items: Sequence[Item], index: int, what: str) -> Item:
    """Return what an index of the file refers to.

    Raises:
        FilterInvalid: there is no such thing.
    """
    if not 0 <= index < len(items):
        raise FilterInvalid(f"{what} {index} is referred to, but there are {len(items)}")
    return items[index]


class Container:
    """A file, opened: its document, and what the document refers to.

    Args:
        path: A ``.gltf`` or ``.glb`` file; other files are read from its folder alone.
        limits: ``max_bytes`` of all files together, ``max_pixels`` of a picture.

    Raises:
        FilterInvalid: it is no glTF 2.0, it is damaged, or it needs what is not known.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self._left = limits.max_bytes
        self._room = DECODED * limits.max_bytes
        data = self._read(path)
        text, self._binary = _chunks(data) if data[:4] == MAGIC else (data, b"")
        self.document = _parse(text)
        self._buffers: dict[int, bytes] = {}

    def _read(self, path: Path) -> bytes:
        with storage_errors(path, "reading"):
            size = path.stat().st_size
            self._take(size, path.name)
            return path.read_bytes()

    def _take(self, size: int, what: str) -> None:
        self._left -= size
        if self._left < 0:
            raise FilterInvalid(
                f"with {what} the model has more than {self.limits.max_bytes:,} bytes"
            )

    def _beside(self, uri: str) -> bytes:
        """Return what a URI stands for: data, or a file of the same folder."""
        if uri.startswith("data:"):
            head, comma, body = uri.partition(",")
            if not comma or not head.endswith(";base64"):
                raise FilterInvalid("a data URI is not base64; export the model again")
            self._take(len(body) * 3 // 4, "embedded data")
            try:
                return base64.b64decode(body, validate=True)
            except binascii.Error as error:
                raise FilterInvalid(f"a data URI is damaged ({error})") from error
        return self._read(self._inside(uri))

    def _inside(self, uri: str) -> Path:
        name = unquote(uri)
        steps = PurePosixPath(name)
        out = f"{uri[:80]!r} leads out of the model's folder; put the file there"
        if steps.is_absolute() or ".." in steps.parts or any(sign in name for sign in ":\\\0"):
            raise FilterInvalid(out)
        folder = self.path.parent.resolve()
        try:
            path = (folder / steps).resolve()
            there = path.is_file()
        except (OSError, RuntimeError) as error:
            raise FilterInvalid(f"its file {uri[:80]!r} cannot be found: {error}") from error
        if not path.is_relative_to(folder):
            raise FilterInvalid(out)
        if not there:
            raise FilterInvalid(f"its file {uri[:80]!r} is missing; put it beside {self.path.name}")
        return path

    def buffer(self, index: int) -> bytes:
        """Return a buffer's bytes, of the announced length."""
        if index not in self._buffers:
            spec = item(self.document.buffers, index, "buffer")
            if spec.uri is None and (index or not self._binary):
                raise FilterInvalid(f"buffer {index} has no data; export the model again")
            data = self._binary if spec.uri is None else self._beside(spec.uri)
            if len(data) < spec.byteLength:
                raise FilterInvalid(
                    f"buffer {index} has {len(data):,} bytes of {spec.byteLength:,}: it is cut off"
                )
            self._buffers[index] = data[: spec.byteLength]
        return self._buffers[index]

    def view(self, index: int) -> bytes:
        """Return a buffer view's bytes."""
        spec = item(self.document.bufferViews, index, "buffer view")
        data = self.buffer(spec.buffer)
        end = spec.byteOffset + spec.byteLength
        if end > len(data):
            raise FilterInvalid(f"buffer view {index} ends at byte {end:,} of {len(data):,}")
        return data[spec.byteOffset : end]

    def array(self, index: int, kinds: tuple[str, ...]) -> NDArray[Any]:
        """Return an accessor's (count, parts) values; normalised integers as float32.

        Raises:
            FilterInvalid: it is of another type, beyond its buffer, or holds NaN or infinity.
        """
        spec = item(self.document.accessors, index, "accessor")
        if spec.type not in kinds:
            raise FilterInvalid(f"accessor {index} is {spec.type}, not {' or '.join(kinds)}")
        parts, dtype = PARTS[spec.type], np.dtype(DTYPES[spec.componentType])
        self.reserve(spec.count * parts * max(4, dtype.itemsize), f"accessor {index}")
        if spec.bufferView is None:
            values = np.zeros((spec.count, parts), dtype)
        else:
            stride = item(self.document.bufferViews, spec.bufferView, "buffer view").byteStride
            values = _strided(
                self.view(spec.bufferView), spec.byteOffset, spec.count, parts, dtype, stride, index
            )
        if spec.sparse is not None:
            values = self._sparse(spec, values, index)
        if spec.normalized and dtype.kind in "iu":
            values = np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise FilterInvalid(f"accessor {index} holds NaN or infinity")
        return values

    def reserve(self, size: int, what: str) -> None:
        """Count bytes that values take in memory.

        Raises:
            FilterInvalid: they are too many together.
        """
        self._room -= size
        if self._room < 0:
            raise FilterInvalid(
                f"with {what} the model takes more than {DECODED * self.limits.max_bytes:,} bytes "
                "of memory; give it fewer vertices"
            )

    def _sparse(self, spec: Accessor, values: NDArray[Any], index: int) -> NDArray[Any]:
        sparse = spec.sparse
        assert sparse is not None
        kind = DTYPES.get(sparse.indices.componentType, "")
        if kind not in ("u1", "<u2", "<u4"):
            raise FilterInvalid(f"accessor {index}: its sparse indices are of no unsigned type")
        where, what = sparse.indices, sparse.values
        places = _strided(
            self.view(where.bufferView),
            where.byteOffset,
            sparse.count,
            1,
            np.dtype(kind),
            None,
            index,
        )[:, 0].astype(np.int64)
        new = _strided(
            self.view(what.bufferView),
            what.byteOffset,
            sparse.count,
            values.shape[1],
            values.dtype,
            None,
            index,
        )
        if (places >= len(values)).any():
            raise FilterInvalid(f"accessor {index}: a sparse index is beyond its {len(values)}")
        values = values.copy()
        values[places] = new
        return values

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as (H, W, 4) uint8 sRGB; its header is checked before it is decoded."""
        spec = item(self.document.images, index, "image")
        if spec.bufferView is not None:
            data = self.view(spec.bufferView)
        elif spec.uri is not None:
            data = self._beside(spec.uri)
        else:
            raise FilterInvalid(f"image {index} has neither a URI nor a buffer view")
        try:
            probe(data, self.limits)
            with Image.open(io.BytesIO(data)) as opened:
                return np.array(opened.convert("RGBA"))
        except InputError as error:
            raise FilterInvalid(f"image {index}: {error.message}") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise FilterInvalid(f"image {index} cannot be read ({error})") from error


def _strided(
    data: bytes,
    offset: int,
    count: int,
    parts: int,
    dtype: np.dtype[Any],
    stride: int | None,
    index: int,
) -> NDArray[Any]:
    size = parts * dtype.itemsize
    step = stride or size
    if step < size:
        raise FilterInvalid(f"accessor {index}: stride {step} is shorter than a value of {size}")
    needed = offset + step * (count - 1) + size
    if needed > len(data):
        raise FilterInvalid(
            f"accessor {index} needs {needed:,} bytes of a buffer view of {len(data):,}"
        )
    raw = np.frombuffer(data, np.uint8)[offset:needed]
    rows = np.lib.stride_tricks.as_strided(raw, (count, size), (step, 1), writeable=False)
    return np.ascontiguousarray(rows).view(dtype).reshape(count, parts)


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """Return the JSON and the binary chunk of a .glb file."""
    if len(data) < 20:
        raise FilterInvalid("the .glb file is cut off in its header")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise FilterInvalid(f"the .glb file is of version {version}; version 2 is read")
    if length > len(data):
        raise FilterInvalid(f"the .glb file has {len(data):,} bytes of {length:,}: it is cut off")
    found: dict[int, bytes] = {}
    place = 12
    while place + 8 <= length:
        size, kind = struct.unpack_from("<II", data, place)
        if place + 8 + size > length:
            raise FilterInvalid("a chunk of the .glb file is cut off")
        found.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size
    if JSON_CHUNK not in found:
        raise FilterInvalid("the .glb file has no JSON")
    return found[JSON_CHUNK], found.get(BIN_CHUNK, b"")


def _parse(text: bytes) -> Document:
    if len(text) > MAX_JSON:
        raise FilterInvalid(f"its JSON has {len(text):,} bytes; the limit is {MAX_JSON:,}")
    try:
        document = Document.model_validate(json.loads(text))
    except ValidationError as error:
        raise FilterInvalid(f"it is not valid glTF: {explain(error)}") from error
    except (ValueError, RecursionError) as error:
        raise FilterInvalid(f"it is no glTF: its JSON cannot be read ({error})") from error
    if not document.asset.version.startswith("2."):
        raise FilterInvalid(f"it is glTF {document.asset.version[:10]}; glTF 2.0 is read")
    unknown = [name for name in document.extensionsRequired if name not in KNOWN]
    if unknown:
        raise FilterInvalid(
            f"it requires {', '.join(unknown[:5])[:200]}, which is not read; export it without"
        )
    return document
