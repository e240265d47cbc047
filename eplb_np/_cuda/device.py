"""The GPU, if there is one: Numba's CUDA target, its errors, and streams."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

HOW_TO_GET_IT = "pip install 'eplb-np[cuda13]' (or 'eplb-np[cuda12]', for CUDA 12 drivers)"
CPU_WORKS = "device='cpu' still works"

# Error codes of the CUDA driver: https://docs.nvidia.com/cuda/cuda-driver-api
OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE, UNSUPPORTED_CODE, DRIVER_MISMATCH = (
    2,
    35,
    100,
    222,
    803,
)
NUMBERS = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "INSUFFICIENT_DRIVER": INSUFFICIENT_DRIVER,
    "NO_DEVICE": NO_DEVICE,
    "UNSUPPORTED_PTX_VERSION": UNSUPPORTED_CODE,
    "SYSTEM_DRIVER_MISMATCH": DRIVER_MISMATCH,
}
TOO_OLD = {
    INSUFFICIENT_DRIVER: "older than the installed CUDA toolkit",
    UNSUPPORTED_CODE: "and does not know the code that the installed CUDA toolkit makes",
    DRIVER_MISMATCH: "and does not match the installed CUDA libraries",
}

# By name, because each implementation of numba.cuda has their classes in other modules.
DRIVER_ERRORS = ("CudaAPIError", "CUDAError")
TOOLKIT_ERRORS = (
    "NvvmSupportError", "NvvmError", "NvrtcError", "NVRTCError", "LinkerError", "nvJitLinkError",
)  # fmt: skip


class DeviceError(RuntimeError):
    """There is no usable GPU, or it failed. The message says why, and what helps.

    The CPU still works afterwards.
    """


@functools.cache
def numba_cuda() -> Any:
    """Numba's CUDA module, or a `DeviceError` if it cannot work with any GPU."""
    try:
        from numba import cuda
    except ImportError as error:
        raise DeviceError(
            f"numba.cuda cannot be imported ({_one_line(error)}): {HOW_TO_GET_IT}"
        ) from error
    if getattr(cuda, "implementation", "") == "NVIDIA" and not hasattr(np, "row_stack"):
        raise DeviceError(
            f"numba-cuda does not work with NumPy {np.__version__}: pip install 'numpy<2.5'"
        )
    return cuda


def simulated() -> bool:
    """Whether Numba's simulator stands in for a GPU."""
    from numba import config

    return bool(config.ENABLE_CUDASIM)


def is_available() -> bool:
    """Tell whether plans can be made on a GPU here.

    Returns
    -------
    bool
        Whether there is a working driver, toolkit and GPU.

    Examples
    --------
    >>> from eplb_np import cuda
    >>> device = "cuda" if cuda.is_available() else "cpu"
    """
    try:
        require_device()
    except DeviceError:
        return False
    return True


def require_device() -> Any:
    """Return Numba's CUDA module if there is a usable GPU, else raise `DeviceError`."""
    cuda = numba_cuda()
    if simulated():
        return cuda
    with device_errors():
        cuda.current_context()
    if not _has_toolkit():
        raise DeviceError(f"the CUDA toolkit (libNVVM) was not found: {HOW_TO_GET_IT}")
    return cuda


@functools.cache
def _has_toolkit() -> bool:
    """Whether kernels can be compiled; asked only if there is a driver."""
    return bool(numba_cuda().is_available())


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn errors of the driver, linker or compiler into a `DeviceError` of one line."""
    try:
        yield
    except DeviceError:
        raise
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise DeviceError(message) from error


def explain(error: BaseException) -> str | None:
    """Say what an error of Numba's CUDA target means, or None if it is some other error."""
    kind = type(error).__name__
    said = _one_line(error)
    number = _driver_number(error, said)
    if number in TOO_OLD and kind in (*DRIVER_ERRORS, *TOOLKIT_ERRORS, "CudaSupportError"):
        return f"the CUDA driver is too old, {TOO_OLD[number]}: update it, or {HOW_TO_GET_IT}"
    first_sentence = said.removeprefix("Error at driver init: ").split(". ")[0]
    if kind in DRIVER_ERRORS or (kind == "CudaSupportError" and number is not None):
        if number == OUT_OF_MEMORY:
            return f"the GPU has no memory left ({first_sentence}): free some, or plan on the CPU"
        if number == NO_DEVICE:
            return f"there is a CUDA driver, but no GPU ({first_sentence}): {CPU_WORKS}"
        return (
            f"the GPU failed or was lost ({first_sentence}): restart the process to use it; "
            f"{CPU_WORKS}"
        )
    if kind == "CudaSupportError":
        return (
            f"there is no GPU to plan on ({first_sentence}): install NVIDIA's driver, and "
            f"{HOW_TO_GET_IT}; {CPU_WORKS}"
        )
    if kind in TOOLKIT_ERRORS:
        return f"the CUDA toolkit cannot compile here ({said}): {HOW_TO_GET_IT}"
    return None


def _driver_number(error: BaseException, said: str) -> int | None:
    """Return the driver's error code: the exception's own, else the one in its text."""
    try:
        return int(getattr(error, "code", None))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    named = [number for name, number in NUMBERS.items() if f"CUDA_ERROR_{name}" in said]
    stated = re.search(r"[\[(](\d+)[\])]", said)
    return named[0] if named else int(stated[1]) if stated else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(":. ") or type(error).__name__


def as_stream(stream: Any) -> Any:
    """Return the Numba stream for another library's stream; None is the default stream.

    Takes Numba's own, a handle as an integer, and objects with ``__cuda_stream__`` (the protocol),
    ``cuda_stream`` (PyTorch) or ``ptr`` (CuPy).
    """
    if stream is None or (isinstance(stream, int) and stream == 0):
        return 0
    if simulated() or hasattr(stream, "auto_synchronize"):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        stream = stream.__cuda_stream__()[1]
    for name in ("cuda_stream", "ptr"):
        stream = getattr(stream, name, stream)
    if not isinstance(stream, int):
        raise ValueError(
            f"stream={stream!r} is not a stream: give one of Numba, CuPy or PyTorch, or its handle"
        )
    return _external_stream(stream) if stream else 0


@functools.lru_cache(maxsize=64)
def _external_stream(handle: int) -> Any:
    return numba_cuda().external_stream(handle)


def wait_for(producer: int, stream: Any) -> None:
    """Let a stream wait for all work queued so far on another one, given as a handle."""
    default = (0, 1)  # two names of one stream
    if int(stream) != producer and not (int(stream) in default and producer in default):
        event = numba_cuda().event(timing=False)
        event.record(as_stream(producer))
        event.wait(stream)
