"""What `test_ptx` runs: every kernel to PTX, without a GPU; prints a JSON of what was found.

On a machine without a driver Numba would ask a GPU for its architecture when a kernel calls
another function. The answer given here in its place is the least that the kernels are for.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from types import SimpleNamespace
from typing import Any

import numba.cuda.dispatcher
from numba import cuda, types
from numba.cuda.cudadrv import error as driver_errors

from eplb_np._loads import cuda as loads
from eplb_np.dispatch import cuda as dispatch
from eplb_np.dispatch import cuda_graph
from eplb_np.dispatch import cuda_kernels as dispatch_kernels
from eplb_np.maps import cuda as maps
from eplb_np.stages import cuda_kernels as kernels
from eplb_np.stages.hierarchy import cuda as hierarchy
from eplb_np.stages.packing import cuda as packing
from eplb_np.stages.replication import cuda as replication

ARCHITECTURES = ((8, 0), (9, 0))
numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(
    compute_capability=ARCHITECTURES[0]
)
MISSING = tuple(
    kind
    for name in ("NvvmSupportError", "CudaSupportError", "NvrtcError")
    if (kind := getattr(driver_errors, name, None))
)
KERNELS = (
    kernels.plan_slots, kernels.plan_slots_large, kernels.plan_maps, kernels.plan_maps_large,
    kernels.replicate_rows, kernels.replicate_rows_large, kernels.pack_rows,
    kernels.pack_rows_large, maps.fill_log2phy, dispatch_kernels.split_rows,
    dispatch_kernels.split_rows_large, dispatch_kernels.number_tiles,
    dispatch_kernels.assign_tiles,
)  # fmt: skip
SIZES = (
    hierarchy.PlanSizes, packing.PackingSizes, replication.ReplicationSizes,
    cuda_graph.RoundSizes, dispatch.Tiles,
)  # fmt: skip
NARROW = {"doubtful", "ints", "graph_words", "turn", "chosen"}  # int32 whatever the results are
ONE_AXIS = {"doubtful", "ids", "turn", "quotas", "slots"}


def argument_type(kernel: str, name: str, annotation: str, integer: Any) -> Any:
    if name in ("sizes", "tiles"):
        sizes = next(sizes for sizes in SIZES if sizes.__name__ == annotation)
        kinds = sizes.__annotations__.values()
        fields = [types.boolean if "bool" in str(kind) else types.int64 for kind in kinds]
        return types.NamedTuple(fields, sizes)
    dtypes = {"Floats": types.float32, "Doubles": types.float64, "Ints": integer}
    dtypes |= {"words": types.int64} | dict.fromkeys(NARROW, types.int32)
    dtype = dtypes.get(name) or dtypes.get(annotation)
    if dtype is None:
        return {"bool": types.boolean, "Int": types.int64}[annotation]
    axes = 1 if name in ONE_AXIS else 2 + (name == "log2phy" and kernel != "assign_tiles")
    return types.Array(dtype, axes, "C")


def compiled(kernel: Any, signature: list[Any]) -> dict[str, str]:
    function = getattr(kernel, "py_func", kernel)
    return {
        f"sm_{major}{minor}": cuda.compile_ptx(function, types.void(*signature), cc=(major, minor))[
            0
        ]
        for major, minor in ARCHITECTURES
    }


def every_kernel() -> dict[str, dict[str, str]]:
    everything = {}
    for kernel in KERNELS:
        name = kernel.py_func.__name__
        parameters = inspect.signature(kernel.py_func).parameters.values()
        both = name in ("plan_maps", "split_rows", "assign_tiles")
        for integer in (types.int64, types.int32) if both else (types.int64,):
            signature = [argument_type(name, p.name, p.annotation, integer) for p in parameters]
            everything[f"{name}({integer})"] = compiled(kernel, signature)
    weight = types.Array(types.float32, 2, "C")
    everything["find_doubtful_rows"] = compiled(
        loads.find_doubtful_rows, [weight, types.Array(types.int32, 1, "C")]
    )
    for given in (types.float64[:, ::1], types.float64[:, :], types.int64[:, ::1]):
        everything[f"cast_rows({given})"] = compiled(loads.cast_rows, [given, weight])
    return everything


def products_that_are_added(ptx: str) -> list[str]:
    """Products of floats that go to a sum or further: they could be fused with it.

    Those that go to memory, or to a comparison, are rounded first.
    """
    lines = ptx.splitlines()
    wrong = []
    for line in lines:
        product = re.match(r"\s*mul\.\S*f(?:32|64)\s+(%f[d]?\d+),", line)
        if product:
            register = re.compile(rf"{re.escape(product[1])}\b")
            uses = [other for other in lines if register.search(other) and other is not line]
            wrong += [use for use in uses if not use.lstrip().startswith(("st.", "setp."))]
    return wrong


def main() -> None:
    try:
        everything = every_kernel()
    except MISSING as error:
        print(json.dumps({"missing": " ".join(str(error).split())}))  # noqa: T201
        return
    found = {
        f"{name} {architecture}": {
            "fused": len(re.findall(r"\bfma\.|\bmad\.\S*f(?:32|64)", ptx)),
            "inexact divisions": len(re.findall(r"\bdiv\.(?!rn)\S*f(?:32|64)|\.approx", ptx)),
            "flushed": len(re.findall(r"\.ftz", ptx)),
            "added products": products_that_are_added(ptx),
            "calls": len(re.findall(r"\bcall\b", ptx)),
            "instructions": len(re.findall(r"^\s+(?:@!?%p\d+\s+)?[a-z][\w.]*\b.*;$", ptx, re.M)),
            "divisions": len(re.findall(r"\bdiv\.rn\.f32", ptx)),
            "loads of unknown memory": len(re.findall(r"\bld\.[usbf]\d", ptx)),
            "target": re.findall(r"\.target (\w+)", ptx),
        }
        for name, texts in everything.items()
        for architecture, ptx in texts.items()
    }
    print(json.dumps({"found": found}))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
