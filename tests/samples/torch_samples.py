"""Files as ``torch.save`` and ``numpy.save`` write them, or nearly so, made without torch.

A pickle is assembled from values; `Call`, `Name`, `Reference` and `Raw` stand for what plain values
cannot say. Arrays become tensors of their own storage.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eplb_np._files.pickled_arrays import read_pickled_npy
from eplb_np._files.reading import open_regular, reading
from eplb_np._files.torch_files import read_torch

MAGIC = 0x1950A86A20F9469CFC6C
CLASSES = {
    "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
    "bool": "Bool", "float16": "Half", "float32": "Float", "float64": "Double",
    "complex64": "ComplexFloat",
}  # fmt: skip


class Name(NamedTuple):
    """A global name."""

    module: str
    name: str


class Call(NamedTuple):
    """What a call returns, and what is then set of it."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


class Reference(NamedTuple):
    """A persistent id."""

    id: Any


class Raw(NamedTuple):
    """Opcodes."""

    code: bytes


class Storage(NamedTuple):
    """A storage: what is declared, and what is there."""

    key: str
    data: bytes
    count: int
    kind: Name


class Tensor(NamedTuple):
    """A tensor that looks at a storage."""

    storage: Storage
    offset: Any
    shape: Any
    strides: Any
    dtype: Name | None = None
    metadata: tuple[Any, ...] = ()


def storage_class(name: str) -> Name:
    return Name("torch", f"{name}Storage")


def storage_of(values: np.ndarray, key: str = "0") -> Storage:
    kind = storage_class(CLASSES[values.dtype.name])
    return Storage(key, values.tobytes(), values.size, kind)


def tensor_of(values: np.ndarray, key: str = "0") -> Tensor:
    strides = tuple(step // values.itemsize for step in np.empty_like(values, order="C").strides)
    return Tensor(storage_of(values, key), 0, values.shape, strides)


class Assembler:
    """Writes a value as a pickle of protocol 2, and notes the storages that it refers to."""

    def __init__(self, old: bool = False) -> None:
        self.storages: dict[str, Storage] = {}
        self._old = old
        self._memo: dict[Any, int] = {}

    def pickle(self, value: Any) -> bytes:
        self._memo = {}
        return b"\x80\2" + self._of(value) + b"."

    def _of(self, value: Any) -> bytes:
        return getattr(self, f"_{type(value).__name__.lower()}")(value)

    def _once(self, value: Any, code: bytes) -> bytes:
        """A value that is remembered, as pickles do with every text and name."""
        if value in self._memo:
            return b"h" + bytes([self._memo[value]])
        if len(self._memo) == 256:
            return code
        self._memo[value] = len(self._memo)
        return code + b"q" + bytes([self._memo[value]])

    def _nonetype(self, value: None) -> bytes:
        return b"N"

    def _bool(self, value: bool) -> bytes:
        return b"\x88" if value else b"\x89"

    def _int(self, value: int) -> bytes:
        if 0 <= value < 256:
            return b"K" + bytes([value])
        if 0 <= value < 1 << 16:
            return b"M" + struct.pack("<H", value)
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)

    def _float(self, value: float) -> bytes:
        return b"G" + struct.pack(">d", value)

    def _str(self, value: str) -> bytes:
        text = value.encode()
        return self._once(value, b"X" + struct.pack("<I", len(text)) + text)

    def _bytes(self, value: bytes) -> bytes:
        return self._of(Call(Name("_codecs", "encode"), (value.decode("latin1"), "latin1")))

    def _list(self, value: list[Any]) -> bytes:
        return b"](" + b"".join(map(self._of, value)) + b"e"

    def _tuple(self, value: tuple[Any, ...]) -> bytes:
        parts = b"".join(map(self._of, value))
        if len(value) < 4:
            return parts + b")\x85\x86\x87"[len(value) : len(value) + 1]
        return b"(" + parts + b"t"

    def _dict(self, value: dict[Any, Any]) -> bytes:
        items = (self._of(key) + self._of(part) for key, part in value.items())
        return b"}(" + b"".join(items) + b"u"

    def _name(self, value: Name) -> bytes:
        return self._once(value, b"c" + f"{value.module}\n{value.name}\n".encode())

    def _call(self, value: Call) -> bytes:
        code = self._of(value.function) + self._of(value.arguments) + b"R"
        return code if value.state is None else code + self._of(value.state) + b"b"

    def _reference(self, value: Reference) -> bytes:
        return self._of(value.id) + b"Q"

    def _raw(self, value: Raw) -> bytes:
        return value.code

    def _storage(self, value: Storage) -> bytes:
        self.storages.setdefault(value.key, value)
        view = (None,) if self._old else ()
        parts = ("storage", value.kind, value.key, "cpu", value.count, *view)
        return self._of(Reference(parts))

    def _tensor(self, value: Tensor) -> bytes:
        version = "_rebuild_tensor_v3" if value.dtype else "_rebuild_tensor_v2"
        dtype = (value.dtype,) if value.dtype else ()
        hooks = Call(Name("collections", "OrderedDict"), ())
        shape = (value.storage, value.offset, value.shape, value.strides)
        arguments = (*shape, False, hooks, *dtype, *value.metadata)
        return self._of(Call(Name("torch._utils", version), arguments))

    def _ndarray(self, value: np.ndarray) -> bytes:
        return self._of(tensor_of(value, str(len(self.storages))))


