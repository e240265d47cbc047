"""The two keys of SGLang and sglang-jax: ``logical_count`` and ``physical_to_logical_map``.

A row of either is a decoder layer of the model, dense ones included.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eplb_np._arguments import one_line
from eplb_np._files.reading import printable
from eplb_np._files.targets import write_to
from eplb_np._loads.host import as_array
from eplb_np.io.placements import Placement, as_rows
from eplb_np.io.recorded import Asked, Recording, check_shape, sum_steps

LOADS, MAP = "logical_count", "physical_to_logical_map"

LAYOUT = "logical_count_layout"
OF_RANKS = "rank_layer_expert"
"""The layout of a branch of SGLang, whose planner asks from which rank tokens come."""


def read_counts(found: Any, asked: Asked) -> Recording:
    """Read counts [R, E] or [steps, R, E]: a ring of steps, whose start is not known.

    With the layout of ranks they are [ranks, R, E], the sum over all steps of each rank.
    """
    if not isinstance(found, dict) or LOADS not in found:
        raise ValueError(f'it has no key "{LOADS}": give {{"{LOADS}": ...}}')
    counts: Any = found[LOADS]
    layout = found.get(LAYOUT)
    if layout is not None:
        if not isinstance(layout, str) or layout != OF_RANKS:
            raise ValueError(
                f"its {LAYOUT} is {one_line(layout)}, which is not known: give counts [layers, "
                f"experts] or [steps, layers, experts] without a layout, or {OF_RANKS!r}"
            )
        counts = _sum_of_ranks(as_array(counts, LOADS), asked)
    return Recording(counts, in_order=False, every_layer=True, name=LOADS)


def _sum_of_ranks(counts: Any, asked: Asked) -> Any:
    check_shape(counts.shape, LOADS)
    if counts.ndim != 3:
        raise ValueError(
            f"{LOADS} has shape {counts.shape}, but its {LAYOUT} is {OF_RANKS!r}: give [ranks, "
            "layers, experts]"
        )
    if asked.num_ranks not in (None, len(counts)):
        raise ValueError(f"{LOADS} is of {len(counts)} ranks, but num_ranks={asked.num_ranks}")
    return sum_steps(counts, LOADS, True)[0]


def read_map(found: Any) -> Placement:
    """Read a map [R, P]."""
    if not isinstance(found, dict) or MAP not in found:
        raise ValueError(f'it has no key "{MAP}": give {{"{MAP}": ...}}')
    return Placement(as_rows(found[MAP], MAP))


def write_key(key: str, rows: NDArray[Any], path: Path) -> None:
    """Write JSON with exactly the one key: beside that of a map, SGLang takes no other."""
    check_suffix(path)
    text = json.dumps({key: rows.tolist()})
    write_to(path, lambda file: file.write(text.encode()))


def check_suffix(path: Path) -> None:
    """Raise ``ValueError`` for capitals, which make the engines take a path for JSON."""
    if path.suffix != path.suffix.lower():
        raise ValueError(
            f"{printable(path)}: the engine does not know the suffix {path.suffix}: write "
            f"{path.suffix.lower()}"
        )


def start_options(placement: Placement, path: Path) -> str:
    """Return the options that name a map, and the sizes that it must have."""
    redundant = placement.rows.shape[1] - (placement.num_experts or 0)
    return (
        f"--init-expert-location {shlex.quote(str(path))} --ep-num-redundant-experts {redundant} "
        f"--ep-size {placement.num_gpus}"
    )
