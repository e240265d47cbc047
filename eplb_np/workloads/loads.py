"""Synthetic loads: tokens of each logical expert of each layer."""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_number, as_size, check_multiple, one_line

TOKENS_PER_LAYER = 100_000_000
MOST_TOKENS = 2**53
"""Float64 represents every integer up to this one, so rounding keeps a layer's sum exact."""

# Skew of a DeepSeek-V3 layer, calibrated against SGLang's six published recordings. The table
# in `skewed_load` shows how close it is.
EXPERT_SPREAD = 0.68
LAYER_SPREAD = 0.13
GROUP_SPREAD = 0.52
COLDEST = 0.15
HOTTEST = 2.9


def skewed_load(
    num_layers: int,
    num_experts: int,
    *,
    seed: int = 0,
    num_groups: int = 1,
    tokens_per_layer: int = TOKENS_PER_LAYER,
) -> NDArray[np.int64]:
    """Make a load with the skew of real mixture-of-experts layers.

    Parameters
    ----------
    num_layers, num_experts : int
        Shape of the load.
    seed : int, default: 0
        Seed of the generator.
    num_groups : int, default: 1
        Groups of consecutive experts that are hot or cold together; divides ``num_experts``.
    tokens_per_layer : int, default: 100,000,000
        Tokens of each layer; a token counts once for every expert that it is sent to.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Tokens of each logical expert; rows add up to ``tokens_per_layer``, up to rounding.

    Raises
    ------
    ValueError
        If a size is not a positive integer, ``num_groups`` does not divide ``num_experts``, the
        seed is not an integer of at least 0, or ``tokens_per_layer`` is above 2**53.

    Notes
    -----
    Loads are lognormal: the logarithm of an expert's load is normal around that of its group,
    which is normal too. The spread differs between layers. The coldest experts have a floor, and
    the hottest are clipped. The constants are calibrated against six recordings of DeepSeek-V3
    (58 layers of 256 experts, 8 groups). The table has the range over the six recordings, and the
    mean over seeds 0 to 19 of this generator.

    ==========================================  ==============  =========
    figure                                      recordings      generated
    ==========================================  ==============  =========
    max / mean expert, least skewed layer       2.6 to 4.1      3.5
    max / mean expert, median layer             5.2 to 8.2      6.0
    max / mean expert, most skewed layer        10.3 to 13.7    13.7
    share of the hottest expert, mean           0.022 to 0.032  0.025
    share of the hottest 8 experts, mean        0.12 to 0.17    0.13
    share of the hottest 32, mean               0.30 to 0.40    0.35
    share of the hottest 64, mean               0.47 to 0.58    0.53
    share of the coldest 64, mean               0.07 to 0.11    0.085
    max / mean group, mean                      1.54 to 2.07    1.85
    min / mean group, mean                      0.53 to 0.67    0.49
    balance of 8 groups on 4 nodes at best      0.76 to 0.89    0.84
    ==========================================  ==============  =========

    Seeds differ most in the most skewed layer: 10.2 to 19.8. The coldest group is colder than in
    any recording.

    Examples
    --------
    >>> skewed_load(2, 4, tokens_per_layer=1000).sum(axis=1).tolist()
    [1000, 1000]
    """
    layers, experts, groups = _sizes(num_layers, num_experts, num_groups)
    generator = seeded(seed)
    spread = EXPERT_SPREAD * np.exp(generator.normal(0, LAYER_SPREAD, (layers, 1)))
    heat = np.minimum(generator.normal(0, 1, (layers, experts)), HOTTEST)
    group_heat = generator.normal(0, GROUP_SPREAD if groups > 1 else 0, (layers, groups))
    group_heat = np.repeat(group_heat, experts // groups, axis=1)
    return _tokens(np.exp(spread * heat + group_heat) + COLDEST, tokens_per_layer)


def deepseek_v3_load(
    seed: int = 0,
    *,
    num_layers: int = 61,
    num_dense_layers: int = 3,
    num_experts: int = 256,
    num_groups: int = 8,
    tokens_per_layer: int = TOKENS_PER_LAYER,
) -> NDArray[np.int64]:
    """Make a load like DeepSeek-V3's: 61 layers of 256 experts in 8 groups, the first 3 dense.

    Parameters
    ----------
    seed : int, default: 0
        Seed of the generator.
    num_layers : int, default: 61
        Layers of the model, including dense ones.
    num_dense_layers : int, default: 3
        Layers at the start that have no experts; less than ``num_layers``.
    num_experts : int, default: 256
        Logical experts of a layer.
    num_groups : int, default: 8
        As in `skewed_load`.
    tokens_per_layer : int, default: 100,000,000
        Tokens of each layer that is not dense.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Tokens of each logical expert; the dense layers are zero, as in recordings.

    Raises
    ------
    ValueError
        As in `skewed_load`, or if all layers are dense.

    Notes
    -----
    The skew is that of `skewed_load`, whose notes show how close it is to real recordings.

    Examples
    --------
    >>> load = deepseek_v3_load()
    >>> load.shape, load[:3].sum().item()
    ((61, 256), 0)
    """
    layers, experts, groups = _sizes(num_layers, num_experts, num_groups)
    dense = as_size("num_dense_layers", num_dense_layers, minimum=0)
    if dense >= layers:
        raise ValueError(
            f"num_dense_layers={dense} leaves no MoE layer, since num_layers={layers}: "
            f"give num_dense_layers={layers - 1} or fewer"
        )
    load = np.zeros((layers, experts), np.int64)
    load[dense:] = skewed_load(
        layers - dense,
        experts,
        seed=seed,
        num_groups=groups,
        tokens_per_layer=tokens_per_layer,
    )
    return load


def zipf_load(
    num_layers: int,
    num_experts: int,
    *,
    seed: int = 0,
    exponent: float = 1.0,
    tokens_per_layer: int = TOKENS_PER_LAYER,
) -> NDArray[np.int64]:
    """Make a Zipf load: the k-th hottest expert has ``k ** -exponent`` of the hottest's tokens.

    Parameters
    ----------
    num_layers, num_experts : int
        Shape of the load.
    seed : int, default: 0
        Seed of the generator, which shuffles the experts of each layer.
    exponent : float, default: 1.0
        Skew; 0 is uniform.
    tokens_per_layer : int, default: 100,000,000
        Tokens of each layer.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Tokens of each logical expert.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or ``exponent`` is negative or not finite.

    Notes
    -----
    O(L E).

    Examples
    --------
    >>> sorted(zipf_load(1, 3, tokens_per_layer=110)[0].tolist())
    [20, 30, 60]
    """
    layers, experts, _ = _sizes(num_layers, num_experts)
    exponent = as_real("exponent", exponent)
    if not 0 <= exponent < np.inf:
        raise ValueError(f"exponent={exponent} must be a finite number, at least 0")
    share = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
    generator = seeded(seed)
    order = generator.permuted(np.tile(np.arange(experts), (layers, 1)), axis=1)
    return _tokens(share[order], tokens_per_layer)


def uniform_load(
    num_layers: int, num_experts: int, *, tokens_per_layer: int = TOKENS_PER_LAYER
) -> NDArray[np.int64]:
    """Make a load that is the same for every expert.

    Parameters
    ----------
    num_layers, num_experts : int
        Shape of the load.
    tokens_per_layer : int, default: 100,000,000
        Tokens of each layer.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Tokens of each logical expert.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or ``tokens_per_layer`` is above 2**53.

    Notes
    -----
    O(L E).

    Examples
    --------
    >>> uniform_load(1, 4, tokens_per_layer=100).tolist()
    [[25, 25, 25, 25]]
    """
    layers, experts, _ = _sizes(num_layers, num_experts)
    return _tokens(np.ones((layers, experts)), tokens_per_layer)


def one_hot_expert_load(
    num_layers: int,
    num_experts: int,
    *,
    seed: int = 0,
    share: float = 0.5,
    tokens_per_layer: int = TOKENS_PER_LAYER,
) -> NDArray[np.int64]:
    """Make a load in which one expert of each layer has a given share, and the rest is uniform.

    Parameters
    ----------
    num_layers, num_experts : int
        Shape of the load.
    seed : int, default: 0
        Seed of the generator, which chooses the hot experts.
    share : float, default: 0.5
        Share of the hot expert, 0 to 1.
    tokens_per_layer : int, default: 100,000,000
        Tokens of each layer.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Tokens of each logical expert.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or ``share`` is not between 0 and 1.

    Notes
    -----
    O(L E).

    Examples
    --------
    >>> sorted(one_hot_expert_load(1, 3, tokens_per_layer=100)[0].tolist())
    [25, 25, 50]
    """
    layers, experts, _ = _sizes(num_layers, num_experts)
    share = as_real("share", share)
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must be a number from 0 to 1")
    if experts == 1:  # it takes everything, whatever the share
        share = 1.0
    load = np.full((layers, experts), (1 - share) / max(experts - 1, 1))
    hot = seeded(seed).integers(experts, size=layers)
    load[np.arange(layers), hot] = share
    return _tokens(load, tokens_per_layer)


def zero_load(num_layers: int, num_experts: int) -> NDArray[np.int64]:
    """Make a load of zeros, as of layers that no token has reached yet.

    Parameters
    ----------
    num_layers, num_experts : int
        Shape of the load.

    Returns
    -------
    ndarray, shape [num_layers, num_experts], int64
        Zeros.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    Notes
    -----
    O(L E).

    Examples
    --------
    >>> zero_load(1, 2).tolist()
    [[0, 0]]
    """
    layers, experts, _ = _sizes(num_layers, num_experts)
    return np.zeros((layers, experts), np.int64)


def seeded(seed: SupportsIndex) -> np.random.Generator:
    """Return the generator of a seed; None is refused, because NumPy would pick a random seed."""
    return np.random.Generator(np.random.PCG64(as_size("seed", seed, minimum=0, maximum=None)))


def as_real(name: str, value: SupportsFloat) -> float:
    """Return a number as a Python float, or raise ``ValueError``."""
    try:
        number = as_number(value)
    except Exception:  # noqa: BLE001 - objects raise anything here
        number = None
    if number is None:
        raise ValueError(f"{name}={one_line(value)} is not a number: give a float")
    return number


def as_tokens(name: str, value: SupportsIndex) -> int:
    """Return a number of tokens that float64 represents exactly, or raise ``ValueError``."""
    return as_size(name, value, maximum=MOST_TOKENS)


def _sizes(num_layers: int, num_experts: int, num_groups: int = 1) -> tuple[int, int, int]:
    layers = as_size("num_layers", num_layers)
    experts = as_size("num_experts", num_experts)
    groups = as_size("num_groups", num_groups)
    check_multiple("num_experts", experts, "num_groups", groups)
    return layers, experts, groups


def _tokens(load: NDArray[np.float64], tokens_per_layer: int) -> NDArray[np.int64]:
    """Scale each layer to its tokens, rounded so that the layer's sum is exact."""
    tokens = as_tokens("tokens_per_layer", tokens_per_layer)
    total = load.sum(axis=1, keepdims=True)
    upto = np.rint(np.cumsum(load, axis=1) / total * tokens).astype(np.int64)
    rounded: NDArray[np.int64] = np.diff(upto, axis=1, prepend=0)
    return rounded
