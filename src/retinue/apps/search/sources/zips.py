"""Pictures in a ZIP file: read in place, by several threads at once, never unpacked to the disk.

Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 (local header) and 4.4 (fields).
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from retinue.apps.search.sources.base import (
    Found,
    Offer,
    Options,
    Refused,
    check_size,
    check_suffix,
    is_hidden,
    member_name,
    mtime_us,
    reading,
    text,
    too_long,
)
from retinue.core.errors import CorruptMedia, InputError, RetinueError, UnsupportedMedia
from retinue.core.settings import Limits

_LOCAL = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\3\4"
_ENCRYPTED = 0x1 | 0x40
_SIZES_FOLLOW = 0x8
_UTF8 = 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    """Of its local header."""
    method: int
    packed: int
    size: int
    crc: int
    flags: int
    mode: int = 0


def open_zip(path: str, prefix: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer the pictures of a ZIP file, in its own order.

    An archive that lacks its directory, since it was cut, offers what its local headers tell.

    Args:
        path: The archive.
        prefix: What the members' ids begin with, for example "photos.zip".
        source: See `Found`.
        options: Limits of bytes and members.
    """
    shown = text(path)
    try:
        with reading(shown):
            status = os.stat(path)  # noqa: PTH116
            members, damage = _members(path, options.max_members)
    except RetinueError as error:
        yield Refused(source, shown, error, partial=True)
        return
    changed = mtime_us(status)
    for member in members:
        if member.name.endswith("/"):
            continue
        where = f"{shown}!{member.name}"
        item_id = f"{prefix}/{member.name}"
        try:
            name = member_name(member.name)
            item_id, where = f"{prefix}/{name}", f"{shown}!{name}"
            if is_hidden(name) or not check_suffix(name):
                continue
            _check(member, where, options.limits)
        except RetinueError as error:
            yield Refused(source, text(where), error, text(item_id))
            continue
        read = partial(_read, path, member, where, options.limits)
        yield Found(source, item_id, where, member.size, changed, f"{member.crc:08x}", read)
    if damage is not None:
        yield Refused(source, shown, damage, partial=True)


def _check(member: _Member, where: str, limits: Limits) -> None:
    kind = stat.S_IFMT(member.mode)
    if kind not in (0, stat.S_IFREG):
        raise UnsupportedMedia(f"{where} is a link or a device; pack the picture itself")
    if member.flags & _ENCRYPTED:
        raise UnsupportedMedia(f"{where} is encrypted; unpack it with its password first")
    if member.method not in _METHODS:
        message = f"{where} is packed by method {member.method}; pack it with Deflate"
        raise UnsupportedMedia(message)
    check_size(member.size, where, limits)


def _members(path: str, most: int) -> tuple[Iterator[_Member], CorruptMedia | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        message = f"{text(path)} is cut or damaged: {error}; the pictures before that are taken"
        return _walk(path), CorruptMedia(message)
    if len(infos) > most:
        message = f"{text(path)} has {len(infos):,} members; the limit is {most:,}; split it"
        raise InputError(message)
    return (_member(info) for info in infos), None


def _member(info: zipfile.ZipInfo) -> _Member:
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        name = _decoded(name.encode("cp437", "replace"))
    return _Member(
        name,
        info.header_offset,
        info.compress_type,
        info.compress_size,
        info.file_size,
        info.CRC,
        info.flag_bits,
        info.external_attr >> 16,
    )


def _decoded(name: bytes) -> str:
    # Many programs write UTF-8 without saying so; the format's own default is code page 437.
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def _walk(path: str) -> Iterator[_Member]:
    """Yield the members that lie whole in the file, by their local headers alone."""
    with open(path, "rb") as file:  # noqa: PTH123
        end = file.seek(0, os.SEEK_END)
        at = 0
        while True:
            file.seek(at)
            head = file.read(_LOCAL.size)
            if len(head) < _LOCAL.size or not head.startswith(_SIGNATURE):
                return
            _, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack(head)
            name = _decoded(file.read(named))
            after = at + _LOCAL.size + named + extra + packed
            # With sizes that follow the data, or that are in a ZIP64 field, the next is unknown.
            if after > end or flags & _SIZES_FOLLOW or packed == 0xFFFFFFFF:
                return
            yield _Member(name, at, method, packed, size, crc, flags)
            at = after


def _read(path: str, member: _Member, where: str, limits: Limits) -> bytes:
    """Return a member's bytes; inflates one byte more than the limit at most.

    Raises:
        CorruptMedia: it is cut or damaged, or is not what the directory announced.
        TooManyBytes: it has more bytes than announced and than the limit.
    """
    with reading(text(path)), open(path, "rb") as file:  # noqa: PTH123
        file.seek(member.offset)
        head = file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or not head.startswith(_SIGNATURE):
            raise CorruptMedia(f"{where} is not at its place; the archive is damaged or changed")
        file.seek(member.offset + _LOCAL.size + sum(_LOCAL.unpack(head)[-2:]))
        try:
            data = _inflated(file, member, where, limits)
        except zlib.error as error:
            raise CorruptMedia(f"{where} is damaged: {error}") from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise CorruptMedia(f"{where} is damaged: its size or checksum is wrong; pack it anew")
    return data


def _inflated(file: BinaryIO, member: _Member, where: str, limits: Limits) -> bytes:
    most = limits.max_bytes + 1
    data = bytearray()
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    left = member.packed
    while left and len(data) < most:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise CorruptMedia(f"{where} ends too early; the archive is cut")
        left -= len(chunk)
        if member.method == zipfile.ZIP_STORED:
            data += chunk
        else:
            data += unpack.decompress(chunk, most - len(data))
    if len(data) >= most:
        raise too_long(where, limits)
    return bytes(data)
