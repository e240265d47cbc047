"""Reads of files from untrusted sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: str | os.PathLike[str], complaint: str = "") -> Iterator[None]:
    """Turn any error of a parser into a one-line ``ValueError`` that begins with the path.

    Damaged files make parsers raise almost anything: ``zlib.error``, ``NotImplementedError``,
    ``TokenError``, ``RecursionError``, ``MemoryError``. A missing file remains a
    ``FileNotFoundError``.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{os.fspath(path)}{complaint}: {cause}") from None


def suffix_of(path: str | os.PathLike[str], known: tuple[str, ...]) -> str:
    """Return a path's suffix in lower case, or raise ``ValueError`` if it is unknown."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"{os.fspath(path)}: unknown file suffix {suffix!r}: use one of {', '.join(known)}"
        )
    return suffix
