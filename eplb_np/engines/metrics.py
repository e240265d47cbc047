"""What a `Rebalancer` proposes, and why, as metrics that a server exports to Prometheus.

`prometheus_client` counts and writes them. It is loaded when the first metrics are made.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from eplb_np._arguments import check_is, one_line
from eplb_np._forks import let_forks_wait_for
from eplb_np.moves.moves import Moves
from eplb_np.plan import Plan
from eplb_np.policies import Split
from eplb_np.proposal import Proposal
from eplb_np.rebalancer import Rebalancer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["RebalancerMetrics"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: most proposals take milliseconds; the first one in a new installation compiles."""


class _Row(NamedTuple):
    """One metric; it has a series for each value of its label."""

    kind: Literal["Counter", "Gauge", "Histogram"]
    meaning: str
    label: str = ""
    values: tuple[str, ...] = ("",)


_CAUSES = ("first", "gpus", "workload", "groups", "load", "stays")
_SOURCES = ("same_gpu", "same_node", "other_node", "storage")
_METRICS = {
    "eplb_windows": _Row("Counter", "Windows observed."),
    "eplb_workload_changes": _Row("Counter", "Changes of workload seen in the windows."),
    "eplb_forecast_windows": _Row("Gauge", "Windows behind the forecast, in effect."),
    "eplb_balancedness_bound": _Row(
        "Gauge", "Balancedness that no plan exceeds under the forecast for the coming window."
    ),
    "eplb_balancedness_expected": _Row(
        "Gauge", "Balancedness of the plan under the forecast for the coming window."
    ),
    "eplb_balancedness_seen": _Row(
        "Gauge", "Balancedness of the last window under the plan then in use."
    ),
    "eplb_balancedness_shortfall": _Row(
        "Gauge", "Balancedness expected for the last window less that seen in it."
    ),
    "eplb_mean_gpu_load": _Row(
        "Counter", "Load of a perfectly balanced GPU, over all windows and layers."
    ),
    "eplb_busiest_gpu_load": _Row(
        "Counter", "Load of each layer's busiest GPU, over all windows and layers."
    ),
    "eplb_proposals": _Row("Counter", "Plans proposed, by what caused them.", "cause", _CAUSES),
    "eplb_moves": _Row("Counter", "Moves proposed, by where they read.", "source", _SOURCES),
    "eplb_plan_duration_seconds": _Row("Histogram", "Time that proposing a plan took."),
    "eplb_gpus": _Row("Gauge", "GPUs of the deployment."),
    "eplb_active_gpus": _Row("Gauge", "GPUs that are active."),
    "eplb_last_change_timestamp_seconds": _Row(
        "Gauge", "When a plan that differs from the one in use was proposed last."
    ),
}


def _client() -> Any:
    try:
        import prometheus_client
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "metrics are written by prometheus_client: pip install 'eplb-np[metrics]'",
            name="prometheus_client",
        ) from None
    return prometheus_client


class _Families:
    """The metrics of a registry, which all that report to it share; each has its own series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        client = _client()
        further: dict[str, dict[str, Any]] = {
            "Gauge": {"multiprocess_mode": "mostrecent"},
            "Histogram": {"buckets": BUCKETS},
        }
        self.models: set[str] = set()
        self.metrics: dict[str, Any] = {}
        try:
            for name, row in _METRICS.items():
                labels = ["model", row.label] if row.label else ["model"]
                metric = getattr(client, row.kind)(
                    name, row.meaning, labels, registry=None, **further.get(row.kind, {})
                )
                registry.register(metric)
                self.metrics[name] = metric
        except ValueError:
            self.unregister(registry)
            raise

    def unregister(self, registry: CollectorRegistry) -> None:
        for metric in self.metrics.values():
            registry.unregister(metric)

    def _labels(self, model: str) -> dict[tuple[str, str], list[str]]:
        return {
            (name, value): [model, value] if row.label else [model]
            for name, row in _METRICS.items()
            for value in row.values
        }

    def add(self, model: str) -> dict[tuple[str, str], Any]:
        """Make the series of a model, all of them, so that rates start at 0."""
        self.models.add(model)
        found = self._labels(model).items()
        return {key: self.metrics[key[0]].labels(*labels) for key, labels in found}

    def remove(self, model: str) -> None:
        self.models.remove(model)
        for (name, _), labels in self._labels(model).items():
            self.metrics[name].remove(*labels)


class _Shared:
    """Which metrics each registry has, and the lock around them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held for microseconds, and never while a plan is made
        self.families: WeakKeyDictionary[CollectorRegistry, _Families] = WeakKeyDictionary()
        let_forks_wait_for(self, self.lock)


