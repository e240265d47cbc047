"""Seeded random cases for the tests: every kind of load crossed with every kind of layout.

Case ``k`` of a seed depends on nothing but ``seed`` and ``k``, so a failing id can be rebuilt
alone. The two cycles (loads, layouts) have coprime lengths: a short run meets every load and
every layout, a long one every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Loads = NDArray[Any]  # any real dtype


@dataclass(frozen=True, eq=False)
class Case:
    """Arguments of ``rebalance_experts``."""

    id: str
    weight: Loads
    num_replicas: int
    num_groups: int
    num_nodes: int
    num_gpus: int

    @property
    def args(self) -> tuple[Loads, int, int, int, int]:
        return self.weight, self.num_replicas, self.num_groups, self.num_nodes, self.num_gpus

    @property
    def is_global(self) -> bool:
        """Whether the nodes do not divide the groups, so that the global policy applies."""
        return self.num_groups % self.num_nodes != 0


@dataclass(frozen=True, eq=False)
class PackingCase:
    """Arguments of ``balanced_packing``."""

    id: str
    weight: Loads
    num_packs: int
    refine_steps: int

    @property
    def args(self) -> tuple[Loads, int, int]:
        return self.weight, self.num_packs, self.refine_steps


@dataclass(frozen=True, eq=False)
class ReplicationCase:
    """Arguments of ``replicate_experts``."""

    id: str
    weight: Loads
    num_phy: int

    @property
    def args(self) -> tuple[Loads, int]:
        return self.weight, self.num_phy


def _int(rng: Rng, low: int, high: int) -> int:
    """A draw from low .. high, both included."""
    return int(rng.integers(low, high, endpoint=True))


# ---------------------------------------------------------------------------------------------
# Loads [rows, n]
# ---------------------------------------------------------------------------------------------


def _ties(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Integers 0 .. 3."""
    return rng.integers(0, 4, shape)


