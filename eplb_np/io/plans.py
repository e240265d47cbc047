"""`read_plan` and `write_plan`: placements as the files of serving engines hold them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eplb_np._arguments import as_size, check_is
from eplb_np._files.reading import as_path, suffix_of
from eplb_np._files.targets import target_of
from eplb_np.io.contents import Source, opened
from eplb_np.io.formats import Format, check_format, find_format
from eplb_np.io.placements import (
    Consumer,
    Placement,
    as_rows,
    check_num_layers,
    placement_for,
    plan_of,
)
from eplb_np.plan import Plan
from eplb_np.topology import Topology


class WrittenPlan(NamedTuple):
    """What `write_plan` wrote, and what a user should know of it.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        Name of its format.
    start : str
        How the engine is started with the file; empty if it takes none.
    notes : tuple of str
        One line each: experts that stand twice on a GPU, layers that were filled in.
    """

    path: Path
    format: str
    start: str
    notes: tuple[str, ...]


def write_plan(
    plan: Plan,
    path: str | os.PathLike[str],
    format: str = "eplb_np",
    *,
    num_hidden_layers: int | None = None,
    current: Plan | None = None,
) -> WrittenPlan:
    """Write a plan as a serving engine reads it.

    Parameters
    ----------
    plan : Plan
        The plan. Its ``moe_layer_ids`` say which layers of the model it is for.
    path : path-like
        File to write, with a suffix that the engine knows. As in `Plan.save`, it is replaced as a
        whole or left as it was.
    format : str, default: "eplb_np"
        Name of the format, one of `FORMATS`.
    num_hidden_layers : int, optional
        Decoder layers of the model, dense ones included, without draft layers. Needed by engines
        that want a row for each: no plan says how many layers follow its last one. Layers
        that are not planned hold the experts in order, then the first ones again.
    current : Plan, optional
        The plan that the engine uses. Experts that stay on their GPU then keep their slots.

    Returns
    -------
    WrittenPlan
        The file, the options with which to start the engine, and what else to know.

    Raises
    ------
    ValueError
        If the format is unknown or the suffix does not fit it. If the engine could not use the
        plan, or would serve wrong experts without a word: empty slots, another number of slots on
        some GPU, an expert twice on a GPU where that breaks it, sizes beyond its limits, or a
        missing or wrong ``num_hidden_layers``. Nothing is written then.
    FileNotFoundError
        If the folder does not exist.

    Notes
    -----
    O(L P). Files have no place for ranks of replicas or the topology but in the format
    ``"eplb_np"``: `read_plan` numbers replicas by their slots.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from eplb_np import make_plan
    >>> from eplb_np.io import write_plan
    >>> plan = make_plan([[5, 1, 3]], num_replicas=4, num_gpus=2, moe_layer_ids=[1])
    >>> with TemporaryDirectory() as folder:
    ...     written = write_plan(plan, Path(folder) / "p.json", "sglang", num_hidden_layers=2)
    ...     print(written.path.read_text())
    {"physical_to_logical_map": [[0, 1, 2, 0], [2, 1, 0, 0]]}
    """
    check_is("plan", plan, Plan, "make one with make_plan, or read it with read_plan")
    if current is not None:
        check_is("current", current, Plan, "give the plan in use, or read it with read_plan")
    last_layer = (plan.moe_layer_ids or (0,))[-1]
    row = check_writable(path, format, last_layer, num_hidden_layers)
    where = as_path(path)
    if format == "eplb_np":
        plan.save(where)
        return WrittenPlan(where, format, "", ())
    placement, notes = placement_for(row.member("CONSUMER"), plan, num_hidden_layers, current)
    start: str = row.member("write_plan")(placement, where)
    return WrittenPlan(where, format, start, notes)


def check_writable(
    path: str | os.PathLike[str], format: str, last_layer: int, num_hidden_layers: int | None
) -> Format:
    """Raise what `write_plan` would of any plan up to this layer, and return the format's row."""
    row = check_format(format, "writes_plans")
    consumer: Consumer = row.member("CONSUMER")
    suffix_of(path, consumer.suffixes)
    check_num_layers(consumer, last_layer, num_hidden_layers)
    target_of(path)
    return row


def read_plan(
    path: Source,
    format: str | None = None,
    *,
    num_gpus: int | None = None,
    num_nodes: int = 1,
    num_groups: int = 1,
    moe_layer_ids: Sequence[int] | None = None,
) -> Plan:
    """Read a plan that this package, another planner or a serving engine wrote.

    Parameters
    ----------
    path : path-like or binary file
        The file, which gzip may have packed; a path, or as in `read_loads` an open file.
    format : str, optional
        Name of the format, one of `FORMATS`; by default it is recognised by the content.
    num_gpus : int, optional
        GPUs that share the slots of a layer evenly. Needed where the file does not say.
    num_nodes, num_groups : int, default: 1
        As in `Topology`; no engine's file says them.
    moe_layer_ids : sequence of int, optional
        Ids of the layers, ascending. Files with a row for every decoder layer, or with ids of
        their own, do not say which layers are dense: these are the layers to take, by default
        all. Files whose rows are the MoE layers, without ids: these are the ids of the rows, one
        for each, by default 0, 1, 2 and so on.

    Returns
    -------
    Plan
        Its ``policy`` is the name of the format, except for the package's own files. Replicas
        are numbered by their slots. Experts are those up to the largest id in the file.

    Raises
    ------
    ValueError
        If it is no plan, an id is out of range, an expert has no slot in some layer, or sizes do
        not fit together. The message is one line and begins with the path.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    O(L P log P).

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from eplb_np.io import read_plan
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "plan.json"
    ...     size = file.write_text('{"physical_to_logical_map": [[0, 1, 2, 0], [0, 1, 0, 2]]}')
    ...     plan = read_plan(file, num_gpus=2, moe_layer_ids=[1])
    >>> plan
    Plan(1 layers, 3 experts in 4 slots on 2 GPUs, policy='sglang', placement='global')
    """
    with opened(path) as contents:
        name, row = find_format(contents, format, "reads_plans")
        if name == "eplb_np":
            own: Plan = row.member("read_plan")(contents)
            return own
        found: Placement = row.member("read_plan")(contents)
        gpus = found.num_gpus if num_gpus is None else num_gpus
        if gpus is None:
            raise ValueError("the file does not say how many GPUs there are: give num_gpus")
        if found.num_gpus not in (None, gpus):
            raise ValueError(f"num_gpus={num_gpus}, but the file has {found.num_gpus} GPUs")
        rows = as_rows(found.rows)
        gpus = as_size("num_gpus", gpus)
        if rows.shape[-1] % gpus:
            raise ValueError(
                f"num_gpus={gpus} does not divide the {rows.shape[-1]} slots of a layer: give the "
                "number of GPUs that share them evenly"
            )
        num_experts = found.num_experts or int(rows.max(initial=-1)) + 1
        topology = Topology(num_experts, rows.shape[-1], gpus, num_nodes, num_groups)
        return plan_of(found, topology, name, moe_layer_ids)
