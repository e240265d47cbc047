"""`read_loads` and `write_loads`: recorded loads in the files of serving engines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_size, check_is
from eplb_np._files.reading import as_path, suffix_of
from eplb_np.io.contents import Source, name_of, opened
from eplb_np.io.formats import check_format, find_format
from eplb_np.io.recorded import Asked, RecordedLoads, check_shape, recorded_loads
from eplb_np.plan import Plan

LARGEST_EXACT = 2.0**53
"""Integers up to here are written as integers: floats hold them exactly."""


class WrittenLoads(NamedTuple):
    """What `write_loads` wrote, and how an engine's own planner is fed with it.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        Name of its format.
    start : str
        How the engine is started with the file.
    """

    path: Path
    format: str
    start: str


def read_loads(
    path: Source,
    format: str | None = None,
    *,
    in_order: bool | None = None,
    moe_layer_ids: Sequence[int] | None = None,
    current: Plan | None = None,
    num_ranks: int | None = None,
    num_experts: int | None = None,
) -> RecordedLoads:
    """Read the loads that a serving engine, a trainer or a script recorded.

    Parameters
    ----------
    path : path-like or binary file
        A file, which gzip may have packed, or a folder of files of one recording. Also a file
        that is open in binary mode and can seek, such as an `io.BytesIO`: it is read from its
        start, and left open.
    format : str, optional
        Name of the format, one of `FORMATS`. By default it is recognised by the content; names of
        files play no part. LMDeploy's list must be named: else it is one of plain JSON.
    in_order : bool, optional
        Whether the steps are in order, oldest first. By default as the format says: many engines
        record into a ring, whose start is not known.
    moe_layer_ids : sequence of int, optional
        Ids in the model of the rows' layers, ascending, if the file does not say them. By default
        the rows are the layers from 0 on, and those without load are dense.
    current : Plan, optional
        The plan that was in use, if the file holds counts of physical experts without their map.
        Counts are added up over the slots of each logical expert.
    num_ranks : int, optional
        How many ranks wrote files, so that the last ones cannot be missing unnoticed.
    num_experts : int, optional
        Logical experts of the model, for formats that do not say how ranks share them, or leave
        out those without load.

    Returns
    -------
    RecordedLoads
        The loads [L, E] of the MoE layers, the steps if their order is known, and the ids of the
        layers.

    Raises
    ------
    ValueError
        If it is no file of loads, a rank is missing, loads are negative, NaN or infinite, all are
        zero, or a declared size is beyond what is read: 512 MiB of arrays, 256 MiB of JSON,
        64 MiB of other text, 128 MiB unpacked by gzip, 2**27 loads, or 2**24 in a step. The
        message is one line, begins with the path, and comes before anything large is unpacked.
        Nothing in a file is ever run.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    O(S L E) for S steps. Steps without load are left out. The loads of ranks are added up or put
    side by side, as the format means it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from eplb_np.io import read_loads
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "loads.json"
    ...     size = file.write_text('{"logical_count": [[0, 0, 0], [5, 1, 3]]}')
    ...     loads = read_loads(file)
    >>> loads.load
    array([[5., 1., 3.]])
    >>> loads.format, loads.moe_layer_ids, loads.dense_layer_ids
    ('sglang', [1], [0])
    """
    if current is not None:
        check_is("current", current, Plan, "give the plan in use, or read it with read_plan")
    asked = Asked(
        None if num_ranks is None else as_size("num_ranks", num_ranks),
        None if num_experts is None else as_size("num_experts", num_experts),
    )
    with opened(path) as contents:
        name, row = find_format(contents, format, "reads_loads")
        found = row.member("read_loads")(contents, asked)
        loads = recorded_loads(
            found, in_order=in_order, moe_layer_ids=moe_layer_ids, current=current
        )
        if num_experts not in (None, loads.load.shape[1]):
            raise ValueError(
                f"it has loads of {loads.load.shape[1]} experts, but num_experts={num_experts}: if "
                "they are of slots, give the plan in use as current"
            )
    return replace(loads, format=name, source=f"{name_of(path)}: {row.title}")


def write_loads(
    loads: RecordedLoads,
    path: str | os.PathLike[str],
    format: str,
    *,
    num_hidden_layers: int | None = None,
) -> WrittenLoads:
    r"""Write loads for a serving engine that plans from a file of them.

    Parameters
    ----------
    loads : RecordedLoads
        What `read_loads` found. The sum over its steps is written.
    path : path-like
        A ``.json`` file. As in `Plan.save`, it is replaced as a whole or left as it was.
    format : {"lmdeploy", "sglang"}
        Name of the format.
    num_hidden_layers : int, optional
        Decoder layers of the model, dense ones included, without draft layers. Needed unless
        the recording said it.

    Returns
    -------
    WrittenLoads
        The file, and how the engine is started with it.

    Raises
    ------
    ValueError
        If the format or the suffix is unknown, or the number of layers is missing or does not fit
        the loads.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    O(L E). Layers without load are zeros, and loads that are whole numbers are written as such.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from eplb_np.io import read_loads, write_loads
    >>> with TemporaryDirectory() as folder:
    ...     file, other = Path(folder) / "loads.csv", Path(folder) / "loads.json"
    ...     size = file.write_text("layer,expert_0,expert_1\n1,5,3\n2,4,4\n")
    ...     written = write_loads(read_loads(file), other, "lmdeploy", num_hidden_layers=3)
    ...     print(other.read_text())
    [[0, 0], [5, 3], [4, 4]]
    """
    check_is("loads", loads, RecordedLoads, "read them with read_loads")
    row = check_format(format, "writes_loads")
    where = as_path(path)
    suffix_of(where, (suffix_of_loads(format),))
    is_array = format == "numpy"
    known = loads.num_hidden_layers
    if is_array and num_hidden_layers is known is None:
        num_hidden_layers = loads.moe_layer_ids[-1] + 1
    rows = _with_dense_layers(loads, loads.windows if is_array else loads.load, num_hidden_layers)
    if is_array and len(rows) == 1:
        rows = rows[0]
    if rows.dtype.kind == "f" and (rows < LARGEST_EXACT).all() and (rows == np.floor(rows)).all():
        rows = rows.astype(np.int64)
    start: str = row.member("write_loads")(rows, where)
    return WrittenLoads(where, format, start)


def suffix_of_loads(format: str) -> str:
    """Return the suffix that a file of loads of this format has."""
    return ".npy" if format == "numpy" else ".json"


def _with_dense_layers(
    loads: RecordedLoads, values: NDArray[Any], num_hidden_layers: int | None
) -> NDArray[Any]:
    """Return loads [..., L, E] with the rows of all decoder layers [..., R, E]."""
    known = loads.num_hidden_layers
    count = known if num_hidden_layers is None else num_hidden_layers
    if count is None:
        raise ValueError(
            "the recording does not say how many decoder layers the model has, and the engine "
            "wants a row for each: give num_hidden_layers, for DeepSeek-V3 61"
        )
    count = as_size("num_hidden_layers", count)
    last = loads.moe_layer_ids[-1]
    if count <= last or known not in (None, count):
        raise ValueError(
            f"num_hidden_layers={count}, but the loads are of "
            + (f"layer {last}, too" if count <= last else f"{known} layers")
            + ": give the number of all decoder layers of the model, dense ones included"
        )
    shape = (*values.shape[:-2], count, values.shape[-1])
    check_shape(shape, "the table of all layers")
    rows = np.zeros(shape, values.dtype)
    rows[..., loads.moe_layer_ids, :] = values
    return rows