def _zero_rows(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Some rows are all zero, the first always."""
    loads = rng.integers(0, 1000, shape, dtype=np.int32)
    loads[rng.random(shape[0]) < 0.5] = 0
    loads[0] = 0
    return loads


def _equal(rng: Rng, shape: tuple[int, int]) -> Loads:
    """One value per row, and its fractions are not exact."""
    return np.repeat(rng.choice([0.1, 1.0, 3.0, 7.7, 1e6 + 0.1], (shape[0], 1)), shape[1], axis=1)


def _one_hot(rng: Rng, shape: tuple[int, int]) -> Loads:
    """One expert of each row carries nearly everything."""
    loads = rng.integers(0, 10, shape)
    loads[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = 100_000
    return loads


def _decades(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Floats over ten decades."""
    return 10.0 ** rng.uniform(-4, 6, shape)


def _huge(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Integer counts past 2**24, which float32 rounds."""
    return rng.integers(2**24, 2 ** _int(rng, 25, 45), shape)


def _tenths(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Multiples of 0.1: ties among values, rounding in every sum."""
    return (rng.integers(0, 40, shape) * 0.1).astype(np.float32)


def _tiny(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Around the 1e-9 at which the refinement stops, and some rows of float32 subnormals."""
    scale = rng.choice([1e-40, 1e-10, 1e-9, 1e-9, 1e-8], (shape[0], 1))
    loads: Loads = rng.integers(0, 30, shape) * scale
    return loads


def _near_ties(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Distinct as float64; about half of the neighbours are equal as float32."""
    return 1.0 + rng.integers(0, 4, shape) * 2.0**-24 + rng.random(shape) * 1e-12


def _absorbed(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Giants beside loads smaller than the giants' last bit: float32 and float64 disagree."""
    step = rng.choice([2.0**-20, 2.0**-23])
    small = 1.0 + rng.integers(0, 8, shape) * step
    return np.where(rng.random(shape) < 0.3, 2.0**26, small)


def _mixed(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Each expert of one of four sizes, so that differences of loads are rounded."""
    return (rng.choice([0.01, 1.0, 100.0, 1e5], shape) * rng.random(shape)).astype(np.float32)


def _lognormal(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Token counts as a router makes them."""
    return np.floor(rng.lognormal(6.0, 1.0, shape)).astype(np.int64)


def _float_uniform(rng: Rng, shape: tuple[int, int]) -> Loads:
    """Floats of one size, where the refinement finds most of its swaps."""
    return rng.random(shape) * 100


LOADS: dict[str, Callable[[Rng, tuple[int, int]], Loads]] = {
    "ties": _ties,
    "zero_rows": _zero_rows,
    "equal": _equal,
    "one_hot": _one_hot,
    "decades": _decades,
    "huge": _huge,
    "tenths": _tenths,
    "tiny": _tiny,
    "near_ties": _near_ties,
    "absorbed": _absorbed,
    "mixed": _mixed,
    "lognormal": _lognormal,
    "uniform": _float_uniform,
}


# ---------------------------------------------------------------------------------------------
# Layouts of a whole plan
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Sizes that fit: replicas % gpus, gpus % nodes and experts % groups are all 0."""

    experts: int
    replicas: int
    groups: int
    nodes: int
    gpus: int


def _layout(rng: Rng, kind: str, max_experts: int) -> _Layout:
    """Draw until the sizes fit the kind; ``LAYOUTS`` says what each kind promises."""
    while True:
        layout = _draw_layout(rng, kind)
        if layout.experts <= max_experts and LAYOUTS[kind](layout):
            return layout


def _draw_layout(rng: Rng, kind: str) -> _Layout:
    nodes = 1 if kind in ("one_gpu", "one_node") else _int(rng, 1, 4)
    gpus = 1 if kind == "one_gpu" else nodes * _int(rng, 1, 4)
    groups = _int(rng, 1, 6) if kind == "global" else nodes * _int(rng, 1, 4)
    experts = groups * _int(rng, 1, 4)
    if kind == "one_slot":
        gpus = nodes * (-(-experts // nodes) + _int(rng, 0, 3))
    least_slots = -(-experts // gpus)
    if kind in ("no_extra", "one_slot"):
        slots = least_slots
    elif kind == "many":
        slots = least_slots * _int(rng, 2, 5)
    else:
        slots = least_slots + _int(rng, 0, 3)
    return _Layout(experts, slots * gpus, groups, nodes, gpus)


LAYOUTS: dict[str, Callable[[_Layout], bool]] = {
    "one_gpu": lambda s: s.gpus == 1,
    "one_node": lambda s: s.nodes == 1 and s.gpus > 1,
    "no_extra": lambda s: s.replicas == s.experts,
    "many": lambda s: s.replicas >= 2 * s.experts,
    "one_slot": lambda s: s.replicas == s.gpus,
    "hierarchical": lambda s: s.nodes > 1 and s.groups % s.nodes == 0,
    "global": lambda s: s.groups % s.nodes != 0,
}


def _names(k: int, seed: int, layouts: list[str]) -> tuple[Rng, str, str]:
    """The generator of case ``k``, the name of its load and the name of its layout."""
    load_names = list(LOADS)
    load = load_names[k % len(load_names)]
    return np.random.default_rng([seed, k]), load, layouts[k % len(layouts)]


def random_cases(
    num_cases: int, seed: int, *, max_experts: int = 32, max_layers: int = 4
) -> Iterator[Case]:
    """Yield ``num_cases`` valid plans to make. ``max_experts`` must be at least 4."""
    for k in range(num_cases):
        rng, load, kind = _names(k, seed, list(LAYOUTS))
        s = _layout(rng, kind, max_experts)
        layers = _int(rng, 1, max_layers)
        sizes = f"L{layers}_E{s.experts}_P{s.replicas}_groups{s.groups}_nodes{s.nodes}"
        yield Case(
            id=f"seed{seed}_{k}-{load}-{kind}-{sizes}_gpus{s.gpus}",
            weight=LOADS[load](rng, (layers, s.experts)),
            num_replicas=s.replicas,
            num_groups=s.groups,
            num_nodes=s.nodes,
            num_gpus=s.gpus,
        )


# ---------------------------------------------------------------------------------------------
# Packing and replication by themselves
# ---------------------------------------------------------------------------------------------


# Items per pack and number of packs.
PACKINGS: dict[str, Callable[[Rng], tuple[int, int]]] = {
    "one_slot": lambda rng: (1, _int(rng, 1, 12)),
    "one_pack": lambda rng: (_int(rng, 1, 12), 1),
    "pairs": lambda rng: (2, _int(rng, 2, 10)),
    "two_packs": lambda rng: (_int(rng, 2, 16), 2),
    "general": lambda rng: (_int(rng, 2, 8), _int(rng, 2, 8)),
}

REFINE_STEPS = (2, 1, 0, 2, 7)


def packing_cases(num_cases: int, seed: int, *, max_rows: int = 4) -> Iterator[PackingCase]:
    """Yield ``num_cases`` packings of at most 64 items."""
    for k in range(num_cases):
        rng, load, kind = _names(k, seed, list(PACKINGS))
        cap, num_packs = PACKINGS[kind](rng)
        rows = _int(rng, 1, max_rows)
        steps = int(rng.choice(REFINE_STEPS))
        sizes = f"X{rows}_n{cap * num_packs}_packs{num_packs}_steps{steps}"
        yield PackingCase(
            id=f"seed{seed}_{k}-{load}-{kind}-{sizes}",
            weight=LOADS[load](rng, (rows, cap * num_packs)),
            num_packs=num_packs,
            refine_steps=steps,
        )


# Random draws hardly ever tell float64 from float32 in the refinement's last decision; these do.
PRECISION_CASES = (
    # 2**25 - 0.25 is 2**25 in float32, where the swap of items 0 and 2 would gain nothing.
    # It gains 0.5 in float64, so it is made: packs 1 0 0 1.
    PackingCase("decision_in_float64", np.array([[2.0**25, 0.0625, 0.25, 0.125]]), 2, 1),
    # delta itself is a float32 value: 2**26 - 2 rounds to 2**26, and the swap of items 0 and 3
    # is made: packs 1 1 0 0. With an unrounded delta it would not be.
    PackingCase("delta_in_float32", np.array([[2.0**26, 1.0, 1.0, 1.0 + 2.0**-23]]), 2, 1),
)

# Experts and extra replicas. The Sainte-Laguë tail is one step below 20 extras, two from there.
REPLICATIONS: dict[str, Callable[[Rng], tuple[int, int]]] = {
    "no_extra": lambda rng: (_int(rng, 1, 16), 0),
    "one_extra": lambda rng: (_int(rng, 1, 16), 1),
    "one_expert": lambda rng: (1, _int(rng, 1, 40)),
    "short_tail": lambda rng: (_int(rng, 2, 16), _int(rng, 2, 19)),
    "long_tail": lambda rng: (_int(rng, 2, 16), _int(rng, 20, 80)),
    "square": lambda rng: (16, 16),
}


def replication_cases(num_cases: int, seed: int, *, max_rows: int = 4) -> Iterator[ReplicationCase]:
    """Yield ``num_cases`` replica allocations of at most 16 experts."""
    for k in range(num_cases):
        rng, load, kind = _names(k, seed, list(REPLICATIONS))
        experts, extra = REPLICATIONS[kind](rng)
        rows = _int(rng, 1, max_rows)
        yield ReplicationCase(
            id=f"seed{seed}_{k}-{load}-{kind}-X{rows}_E{experts}_P{experts + extra}",
            weight=LOADS[load](rng, (rows, experts)),
            num_phy=experts + extra,
        )
