"""Zip archives from untrusted files: their directory is checked before it is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from eplb_np._files.reading import size_of

LARGEST_DIRECTORY = 1 << 21
"""Bytes of the list of an archive's members."""

END = b"PK\5\6"
END_LENGTH = 22
RECORD_64 = b"PK\6\6"
RECORD_64_LENGTH = 56
LOCATOR_64 = b"PK\6\7"
LENGTH_64 = RECORD_64_LENGTH + 20
"""Bytes of record and locator, which lie before the end's own ones."""

LONGEST_TAIL = LENGTH_64 + END_LENGTH + (1 << 16)
"""Bytes of all these and of a comment behind them."""


class ZipArchive:
    """A zip archive whose list of members has been read and checked."""

    def __init__(self, file: BinaryIO, kind: str, suffix: str = "") -> None:
        """Read the list; the members are known by their names without ``suffix``."""
        _check_directory(file, kind)
        self._zip = zipfile.ZipFile(file)
        self.members: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            name = entry.filename.removesuffix(suffix)
            if name in self.members:
                raise ValueError(f"it holds the array {name!r:.100} twice")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its array {name!r:.100} is compressed in a way that is not read")
            self.members[name] = entry

    def check_size(self, names: Iterable[str], most: int, why: str) -> None:
        """Raise ``ValueError`` if these members together unpack to more than ``most`` bytes."""
        size = sum(self.members[name].file_size for name in names)
        if size > most:
            raise ValueError(f"it declares {size:,} bytes of arrays, more than {why}: {most:,}")

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a member."""
        entry = self.members[name]
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size > entry.compress_size:
            raise ValueError(f"its array {name!r:.100} declares a size that it cannot have")
        try:
            file = self._zip.open(entry)
        except zipfile.BadZipFile:  # says as much of the file as a name may be long
            raise ValueError(f"its array {name!r:.100} is not where its list says") from None
        with file:
            yield cast(BinaryIO, file)


def _check_directory(file: BinaryIO, kind: str) -> None:
    """Refuse archives whose list of members alone takes time and memory."""
    start = max(0, size_of(file) - LONGEST_TAIL)
    file.seek(start)
    tail = file.read(LONGEST_TAIL)
    file.seek(0)
    end = tail.rfind(END)
    if end < 0 or len(tail) < end + END_LENGTH:
        raise ValueError(f"it is not an {kind} archive")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > LARGEST_DIRECTORY:
        raise ValueError("its list of arrays is too long for one")
    record = end - LENGTH_64
    locator = record + RECORD_64_LENGTH
    if tail[max(0, locator) : end].startswith(LOCATOR_64) and not (
        # torch writes where the list lies in both forms, always
        tail[max(0, record) : locator].startswith(RECORD_64)
        and tail[record + 40 : locator] == _as_64(tail[end + 12 : end + 20])
        and int.from_bytes(tail[locator + 8 : locator + 16], "little") == start + record
    ):
        raise ValueError("its list of arrays is in a form for archives of more than 4 GiB")


def _as_64(numbers: bytes) -> bytes:
    """Little-endian numbers of four bytes, with eight."""
    return b"".join(numbers[i : i + 4] + bytes(4) for i in range(0, len(numbers), 4))
