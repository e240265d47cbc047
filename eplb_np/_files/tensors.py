"""Tensors in pickles of torch: which storages they declare, and how they become arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.numpy_files import LARGEST_ARRAYS, fill
from eplb_np._files.pickled_arrays import are_counts, check_bools, is_shape, numpy_names
from eplb_np._files.pickles import Global, Names, Unfinished

MOST_STORAGES = 1 << 15
"""Storages of a file: each one takes some 20 microseconds."""

LONGEST_KEY = 64

CODES = {
    "uint8": "u1", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "bool": "?",
    "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "float16": "<f2", "float32": "<f4",
    "float64": "<f8", "bfloat16": "<u2",
}  # fmt: skip
STORAGES = {
    "torch.ByteStorage": "uint8", "torch.CharStorage": "int8", "torch.ShortStorage": "int16",
    "torch.IntStorage": "int32", "torch.LongStorage": "int64", "torch.BoolStorage": "bool",
    "torch.HalfStorage": "float16", "torch.BFloat16Storage": "bfloat16",
    "torch.FloatStorage": "float32", "torch.DoubleStorage": "float64",
    "torch.storage.UntypedStorage": "uint8",
}  # fmt: skip
DTYPES = {f"torch.{name}": name for name in CODES}


class Storage(Unfinished):
    """Numbers that tensors look at."""

    def __init__(self, element: str, count: int) -> None:
        self.element = element
        self.count = count
        self.size = count * np.dtype(CODES[element]).itemsize
        self.data = np.empty(0, np.uint8)

    def read(self, file: BinaryIO) -> None:
        """Read the numbers."""
        self.data = np.empty(self.size, np.uint8)
        fill(self.data, file)

    def finish(self) -> Any:
        """Refuse a storage that no tensor looks at."""
        raise ValueError("its pickle holds a storage itself: it is not a value")


class _Tensor(Unfinished):
    """A tensor of which all is known but the numbers: strides and offset count elements."""

    def __init__(
        self,
        storage: Storage,
        element: str,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        dtype = np.dtype(CODES[element])
        self._storage = storage
        self._dtype = dtype
        self._is_bfloat16 = element == "bfloat16"
        self._offset = offset * dtype.itemsize
        self._shape = shape
        # That of an axis of one may be anything.
        steps = [
            0 if axis == 1 else stride * dtype.itemsize
            for axis, stride in zip(shape, strides, strict=True)
        ]
        self._strides = tuple(steps)
        self.size = math.prod(shape) * (4 if self._is_bfloat16 else dtype.itemsize)
        last = self._offset + sum(
            (axis - 1) * step for axis, step in zip(shape, steps, strict=True)
        )
        if self.size and last + dtype.itemsize > storage.size:
            raise ValueError(
                f"its pickle declares a tensor of shape {shape}, strides {strides} and offset "
                f"{offset}, more than its storage of {storage.count} x {storage.element} has"
            )

    def finish(self) -> NDArray[np.generic]:
        if not self.size:
            array: NDArray[Any] = np.empty(self._shape, self._dtype)
        else:
            data = self._storage.data
            array = np.ndarray(self._shape, self._dtype, data, self._offset, self._strides)
        if self._is_bfloat16:  # the upper half of a float32
            array = np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
        return check_bools(array)


class Tensors:
    """The tensors of a file, and the storages that they look at."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._storages_size = 0
        self._tensors_size = 0

    def names(self) -> Names:
        """Return what stands for names in the pickle."""
        names: dict[str, Callable[..., Any] | None] = {
            **dict.fromkeys([*STORAGES, *DTYPES]),
            **numpy_names(),
            "torch._utils._rebuild_tensor_v2": self._rebuild,
            "torch._utils._rebuild_tensor_v3": self._rebuild_with_dtype,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch.Size": _size,
            "torch.device": _device,
        }
        return names

    def storage(self, found: Any) -> Storage:
        """Return the storage that the pickle refers to; note it the first time."""
        if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
            raise ValueError("its pickle refers to something that is not a storage")
        _, kind, key, _, count, *view = found
        if view not in ([], [None]):
            raise ValueError("its pickle has a storage that is a part of another one")
        element = STORAGES.get(kind.name) if isinstance(kind, Global) else None
        if element is None or type(count) is not int or count < 0:
            raise ValueError("its pickle has a storage in a form that is not read")
        if type(key) is not str or not 0 < len(key) <= LONGEST_KEY:
            raise ValueError("its pickle has a storage without a short name")
        if key not in self.storages:
            self._note(key, Storage(element, count))
        known = self.storages[key]
        if (known.element, known.count) != (element, count):
            raise ValueError(
                f"its storage {key!r} is declared twice, as {known.count} x {known.element} and "
                f"as {count} x {element}"
            )
        return known

    def _note(self, key: str, storage: Storage) -> None:
        if len(self.storages) == MOST_STORAGES:
            raise ValueError(f"it has more than {MOST_STORAGES} storages")
        self._storages_size += storage.size * (2 if storage.element == "bfloat16" else 1)
        _check_size(self._storages_size, "storages")
        self.storages[key] = storage

    def _rebuild(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
        """Stand for the call that makes a tensor of its storage's dtype."""
        _check_metadata(rest)
        return self._tensor(storage, None, offset, shape, strides)

    def _rebuild_with_dtype(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
    ) -> _Tensor:
        """Stand for the call that makes a tensor of a dtype without a class of storages."""
        _check_metadata(rest[:2] + rest[3:])
        dtype = rest[2] if len(rest) > 2 else None
        element = DTYPES.get(dtype.name) if isinstance(dtype, Global) else None
        if element is None:
            raise TypeError
        return self._tensor(storage, element, offset, shape, strides)

    def _tensor(
        self, storage: Any, element: str | None, offset: Any, shape: Any, strides: Any
    ) -> _Tensor:
        if not isinstance(storage, Storage) or type(offset) is not int:
            raise TypeError
        if offset < 0 or not is_shape(shape) or not are_counts(strides):
            raise ValueError("its pickle has a tensor whose shape, strides or offset are not read")
        if len(shape) != len(strides):
            raise ValueError(f"its pickle has a tensor of shape {shape} and strides {strides}")
        tensor = _Tensor(storage, element or storage.element, offset, shape, strides)
        self._tensors_size += tensor.size
        _check_size(self._tensors_size, "tensors")
        return tensor


def _check_size(size: int, what: str) -> None:
    if size > LARGEST_ARRAYS:
        raise ValueError(
            f"its pickle declares {what} of {size >> 20} MiB, more than the "
            f"{LARGEST_ARRAYS >> 20} MiB that are read: save parts"
        )


def _check_metadata(rest: tuple[Any, ...]) -> None:
    """Refuse what would change the meaning of the numbers, such as their signs."""
    if not 2 <= len(rest) <= 3:
        raise TypeError
    if len(rest) == 3 and rest[2]:
        raise ValueError("its pickle has a tensor with metadata, such as a sign for all of it")


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise TypeError
    return data


def _size(shape: Any) -> tuple[int, ...]:
    if not is_shape(shape):
        raise TypeError
    found: tuple[int, ...] = shape
    return found


def _device(kind: Any, index: Any = None) -> str:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise TypeError
    return kind if index is None else f"{kind}:{index}"
