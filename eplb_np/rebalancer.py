"""Plans for a serving loop: windows of loads go in, few moves come out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from eplb_np._arguments import as_size, check_is
from eplb_np._files.archive import ArchiveFormat
from eplb_np._forks import let_forks_wait_for
from eplb_np._loads.host import as_load
from eplb_np.dispatch.loads_to_come import Workloads
from eplb_np.forecast import Expected, LoadForecast
from eplb_np.maps.maps import EMPTY, Maps, count_replicas
from eplb_np.mending.limits import NO_LIMITS, MoveLimits, check_limits
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan, check_layer_ids
from eplb_np.planning import Wanted, as_integer_type, check_current, check_is_plan, plan_next
from eplb_np.policies import PlannedSplit, check_planned_split
from eplb_np.proposal import Known, Proposal, proposal_of
from eplb_np.topology import Topology, stored_sizes

POLICY = "refined"
"""The policy that makes the first plan, and mends it from then on."""

FORECAST = "forecast_"
"""Prefix of the names of the forecast's arrays in a file."""

WORKLOADS = "workloads_"
"""The same for the workloads met so far."""

REBALANCER_FILE = ArchiveFormat(
    "eplb_np.rebalancer",
    version=1,
    suffixes=(".npz",),
    needed=("moe_layer_ids", "num_layers", "topology"),
    tables=(),
    numbers=lambda header: _most_numbers(Topology(**header["topology"]), header["num_layers"]),
    sized_by="topology and num_layers",
    complaint=" is not the state of a Rebalancer that Rebalancer.save wrote",
)


