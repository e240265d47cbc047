"""Files that may be packed by gzip: unpacked into memory, within a bound."""

from __future__ import annotations

import gzip
import io
from typing import BinaryIO

MAGIC = b"\x1f\x8b"

LARGEST_UNPACKED = 1 << 27
"""Bytes. A megabyte can unpack to a gigabyte, and what is unpacked is then read again."""

PIECE = 1 << 20


def unpacked(file: BinaryIO) -> BinaryIO:
    """Return the content of a gzip file, or the file itself if it is none."""
    start = file.read(len(MAGIC))
    file.seek(0)
    if start != MAGIC:
        return file
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=file) as packed:
        while piece := packed.read(PIECE):
            content.write(piece)
            if content.tell() > LARGEST_UNPACKED:
                raise ValueError(
                    f"it unpacks to more than the {LARGEST_UNPACKED >> 20} MiB of a .gz file that "
                    "are read: unpack it, or write .npz"
                )
    content.seek(0)
    return content
