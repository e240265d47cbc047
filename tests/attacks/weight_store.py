"""A serving engine in small: its GPUs hold weights, and a `Rebalancer` says what to move.

The store carries the moves out as an engine without staging buffers does, and asserts at every step
that what it is told can be done.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from arena import Allowed, Problems
from plain_check import check_plan, groups_are_whole, layout

import eplb_np
from eplb_np import MoveLimits, Moves, Plan, Rebalancer, Topology
from eplb_np.policies import Split

ALLOWED = Allowed(cpu_seconds=120, asleep_seconds=20)
ALLOWED_LONG = Allowed(cpu_seconds=1500, asleep_seconds=20, wall_seconds=3000)
LAYERS = 2
NOTHING = -1
SPLITS: tuple[Split, ...] = ("even", "best")


class Store:
    """The weights that the slots of an engine hold; each is the number of its expert."""

    def __init__(self, plan: Plan) -> None:
        self.weights = plan.phy2log.tolist()
        self.gpu_of_slot, self.active = layout(plan.topology)

    def use_gpus(self, active: set[int]) -> None:
        """What GPUs that go away held is lost; those that come back are empty."""
        self.active = set(active)
        for row in self.weights:
            for slot, gpu in enumerate(self.gpu_of_slot):
                if gpu not in self.active:
                    row[slot] = NOTHING

    def missing(self) -> list[set[int]]:
        """Experts of each layer that no active GPU holds."""
        return [set(range(max(map(max, self.weights)) + 1)) - set(row) for row in self.weights]

    def drop(self, plan: Plan) -> None:
        """Forget what is in slots that a plan leaves empty."""
        for row, wanted in zip(self.weights, plan.phy2log.tolist(), strict=True):
            for slot, expert in enumerate(wanted):
                if expert == NOTHING:
                    row[slot] = NOTHING

    def carry_out(self, moves: Moves) -> None:
        """Make the moves, step by step: all sources of a step are read before any is written."""
        for (layer, _), step in groupby(moves, key=lambda move: (move.layer, move.step)):
            row = self.weights[layer]
            had = set(row) - {NOTHING}
            read = []
            for move in step:
                assert self.gpu_of_slot[move.slot] == move.gpu
                assert move.gpu in self.active, f"{move} fills a GPU that is gone"
                if move.source_gpu == NOTHING:
                    assert move.expert not in had, f"{move} is from storage, but a GPU holds it"
                else:
                    assert self.gpu_of_slot[move.source_slot] == move.source_gpu
                    assert move.source_gpu in self.active
                    assert row[move.source_slot] == move.expert, f"{move}: the source is another"
                read.append((move.slot, move.expert))
            for slot, expert in read:
                row[slot] = expert
            assert had <= set(row), (
                f"experts {had - set(row)} of layer {layer} were lost on the way"
            )


class Deployment(NamedTuple):
    """An engine, and the limits of its moves."""

    topology: Topology
    limits: MoveLimits
    most_gone: int
    """GPUs that may be away at a time."""


def _small(replicas: int, gpus: int, nodes: int, groups: int, experts: int = 24) -> Topology:
    return Topology(experts, replicas, gpus, nodes, groups)


DEPLOYMENTS = {
    # A node that loses a GPU has too few slots for its groups, as 288 slots on 32 GPUs have.
    "becomes global": Deployment(_small(36, 12, 4, 8, 32), MoveLimits(total=8), 1),
    "becomes global, each GPU": Deployment(_small(36, 12, 4, 8, 32), MoveLimits(per_gpu=2), 1),
    "becomes global, both": Deployment(_small(36, 12, 4, 8, 32), MoveLimits(9, 2), 1),
    "becomes global, no limits": Deployment(_small(36, 12, 4, 8, 32), MoveLimits(), 1),
    "stays hierarchical": Deployment(_small(48, 12, 3, 6), MoveLimits(total=6, per_gpu=3), 2),
    "is global": Deployment(_small(36, 12, 4, 6), MoveLimits(total=7, per_gpu=2), 3),
    "has one node": Deployment(_small(36, 12, 1, 8), MoveLimits(per_gpu=1), 4),
    "is uneven": Deployment(
        Topology(24, 37, 6, 2, 4, gpu_speeds=[1, 1, 2, 1, 0.5, 1]), MoveLimits(total=5), 1
    ),
    "may not move": Deployment(_small(36, 12, 4, 8), MoveLimits(total=0), 2),
}
COMES_BACK = [name for name in DEPLOYMENTS if name != "may not move"]
PROPOSALS_TO_RETURN = 60
"""Within so many proposals no slot is empty any more, and groups are whole."""


class Engine:
    """A store, the `Rebalancer` that plans for it, and what must hold between the two."""

    def __init__(self, deployment: Deployment, seed: int, split: Split = "even") -> None:
        self.split = split
        self.deployment = deployment
        self.limits = deployment.limits
        self.rng = random.Random(seed)
        self.draws = np.random.default_rng(seed)
        self.mean = self.new_mean()
        self.gone: set[int] = set()
        self.seen: Counter[str] = Counter()
        self.rebalancer = self.new_rebalancer(deployment.topology)
        self.observe()
        plan = self.rebalancer.propose().plan
        self.store = Store(plan)
        check_plan(plan, full=True)

    def new_rebalancer(self, topology: Topology, current: Plan | None = None) -> Rebalancer:
        return Rebalancer(topology, LAYERS, current=current, limits=self.limits, split=self.split)

    def new_mean(self) -> np.ndarray:
        return self.draws.lognormal(3, 1, (LAYERS, self.deployment.topology.num_experts))

    @property
    def active(self) -> set[int]:
        return set(range(self.deployment.topology.num_gpus)) - self.gone

    def observe(self) -> None:
        self.rebalancer.observe(self.draws.poisson(self.mean))

    def change_workload(self) -> None:
        self.mean = self.new_mean()

    def lose(self) -> None:
        if len(self.gone) < self.deployment.most_gone:
            self.gone.add(self.rng.choice(sorted(self.active)))
            self._use_gpus()

    def give_back(self) -> None:
        if self.gone:
            self.gone.remove(self.rng.choice(sorted(self.gone)))
            self._use_gpus()

    def restart_a_gpu(self) -> None:
        """A GPU comes back empty before anything has been proposed without it."""
        self.lose()
        self.give_back()

    def _use_gpus(self) -> None:
        self.rebalancer.use_gpus(sorted(self.active))
        self.store.use_gpus(self.active)

    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.npz"
            self.rebalancer.save(path)
            self.rebalancer = Rebalancer.load(path)
        assert set(layout(self.rebalancer.topology)[1]) == self.active

    def use_what_is_held(self) -> None:
        """The engine says what its slots hold, as after moves that failed half way."""
        if not any(self.store.missing()):
            self.rebalancer.use(self.held())

    def held(self) -> Plan:
        held = np.array(self.store.weights)
        ranks = np.full_like(held, NOTHING)
        for row, rank in zip(held, ranks, strict=True):
            count: Counter[int] = Counter()
            for slot, expert in enumerate(row.tolist()):
                if expert != NOTHING:
                    rank[slot] = count[expert]
                    count[expert] += 1
        topology = self.rebalancer.topology
        return Plan(held, ranks, topology, "held")

    def fail_half_way(self) -> None:
        """A proposal's moves break off after a whole step, and the engine says what it holds."""
        if any(self.store.missing()):
            return
        moves = self.rebalancer.propose().moves
        assert moves is not None
        stop = self.rng.randrange(len(moves) + 1)
        while 0 < stop < len(moves) and self._step(moves, stop) == self._step(moves, stop - 1):
            stop += 1
        names = list(moves.__dataclass_fields__)
        self.store.carry_out(Moves(*(getattr(moves, name)[:stop] for name in names)))
        if any(self.store.missing()):  # no plan says that: make the rest, too
            self.store.carry_out(Moves(*(getattr(moves, name)[stop:] for name in names)))
            self.store.drop(self.rebalancer.current)
        self.use_what_is_held()

    @staticmethod
    def _step(moves: Moves, i: int) -> tuple[int, int]:
        return int(moves.layer[i]), int(moves.step[i])

    def change_limits(self) -> None:
        """A new `Rebalancer` with other limits takes the plan over."""
        if self.deployment.limits.total == 0:
            return
        if self.limits is self.deployment.limits:
            self.limits = MoveLimits(
                total=self.rng.randrange(3, 9), per_gpu=self.rng.randrange(1, 4)
            )
        else:
            self.limits = self.deployment.limits
        topology = self.rebalancer.topology
        current = self.rebalancer.current
        self.rebalancer = self.new_rebalancer(topology, current)
        self.observe()

    def propose(self) -> None:
        """Propose, carry out, compare, and hold the limits to what was fetched."""
        missing = self.store.missing()
        proposal = self.rebalancer.propose()
        plan = proposal.plan
        assert proposal.moves is not None
        check_plan(plan)
        self.store.carry_out(proposal.moves)
        self.store.drop(plan)
        assert self.store.weights == plan.phy2log.tolist(), "the slots do not hold the plan"
        assert proposal.stays == (len(proposal.moves) == 0)
        # One fetch of each expert that no active GPU held any more is free.
        free = {(layer, expert) for layer, experts in enumerate(missing) for expert in experts}
        counted: Counter[int] = Counter()
        for move in proposal.moves:
            if (move.layer, move.expert) in free:
                free.remove((move.layer, move.expert))
            else:
                counted[move.gpu] += 1
        assert not free, "a lost expert was not placed again"
        total, per_gpu = self.limits.total, self.limits.per_gpu
        assert total is None or counted.total() <= total, f"{counted.total()} fetches of {total}"
        most = max(counted.values(), default=0)
        assert per_gpu is None or most <= per_gpu, f"{most} fetches of {per_gpu} on one GPU"

    def is_restored(self) -> bool:
        """Whether no slot is empty, and each group is on one node where it should be."""
        topology = self.deployment.topology
        whole = topology.num_groups % topology.num_nodes != 0 or all(
            groups_are_whole(row, topology) for row in self.store.weights
        )
        return whole and all(NOTHING not in row for row in self.store.weights)


