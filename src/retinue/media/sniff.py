"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEAD = 4096
"""Bytes that `sniff` looks at."""

READ = "JPEG, PNG, WebP, BMP and GIF images are read: convert it to one of them"


@dataclass(frozen=True, slots=True)
class Content:
    """A type of content.

    Attributes:
        key: Short name, for example "jpeg"; "" when it is not known.
        name: For messages, for example "a TIFF image".
        kind: "image" for the types that are read, "video" for what is tried as a video, "other".
    """

    key: str
    name: str
    kind: Literal["image", "video", "other"] = "other"


_MAGIC = (
    (0, b"\xff\xd8\xff", Content("jpeg", "a JPEG image", "image")),
    (0, b"\x89PNG", Content("png", "a PNG image", "image")),
    (0, b"GIF87a", Content("gif", "a GIF image", "image")),
    (0, b"GIF89a", Content("gif", "a GIF image", "image")),
    (0, b"II*\0", Content("tiff", "a TIFF image")),
    (0, b"MM\0*", Content("tiff", "a TIFF image")),
    (0, b"II+\0", Content("tiff", "a BigTIFF image")),
    (0, b"MM\0+", Content("tiff", "a BigTIFF image")),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", Content("jxl", "a JPEG XL image")),
    (0, b"\xff\x0a", Content("jxl", "a JPEG XL image")),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", Content("jp2", "a JPEG 2000 image")),
    (0, b"\xff\x4f\xff\x51", Content("jp2", "a JPEG 2000 image")),
    (0, b"8BPS", Content("psd", "a Photoshop document")),
    (0, b"\0\0\1\0", Content("ico", "a Windows icon")),
    (0, b"%PDF-", Content("pdf", "a PDF document")),
    (0, b"PK\3\4", Content("zip", "a ZIP archive")),
    (0, b"\x1f\x8b", Content("gzip", "gzip-compressed data")),
    (0, b"\x93NUMPY", Content("npy", "a NumPy array")),
    (0, b"\x7fELF", Content("elf", "a program")),
    (0, b"\x1aE\xdf\xa3", Content("matroska", "a Matroska or WebM video", "video")),
    (0, b"FLV\1", Content("flv", "a Flash video", "video")),
    (0, b"OggS", Content("ogg", "an Ogg file", "video")),
    (0, b"\0\0\1\xba", Content("mpeg", "an MPEG video", "video")),
    (0, b"\0\0\1\xb3", Content("mpeg", "an MPEG video", "video")),
    (0, b"0&\xb2u\x8ef\xcf\x11", Content("asf", "a Windows Media video", "video")),
    (4, b"moov", Content("mov", "a QuickTime video", "video")),
    (4, b"mdat", Content("mov", "a QuickTime video", "video")),
    (4, b"wide", Content("mov", "a QuickTime video", "video")),
)

_RIFF = {
    b"WEBP": Content("webp", "a WebP image", "image"),
    b"AVI ": Content("avi", "an AVI video", "video"),
    b"WAVE": Content("wav", "a WAVE sound"),
}

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def sniff(data: bytes) -> Content:
    """Return what the content looks like.

    Args:
        data: A file, or at least its first `HEAD` bytes.
    """
    head = data[:HEAD]
    for offset, magic, content in _MAGIC:
        if head.startswith(magic, offset):
            return content
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _iso_media(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return Content("bmp", "a BMP image", "image")
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return Content("mpegts", "an MPEG transport stream", "video")
    return _text(head)


def _iso_media(brand: bytes) -> Content:
    if brand in (b"avif", b"avis"):
        return Content("avif", "an AVIF image")
    if brand in _HEIF:
        return Content("heic", "a HEIC or HEIF image")
    return Content("mp4", "an MP4 or QuickTime video", "video")


def _text(head: bytes) -> Content:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut at the end of the part that is looked at.
        if len(head) < HEAD or error.start < HEAD - 4:
            return Content("", "data of an unknown type")
        text = head[: error.start].decode("utf-8")
    if any(c < " " and c not in "\t\n\r\f\x1b" for c in text):
        return Content("", "data of an unknown type")
    start = text.lstrip("\ufeff \t\r\n").lower()
    if "<svg" in start and start.startswith("<"):
        return Content("svg", "an SVG drawing")
    if start.startswith(("<!doctype html", "<html")):
        return Content("html", "an HTML page")
    if start.startswith("<?xml"):
        return Content("xml", "an XML document")
    if start.startswith(("{", "[")):
        return Content("json", "JSON text")
    return Content("text", "plain text")
