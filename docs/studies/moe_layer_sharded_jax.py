"""A MoE layer in JAX, sharded over 8 GPUs, that is planned, split, and planned anew.

    python docs/studies/moe_layer_sharded_jax.py

Prints how many (token, expert) pairs the busiest GPU gets in each way to use the replicas, before
and after the workload changes, and how far the outputs are from those without replicas. The GPUs
are 8 devices that JAX makes of one CPU, in this process only. Needs JAX 0.6 or later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import eplb_np
from eplb_np.dispatch.jax import Tables, assign, quotas, tables

GPUS = 8
TOKENS, WIDTH, HIDDEN = 64, 16, 32  # tokens of each GPU
TOPOLOGY = eplb_np.Topology(num_experts=32, num_replicas=40, num_gpus=GPUS)
EXPERTS, SLOTS, CHOSEN = 32, 40, 4
MOST_MOVES = 16

Array = jax.Array
Choose = Callable[[Array, Tables], Array]


class Weights(NamedTuple):
    """Weights of experts or slots, on the GPUs that own them."""

    up: Array  # [E or P, width, hidden]
    down: Array  # [E or P, hidden, width]


CUT, WHOLE = PartitionSpec("gpu"), PartitionSpec()  # the first axis over the GPUs; on each GPU


def route(router: Array, tokens: Array) -> tuple[Array, Array]:
    """Choose experts of tokens [T, width]: ids and their weights, [T, k]."""
    gate, topk_ids = jax.lax.top_k(jax.nn.softmax(tokens @ router[:-1] + router[-1]), CHOSEN)
    return topk_ids, gate / gate.sum(axis=-1, keepdims=True)


def in_turn(topk_ids: Array, plan: Tables) -> Array:
    """Slots of a GPU's tokens: those of an expert take turns on its replicas."""
    ids = topk_ids.ravel()
    chosen = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.int32)
    turn = (jnp.cumsum(chosen, axis=0) * chosen).max(axis=1) - 1
    turn += jax.lax.axis_index("gpu")  # so that GPUs do not all start with the same replica
    return plan.log2phy[0, ids, turn % plan.logcnt[0, ids]].reshape(topk_ids.shape)


def by_best_split(splitter: Callable[[], eplb_np.Splitter]) -> Choose:
    """Slots by the best split of the counts of all GPUs, for the plan that is in use."""

    def choose(topk_ids: Array, plan: Tables) -> Array:
        counts = jax.lax.all_gather(jnp.bincount(topk_ids.ravel(), length=EXPERTS), "gpu")
        mine = quotas(splitter, counts, 0)[jax.lax.axis_index("gpu")]
        return assign(topk_ids, mine, plan.log2phy[0])

    return choose