EVENTS: dict[Callable[[Engine], None], float] = {
    Engine.observe: 30,
    Engine.propose: 35,
    Engine.change_workload: 3,
    Engine.lose: 4,
    Engine.give_back: 5,
    Engine.save_and_load: 4,
    Engine.use_what_is_held: 3,
    Engine.fail_half_way: 4,
    Engine.change_limits: 3,
}


def events(name: str, number: int, seed: int, split: Split) -> Problems:
    """Random events, none of which may lose an expert or exceed a limit."""
    engine = Engine(DEPLOYMENTS[name], seed, split)
    history: list[str] = []
    try:
        for _ in range(number):
            (event,) = engine.rng.choices(list(EVENTS), weights=list(EVENTS.values()))
            history.append(event.__name__)
            event(engine)
            engine.seen[event.__name__] += 1
            if event in (Engine.lose, Engine.give_back):
                engine.propose()
    except AssertionError as error:
        return {"wrong": [f"event {len(history)} of seed {seed} ({history[-3:]}): {error}"]}
    if number > 300:
        assert set(engine.seen) == {event.__name__ for event in EVENTS}, engine.seen
    return {}


def comes_back(name: str, seed: int, split: Split) -> Problems:
    """Every GPU in turn is lost and comes back: all is restored soon, within the limits."""
    engine = Engine(DEPLOYMENTS[name], seed, split)
    broken: list[str] = []
    for gpu in range(engine.deployment.topology.num_gpus):
        steps = [{gpu}, {gpu}, set(), *[set()] * PROPOSALS_TO_RETURN]
        for step, gone in enumerate(steps):
            if gone != engine.gone:
                engine.gone = set(gone)
                engine._use_gpus()
            try:
                engine.observe()
                engine.propose()
            except AssertionError as error:
                broken.append(f"GPU {gpu}, proposal {step}: {error}")
                break
            if not gone and engine.is_restored():
                break
        else:
            broken.append(
                f"GPU {gpu} is back, but {PROPOSALS_TO_RETURN} proposals did not restore all"
            )
        if len(broken) == 3:
            break
    return {"wrong": broken} if broken else {}


