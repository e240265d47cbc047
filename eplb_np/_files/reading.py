"""Reading files that anybody may have written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: str | os.PathLike[str], complaint: str = "") -> Iterator[None]:
    """Turn whatever foreign bytes do to their parser into ``ValueError``, in one line.

    Parsers of damaged files raise nearly everything: ``zlib.error``, ``NotImplementedError``,
    ``TokenError``, ``RecursionError``, ``MemoryError``. A missing file stays what it is.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{os.fspath(path)}{complaint}: {cause}") from None


def suffix_of(path: str | os.PathLike[str], known: tuple[str, ...]) -> str:
    """Return a path's suffix, in lower case, if it is a known one."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"{os.fspath(path)}: the suffix {suffix!r} says no known format: "
            f"use one of {', '.join(known)}"
        )
    return suffix
