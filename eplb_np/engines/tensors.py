"""Tensors of PyTorch in and out, by what the process has loaded already: it is never imported."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def as_host(values: Any) -> Any:
    """Return a tensor, on whatever device, as a NumPy array; anything else as it is."""
    if not _is_tensor(values):
        return values
    on_host = values.detach().cpu()
    try:
        return on_host.numpy()
    except TypeError:  # of a type that NumPy lacks, as bfloat16
        return on_host.float().numpy()


def as_given(array: NDArray[Any], given: Any, dtype: DTypeLike = np.int64) -> Any:
    """Return a new array, or a tensor on the device of ``given`` if that is a tensor."""
    owned = np.array(array, dtype, order="C")  # those of plans are read-only, and PyTorch warns
    if not _is_tensor(given):
        return owned
    return sys.modules["torch"].from_numpy(owned).to(given.device)


def _is_tensor(values: Any) -> bool:
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(values, kind)
