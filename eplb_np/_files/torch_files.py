"""What ``torch.save`` writes, read without torch: tensors become arrays."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, BinaryIO
from zipfile import ZIP_STORED

from eplb_np._files.pickles import LARGEST_PICKLE, Pickles
from eplb_np._files.plain_values import plain
from eplb_np._files.reading import size_of
from eplb_np._files.tensors import Storage, Tensors
from eplb_np._files.zip_files import ZipArchive

ZIP = b"PK\3\4"
PROTO = b"\x80"
"""Which begins every pickle of protocol 2 or later."""

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
NOT_TORCH = "it is not in a form that torch.save writes"


def read_torch(file: BinaryIO) -> Any:
    """Read what ``torch.save`` wrote, as plain values and arrays.

    Parameters
    ----------
    file
        A binary file that can seek, in the zip form or in the older form of ``torch.save``.

    Returns
    -------
    The object: None, bool, int, float, str, bytes and arrays of real numbers, in lists, tuples and
    dicts. Tensors and parameters are arrays of the shape and dtype that they had, but float32 where
    that was bfloat16. They share memory where they did. A ``torch.device`` is its name.

    Raises
    ------
    ValueError
        If the file holds anything else, such as a module, or a tensor that is sparse, quantized,
        complex or of a class of its own, or numbers in big-endian order; or more than 512 MiB of
        numbers (bfloat16 counts as float32), or a pickle of more than 16 MiB.

    Notes
    -----
    Nothing of the file is run: see `pickles`. What it declares is checked before it is read.
    """
    start = file.read(len(ZIP))
    file.seek(0)
    if start == ZIP:
        return _read_zip(ZipArchive(file, ".pt"))
    if not start.startswith(PROTO):
        raise ValueError(NOT_TORCH)
    return _read_old(file)


def _read_zip(archive: ZipArchive) -> Any:
    places = [name for name in archive.members if name.split("/")[1:] == ["data.pkl"]]
    if len(places) != 1:
        raise ValueError(f"it has {len(places)} members data.pkl, not one: torch.save writes one")
    prefix = places[0].removesuffix("data.pkl")
    if prefix + "constants.pkl" in archive.members:
        raise ValueError("it is a TorchScript archive, a program: save a dict of tensors")
    order = prefix + "byteorder"
    if order in archive.members and _read_member(archive, order, 16) != b"little":
        raise ValueError("its numbers are not in little-endian order")
    tensors = Tensors()
    data = _read_member(archive, prefix + "data.pkl", LARGEST_PICKLE)
    pickles = Pickles(data, tensors.names(), tensors.storage)
    value = pickles.load()
    pickles.end()
    for key, storage in tensors.storages.items():
        _read_storage(archive, f"{prefix}data/{key}", storage)
    return plain(value)


def _read_member(archive: ZipArchive, name: str, most: int) -> bytes:
    archive.check_size([name], most, f"{name!r:.100} may have")
    with _open_stored(archive, name) as file:
        return file.read()


def _read_storage(archive: ZipArchive, name: str, storage: Storage) -> None:
    if name not in archive.members:
        raise ValueError(f"it has no member {name!r:.100}, a storage that its pickle declares")
    entry = archive.members[name]
    if entry.file_size != storage.size:
        raise ValueError(
            f"its pickle declares a storage of {storage.count} x {storage.element}, but its member "
            f"{name!r:.100} has {entry.file_size} bytes"
        )
    with _open_stored(archive, name) as file:
        storage.read(file)


def _open_stored(archive: ZipArchive, name: str) -> AbstractContextManager[BinaryIO]:
    if archive.members[name].compress_type != ZIP_STORED:
        raise ValueError(f"its member {name!r:.100} is compressed, which torch.save does not do")
    return archive.open(name)


def _read_old(file: BinaryIO) -> Any:
    """Read the form of torch before 1.6: pickles, one after the other, and then all storages."""
    tensors = Tensors()
    pickles = Pickles(file.read(LARGEST_PICKLE), tensors.names(), tensors.storage)
    if pickles.load() != MAGIC or pickles.load() != PROTOCOL:
        raise ValueError(NOT_TORCH)
    system = pickles.load()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise ValueError("its numbers are not in little-endian order")
    value = pickles.load()
    keys = pickles.load()
    storages = tensors.storages
    if (
        type(keys) is not list
        or any(type(key) is not str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise ValueError("its list of storages is not that of its tensors")
    if pickles.place + sum(8 + storage.size for storage in storages.values()) != size_of(file):
        raise ValueError("its storages are not as long as its pickle declares")
    file.seek(pickles.place)
    for key in keys:
        if int.from_bytes(file.read(8), "little") != storages[key].count:
            raise ValueError(f"its storage {key!r} is not as long as its pickle declares")
        storages[key].read(file)
    return plain(value)
