"""Check loads that users pass, and convert them to the one form that kernels take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import LARGEST_SIZE, said_by

FLOAT32_MAX = float(np.finfo(np.float32).max)


def as_array(values: ArrayLike, name: str) -> NDArray[np.generic]:
    """Return users' numbers as an array of a real dtype, or raise ``ValueError``."""
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return values
    try:
        masked = isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values)
        on_gpu = hasattr(values, "__cuda_array_interface__")
        if isinstance(values, range) and len(values) > LARGEST_SIZE:
            raise ValueError(f"{values} has too many numbers")
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} is not a rectangular array ({said_by(error)}): give every row the same length"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - objects raise anything here
        if type(error).__name__ == "TracerArrayConversionError":
            raise ValueError(
                f"{name} is traced by JAX, so it has no numbers yet: call this outside jax.jit, "
                "or inside a function that you give to jax.pure_callback"
            ) from None
        raise ValueError(
            f"{name} cannot be read as an array ({said_by(error)}): give an array on the host, or "
            "lists of numbers"
        ) from None
    if masked:
        raise ValueError(f"{name} has masked entries: fill them, with 0 where nothing was counted")
    kind = array.dtype.kind
    # Extension types such as bfloat16 report the kind void, but can be cast to float32.
    extension = kind == "V" and not issubclass(array.dtype.type, np.void)
    if kind not in "biuf" and not extension:
        if on_gpu:
            raise ValueError(
                f"{name} is on a GPU, where NumPy cannot read it: copy it to the host, or plan on "
                "the GPU"
            )
        raise ValueError(
            f"{name} has dtype {array.dtype}, which is not a real number type: "
            "give integers or floating-point numbers"
        )
    return array


def as_load(load: ArrayLike, name: str = "weight", columns: str = "experts") -> NDArray[np.float32]:
    """Return loads in the one form that kernels take: C-contiguous writable float32, 2-D.

    Raises ``ValueError`` unless there is a finite, non-negative load per layer and expert, and
    names the first bad one. Returns the caller's own array if it already has that form.
    """
    given = as_array(load, name)
    check_rows(given.shape, name, columns)
    return _as_float32(given, name, columns)


def check_rows(shape: tuple[int, ...], name: str, columns: str) -> None:
    """Raise ``ValueError`` unless a shape has two axes and neither is empty."""
    if len(shape) != 2:
        hint = (
            f"{name}[None, :] is one layer" if len(shape) == 1 else "sum or select the other axes"
        )
        raise ValueError(
            f"{name} has {len(shape)} dimension(s), shape {shape}: "
            f"give [layers, {columns}] ({hint})"
        )
    check_not_empty(shape, name)


def check_not_empty(shape: tuple[int, ...], name: str) -> None:
    """Raise ``ValueError`` if an axis has no entries."""
    if 0 in shape:
        raise ValueError(
            f"{name} has shape {shape}, so it is empty: give at least one entry on every axis"
        )


def of_layers(load: ArrayLike, layer_ids: Sequence[int], name: str) -> NDArray[np.generic]:
    """Return the rows [L, E] of some layers, if ``load`` has a row for each layer of the model.

    It has if it has more rows than there are ids. The others must be zero, as those of dense layers
    are. Anything else is returned as it is.
    """
    given = as_array(load, name)
    if given.ndim != 2 or len(given) <= len(layer_ids):
        return given
    if len(given) <= layer_ids[-1]:
        raise ValueError(
            f"{name} has shape {given.shape}, so it has neither a row for each of the "
            f"{len(layer_ids)} planned layers, nor one for each layer of a model with layer "
            f"{layer_ids[-1]}: give one of the two"
        )
    rows = list(layer_ids)
    others: Any = given.astype(bool).any(axis=1)
    others[rows] = False
    if others.any():
        raise ValueError(
            f"{name} has {given.shape[0]} rows, and layer {int(others.argmax())} has load, but the "
            f"{len(rows)} planned layers do not include it: give their rows only, or zeros "
            "in all others"
        )
    return given[rows]


def as_history(load: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return loads [W, L, E], oldest window first; [L, E] is one window. Otherwise as `as_load`."""
    given = as_array(load, name)
    if given.ndim not in (2, 3):
        hint = f" ({name}[None, :] is one layer)" if given.ndim == 1 else ""
        raise ValueError(
            f"{name} has {given.ndim} dimension(s), shape {given.shape}: "
            f"give [layers, experts], or [windows, layers, experts], oldest first{hint}"
        )
    check_not_empty(given.shape, name)
    return _as_float32(given if given.ndim == 3 else given[None], name, "experts")


def _as_float32(given: NDArray[np.generic], name: str, columns: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        weight = np.asarray(given, dtype=np.float32, order="C")
    # With another byte order, alignment or a read-only flag, Numba would see another type, and
    # compile again.
    if not weight.flags.carray:
        weight = weight.copy()

    row, column = _checking_kernel()(weight.reshape(-1, weight.shape[-1]))
    if row >= 0:
        _raise_bad_load(given, name, int(row), int(column), columns)
    return weight


@cache
def _checking_kernel() -> Callable[[NDArray[np.float32]], tuple[Any, Any]]:
    """Import the kernel once: an import statement takes as long as the check of a few loads."""
    from eplb_np._loads.cpu import first_bad_load

    return first_bad_load


def check_loads(values: NDArray[Any], name: str) -> None:
    """Raise ``ValueError`` for the first NaN, infinite or negative load, without a kernel."""
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        layer, expert = (int(i) for i in np.argwhere(bad)[0])
        _raise_bad_load(values, name, layer, expert, "experts")


def _raise_bad_load(given: NDArray[Any], name: str, row: int, column: int, columns: str) -> None:
    place = tuple(int(i) for i in np.unravel_index(row, given.shape[:-1]))
    if len(place) == 2 and len(given) == 1:
        place = place[1:]  # one window, perhaps given without its axis
        given = given[0]
    axes = ("window", "layer")[-len(place) :]
    said = ", ".join(f"{axis} {i}" for axis, i in zip(axes, place, strict=True))
    if column < 0:
        raise ValueError(
            f"{name}: the loads of {said} add up to 2**127 or more, so that sums of them would "
            "exceed float32's range: scale the loads down (only their ratios matter)"
        )
    value = given[(*place, column)]
    index = ", ".join(map(str, (*place, column)))
    where = f"{name}[{index}] = {value!s} ({said}, {columns[:-1]} {column})"
    if np.isfinite(np.atleast_1d(value).astype(np.longdouble))[0] and value > 0:
        raise ValueError(
            f"{where} is beyond float32's range ({FLOAT32_MAX:.3g}): "
            "scale the loads down (only their ratios matter)"
        )
    raise ValueError(f"{where}: a load must be finite and not negative: clean the loads first")
