"""Arrays from untrusted ``.npy`` and ``.npz`` files: what a header declares is checked first.

A few bytes can declare any size, and a compressed megabyte can unpack to a gigabyte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.reading import size_of
from eplb_np._files.zip_files import ZipArchive

LARGEST_ARRAYS = 1 << 29
"""Bytes of arrays that are read: a second's work. Compressed, or sparse, a file has less."""

PIECE = 1 << 20

LAST_CHARACTER = 0x10FFFF

MOST_AXES = 8

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 12
DESCR = re.compile(r"'descr'\s*:\s*'([<>|=]?[biufcmMOSUV?]\d{0,9})'")
ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
SHAPE = re.compile(r"'shape'\s*:\s*\(([\d,\s]*)\)")


class StoredArray:
    """An array in a file, whose header has been read and checked, but not its data."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read the header; ``size`` is how many bytes the file has in all."""
        self._file = file
        self.dtype, self.shape, self.fortran_order, length = read_header(file)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which are not loaded (allow_pickle=False)")
        self.size = math.prod(self.shape) * self.dtype.itemsize
        self.left = self.size  # bytes that have not been read yet
        if length + self.size > size:
            raise ValueError(
                f"it declares an array of shape {self.shape} and dtype {self.dtype}, of "
                f"{self.size} bytes, but has {size - length} bytes of data"
            )
        if len(self.shape) > MOST_AXES:
            raise ValueError(f"it declares an array of {len(self.shape)} axes")

    def read(self) -> NDArray[np.generic]:
        """Return the whole array."""
        flat = self._values(np.empty(self.size, np.uint8))
        if self.dtype.kind == "U" and self.size:
            characters = flat.view(self.dtype.byteorder + "u4")
            if characters.max() > LAST_CHARACTER:  # NumPy would make a str of it that Python cannot
                raise ValueError("its text has characters that do not exist")
        return flat.reshape(self.shape, order="F" if self.fortran_order else "C")

    def blocks(self, most_bytes: int) -> Iterator[NDArray[np.generic]]:
        """Yield consecutive parts of the first axis, of about so many bytes; all if it is last.

        A part is overwritten by the next one: new memory for each would take longer than reading.
        """
        if self.fortran_order or not self.size:
            yield self.read()
            return
        row = self.size // self.shape[0]
        step = max(1, most_bytes // row)
        memory = np.empty(min(step, self.shape[0]) * row, np.uint8)
        for start in range(0, self.shape[0], step):
            count = min(step, self.shape[0] - start)
            yield self._values(memory[: count * row]).reshape(count, *self.shape[1:])

    def _values(self, memory: NDArray[np.uint8]) -> NDArray[np.generic]:
        fill(memory, self._file)
        self.left -= len(memory)
        return memory.view(self.dtype)


def fill(memory: NDArray[np.uint8], file: BinaryIO) -> None:
    """Read into memory piece by piece: zipfile joins long reads at a square cost."""
    source = cast(BufferedIOBase, file)
    for start in range(0, len(memory), PIECE):
        part = memory[start : start + PIECE]
        if source.readinto(part.data) < len(part):
            raise ValueError("it ends before its data does")


class Header(NamedTuple):
    """What an array's header declares, and how many bytes it takes."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran_order: bool
    length: int


def read_header(file: BinaryIO) -> Header:
    """Read the header of an array, up to its data. Its dtype may be that of Python objects."""
    start = file.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or start[len(MAGIC) :] not in (b"\1\0", b"\2\0"):
        raise ValueError("it is not in NumPy's format for an array of numbers (.npy)")
    width = 2 if start[len(MAGIC)] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    text = file.read(length).decode("latin-1")
    if len(text) < length:
        raise ValueError("it ends in its header")
    found = [pattern.search(text) for pattern in (DESCR, ORDER, SHAPE)]
    if not all(found):
        raise ValueError(f"its header {text.strip()[:100]!r} is not that of plain numbers")
    descr, order, axes = (match.group(1) for match in found if match is not None)
    shape = tuple(int(axis) for axis in axes.split(",") if axis.strip())
    return Header(np.dtype(descr), shape, order == "True", len(start) + width + length)


def open_npy(file: BinaryIO) -> StoredArray:
    """Read the header of a ``.npy`` file."""
    array = StoredArray(file, size_of(file))
    if array.size > LARGEST_ARRAYS:
        raise ValueError(
            f"it holds {array.size / 2**20:,.0f} MiB, more than the {LARGEST_ARRAYS >> 20} MiB "
            "that are read: save the sum over steps, or parts"
        )
    return array


class Archive(ZipArchive):
    """A ``.npz`` file whose list of arrays has been read and checked."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, ".npz", ".npy")

    @contextmanager
    def array(self, name: str) -> Iterator[StoredArray]:
        """Open an array, and read its header."""
        with self.open(name) as file:
            self.check_size([name], LARGEST_ARRAYS, "are read")
            stored = StoredArray(file, self.members[name].file_size)
            yield stored
            if stored.left == 0 and file.read(1):
                raise ValueError(f"its array {name!r} is followed by more data")