_SHARED = _Shared()


class RebalancerMetrics:
    """Observe and propose through this, and a registry of `prometheus_client` says how it goes.

    Parameters
    ----------
    rebalancer : Rebalancer
        What observes and proposes; all else is still asked of it directly.
    registry : prometheus_client.CollectorRegistry, optional
        Where the metrics are registered; by default in a new one, which `registry` returns. The
        library's own default registry, ``prometheus_client.REGISTRY``, is used only if given.
    model : str, default: ""
        The label ``model`` of every series. Rebalancers that share a registry need different ones.

    Raises
    ------
    ModuleNotFoundError
        If `prometheus_client` is not installed.
    ValueError
        If an argument is of a wrong type, ``model`` already has metrics in this registry, or the
        registry has other metrics of the same names.

    Notes
    -----
    All methods may be called from any thread. Beyond what the `Rebalancer` does, `observe`
    computes the balancedness of the window, O(L (E + P)), and `propose` a lower bound, up to
    O(60 L E). With ``split="best"`` or ``"certain"``, `observe` splits the window, which takes
    milliseconds for 58 layers of 256 experts.

    Examples
    --------
    >>> from eplb_np import Rebalancer, Topology
    >>> from eplb_np.engines.metrics import RebalancerMetrics
    >>> rebalancer = Rebalancer(Topology(num_experts=4, num_replicas=6, num_gpus=2), 1)
    >>> metrics = RebalancerMetrics(rebalancer, model="tiny")
    >>> metrics.observe([[90, 30, 10, 10]])
    >>> plan = metrics.propose().plan
    >>> metrics.observe([[80, 40, 10, 10]])
    >>> metrics.registry.get_sample_value("eplb_balancedness_seen", {"model": "tiny"})
    1.0
    """

    def __init__(
        self,
        rebalancer: Rebalancer,
        registry: CollectorRegistry | None = None,
        *,
        model: str = "",
    ) -> None:
        check_is("rebalancer", rebalancer, Rebalancer, "build one from a Topology")
        check_is("model", model, str, "give the name of the model, or leave it out")
        kind = _client().CollectorRegistry
        used: CollectorRegistry = kind() if registry is None else registry
        check_is("registry", used, kind, "give one of prometheus_client, or leave it out")
        self._rebalancer = rebalancer
        self._registry = used
        self._model = model
        self._split: Split = "even" if rebalancer.split == "even" else "best"
        self._expected: tuple[Plan | None, float] = (None, math.nan)
        with _SHARED.lock:
            families = _SHARED.families.get(used) or _Families(used)
            if model in families.models:
                raise ValueError(
                    f"model={one_line(model)} already has metrics in this registry: give each "
                    "Rebalancer another model, or close the metrics of the one before"
                )
            _SHARED.families[used] = self._families = families
            self._closed = False
            self._series = families.add(model)
            for name, row in _METRICS.items():
                if row.kind == "Gauge":
                    self._set(name, math.nan)  # not known yet: no alert is about it
            self._set_gpus()

    @property
    def rebalancer(self) -> Rebalancer:
        """What observes and proposes."""
        return self._rebalancer

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics are registered: to be exported."""
        return self._registry

    def observe(self, load: ArrayLike) -> None:
        """Add the loads of one window to the forecast, and measure it under the plan in use.

        Parameters
        ----------
        load : array_like, shape [L, E]
            As in `Rebalancer.observe`.

        Raises
        ------
        ValueError
            If ``load`` is not a valid load of these layers and experts. Nothing is counted.

        Notes
        -----
        As `RebalancerMetrics`.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> from eplb_np.engines.metrics import RebalancerMetrics
        >>> metrics = RebalancerMetrics(Rebalancer(Topology(4, 6, num_gpus=2), 1), model="tiny")
        >>> metrics.observe([[90, 30, 10, 10]])
        >>> metrics.registry.get_sample_value("eplb_windows_total", {"model": "tiny"})
        1.0
        """
        plan = self._rebalancer.current
        self._rebalancer.observe(load)
        mean, busiest = (0.0, 0.0) if plan is None else self._loads(plan, load)
        with _SHARED.lock:
            self._count("eplb_windows")
            self._set_gpus()
            if busiest > 0:
                seen = mean / busiest
                of_plan, expected = self._expected
                shortfall = expected - seen if of_plan is plan else math.nan
                self._count("eplb_mean_gpu_load", mean)
                self._count("eplb_busiest_gpu_load", busiest)
                self._set("eplb_balancedness_seen", seen)
                self._set("eplb_balancedness_shortfall", shortfall)

    def propose(self) -> Proposal:
        """Propose a plan for the coming window, and count what is proposed.

        Returns
        -------
        Proposal
            As `Rebalancer.propose`.

        Notes
        -----
        As `RebalancerMetrics`.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> from eplb_np.engines.metrics import RebalancerMetrics
        >>> metrics = RebalancerMetrics(Rebalancer(Topology(4, 6, num_gpus=2), 1), model="tiny")
        >>> metrics.propose().cause
        'first'
        >>> labels = {"model": "tiny", "cause": "first"}
        >>> metrics.registry.get_sample_value("eplb_proposals_total", labels)
        1.0
        """
        start = time.perf_counter()
        proposal = self._rebalancer.propose()
        seconds = time.perf_counter() - start
        bound = _best_balancedness(proposal)
        # A plan without the GPUs that are gone is another one, even if nothing moves.
        stays = proposal.stays and proposal.cause != "gpus"
        sources = None if proposal.moves is None else _sources(proposal.moves, proposal.plan)
        with _SHARED.lock:
            self._series["eplb_plan_duration_seconds", ""].observe(seconds)
            self._count("eplb_proposals", 1, "stays" if stays else proposal.cause)
            self._count("eplb_workload_changes", proposal.workload_changes)
            for source, number in (sources or {}).items():
                self._count("eplb_moves", number, source)
            self._set_gpus()
            if not stays:
                self._set("eplb_last_change_timestamp_seconds", time.time())
            if self._rebalancer.current is proposal.plan:  # else another thread was faster
                self._expected = proposal.plan, proposal.expected_balancedness
                self._set("eplb_forecast_windows", proposal.windows_used)
                self._set("eplb_balancedness_bound", bound)
                self._set("eplb_balancedness_expected", proposal.expected_balancedness)
        return proposal

    def close(self) -> None:
        """Take the metrics out of the registry, to make others for this model, or none.

        `observe` and `propose` can still be called, but nobody sees what they count.

        Examples
        --------
        >>> from eplb_np import Rebalancer, Topology
        >>> from eplb_np.engines.metrics import RebalancerMetrics
        >>> metrics = RebalancerMetrics(Rebalancer(Topology(4, 6, num_gpus=2), 1), model="tiny")
        >>> metrics.close()
        >>> metrics.registry.get_sample_value("eplb_windows_total", {"model": "tiny"}) is None
        True
        """
        with _SHARED.lock:
            if self._closed:
                return
            self._closed = True
            self._families.remove(self._model)
            if not self._families.models:
                self._families.unregister(self._registry)
                del _SHARED.families[self._registry]

    def _loads(self, plan: Plan, load: ArrayLike) -> tuple[float, float]:
        """Load of a perfectly balanced GPU and of the busiest one, summed over the layers."""
        loads = plan.gpu_load(load, split=self._split)
        busiest = (loads * plan.topology.slowness).max(axis=1).sum()
        return float(loads.sum()) / plan.topology.active_speed, float(busiest)

    def _set_gpus(self) -> None:
        topology = self._rebalancer.topology
        active = topology.active_gpus
        self._set("eplb_gpus", topology.num_gpus)
        self._set("eplb_active_gpus", topology.num_gpus if active is None else len(active))

    def _set(self, name: str, value: float) -> None:
        self._series[name, ""].set(value)

    def _count(self, name: str, amount: float = 1, value: str = "") -> None:
        self._series[name, value].inc(amount)


def _best_balancedness(proposal: Proposal) -> float:
    """Balancedness that no plan exceeds under the load that a proposal is for."""
    topology, load = proposal.plan.topology, proposal.load
    bound = float(proposal.plan.lower_bound(load).sum())
    return float(load.sum()) / topology.active_speed / bound if bound > 0 else 1.0


def _sources(moves: Moves, plan: Plan) -> dict[str, int]:
    """Count the moves by where they read."""
    per_node = plan.topology.gpus_per_node
    storage = moves.source_gpu < 0
    same_gpu = moves.source_gpu == moves.gpu
    same_node = moves.source_gpu // per_node == moves.gpu // per_node
    where = [same_gpu, same_node & ~same_gpu, ~same_node & ~storage, storage]
    return {
        source: int(np.count_nonzero(found)) for source, found in zip(_SOURCES, where, strict=True)
    }
