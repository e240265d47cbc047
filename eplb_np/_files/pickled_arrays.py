"""NumPy's arrays and numbers in pickles, and ``.npy`` files that hold one pickled object."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from eplb_np._files.numpy_files import MOST_AXES, read_header
from eplb_np._files.pickles import LARGEST_PICKLE, Global, Names, Pickles, Unfinished
from eplb_np._files.plain_values import plain

REAL = re.compile(r"b1|[iu][1248]|f[248]")
LONGEST_EMPTY = 1 << 20
"""The longest axis of an array without elements."""

ORDERS = ("<", ">", "|")


def read_pickled_npy(file: BinaryIO) -> Any:
    """Read what ``numpy.save`` wrote of an object that is no array, such as a dict of arrays.

    Parameters
    ----------
    file
        A binary file that can seek, whose array has no axes and holds Python objects ('|O').

    Returns
    -------
    The object: None, bool, int, float, str, bytes and arrays of real numbers, in lists, tuples and
    dicts. The arrays have the byte order of the file, and are read-only.

    Raises
    ------
    ValueError
        If the file holds anything else, or a pickle of more than 16 MiB, or of too many objects.

    Notes
    -----
    Nothing of the file is run: see `pickles`. Takes at most a second, and a few hundred MB.
    """
    header = read_header(file)
    if not header.dtype.hasobject or header.shape != ():
        raise ValueError(
            f"it holds an array of shape {header.shape} and dtype {header.dtype}, not a single "
            "pickled object"
        )
    data = file.read(LARGEST_PICKLE + 1)
    if len(data) > LARGEST_PICKLE:
        raise ValueError(f"its pickle has more than {LARGEST_PICKLE >> 20} MiB")
    pickles = Pickles(data, numpy_names())
    array = pickles.load()
    pickles.end()
    if not isinstance(array, _Array):
        raise ValueError("its pickle does not hold an array")
    return plain(array.content())


def numpy_names() -> Names:
    """Return what stands for NumPy's names, for the pickles of one file."""
    encoded = 0

    def encode(text: str, encoding: str) -> bytes:
        nonlocal encoded
        if type(text) is not str or encoding != "latin1":
            raise TypeError
        encoded += len(text)
        if encoded > LARGEST_PICKLE:  # the same text, again and again
            raise ValueError(f"its pickle makes more than {LARGEST_PICKLE >> 20} MiB of bytes")
        return text.encode(encoding)

    names: dict[str, Callable[..., Any] | None] = {
        "numpy.ndarray": None,
        "numpy.dtype": _DType,
        "_codecs.encode": encode,
        "__builtin__.bytes": _no_bytes,
        "collections.OrderedDict": empty_dict,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = _reconstruct
        names[f"{core}.multiarray.scalar"] = _scalar
        names[f"{core}.numeric._frombuffer"] = _from_buffer
    return names


def empty_dict() -> dict[Any, Any]:
    """Stand for ``OrderedDict()``: the items come later."""
    return {}


def are_counts(value: Any) -> bool:
    """Whether this is a tuple of a few integers that are not negative."""
    return (
        type(value) is tuple
        and len(value) <= MOST_AXES
        and all(type(axis) is int and 0 <= axis < 1 << 62 for axis in value)
    )


def is_shape(value: Any) -> bool:
    """Whether this can be a shape: many times nothing is none, for it may take long to walk."""
    return are_counts(value) and (0 not in value or max(value) <= LONGEST_EMPTY)


def _no_bytes() -> bytes:
    return b""


class _DType(Unfinished):
    """A dtype of real numbers, or of Python objects, whose byte order comes later."""

    def __init__(self, code: Any, align: Any, copy: Any) -> None:
        if type(code) is not str or not (REAL.fullmatch(code) or code == "O8"):
            raise ValueError(f"its pickle has an array of dtype {code!r:.40}, not a real number")
        self._code = code
        self._order = ""

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 8 or state[1] not in ORDERS:
            raise ValueError("its pickle has a dtype in a form that is not read")
        self._order = state[1]

    def get(self) -> np.dtype[np.generic]:
        if not self._order:
            raise ValueError("its pickle has a dtype without a byte order")
        return np.dtype(self._order + self._code)

    def finish(self) -> Any:
        raise ValueError("its pickle holds a dtype itself: it is not a value")


class _Array(Unfinished):
    """An array whose values come later."""

    def __init__(self, values: NDArray[np.generic] | None = None) -> None:
        self._values = values
        self._objects: list[Any] | None = None

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[0]) is not int:
            raise ValueError("its pickle has an array in a form that is not read")
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _DType) and dtype.get().hasobject:
            if shape != () or type(data) is not list or len(data) != 1:
                raise ValueError("its pickle has an array of several Python objects")
            self._objects = data
        else:
            self._values = _as_array(data, dtype, shape, "F" if is_fortran is True else "C")

    def content(self) -> Any:
        """Return the object in an array of one."""
        if self._objects is None:
            raise ValueError("its pickle does not hold an array of one Python object")
        return self._objects[0]

    def finish(self) -> Any:
        if self._values is None:
            raise ValueError("its pickle has an array without numbers")
        return self._values


def _as_array(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[np.generic]:
    if type(data) is not bytes or not isinstance(dtype, _DType) or not is_shape(shape):
        raise ValueError("its pickle has an array in a form that is not read")
    kind = dtype.get()
    if math.prod(shape) * kind.itemsize != len(data) or kind.hasobject:
        raise ValueError(
            f"its pickle declares an array of shape {shape} and dtype {kind}, but has "
            f"{len(data)} bytes of data"
        )
    if order not in ("C", "F"):
        raise ValueError("its pickle has an array in an order that is not read")
    return check_bools(np.ndarray(shape, kind, data, order=order))


def check_bools(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return an array, unless it has bool values that NumPy would count as more than one."""
    if array.dtype == np.bool_ and array.view(np.uint8).max(initial=0) > 1:
        raise ValueError("it has bool values that are neither 0 nor 1")
    return array


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
        raise ValueError("its pickle has an array of a kind of its own")
    return _Array()


def _scalar(dtype: Any, data: Any) -> bool | int | float:
    number: bool | int | float = _as_array(data, dtype, (), "C").item()
    return number


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(_as_array(data, dtype, shape, order))