def run_slots(weights: Weights, tokens: Array, slots: Array, gate: Array) -> tuple[Array, Array]:
    """Send tokens to their slots' GPUs, run the experts there, send back and add up.

    Shapes in JAX are static, so each GPU has room for all pairs of each other GPU. Where
    ``jax.lax.ragged_all_to_all`` is supported, it sends what there is.
    """
    exchange = partial(jax.lax.all_to_all, axis_name="gpu", split_axis=0, concat_axis=0)
    owned = len(weights.up)  # slots of a GPU
    slot = slots.ravel()
    pairs = jnp.arange(len(slot))
    sent = jnp.repeat(tokens, CHOSEN, axis=0)
    room = jnp.zeros((GPUS, len(slot), WIDTH)).at[slot // owned, pairs].set(sent)
    wanted = jnp.full((GPUS, len(slot)), owned).at[slot // owned, pairs].set(slot % owned)
    got, wanted = exchange(room).reshape(-1, WIDTH), exchange(wanted).ravel()

    order = jnp.argsort(wanted)  # places without a token come last
    sizes = jnp.bincount(wanted, length=owned)
    hidden = jax.nn.silu(jax.lax.ragged_dot(got[order], weights.up, sizes))
    done = jax.lax.ragged_dot(hidden, weights.down, sizes)
    done = jnp.zeros_like(got).at[order].set(done)
    back = exchange(done.reshape(room.shape))[slot // owned, pairs]
    out = (gate[..., None] * back.reshape(*gate.shape, WIDTH)).sum(axis=1)
    return out, sizes


def make_layer(mesh: jax.sharding.Mesh, choose: Choose) -> Callable[..., tuple[Array, Array]]:
    """Compile the layer: the output [tokens, width], and the pairs that each slot got."""

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(WHOLE, CUT, CUT, WHOLE), out_specs=CUT)
    def layer(router: Array, weights: Weights, tokens: Array, plan: Tables) -> tuple[Array, Array]:
        topk_ids, gate = route(router, tokens)
        return run_slots(weights, tokens, choose(topk_ids, plan), gate)

    return layer


def first_plan(load: Array) -> eplb_np.Plan:
    """Plan for the best split of loads [W, L, E]."""
    return eplb_np.make_plan(load, TOPOLOGY, policy="refined", split="best", dtype=np.int32)


def plan_of(load: Array) -> Tables:
    """Plan on the host, from inside a compiled function."""
    like = tables(eplb_np.in_order_plan(load.shape[1], TOPOLOGY))
    plan: Tables = jax.pure_callback(lambda load: tables(first_plan(load)), like, load)
    return plan


def gather(experts: Weights, plan: Tables) -> Weights:
    """Weights of the slots, from those of the experts."""
    return jax.tree.map(lambda weights: weights[plan.phy2log[0]], experts)


def make_fetch(mesh: jax.sharding.Mesh) -> Callable[[Weights, eplb_np.Moves], Weights]:
    """Compile the moves of a layer: all sources are read before any slot is written."""

    @partial(jax.jit, donate_argnums=0, out_shardings=NamedSharding(mesh, CUT))
    def fetch(weights: Weights, slot: Array, source: Array) -> Weights:
        return jax.tree.map(lambda w: w.at[slot].set(w[source], mode="drop"), weights)

    def carry_out(weights: Weights, moves: eplb_np.Moves) -> Weights:
        # As many as there may ever be, so that it is compiled once: the rest goes nowhere.
        slot, source = np.full(MOST_MOVES, SLOTS, np.int32), np.zeros(MOST_MOVES, np.int32)
        slot[: len(moves)], source[: len(moves)] = moves.slot, moves.source_slot
        return fetch(weights, slot, source)

    return carry_out


class Traffic:
    """Draws routers and tokens. Which experts are hot is up to the router's last row."""

    def __init__(self, rng: np.random.Generator, mesh: jax.sharding.Mesh) -> None:
        self._rng = rng
        self._cut, self._whole = NamedSharding(mesh, CUT), NamedSharding(mesh, WHOLE)
        self.router = self._draw(WIDTH + 1, EXPERTS)

    def _draw(self, *shape: int) -> Array:
        return jnp.asarray(0.3 * self._rng.normal(size=shape), jnp.float32)

    def change(self) -> None:
        """Make other experts hot."""
        self.router = self.router.at[-1].set(self._draw(EXPERTS))

    def weights(self) -> Weights:
        drawn = Weights(self._draw(EXPERTS, WIDTH, HIDDEN), self._draw(EXPERTS, HIDDEN, WIDTH))
        return jax.device_put(drawn, self._cut)

    def tokens(self) -> Array:
        tokens = self._rng.normal(size=(GPUS * TOKENS, WIDTH)).astype(np.float32)
        return jax.device_put(tokens, self._cut)

    def loads(self, num_windows: int = 8) -> Array:
        """Counts of some batches, [W, 1, E], the same on every GPU."""
        ids = [route(self.router, self.tokens())[0].ravel() for _ in range(num_windows)]
        counts = jnp.stack([jnp.bincount(batch, length=EXPERTS) for batch in ids])
        return jax.device_put(counts[:, None], self._whole)


def run() -> dict[str, float]:
    """Serve a batch in each way, before and after a change of the workload."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("gpu",))
    cut, whole = NamedSharding(mesh, CUT), NamedSharding(mesh, WHOLE)
    traffic = Traffic(np.random.default_rng(0), mesh)
    experts = traffic.weights()
    without = make_layer(mesh, lambda topk_ids, plan: topk_ids)
    even = make_layer(mesh, in_turn)
    in_use: list[eplb_np.Splitter] = []
    best = make_layer(mesh, by_best_split(lambda: in_use[-1]))
    found: dict[str, Any] = {"largest difference": 0.0}

    def serve(name: str, plan: eplb_np.Plan, weights: Weights) -> None:
        tokens, inputs = traffic.tokens(), tables(plan)
        in_use.append(eplb_np.Splitter(plan))
        # Calls that queue up can wait for each other forever where the devices are one CPU.
        jax.block_until_ready((tokens, weights))
        expected, sizes = without(traffic.router, experts, tokens, inputs)
        found[f"{name}, without replicas"] = busiest(sizes)
        for way, layer in (("in turn", even), ("best split", best)):
            out, sizes = layer(traffic.router, weights, tokens, inputs)
            found[f"{name}, {way}"] = busiest(sizes)
            differs = float(jnp.abs(out - expected).max() / jnp.abs(expected).max())
            found["largest difference"] = max(found["largest difference"], differs)

    load = traffic.loads()
    plan = first_plan(load)
    assert equal(jax.jit(plan_of, out_shardings=whole)(load), tables(plan))
    weights = jax.jit(gather, out_shardings=cut)(experts, tables(plan))
    serve("planned", plan, weights)

    traffic.change()
    serve("changed", plan, weights)
    new = eplb_np.make_plan(
        traffic.loads(), current=plan, policy="refined", split="best",
        limits=eplb_np.MoveLimits(total=MOST_MOVES),
    )  # fmt: skip
    moves = new.moves_from(plan)
    weights = make_fetch(mesh)(weights, moves)
    assert equal(weights, gather(experts, tables(new)))
    serve("moved", new, weights)
    return found | {"moves": len(moves)}


def equal(some: Any, others: Any) -> bool:
    """Whether all arrays of two named tuples are."""
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def busiest(sizes: Array) -> int:
    """Pairs of the GPU that got the most of them, of those of each slot."""
    return int(np.asarray(sizes).reshape(GPUS, -1).sum(axis=1).max())


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", GPUS)  # as --xla_force_host_platform_device_count
    for name, value in run().items():
        print(f"{name}: {value:.4g}")
