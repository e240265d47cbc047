"""Tensors from untrusted files of safetensors: what the header declares is checked first.

A file is the length of its header (8 bytes, little-endian), the header, and the data. The header is
JSON: for each tensor its dtype, its shape, and where in the data it begins and ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.json_text import Limits, members
from eplb_np._files.numpy_files import LARGEST_ARRAYS
from eplb_np._files.reading import size_of

LARGEST_HEADER = 1 << 25
"""Bytes: a thousand steps of 58 layers take 6 MB."""

BLOCK_BYTES = 1 << 23
"""Bytes of tensors that are read at a time, or of one tensor that is larger."""

LIMITS = Limits(keys=1 << 17, all_values=LARGEST_HEADER, value=1 << 16)

BFLOAT16 = "BF16"
DTYPES = {
    "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", BFLOAT16: "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""As what each dtype is read. There are more, which are no loads: BOOL, complex and F8 ones."""


class StoredTensor(NamedTuple):
    """What a header says of a tensor, checked."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafeTensors:
    """A file whose header has been read and checked, but not its data."""

    def __init__(self, file: BinaryIO) -> None:
        size = size_of(file)
        self._file = file
        length = int.from_bytes(file.read(8), "little")
        self._begin = 8 + length
        if size < self._begin:
            raise ValueError(f"it declares a header of {length} bytes, but ends before")
        if length > LARGEST_HEADER:
            raise ValueError(
                f"its header has {length / 2**20:,.0f} MiB, more than the "
                f"{LARGEST_HEADER >> 20} MiB that are read: record fewer steps"
            )
        if size - self._begin > LARGEST_ARRAYS:
            raise ValueError(
                f"it holds {size / 2**20:,.0f} MiB, more than the {LARGEST_ARRAYS >> 20} MiB that "
                "are read: record fewer steps"
            )
        self.tensors: dict[str, StoredTensor] = {}
        """By name."""
        for name, value in members(file.read(length).decode(), limits=LIMITS):
            if name != "__metadata__":
                self.tensors[name] = _stored_tensor(name, value)
        _check_data(self.tensors, size - self._begin)

    def blocks(self) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Yield tensors in the order of their data: names, and values [n, *shape] of all of them.

        A block has one dtype and shape, and is not large. Values of bfloat16 become float32, which
        has all of them.
        """
        self._file.seek(self._begin)
        names: list[str] = []
        kind: StoredTensor | None = None
        for name, stored in sorted(self.tensors.items(), key=lambda item: item[1][2:]):
            if kind is not None and (
                (stored.dtype, stored.shape) != (kind.dtype, kind.shape)
                or stored.end - kind.begin > BLOCK_BYTES
            ):
                yield names, self._read(kind, len(names))
                names, kind = [], None
            names.append(name)
            kind = kind or stored
        if kind is not None:
            yield names, self._read(kind, len(names))

    def _read(self, kind: StoredTensor, count: int) -> NDArray[Any]:
        """Read the next tensors, all of a kind."""
        size = count * (kind.end - kind.begin)
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("it ends before its data does")
        values = np.frombuffer(data, DTYPES[kind.dtype])
        if kind.dtype == BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(count, *kind.shape)


def _stored_tensor(name: str, value: Any) -> StoredTensor:
    what = f"its tensor {name!r:.100}"
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        sound = {type(number) for number in (*shape, begin, end)} == {int}
        sound = sound and min(*shape, begin, end) >= 0 and len(shape) <= 8
    except (IndexError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"{what} is declared as {value!r:.100}: it needs dtype, shape and place")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(
            f"{what} has dtype {dtype!r:.100}, which is not read: give integers, or floats of "
            "16 to 64 bits"
        )
    size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if size != end - begin:
        raise ValueError(
            f"{what} has shape {shape!r:.100} and dtype {dtype}, which is not the size "
            f"of its data, bytes {begin} to {end}"
        )
    return StoredTensor(dtype, tuple(shape), begin, end)


def _check_data(tensors: dict[str, StoredTensor], size: int) -> None:
    """Raise ``ValueError`` unless the tensors are all of the data, one after the other."""
    place = 0
    for tensor in sorted(tensors.values(), key=attrgetter("begin", "end")):
        if tensor.begin != place:
            raise ValueError(
                f"its tensors overlap or leave a gap: one begins at byte {tensor.begin} of the "
                f"data, but the one before ends at {place}"
            )
        place = tensor.end
    if place != size:
        raise ValueError(f"its tensors have {place} bytes, but it has {size} bytes of data")
