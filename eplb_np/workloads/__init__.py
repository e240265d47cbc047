"""Seeded synthetic loads and load traces, for tests, documentation, benchmarks and demos.

The same seed gives the same bytes: all draws come from ``numpy.random.Generator(PCG64(seed))``.
"""

from eplb_np.workloads.loads import (
    deepseek_v3_load,
    one_hot_expert_load,
    skewed_load,
    uniform_load,
    zero_load,
    zipf_load,
)
from eplb_np.workloads.traces import LoadTrace, draw_trace, related_profiles, scenario_trace

__all__ = [
    "LoadTrace",
    "deepseek_v3_load",
    "draw_trace",
    "one_hot_expert_load",
    "related_profiles",
    "scenario_trace",
    "skewed_load",
    "uniform_load",
    "zero_load",
    "zipf_load",
]
