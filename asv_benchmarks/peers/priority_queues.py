"""Replication and placement with priority queues in C++: ``priority_queues.cpp``.

The idea is that of the MoE load balancer of NVIDIA TensorRT-LLM; the C++ file has the reference.
It is compiled by the system's ``g++`` on first use and called through ctypes.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILE = ["g++", "-std=c++17", "-O3", "-march=native", "-Wall", "-Wextra", "-fPIC", "-shared"]
ARRAY = ctypes.c_void_p
LONG = ctypes.c_int64


@functools.cache
def library() -> ctypes.CDLL:
    """Compile the C++ file, once in a process; the loaded library outlives its folder."""
    with tempfile.TemporaryDirectory() as folder:
        shared_object = Path(folder) / "priority_queues.so"
        subprocess.run([*COMPILE, str(SOURCE), "-o", str(shared_object)], check=True)
        loaded = ctypes.CDLL(str(shared_object))
    loaded.plan_layers.argtypes = [ARRAY, LONG, *[ctypes.c_int] * 5, ARRAY, ARRAY, ARRAY]
    loaded.plan_layers.restype = None
    loaded.fill_log2phy.argtypes = [ARRAY, ARRAY, LONG, LONG, LONG, LONG, ARRAY]
    loaded.fill_log2phy.restype = None
    return loaded


def rebalance_experts(
    weight: np.ndarray,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    with_log2phy: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """``phy2log`` [L, P], ``log2phy`` [L, E, largest count] or None, ``logcnt`` [L, E]."""
    if num_groups % num_nodes != 0:
        num_groups = num_nodes = 1
    weight = np.ascontiguousarray(weight, np.float32)
    num_layers, num_experts = weight.shape
    phy2log = np.empty((num_layers, num_replicas), np.int64)
    logcnt = np.empty((num_layers, num_experts), np.int64)
    phyrank = np.empty_like(phy2log) if with_log2phy else None
    library().plan_layers(
        weight.ctypes.data,
        num_layers,
        num_experts,
        num_replicas,
        num_groups,
        num_nodes,
        num_gpus,
        phy2log.ctypes.data,
        None if phyrank is None else phyrank.ctypes.data,
        logcnt.ctypes.data,
    )
    if phyrank is None:
        return phy2log, None, logcnt
    width = int(logcnt.max())
    log2phy = np.full((num_layers, num_experts, width), -1, np.int64)
    library().fill_log2phy(
        phy2log.ctypes.data,
        phyrank.ctypes.data,
        num_layers,
        num_experts,
        num_replicas,
        width,
        log2phy.ctypes.data,
    )
    return phy2log, log2phy, logcnt