def both_limits(seed: int) -> Problems:
    """A total and a limit of each GPU, both of which bind."""
    draws = np.random.default_rng(seed)
    total, per_gpu = (int(draws.integers(low, high)) for low, high in ((2, 9), (1, 4)))
    limits = MoveLimits(total=total, per_gpu=per_gpu)
    rebalancer = Rebalancer(_small(36, 12, 1, 1), LAYERS, limits=limits)
    for _ in range(40):
        if draws.random() < 0.1 or rebalancer.current is None:
            mean = draws.lognormal(3, 1, (LAYERS, 24))
        rebalancer.observe(draws.poisson(mean))
        moves = rebalancer.propose().moves
        if moves is not None:
            assert len(moves) <= total, f"{len(moves)} fetches of {total}, seed {seed}"
            assert np.bincount(moves.gpu, minlength=1).max() <= per_gpu
    return {}


def many_with_both_limits(seeds: range) -> Problems:
    for seed in seeds:
        both_limits(seed)
    return {}


def restarts(name: str, number: int, seed: int) -> Problems:
    """GPUs that come back before the next proposal are empty, and filled as others are."""
    engine = Engine(DEPLOYMENTS[name], seed)
    for _ in range(number):
        engine.observe()
        engine.restart_a_gpu()
        engine.propose()
    return {}


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Every deployment through random events, and through the loss of each GPU."""
    eplb_np.warmup()
    number = 3000 if long else 150
    random_events = {
        f"{name}, {split}, events": partial(events, name, number, int(long), split)
        for name in DEPLOYMENTS
        for split in SPLITS
    }
    returns = {
        f"{name}, {split}, back": partial(comes_back, name, int(long), split)
        for name in COMES_BACK
        for split in SPLITS
    }
    restarted = {
        f"{name}, restarts": lambda name=name: restarts(name, number // 10, int(long))
        for name in COMES_BACK
    }
    seeds = range(2000) if long else range(310, 330)
    both = {"both limits": lambda: many_with_both_limits(seeds)}
    return random_events | returns | restarted | both
