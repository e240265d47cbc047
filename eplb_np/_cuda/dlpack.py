"""DLPack, for arrays on a GPU without ``__cuda_array_interface__``."""

from __future__ import annotations

import ctypes
from typing import Any

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
TYPE_CODES = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode


class _Tensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    """``DLManagedTensor`` of dlpack.h."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_ManagedTensor))
_ManagedTensor._fields_ = (
    ("tensor", _Tensor),
    ("context", ctypes.c_void_p),
    ("deleter", _Deleter),
)

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)

_USED = b"used_dltensor"  # kept alive here: a capsule does not copy its name


class ImportedArray:
    """The array in a DLPack capsule, with ``__cuda_array_interface__``.

    Parameters
    ----------
    capsule : PyCapsule
        Named ``"dltensor"``; it cannot be used again.
    name : str
        What users call the array, for errors.
    """

    def __init__(self, capsule: Any, name: str) -> None:
        pointer = _get_pointer(capsule, b"dltensor")
        self._managed = ctypes.cast(pointer, ctypes.POINTER(_ManagedTensor))
        _set_name(capsule, _USED)
        tensor = self._managed.contents.tensor
        if tensor.lanes != 1 or tensor.code not in TYPE_CODES:
            raise ValueError(
                f"{name} has the DLPack type (code {tensor.code}, {tensor.bits} bits, "
                f"{tensor.lanes} lanes), which is not supported: give float32"
            )
        size = tensor.bits // 8
        axes = range(tensor.ndim)
        strides = tuple(tensor.strides[i] * size for i in axes) if tensor.strides else None
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape[i] for i in axes),
            "typestr": f"{'|' if size == 1 else '<'}{TYPE_CODES[tensor.code]}{size}",
            "data": ((tensor.data or 0) + tensor.byte_offset, True),
            "strides": strides,
            "version": 3,
        }

    def __del__(self) -> None:
        managed = getattr(self, "_managed", None)
        if managed is not None and managed.contents.deleter:
            managed.contents.deleter(managed)


def import_array(array: Any, stream: int, name: str) -> ImportedArray | None:
    """Take an array on a GPU, ready for later work on a stream; None if it is not on a GPU."""
    if array.__dlpack_device__()[0] not in (CUDA, CUDA_MANAGED):
        return None
    return ImportedArray(array.__dlpack__(stream=stream or 1), name)
