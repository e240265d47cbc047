"""Files that may be packed by gzip: unpacked into memory, within a bound."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from eplb_np._files.reading import size_of

MAGIC = b"\x1f\x8b"

LARGEST_UNPACKED = 1 << 27
"""Bytes. A megabyte can unpack to a gigabyte, and what is unpacked is then read again."""

MOST_MEMBERS = 1 << 12
"""Members of a file: each of them can be empty, and still takes time."""

PIECE = 1 << 16
ROOM = 1 << 20
GZIP = 16 + zlib.MAX_WBITS


def unpacked(file: BinaryIO) -> BinaryIO:
    """Return the content of a gzip file, or the file itself if it is none."""
    start = file.read(len(MAGIC))
    file.seek(0)
    if start != MAGIC:
        return file
    # Python's own reader goes through headers and members one by one, without a bound.
    if size_of(file) > LARGEST_UNPACKED:
        raise ValueError(f"it has more than {LARGEST_UNPACKED >> 20} MiB, packed by gzip: {HINT}")
    content = io.BytesIO()
    packed = file.read(PIECE)
    for _ in range(MOST_MEMBERS):
        packed = _unpack_member(file, packed, content) or file.read(PIECE)
        if not packed:
            break
        if not packed.startswith(MAGIC[: len(packed)]):
            raise ValueError("it is packed by gzip, and followed by more data")
    else:
        raise ValueError(f"it has more than {MOST_MEMBERS} members, packed by gzip: {HINT}")
    content.seek(0)
    if content.read(len(MAGIC)) == MAGIC:
        raise ValueError("it is packed by gzip twice: unpack it once")
    content.seek(0)
    return content


HINT = "unpack it, or write .npz"


def _unpack_member(file: BinaryIO, packed: bytes, content: io.BytesIO) -> bytes:
    """Write the content of a member, and return what was read behind it."""
    member = zlib.decompressobj(GZIP)
    while not member.eof:
        packed = packed or file.read(PIECE)
        if not packed:
            raise ValueError("it is packed by gzip, and ends before its data does")
        content.write(member.decompress(packed, ROOM))
        if content.tell() > LARGEST_UNPACKED:
            raise ValueError(
                f"it unpacks to more than the {LARGEST_UNPACKED >> 20} MiB of a file packed by "
                f"gzip that are read: {HINT}"
            )
        packed = member.unconsumed_tail
    return member.unused_data