def torch_zip(value: Any, more: dict[str, bytes] | None = None, **changed: bytes | None) -> bytes:
    """What ``torch.save`` writes: ``more`` members, and those ``changed`` (None: left out)."""
    assembler = Assembler()
    members = {"data.pkl": assembler.pickle(value), "byteorder": b"little"}
    members |= {f"data/{key}": storage.data for key, storage in assembler.storages.items()}
    members |= {"version": b"3\n", **(more or {})}
    members |= {"data.pkl" if name == "pickle" else name: new for name, new in changed.items()}
    return zip_of({f"dump/{name}": data for name, data in members.items() if data is not None})


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose directory is in both forms, as torch writes all of them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    content, end = file.getvalue()[:-22], file.getvalue()[-22:]
    count, size, offset = struct.unpack("<HII", end[10:20])
    record = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<IQI", 0, len(content), 1)
    return content + b"PK\6\6" + record + b"PK\6\7" + locator + end


def torch_old(value: Any, system: Any = None, keys: list[Any] | None = None) -> bytes:
    """What ``torch.save`` writes in its older form."""
    assembler = Assembler(old=True)
    system = {"protocol_version": 1001, "little_endian": True} if system is None else system
    parts = [assembler.pickle(part) for part in (MAGIC, 1001, system, value)]
    storages = assembler.storages
    parts.append(assembler.pickle(list(storages) if keys is None else keys))
    for storage in storages.values():
        parts.append(struct.pack("<q", storage.count) + storage.data)
    return b"".join(parts)


def pickled_npy(value: Any) -> bytes:
    """What ``numpy.save`` writes of an object that is no array."""
    file = io.BytesIO()
    np.save(file, np.array(value, object), allow_pickle=True)
    return file.getvalue()


def dtype_of(code: Any, order: Any = "<", *more: Any) -> Call:
    """How NumPy pickles a dtype."""
    state = (3, order, *more, *[None] * (3 - len(more)), -1, -1, 0)
    return Call(Name("numpy", "dtype"), (code, False, True), state)


def array_of(dtype: Any, shape: Any, data: Any, is_fortran: Any = False) -> Call:
    """How NumPy pickles an array."""
    reconstruct = Name("numpy._core.multiarray", "_reconstruct")
    state = (1, shape, dtype, is_fortran, data)
    return Call(reconstruct, (Name("numpy", "ndarray"), (0,), b"b"), state)


def npy_of_pickle(pickle: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + pickle


def recording(counts: np.ndarray) -> dict[str, Any]:
    """A recording of some steps, as SGLang keeps it."""
    steps = enumerate(counts)
    records = [{"forward_pass_id": i, "global_physical_count": step} for i, step in steps]
    return {"rank": 0, "logical_count": counts, "average": 0.5, "window": None, "records": records}


def sound_files(counts: np.ndarray) -> dict[str, bytes]:
    """One sound file of each kind: counts [steps, layers, experts], of any dtype of CLASSES."""
    return {
        "torch zip": torch_zip(recording(counts)),
        "torch old": torch_old(recording(counts)),
        "pickled npy": pickled_npy({"logical_count": counts[0], "timestamp": "20261124_1541"}),
    }


def read_pt(path: str | Path) -> Any:
    with reading(path), open_regular(path) as file:
        return read_torch(file)


def read_npy(path: str | Path) -> Any:
    with reading(path), open_regular(path) as file:
        return read_pickled_npy(file)
