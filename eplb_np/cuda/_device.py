"""The GPU, if there is one: Numba's CUDA target, what goes wrong with it, and streams."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

HOW_TO_GET_IT = "pip install eplb-np[cuda13] (or [cuda12], for CUDA 12 drivers)"
CPU_WORKS = "device='cpu' works as before"

# What the CUDA driver answers, by number: https://docs.nvidia.com/cuda/cuda-driver-api
OUT_OF_MEMORY = 2
NO_DEVICE = 100
TOO_OLD = {
    35: "it is older than the CUDA toolkit that is installed",
    222: "it does not know the code that the installed CUDA toolkit makes",
    803: "it does not fit the installed CUDA libraries",
}


class DeviceError(RuntimeError):
    """There is no usable GPU, or it failed; what is missing or happened, and what helps.

    The CPU works afterwards as it did before.
    """


@functools.cache
def numba_cuda() -> Any:
    """Numba's CUDA module, or `DeviceError` where it cannot work, whatever the GPU."""
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
        Whether there are a driver, a toolkit and a GPU that answer.

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
    """Return Numba's CUDA module with a GPU at hand, or raise `DeviceError`."""
    cuda = numba_cuda()
    if simulated():
        return cuda
    with device_errors():
        cuda.current_context()
    if not cuda.is_available():  # there is a driver, so what is missing is the toolkit
        raise DeviceError(f"the CUDA toolkit (libNVVM) is not found: {HOW_TO_GET_IT}")
    return cuda


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn what the driver, the linker or the compiler raise into a `DeviceError` of one line."""
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
    """Say what an error of Numba's CUDA target means, or None where it is another's error."""
    name = type(error).__name__
    said = _one_line(error)
    # The number is the error's first argument, or, when the driver failed to start, in its text.
    stated = re.search(r"[\[(](\d+)[\])]", said)
    number = int(stated[1]) if stated else -1
    if name == "CudaAPIError" or (name == "CudaSupportError" and number >= 0):
        if number == OUT_OF_MEMORY:
            return f"the GPU has no memory left ({said}): free some, or plan on the CPU"
        if number == NO_DEVICE:
            return f"there is a CUDA driver, but no GPU ({said}): {CPU_WORKS}"
        if number in TOO_OLD:
            return f"the CUDA driver is too old, {TOO_OLD[number]}: update it, or {HOW_TO_GET_IT}"
        return f"the GPU failed or was lost ({said}): restart the process to use it; {CPU_WORKS}"
    if name == "CudaSupportError":
        reason = said.removeprefix("Error at driver init: ").split(". ")[0]
        return (
            f"there is no GPU to plan on ({reason}): install NVIDIA's driver, and "
            f"{HOW_TO_GET_IT}; {CPU_WORKS}"
        )
    if name in ("NvvmSupportError", "NvvmError", "NvrtcError", "LinkerError", "NvvmWarning"):
        return f"the CUDA toolkit cannot compile here ({said}): {HOW_TO_GET_IT}"
    if name == "MemoryError" or "OUT_OF_MEMORY" in said:
        return f"the GPU has no memory left ({said}): free some, or plan on the CPU"
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(":. ") or type(error).__name__


def as_stream(stream: Any) -> Any:
    """Return the Numba stream for what other libraries call a stream; None is the default one.

    Takes Numba's own, a handle as an integer, and what has ``__cuda_stream__`` (the protocol),
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
            f"stream={stream!r} is no stream: give one of Numba, CuPy or PyTorch, or its handle"
        )
    return _external_stream(stream) if stream else 0


@functools.lru_cache(maxsize=64)
def _external_stream(handle: int) -> Any:
    return numba_cuda().external_stream(handle)


def wait_for(producer: int, stream: Any) -> None:
    """Let a stream wait for what another one, given as a handle, has been given to do so far."""
    if int(stream) != producer:
        event = numba_cuda().event(timing=False)
        event.record(as_stream(producer))
        event.wait(stream)
