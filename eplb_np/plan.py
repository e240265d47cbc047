"""`Plan`: which expert is in which slot, and how well that balances a load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np import metrics
from eplb_np._arguments import as_list, as_size, check_is, is_one_of, one_line
from eplb_np._loads.host import as_array, of_layers
from eplb_np._notebook import as_frame
from eplb_np.bounds import lower_bound
from eplb_np.maps.homes import away_from_home
from eplb_np.maps.log2phy import make_log2phy
from eplb_np.maps.maps import Maps, aligned_copy, as_plan_array, check_maps, count_replicas
from eplb_np.moves.moves import Moves, moves_between
from eplb_np.plan_files import PLAN_FILE, fields_of_file
from eplb_np.policies import Device, Split, check_split, function_named, log2phy_width
from eplb_np.summaries import Placed, PlanSummary, plan_html, slot_columns, summarize
from eplb_np.topology import Placement, Topology, stored_sizes

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped,import-not-found,unused-ignore]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which expert is in each slot of each GPU, for every layer.

    Made by `make_plan`, `Plan.load` or `eplb_np.io.read_plan`. A plan is frozen, and its arrays are
    read-only. Where a method takes a load [L, E], it also takes one with a row for every layer of
    the model, dense ones included, as recordings have it: rows are found by ``moe_layer_ids``, and
    all others must be zero.

    JAX, on a CPU, shares the memory of int32 arrays with a plan (``jax.device_put``): they start at
    addresses that are multiples of 64, and nobody writes to them. Compiled functions take
    `eplb_np.dispatch.jax.tables`.

    Parameters
    ----------
    phy2log : ndarray, shape [L, P], int64 or int32
        Logical expert in each slot, -1 if it is empty. GPU g owns the slots from
        ``topology.first_slots[g]`` up to, but not including, ``topology.first_slots[g + 1]``.
        The slots of a GPU that is gone are empty.
    phyrank : ndarray, shape [L, P], same dtype
        Rank of each slot's replica among the replicas of its expert, from 0; -1 if it is empty.
    topology : Topology
        Sizes of the deployment.
    policy : str
        Name of the policy that made the plan.
    moe_layer_ids : sequence of int, optional
        Id in the model of each planned layer, ascending; by default 0 .. L - 1. The ids of a
        model whose first layers are dense start above 0.
    device : {"cpu", "cuda"}, default: "cpu"
        Where the plan was made. It plays no part in comparisons, and files do not store it.

    Raises
    ------
    ValueError
        If the arrays are not a valid plan of that topology (see `Plan.check`).

    Notes
    -----
    Checking a plan takes O(L (E + P)). ``logcnt`` and ``log2phy`` are built on first access, in
    O(L P) and O(L E X). Plans are equal if their arrays, topology, policy, layer ids and dtype are.

    Examples
    --------
    >>> from eplb_np import Plan, Topology
    >>> topology = Topology(num_experts=3, num_replicas=4, num_gpus=2)
    >>> plan = Plan([[0, 1, 0, 2]], [[0, 0, 1, 0]], topology, policy="by hand")
    >>> plan.logcnt.tolist(), plan.log2phy.tolist()
    ([[2, 1, 1]], [[[0, 2], [1, -1], [3, -1]]])
    >>> Plan([[0, 1, 0, 1]], [[0, 0, 1, 1]], topology, policy="by hand")
    Traceback (most recent call last):
        ...
    ValueError: expert 2 has no replica in layer 0: every expert needs a slot
    """

    phy2log: NDArray[np.signedinteger[Any]]
    phyrank: NDArray[np.signedinteger[Any]]
    topology: Topology
    policy: str
    moe_layer_ids: Sequence[int] | None = None
    device: Device = "cpu"

    def __post_init__(self) -> None:
        check_is("topology", self.topology, Topology, "build one from the sizes")
        check_is("policy", self.policy, str, "give the name of what made the plan")
        if not is_one_of(self.device, ("cpu", "cuda")):
            raise ValueError(f"device={one_line(self.device)} is unknown: give 'cpu' or 'cuda'")
        for name in ("phy2log", "phyrank"):
            given = as_array(getattr(self, name), name)
            object.__setattr__(self, name, aligned_copy(given))
        check_maps(self.phy2log, self.phyrank, self.topology)
        ids = range(self.num_layers) if self.moe_layer_ids is None else self.moe_layer_ids
        object.__setattr__(self, "moe_layer_ids", check_layer_ids(ids, self.num_layers))

    @classmethod
    def _of_maps(
        cls,
        maps: Maps,
        topology: Topology,
        policy: str,
        moe_layer_ids: Sequence[int],
        dtype: np.dtype[Any],
        device: Device = "cpu",
    ) -> Plan:
        """Wrap what a policy has just made, unchecked: a check can take longer than planning."""
        plan = object.__new__(cls)
        phy2log, phyrank, logcnt = (as_plan_array(array, dtype) for array in maps)
        plan.__dict__.update(
            phy2log=phy2log,
            phyrank=phyrank,
            logcnt=logcnt,
            topology=topology,
            policy=policy,
            moe_layer_ids=tuple(moe_layer_ids),
            device=device,
        )
        return plan

    @property
    def num_layers(self) -> int:
        """Number of planned layers, L."""
        return int(self.phy2log.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of all the plan's arrays."""
        return self.phy2log.dtype

    @property
    def placement(self) -> Placement:
        """``"hierarchical"`` if whole groups go to nodes, else ``"global"``, as on one node."""
        return self.topology.placement

    @cached_property
    def logcnt(self) -> NDArray[np.signedinteger[Any]]:
        """Number of replicas of each expert, shape [L, E]."""
        count = count_replicas(self.phy2log, self.topology.num_experts)
        return as_plan_array(count, self.dtype)

    @cached_property
    def log2phy(self) -> NDArray[np.signedinteger[Any]]:
        """Slot of each replica of each expert by its rank, shape [L, E, X], padded with -1.

        X is as in `rebalance_experts`. Built on first access, because it is far larger than the
        rest of the plan.
        """
        num_experts = self.topology.num_experts
        width = log2phy_width(self.topology, self.policy, self.logcnt)
        log2phy = make_log2phy(
            self.phy2log.astype(np.int64), self.phyrank.astype(np.int64), num_experts, width
        )
        return as_plan_array(log2phy, self.dtype)

    def weighted_log2phy(
        self, load: ArrayLike, width: int = 16, *, every_replica: bool = False
    ) -> NDArray[np.signedinteger[Any]]:
        """Write a ``log2phy`` in which slots stand several times, for engines that know no weights.

        An engine that takes the entries of an expert's row in turn, or at random, then follows the
        best split of ``load``. Worth it for a plan that is not moved: see docs/dispatch.md, also
        for the engines that do so.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load that is expected of each logical expert, in any unit.
        width : int, default: 16
            Entries that an expert may have, from 1 to 1024. On traces of recorded loads, balance
            was at most 0.003 below that of the exact shares with 16, and 0.001 with 32.
        every_replica : bool, default: False
            Give each replica an entry at least, however small its share. For engines that load
            weights by this table, as SGLang does: a replica without an entry keeps those of the
            expert that was in its slot before.

        Returns
        -------
        ndarray, shape [L, E, width], of the plan's dtype
            Slots of each expert, padded with -1. ``(table >= 0).sum(axis=-1)`` is the number of
            entries, which engines take for the number of replicas.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan, ``width`` is out of range, or some expert
            has more than ``width`` replicas and each shall have an entry.

        Notes
        -----
        O(L P log P + M width (X log X + X)) for M experts with up to X replicas each. Each expert
        gets as many entries as fit its shares best: the replica that exceeds its share most does so
        least. Of several such numbers, the smallest is taken. A replica whose share is small next
        to one entry's is left out; replicas of an expert without load have equal shares. The first
        entries, whatever their number, share themselves out by Sainte-Lague's method, so a run from
        the start keeps the proportions. All ties go to the lower rank.

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> plan.phy2log.tolist()
        [[0, 1, 2, 0, 1, 3]]
        >>> plan.weighted_log2phy([[60, 50, 5, 15]], width=4)[0, 0].tolist()
        [0, 3, 0, -1]
        """
        check_is("every_replica", every_replica, bool, "give True or False")
        write = function_named("eplb_np.dispatch.weighted:weighted_log2phy")
        table: NDArray[np.signedinteger[Any]] = write(
            self, self._planned_rows(load), width, every_replica
        )
        return as_plan_array(table, self.dtype)

    def gpu_load(self, load: ArrayLike, *, split: Split = "even") -> NDArray[np.float64]:
        """Compute the load of each GPU, shape [L, num_gpus].

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit. It need not be the load planned from.
        split : {"even", "best"}, default: "even"
            How the replicas of an expert share its load: evenly, or as `split_load` finds best
            for this very load.

        Returns
        -------
        ndarray, shape [L, num_gpus], float64
            In the unit of ``load``.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan, or ``split`` is unknown.

        Notes
        -----
        O(L (E + P)); with the best split, as `split_load`.

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> plan.gpu_load([[60, 50, 5, 15]]).tolist()
        [[60.0, 70.0]]
        >>> plan.gpu_load([[60, 50, 5, 15]], split="best").tolist()
        [[65.0, 65.0]]
        """
        topology = self.topology
        check_split(split)
        if split == "even" and topology.gpu_slots is None:
            rows = self._planned_rows(load)
            return metrics.gpu_load(self.phy2log, self.logcnt, rows, topology.num_gpus)
        slots = self._slot_load(load, split)
        shape = (self.num_layers, topology.num_gpus)
        flat = topology.gpu_of_slot + topology.num_gpus * np.arange(self.num_layers)[:, None]
        per_gpu: NDArray[Any] = np.bincount(flat.ravel(), slots.ravel(), shape[0] * shape[1])
        return per_gpu.reshape(shape)

    def _slot_load(self, load: ArrayLike, split: Split) -> NDArray[Any]:
        """Load of each slot, [L, P]."""
        slots: NDArray[Any]
        rows = self._planned_rows(load)
        if split == "even":
            slots = metrics.replica_load(self.phy2log, self.logcnt, rows)
        else:
            slots = function_named("eplb_np.dispatch.splitter:split_load")(self, rows)
        return slots

    def _planned_rows(self, load: ArrayLike) -> NDArray[Any]:
        """Rows of the planned layers, out of a load of these or of all layers of the model."""
        return of_layers(load, self.moe_layer_ids or (), "load")

    def gpu_time(self, load: ArrayLike, *, split: Split = "even") -> NDArray[np.float64]:
        """Compute the time that each GPU takes: its load over its speed, shape [L, num_gpus].

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit.
        split : {"even", "best"}, default: "even"
            As in `gpu_load`.

        Returns
        -------
        ndarray, shape [L, num_gpus], float64
            In the unit of ``load``, at speed 1.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan, or ``split`` is unknown.

        Notes
        -----
        As `gpu_load`.

        Examples
        --------
        >>> from eplb_np import Topology, make_plan
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2, gpu_speeds=[1.0, 2.0])
        >>> plan = make_plan([[90, 30, 15, 15]], topology)
        >>> plan.gpu_load([[90, 30, 15, 15]]).tolist(), plan.gpu_time([[90, 30, 15, 15]]).tolist()
        ([[50.0, 100.0]], [[50.0, 50.0]])
        """
        return self.gpu_load(load, split=split) * self.topology.slowness

    def balancedness(self, load: ArrayLike, *, split: Split = "even") -> float:
        """GPU balancedness: ratio of mean to largest GPU load, both summed over layers.

        Where GPUs differ in speed or are gone, it is the time that perfectly balanced active GPUs
        would take, over the time of the slowest GPU.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit.
        split : {"even", "best"}, default: "even"
            As in `gpu_load`.

        Returns
        -------
        float
            1 is perfect.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan, or ``split`` is unknown.

        Notes
        -----
        As `gpu_load`. 1.0 without load.

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> round(plan.balancedness([[60, 50, 5, 15]]), 3)
        0.929
        >>> plan.balancedness([[60, 50, 5, 15]], split="best")
        1.0
        """
        topology = self.topology
        if topology.gpu_speeds is None and topology.active_gpus is None:
            return metrics.balancedness(self.gpu_load(load, split=split))
        time = self.gpu_time(load, split=split)
        longest = float(time.max(axis=1).sum())
        at_once = float((time / topology.slowness).sum()) / topology.active_speed
        return at_once / longest if longest > 0 else 1.0

    def crossing(self, load: ArrayLike, *, split: Split = "best") -> float:
        """Compute which share of the load is served outside the node of its expert's group.

        That is the traffic that bridges (see `Topology`) add between nodes.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit.
        split : {"best", "even"}, default: "best"
            As in `gpu_load`. Of the best splits, the evened-out one, which is not made for little
            traffic.

        Returns
        -------
        float
            From 0 to 1: the load of the slots that are not on the home node of their expert's
            group, over all load; both summed over layers. 0 without load.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan, or ``split`` is unknown.

        Notes
        -----
        The home node of a group in a layer is where most of its experts have a replica; of
        several such nodes, the one with most of its replicas; then the lowest. The share is 0 if
        groups are whole on their nodes.

        Examples
        --------
        >>> from eplb_np import Topology, make_plan
        >>> topology = Topology(4, 6, num_gpus=2, num_nodes=2, num_groups=2, bridges=1)
        >>> plan = make_plan([[90, 30, 10, 10]], topology, policy="refined", split="best")
        >>> plan.phy2log.tolist()  # node 1 holds expert 0 as well
        [[0, 0, 1, 3, 0, 2]]
        >>> round(plan.crossing([[90, 30, 10, 10]]), 3)
        0.357
        """
        check_split(split)
        slots = self._slot_load(load, split)
        total = float(slots.sum())
        crossing = float(slots[away_from_home(self.phy2log, self.topology)].sum())
        return crossing / total if total > 0 else 0.0

    def replica_balancedness(self, load: ArrayLike) -> float:
        """Ratio of mean to largest replica load, both summed over layers.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit.

        Returns
        -------
        float
            1 is perfect.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan.

        Notes
        -----
        O(L (E + P)). Empty slots do not count. 1.0 without load.

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> plan.logcnt.tolist()  # replicas carry 45, 45, 15, 15, 10 and 10
        [[2, 2, 1, 1]]
        >>> round(plan.replica_balancedness([[90, 30, 10, 10]]), 3)
        0.519
        """
        loads = metrics.replica_load(self.phy2log, self.logcnt, self._planned_rows(load))
        filled = self.phy2log >= 0
        if filled.all():
            return metrics.balancedness(loads)
        largest = float(loads.max(axis=1).sum())
        mean = float((loads.sum(axis=1) / filled.sum(axis=1)).sum())
        return mean / largest if largest > 0 else 1.0

    def lower_bound(self, load: ArrayLike) -> NDArray[np.float64]:
        """Lower bound on the largest GPU load of each layer, over all plans of this topology.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit.

        Returns
        -------
        ndarray, shape [L], float64
            As `eplb_np.lower_bound`, which has the proof. Where GPUs differ in speed, the bound
            is on the longest time (`gpu_time`).

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan.

        Notes
        -----
        O(60 L E).

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> plan.lower_bound([[60, 50, 5, 15]]).tolist(), plan.gpu_load([[60, 50, 5, 15]]).tolist()
        ([65.0], [[60.0, 70.0]])
        """
        return lower_bound(self._planned_rows(load), self.topology)

    def summary(self, load: ArrayLike) -> PlanSummary:
        """Summarize the plan under a load: balance, its bound, nodes, replicas.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert, in any unit. Replicas share it evenly.

        Returns
        -------
        PlanSummary
            A dozen numbers.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load for the plan.

        Notes
        -----
        O(L P log P), and up to O(60 L E) for the bound.

        Examples
        --------
        >>> from eplb_np import in_order_plan, Topology
        >>> plan = in_order_plan(1, Topology(4, 6, num_gpus=2))
        >>> plan.phy2log.tolist()
        [[0, 1, 2, 3, 0, 1]]
        >>> summary = plan.summary([[90, 10, 30, 10]])
        >>> round(summary.balancedness, 3), round(summary.at_most, 3), summary.most_replicas
        (0.875, 1.0, 2)
        """
        rows = self._planned_rows(load)
        return summarize(self._placed, self.gpu_load(rows), lower_bound(rows, self.topology))

    @property
    def _placed(self) -> Placed:
        return Placed(self.phy2log, self.logcnt, self.topology, self.moe_layer_ids or ())

    def moves_from(self, other: Plan) -> Moves:
        """List the moves from another plan to this one: who fetches what from where.

        Parameters
        ----------
        other : Plan
            The plan in use, with the same layers, experts and slots. Replicas on GPUs that are
            not active in this plan count as lost.

        Returns
        -------
        Moves
            In an order that never overwrites the last copy of an expert.

        Raises
        ------
        ValueError
            If ``other`` is not a plan, or differs in layers, experts or slots.

        Notes
        -----
        O(L P + M P) for M moves. A replica that changes its slot within a GPU is a move too,
        although nothing is fetched from another GPU. Plans made by mending have no such moves.

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> old = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> new = make_plan([[10, 30, 90, 10]], current=old)
        >>> for move in new.moves_from(old):
        ...     print(f"GPU {move.gpu} fetches expert {move.expert} from GPU {move.source_gpu}")
        GPU 1 fetches expert 2 from GPU 0
        """
        check_is("other", other, Plan, "give the plan in use, or read it with Plan.load")
        mine, theirs = self.topology, other.topology
        if (
            self.num_layers != other.num_layers
            or mine.num_experts != theirs.num_experts
            or not np.array_equal(mine.first_slots, theirs.first_slots)
        ):
            raise ValueError(
                f"other={other} does not fit {self}: give a plan with the same layers, experts "
                "and slots on every GPU"
            )
        return moves_between(other.phy2log, self.phy2log, mine)

    def check(self) -> None:
        """Check every invariant of a plan.

        Raises
        ------
        ValueError
            Unless both arrays have shape [L, num_replicas] and the same dtype, int64 or int32;
            every slot holds an expert of the topology or is empty, and the slots of GPUs that
            are gone are empty; every expert has a replica in every layer; the ranks of an
            expert's replicas are 0 .. count - 1; and ``moe_layer_ids`` has L ascending ids.

        Notes
        -----
        O(L (E + P)).

        Examples
        --------
        >>> from eplb_np import make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> plan.check()
        """
        check_maps(self.phy2log, self.phyrank, self.topology)
        check_layer_ids(self.moe_layer_ids or (), self.num_layers)

    def to_dataframe(self) -> DataFrame:
        """Make a data frame with a row for each slot of each layer.

        Returns
        -------
        pandas.DataFrame
            Columns ``layer_id``, ``slot``, ``gpu``, ``node``, ``expert`` and ``rank``, all
            integers. The expert and the rank of an empty slot are -1.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.

        Notes
        -----
        O(L P).
        """
        return as_frame(slot_columns(self._placed, self.phyrank))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the plan to a ``.npz`` or ``.json`` file, atomically.

        Parameters
        ----------
        path : path-like
            File to write. Its suffix selects the format. An existing file is replaced, and keeps
            its mode; it is left unchanged if writing fails. A symbolic link is followed.

        Raises
        ------
        ValueError
            If the suffix is neither ``.npz`` nor ``.json``, the path leads to something that is
            not a regular file, or the plan is too large for a file: more than 2**24 numbers as
            ``.json``, or 2**26 as ``.npz``.
        FileNotFoundError
            If the folder does not exist.

        Notes
        -----
        O(L P). See docs/files.md for what the files hold.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from eplb_np import Plan, make_plan
        >>> plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
        >>> with TemporaryDirectory() as folder:
        ...     plan.save(f"{folder}/plan.json")
        ...     Plan.load(f"{folder}/plan.json") == plan
        True
        """
        header = {
            "policy": self.policy,
            "placement": self.placement,
            "topology": stored_sizes(self.topology),
            "dtype": self.dtype.name,
            "moe_layer_ids": list(self.moe_layer_ids or ()),
        }
        PLAN_FILE.write(path, header, {"phy2log": self.phy2log, "phyrank": self.phyrank})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Plan:
        """Read a plan that `Plan.save` wrote.

        Parameters
        ----------
        path : path-like
            A ``.npz`` or ``.json`` file.

        Returns
        -------
        Plan
            Equal to the one that was saved.

        Raises
        ------
        ValueError
            If the file is damaged or holds something else.
        FileNotFoundError
            If there is no such file.

        Notes
        -----
        No code of the file is run. Sizes are checked before memory is spent on them.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> from eplb_np import Plan, make_plan
        >>> with TemporaryDirectory() as folder:
        ...     make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2).save(f"{folder}/plan.npz")
        ...     Plan.load(f"{folder}/plan.npz")
        Plan(1 layers, 4 experts in 6 slots on 2 GPUs, policy='refined', placement='global')
        """
        with PLAN_FILE.reading(path) as content:
            return cls(*fields_of_file(content))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return (
            (self.topology, self.policy, self.moe_layer_ids, self.dtype)
            == (other.topology, other.policy, other.moe_layer_ids, other.dtype)
            and np.array_equal(self.phy2log, other.phy2log)
            and np.array_equal(self.phyrank, other.phyrank)
        )

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        sizes = self.topology
        return (
            f"Plan({self.num_layers} layers, {sizes.num_experts} experts in "
            f"{sizes.num_replicas} slots on {sizes.num_gpus} GPUs, policy={self.policy!r}, "
            f"placement={self.placement!r})"
        )

    def _repr_html_(self) -> str:
        return plan_html(self._placed, self.policy)

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuild copies: their arrays become read-only too, and cached properties are dropped.
        fields = (self.phy2log, self.phyrank, self.topology, self.policy, self.moe_layer_ids)
        return Plan, (*fields, self.device)


def check_layer_ids(ids: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Return the ids of a plan's layers as ints, or raise ``ValueError`` if they are not valid."""
    hint = "give one id for each planned layer, in ascending order"
    if type(ids) is range and ids == range(num_layers):
        return tuple(ids)
    given = as_list("moe_layer_ids", ids, hint, most=num_layers)
    checked = tuple(as_size("an id in moe_layer_ids", i, 0, maximum=None) for i in given)
    if len(checked) != num_layers or any(a >= b for a, b in pairwise(checked)):
        raise ValueError(f"moe_layer_ids={one_line(ids)} does not fit {num_layers} layers: {hint}")
    return checked
