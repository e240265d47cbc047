"""A small MoE layer in JAX whose batches are split over replicas: the same output, fewer tokens.

    python docs/studies/moe_layer_jax.py

Prints how many (token, expert) pairs the busiest of 8 ranks gets without replicas, with an even
split over them and with the best one, and how far the outputs are apart. One process plays all
ranks: the leading axis of tokens and ids stands for them. Needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import eplb_np
from eplb_np import Splitter
from eplb_np.dispatch.jax import assign, quotas

RANKS, TOKENS, WIDTH, HIDDEN = 8, 64, 16, 32  # one rank on each GPU
EXPERTS, CHOSEN, SLOTS = 32, 4, 40


class Weights(NamedTuple):
    """Weights of the layer."""

    router: jax.Array  # [width, E]
    bias: jax.Array  # [E], so that some experts are hot
    up: jax.Array  # [E, width, hidden]
    down: jax.Array  # [E, hidden, width]


def make_weights(rng: np.random.Generator) -> Weights:
    """Draw weights."""
    shapes = (WIDTH, EXPERTS), (EXPERTS,), (EXPERTS, WIDTH, HIDDEN), (EXPERTS, HIDDEN, WIDTH)
    return Weights(*(jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32) for shape in shapes))


def route(weights: Weights, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Choose experts of tokens [ranks, T, width]: ids and their weights, [ranks, T, k]."""
    scores = tokens @ weights.router + weights.bias
    gate, topk_ids = jax.lax.top_k(jax.nn.softmax(scores), CHOSEN)
    return topk_ids, gate / gate.sum(axis=-1, keepdims=True)


def count(topk_ids: jax.Array) -> jax.Array:
    """Tokens of each rank for each expert, [ranks, E]. Real ranks gather their rows."""
    return jax.vmap(lambda ids: jnp.bincount(ids.ravel(), length=EXPERTS))(topk_ids)


def run_slots(
    tokens: jax.Array, slots: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array
) -> jax.Array:
    """Send tokens to slots, run the expert of each slot on what it got, send back and add up.

    ``up`` and ``down`` are [P, ...], the weights in each slot. Shapes in JAX are static, so each
    slot has room for all tokens here; a real all-to-all sends what there is.
    """
    slot = slots.ravel()
    chosen = jax.nn.one_hot(slot, len(up), dtype=jnp.int32)
    place = (jnp.cumsum(chosen, axis=0) * chosen).max(axis=1) - 1
    sent = jnp.repeat(tokens.reshape(-1, WIDTH), CHOSEN, axis=0)
    got = jnp.zeros((len(up), len(slot), WIDTH)).at[slot, place].set(sent)
    done = jnp.einsum("pch,phw->pcw", jax.nn.silu(jnp.einsum("pcw,pwh->pch", got, up)), down)
    back = done[slot, place].reshape(*slots.shape, WIDTH)
    return (gate[..., None] * back).sum(axis=2)


@jax.jit
def without_replicas(weights: Weights, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Run the layer with one slot for each expert."""
    topk_ids, gate = route(weights, tokens)
    return run_slots(tokens, topk_ids, gate, weights.up, weights.down), topk_ids


def with_split(plan: eplb_np.Plan, splitter: Splitter, layer: int) -> Callable[..., Any]:
    """Make the layer whose batches are split over the replicas of a plan."""
    phy2log, log2phy = jnp.asarray(plan.phy2log[layer]), jnp.asarray(plan.log2phy[layer])

    @jax.jit
    def run(weights: Weights, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        topk_ids, gate = route(weights, tokens)
        sent = quotas(splitter, count(topk_ids), layer)  # by each rank to each slot
        slots = jax.vmap(assign, in_axes=(0, 0, None))(topk_ids, sent, log2phy)
        out = run_slots(tokens, slots, gate, weights.up[phy2log], weights.down[phy2log])
        return out, slots

    return run


def busiest(slot_load: np.ndarray) -> int:
    """Pairs of the rank that gets the most of them."""
    return int(slot_load.reshape(RANKS, -1).sum(axis=1).max())


def run() -> dict[str, float]:
    """Run a batch in both ways; return the busiest rank's pairs, and the outputs' distance."""
    rng = np.random.default_rng(0)
    weights = make_weights(rng)

    def batch() -> jax.Array:
        return jnp.asarray(rng.normal(size=(RANKS, TOKENS, WIDTH)), jnp.float32)

    before = [np.asarray(count(route(weights, batch())[0]).sum(axis=0))[None] for _ in range(8)]
    plan = eplb_np.make_plan(
        np.array(before), num_replicas=SLOTS, num_gpus=RANKS, policy="refined", split="best",
        dtype=np.int32,
    )  # fmt: skip
    splitter = Splitter(plan, np.sum(before, axis=0))

    tokens = batch()
    expected, topk_ids = without_replicas(weights, tokens)
    out, slots = with_split(plan, splitter, 0)(weights, tokens)
    counts = np.bincount(np.asarray(topk_ids).ravel(), minlength=EXPERTS)
    assert (plan.phy2log[0][np.asarray(slots)] == np.asarray(topk_ids)).all()
    return {
        "mean": counts.sum() / RANKS,
        "without replicas": busiest(counts),
        "even split": float(plan.gpu_load(counts[None]).max()),
        "best split": busiest(np.bincount(np.asarray(slots).ravel(), minlength=SLOTS)),
        "largest output": float(jnp.abs(expected).max()),
        "largest difference": float(jnp.abs(out - expected).max()),
    }


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name}: {value:.4g}")
