"""Arrays from untrusted ``.npy`` and ``.npz`` files: what a header declares is checked first.

A few bytes can declare any size, and a compressed megabyte can unpack to a gigabyte.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.reading import size_of

LARGEST_ARRAYS = 1 << 29
"""Bytes of arrays that are read: a second's work. Compressed, or sparse, a file has less."""

LARGEST_DIRECTORY = 1 << 20
"""Bytes of the list of an archive's arrays."""

PIECE = 1 << 20

LAST_CHARACTER = 0x10FFFF

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 1 << 12
DESCR = re.compile(r"'descr'\s*:\s*'([<>|=]?[biufcmMOSUV?]\d{0,9})'")
ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
SHAPE = re.compile(r"'shape'\s*:\s*\(([\d,\s]*)\)")
END_OF_DIRECTORY = b"PK\5\6"
DIRECTORY_64 = b"PK\6\7"


class StoredArray:
    """An array in a file, whose header has been read and checked, but not its data."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read the header; ``size`` is how many bytes the file has in all."""
        self._file = file
        header, length = _read_header(file)
        found = [pattern.search(header) for pattern in (DESCR, ORDER, SHAPE)]
        if not all(found):
            raise ValueError(f"its header {header.strip()[:100]!r} is not that of plain numbers")
        descr, order, shape = (match.group(1) for match in found if match is not None)
        self.dtype = np.dtype(descr)
        self.shape = tuple(int(axis) for axis in shape.split(",") if axis.strip())
        self.fortran_order = order == "True"
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which are not loaded (allow_pickle=False)")
        self.size = math.prod(self.shape) * self.dtype.itemsize
        if length + self.size > size:
            raise ValueError(
                f"it declares an array of shape {self.shape} and dtype {self.dtype}, of "
                f"{self.size} bytes, but has {size - length} bytes of data"
            )
        if len(self.shape) > 8:
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
        """Fill memory piece by piece: zipfile joins long reads at a square cost."""
        for start in range(0, len(memory), PIECE):
            part = memory[start : start + PIECE]
            piece = self._file.read(len(part))
            if len(piece) < len(part):
                raise ValueError("it ends before its data does")
            part[:] = np.frombuffer(piece, np.uint8)
        return memory.view(self.dtype)


def _read_header(file: BinaryIO) -> tuple[str, int]:
    start = file.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or start[len(MAGIC) :] not in (b"\1\0", b"\2\0"):
        raise ValueError("it is not in NumPy's format for an array of numbers (.npy)")
    width = 2 if start[len(MAGIC)] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    header = file.read(length)
    if len(header) < length:
        raise ValueError("it ends in its header")
    return header.decode("latin-1"), len(start) + width + length


def open_npy(file: BinaryIO) -> StoredArray:
    """Read the header of a ``.npy`` file."""
    array = StoredArray(file, size_of(file))
    if array.size > LARGEST_ARRAYS:
        raise ValueError(
            f"it holds {array.size / 2**20:,.0f} MiB, more than the {LARGEST_ARRAYS >> 20} MiB "
            "that are read: save the sum over steps, or parts"
        )
    return array


class Member(NamedTuple):
    """What an archive's list says of one of its arrays."""

    entry: zipfile.ZipInfo
    size: int


class Archive:
    """A ``.npz`` file whose list of arrays has been read and checked."""

    def __init__(self, file: BinaryIO) -> None:
        _check_directory(file)
        self._zip = zipfile.ZipFile(file)
        self.members: dict[str, Member] = {}
        for entry in self._zip.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in self.members:
                raise ValueError(f"it holds the array {name!r} twice")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its array {name!r} is compressed in a way that is not read")
            self.members[name] = Member(entry, entry.file_size)

    def check_size(self, names: Iterable[str], most: int, why: str) -> None:
        """Raise ``ValueError`` if these arrays together unpack to more than ``most`` bytes."""
        size = sum(self.members[name].size for name in names)
        if size > most:
            raise ValueError(f"it declares {size:,} bytes of arrays, more than {why}: {most:,}")

    @contextmanager
    def array(self, name: str) -> Iterator[StoredArray]:
        """Open an array, and read its header."""
        entry, size = self.members[name]
        if entry.compress_type == zipfile.ZIP_STORED and size > entry.compress_size:
            raise ValueError(f"its array {name!r} declares a size that it cannot have")
        self.check_size([name], LARGEST_ARRAYS, "are read")
        with self._zip.open(entry) as file:
            stored = StoredArray(file, size)  # type: ignore[arg-type]
            yield stored
            if file.read(1):
                raise ValueError(f"its array {name!r} is followed by more data")


def _check_directory(file: BinaryIO) -> None:
    """Refuse archives whose list of arrays alone takes time and memory."""
    size = size_of(file)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    end = tail.rfind(END_OF_DIRECTORY)
    if end < 0 or len(tail) < end + 22:
        raise ValueError("it is not an .npz archive")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > LARGEST_DIRECTORY:
        raise ValueError("its list of arrays is too long for one")
    if tail[max(0, end - 20) : end].startswith(DIRECTORY_64):
        raise ValueError("its list of arrays is in a form for archives of more than 4 GiB")
    file.seek(0)