class Rebalancer:
    """Plan for a serving loop, window by window, with few moves that each pay off.

    Parameters
    ----------
    topology : Topology
        Sizes of the deployment.
    num_layers : int, optional
        MoE layers; by default those of ``current``.
    current : Plan, optional
        The plan in use. Without one, the first proposal is planned from scratch.
    limits : MoveLimits, optional
        Budget, price and tolerance of the moves of each proposal.
    split : {"even", "best", "certain"}, default: "even"
        How batches are split over the replicas, as in `make_plan`. Unless evenly, replicas are
        moved only where no split can balance the batches to come, of the current workload and of
        up to eight that were met before. To make known workloads count from the start, observe a
        window of each before the first proposal.
    dtype : {int64, int32}, optional
        Integer type of the plans; by default that of ``current``, or int64.
    moe_layer_ids : sequence of int, optional
        Id in the model of each layer, ascending; by default those of ``current``, or 0 .. L - 1.

    Raises
    ------
    ValueError
        If the arguments do not fit together, or neither ``num_layers`` nor ``current`` is
        given.

    See Also
    --------
    make_plan : The same from an array of windows, without keeping a state.

    Notes
    -----
    The state is one forecast of about 10 L E numbers, however many windows were observed, and
    one plan. All methods may be called from any thread. `observe` waits only for another
    `observe`, and can run while `propose` is planning. `propose` assumes that its plan is in use
    from then on. If the engine could not make the moves, call `use` with the plan that is.
    While `propose` is planning, `use`, `use_gpus` and `save` wait for it.

    A process may fork at any time. The fork waits until no other thread is inside a method, so
    that parent and child each go on with a whole state.

    Forecast and mending are specified, with their sources, in docs/algorithm.md, section 7.

    Examples
    --------
    >>> from eplb_np import Rebalancer, Topology
    >>> rebalancer = Rebalancer(Topology(num_experts=4, num_replicas=6, num_gpus=2), 1)
    >>> rebalancer.observe([[90, 30, 10, 10]])
    >>> rebalancer.propose().plan.phy2log.tolist()
    [[0, 1, 2, 0, 1, 3]]
    >>> rebalancer.observe([[90, 31, 10, 9]])
    >>> rebalancer.propose().stays
    True
    """

    def __init__(
        self,
        topology: Topology,
        num_layers: int | None = None,
        *,
        current: Plan | None = None,
        limits: MoveLimits | None = None,
        split: PlannedSplit = "even",
        dtype: DTypeLike | None = None,
        moe_layer_ids: Sequence[int] | None = None,
    ) -> None:
        check_is("topology", topology, Topology, "build one from the sizes")
        check_limits(limits)
        check_planned_split(split, POLICY, topology)
        if num_layers is None and current is None:
            raise ValueError("neither num_layers nor current is given: give one of them")
        if current is not None:
            check_is_plan(current)
        layers = current.num_layers if current and num_layers is None else num_layers
        self._num_layers = as_size("num_layers", layers)  # type: ignore[arg-type]
        self._topology = topology
        self._current: Plan | None = None
        self._lost_gpus: frozenset[int] = frozenset()  # without weights since `current` was set
        self._limits = limits or NO_LIMITS
        self._split = split
        self._observing = threading.RLock()  # for the forecast
        self._proposing = threading.RLock()  # for the plan and the topology
        if current is not None:
            self.use(current)
            dtype = current.dtype if dtype is None else dtype
            moe_layer_ids = current.moe_layer_ids if moe_layer_ids is None else moe_layer_ids
        self._dtype = as_integer_type(np.int64 if dtype is None else dtype)
        ids = range(self._num_layers) if moe_layer_ids is None else moe_layer_ids
        self._layer_ids = check_layer_ids(ids, self._num_layers)
        self._forecast = LoadForecast(self._num_layers, topology.num_experts)
        self._workloads = Workloads(self._num_layers, topology.num_experts)
        self._changes = 0  # of workload, since the last proposal
        let_forks_wait_for(self, self._proposing, self._observing)

    @property
    def current(self) -> Plan | None:
        """The plan in use, or None before the first proposal."""
        return self._current

    @property
    def topology(self) -> Topology:
        """Sizes of the deployment, including which GPUs are active now."""
        return self._topology

    @property
    def split(self) -> PlannedSplit:
        """How batches are split over the replicas, as given."""
        return self._split

    @property
    def num_windows(self) -> int:
        """Number of windows observed so far."""
        return self._forecast.num_windows

    def observe(self, load: ArrayLike) -> None:
        """Add the loads of one window to the forecast.

        Parameters
        ----------
        load : array_like, shape [L, E]
            Load of each logical expert in the window that has just ended.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load of these layers and experts. The state is left
            unchanged.

        Notes
        -----
        O(L E).

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
        >>> rebalancer = Rebalancer(topology, num_layers=1)
        >>> rebalancer.observe([[90, 30, 10, 10]])
        >>> rebalancer.num_windows
        1
        >>> rebalancer.observe([[90, 30, 10]])
        Traceback (most recent call last):
            ...
        ValueError: load has shape (1, 3), but the plan is for [layers, experts] = (1, 4): giv...
        """
        window = as_load(load, "load")
        expected = (self._num_layers, self._topology.num_experts)
        if window.shape != expected:
            raise ValueError(
                f"load has shape {window.shape}, but the plan is for [layers, experts] = "
                f"{expected}: give loads of that shape"
            )
        with self._observing:
            self._forecast.observe(window)
            self._changes += self._forecast.switched
            if self._split != "even":
                self._workloads.observe(window)

    def propose(self) -> Proposal:
        """Propose a plan for the coming window, and assume that it is in use from now on.

        Returns
        -------
        Proposal
            The plan, the moves that lead to it, and the reason. If no move pays off, the plan in
            use and no moves.

        Notes
        -----
        Plans as `make_plan` does with ``policy="refined"`` and ``current``.

        Complexity and ties are those of `make_plan`.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
        >>> rebalancer = Rebalancer(topology, num_layers=1)
        >>> rebalancer.observe([[90, 30, 10, 10]])
        >>> proposal = rebalancer.propose()
        >>> print(proposal.reason)
        no plan was in use: planned from scratch
        >>> rebalancer.observe([[10, 10, 30, 90]])
        >>> print(rebalancer.propose().reason)
        no move pays off: expected balancedness 0.8235
        """
        with self._proposing:
            with self._observing:
                expected = self._expected()
                windows_used = self._forecast.windows_used
                changes = self._changes
            before = self._current
            if before is None and self.num_windows == 0:  # assume the same load for all experts
                expected = expected._replace(load=np.ones_like(expected.load))
            plan, moves = self._changed(before, expected)
            limited = self._limits.total is not None or self._limits.per_gpu is not None
            known = Known(
                expected.load, windows_used, changes, bool(self._lost_gpus), limited, self._split
            )
            proposal = proposal_of(before, plan, moves, known)
            self._set_current(plan)
            with self._observing:
                self._changes -= changes
            return proposal

    def _changed(self, before: Plan | None, expected: Expected) -> tuple[Plan, Moves | None]:
        if before is None:
            return plan_next(expected, None, self._wanted()), None
        held = _without(before, self._lost_gpus) if self._lost_gpus else before
        plan = plan_next(expected, held.phy2log, self._wanted())
        moves = plan.moves_from(held)
        stays = len(moves) == 0 and before.topology == self._topology
        return (before if stays else plan), moves

    def _expected(self) -> Expected:
        expected = self._forecast.expected()
        return expected if self._split == "even" else self._workloads.added_to(expected)

    def _set_current(self, plan: Plan) -> None:
        self._current = plan
        self._lost_gpus = frozenset()

    def _wanted(self) -> Wanted:
        return Wanted(
            self._topology, POLICY, self._limits, self._dtype, self._layer_ids, self._split
        )

    def use(self, plan: Plan) -> None:
        """Set the plan in use, if it is not the one proposed last.

        Parameters
        ----------
        plan : Plan
            The plan in use, with the same layers, experts and slots.

        Raises
        ------
        ValueError
            If ``plan`` is not a plan, or differs in layers, experts or slots.

        Notes
        -----
        If another thread is in `propose`, this waits for it, and then ``plan`` is in use, not
        what was proposed. Do not make the moves of that proposal: they start from the plan that
        was in use before.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
        >>> rebalancer = Rebalancer(topology, num_layers=1)
        >>> from eplb_np import in_order_plan
        >>> rebalancer.use(in_order_plan(1, rebalancer.topology))
        >>> rebalancer.current.phy2log.tolist()
        [[0, 1, 2, 3, 0, 1]]
        """
        check_is_plan(plan)
        with self._proposing:
            check_current(plan, self._num_layers, self._topology, POLICY)
            self._set_current(plan)

    def use_gpus(self, active_gpus: Sequence[int] | None) -> None:
        """Set which GPUs are active, after some were lost or have come back.

        The next proposal places the experts that were lost, and fills the GPUs that are back. A GPU
        that is lost and back before the next proposal has lost its weights all the same.

        Parameters
        ----------
        active_gpus : sequence of int or of bool, or None
            As in `Topology`; None for all GPUs.

        Raises
        ------
        ValueError
            If ``active_gpus`` is not valid, or these GPUs have too few slots for the experts. The
            state is left unchanged.

        Notes
        -----
        The next `propose` does the work. Waits for one that is running.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> topology = Topology(num_experts=4, num_replicas=8, num_gpus=4)
        >>> rebalancer = Rebalancer(topology, num_layers=1)
        >>> before = rebalancer.propose().plan
        >>> rebalancer.use_gpus([0, 1, 2])
        >>> rebalancer.propose().plan.phy2log[0, 6:].tolist()  # the slots of GPU 3
        [-1, -1]
        >>> rebalancer.use_gpus([0])
        Traceback (most recent call last):
            ...
        ValueError: active_gpus: 1 active GPUs have 2 slots for num_experts=4, so 2 slots are...
        """
        with self._proposing:
            before = self._topology
            self._topology = replace(before, active_gpus=active_gpus)
            gone = (before.active_slots > 0) & (self._topology.active_slots == 0)
            self._lost_gpus |= set(np.flatnonzero(gone).tolist())

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a ``.npz`` file, atomically, so that a restart moves nothing.

        Parameters
        ----------
        path : path-like
            File to write. An existing file is replaced, and keeps its mode; it is left unchanged
            if writing fails. A symbolic link is followed.

        Raises
        ------
        ValueError
            If the suffix is not ``.npz``, the path leads to something that is not a regular file,
            or the state has more than 2**26 numbers.
        FileNotFoundError
            If the folder does not exist.

        Notes
        -----
        O(L (E + P)), about a megabyte for 58 layers of 256 experts.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> topology = Topology(num_experts=4, num_replicas=6, num_gpus=2)
        >>> rebalancer = Rebalancer(topology, num_layers=1)
        >>> from tempfile import TemporaryDirectory
        >>> rebalancer.observe([[90, 30, 10, 10]])
        >>> with TemporaryDirectory() as folder:
        ...     rebalancer.save(f"{folder}/state.npz")
        ...     restored = Rebalancer.load(f"{folder}/state.npz")
        >>> restored.propose().plan == rebalancer.propose().plan
        True
        """
        with self._proposing, self._observing:
            current = self._current
            header = {
                "topology": stored_sizes(self._topology),
                "num_layers": self._num_layers,
                "moe_layer_ids": list(self._layer_ids),
                "dtype": self._dtype.name,
                "limits": asdict(self._limits),
                "plan_topology": None if current is None else stored_sizes(current.topology),
                "policy": None if current is None else current.policy,
                "lost_gpus": sorted(self._lost_gpus),
                "split": self._split,
                "workload_changes": self._changes,
            }
            state = self._forecast.state_dict()
            arrays: dict[str, NDArray[Any]] = {FORECAST + name: state[name] for name in state}
            if self._split != "even":
                state = self._workloads.state_dict()
                arrays.update({WORKLOADS + name: state[name] for name in state})
            if current is not None:
                arrays.update(phy2log=current.phy2log, phyrank=current.phyrank)
            REBALANCER_FILE.write(path, header, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Rebalancer:
        """Restore a state that `Rebalancer.save` wrote.

        Parameters
        ----------
        path : path-like
            A ``.npz`` file.

        Returns
        -------
        Rebalancer
            Proposes what the saved one would have proposed.

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
        >>> from eplb_np import Rebalancer, Topology
        >>> with TemporaryDirectory() as folder:
        ...     Rebalancer(Topology(4, 6, num_gpus=2), num_layers=1).save(f"{folder}/state.npz")
        ...     Rebalancer.load(f"{folder}/state.npz")
        Rebalancer(0 windows observed, in use: None)
        """
        with REBALANCER_FILE.reading(path) as content:
            ids = content["moe_layer_ids"]
            rebalancer = cls(
                Topology(**content["topology"]),
                content["num_layers"],
                limits=MoveLimits(**content["limits"]),
                split=content.get("split", "even"),
                dtype=content["dtype"],
                moe_layer_ids=ids,
            )
            if content["plan_topology"] is not None:
                topology = Topology(**content["plan_topology"])
                maps = content["phy2log"], content["phyrank"]
                rebalancer.use(Plan(*maps, topology, content["policy"], ids))
            forecast = LoadForecast.from_state_dict(
                {
                    name.removeprefix(FORECAST): array
                    for name, array in content.items()
                    if name.startswith(FORECAST)
                }
            )
            if forecast.shape != rebalancer._forecast.shape:
                raise ValueError(
                    f"its forecast has shape {forecast.shape}, but its sizes need "
                    f"{rebalancer._forecast.shape}"
                )
            rebalancer._forecast = forecast
            if rebalancer._split != "even":
                rebalancer._workloads.restore(
                    {
                        name.removeprefix(WORKLOADS): array
                        for name, array in content.items()
                        if name.startswith(WORKLOADS)
                    }
                )
            # Without it, the file was written when a proposal looked at the last window only.
            rebalancer._changes = as_size(
                "workload_changes", content.get("workload_changes", int(forecast.switched)), 0
            )
            rebalancer._lost_gpus = frozenset(
                as_size("an entry of lost_gpus", gpu, minimum=0)
                for gpu in content.get("lost_gpus", ())
            )
            return rebalancer

    def __repr__(self) -> str:
        return f"Rebalancer({self.num_windows} windows observed, in use: {self._current})"


def _most_numbers(topology: Topology, num_layers: int) -> int:
    """Return the size of all arrays of a state: the forecast's, and a plan's."""
    layers = as_size("num_layers", num_layers)
    return layers * (8 * topology.num_experts + 2 + 2 * topology.num_replicas)


def _without(plan: Plan, lost_gpus: frozenset[int]) -> Plan:
    """Return what is left of a plan without the replicas on some GPUs: maybe not every expert."""
    lost = np.isin(plan.topology.gpu_of_slot, list(lost_gpus))
    phy2log = np.where(lost, plan.dtype.type(EMPTY), plan.phy2log)
    phyrank = np.where(lost, plan.dtype.type(EMPTY), plan.phyrank)
    maps = Maps(phy2log, phyrank, count_replicas(phy2log, plan.topology.num_experts))
    return Plan._of_maps(maps, plan.topology, plan.policy, plan.moe_layer_ids or (), plan.dtype)
