"""Traces: windows of loads as a serving engine counts them, with what truly lies behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size
from eplb_np._loads.host import as_array
from eplb_np.workloads.loads import as_real, as_tokens, seeded

Scenario = Literal["switches", "ramps", "drift", "stationary", "decode"]

CONCENTRATION = 20_000.0
"""Dirichlet concentration: how much a window's true shares scatter around the workload's."""

WINDOW_TOKENS = 10_000_000
DECODE_WINDOW_TOKENS = 12_000
"""Tokens of a layer in a window of prefill, and in one of small decode batches."""

DRIFT = 0.005
"""Total variation by which the shares move from one window to the next."""

RELATED_VARIATION = 0.13
"""Total variation between workloads of one model: the mean over pairs of six recordings of
DeepSeek-V3, which lie between 0.05 and 0.20."""


@dataclass(frozen=True, eq=False)
class LoadTrace:
    """Loads of consecutive windows, and the shares that they were drawn from; both read-only.

    Parameters
    ----------
    load : ndarray, shape [W, L, E], int64
        Tokens of each logical expert in each window, oldest first.
    mean : ndarray, shape [W, L, E], float64
        True share of each expert before sampling noise; rows sum up to 1. What a planner that
        knew the future would plan from.
    switches : tuple of int
        Windows in which a new workload begins.
    """

    load: NDArray[np.int64]
    mean: NDArray[np.float64]
    switches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("load", "mean"):
            view = getattr(self, name).view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)


def related_profiles(
    base: ArrayLike, num_profiles: int, *, seed: int = 0, variation: float = RELATED_VARIATION
) -> NDArray[np.float64]:
    """Shares of several workloads of one model.

    Parameters
    ----------
    base : array_like, shape [L, E]
        Load of one workload, for instance `deepseek_v3_load` without its dense layers.
    num_profiles : int
        How many workloads.
    seed : int, default: 0
        Seed of the generator.
    variation : float, default: 0.13
        Total variation between two of the profiles, averaged over the layers, nearly.

    Returns
    -------
    ndarray, shape [num_profiles, L, E], float64
        Shares; rows sum up to 1.

    Raises
    ------
    ValueError
        If ``base`` is not 2-D or has a layer without load, ``num_profiles`` is not a positive
        integer, ``variation`` is not a share, or the seed is not a natural number.

    Notes
    -----
    Each expert's share is multiplied by its own lognormal factor in each profile: on average over
    pairs and layers the profiles are as far apart as the recordings are, but more alike in how
    far. Pairs of recordings differ by 0.055 to 0.201 and generated ones by 0.127 to 0.131; the
    total variation of the loads of their 8 groups is 0.061 against 0.026.

    Examples
    --------
    >>> related_profiles([[3, 1, 2, 2]], 2).shape
    (2, 1, 4)
    """
    share = _shares(base, "base", ndim=2)
    count = as_size("num_profiles", num_profiles)
    variation = as_real("variation", variation)
    if not 0 <= variation <= 1:
        raise ValueError(
            f"variation={variation} is no total variation: give a number from 0 (the same "
            "shares) to 1 (no expert in common)"
        )
    generator = seeded(seed)
    # The difference of two normals of deviation s is 2 s / sqrt(pi) on average, and half of
    # that is the total variation of small lognormal factors.
    factor = np.exp(generator.normal(0, np.sqrt(np.pi) * variation, (count, *share.shape)))
    profiles: NDArray[np.float64] = share * factor
    profiles /= profiles.sum(axis=2, keepdims=True)
    return profiles


def draw_trace(
    mean: ArrayLike,
    *,
    seed: int = 0,
    tokens_per_window: int = WINDOW_TOKENS,
    concentration: float = CONCENTRATION,
    switches: Sequence[int] = (),
) -> LoadTrace:
    """Draw the windows of a trace around given shares.

    Parameters
    ----------
    mean : array_like, shape [W, L, E]
        True share of each expert in each window, up to a factor for each layer.
    seed : int, default: 0
        Seed of the generator.
    tokens_per_window : int, default: 10,000,000
        Tokens of each layer in each window.
    concentration : float, default: 20,000
        Dirichlet concentration of a window's shares around the mean: the variance of a share p
        is ``p (1 - p) / (concentration + 1)``, on top of that of the tokens. At least 1.
    switches : sequence of int, optional
        Windows in which a new workload begins, for the record.

    Returns
    -------
    LoadTrace
        Dirichlet-multinomial tokens, independent between windows and layers.

    Raises
    ------
    ValueError
        If ``mean`` is not 3-D, or has a layer without load, a size, the seed or ``concentration``
        is wrong, or a switch is not one of the windows.

    Examples
    --------
    >>> trace = draw_trace([[[1, 2, 1]], [[1, 1, 2]]], tokens_per_window=100)
    >>> trace.load.shape, trace.load.sum(axis=2).ravel().tolist()
    ((2, 1, 3), [100, 100])
    """
    share = _shares(mean, "mean", ndim=3)
    tokens = as_tokens("tokens_per_window", tokens_per_window)
    concentration = as_real("concentration", concentration)
    # Far below 1 all gamma variates of a layer underflow to zero, and nothing is left to share.
    if not 1 <= concentration < np.inf:
        raise ValueError(f"concentration={concentration} must be a finite number, at least 1")
    for switch in switches:
        if not 0 <= switch < len(share):
            raise ValueError(
                f"switch {switch} is not a window: the trace has windows 0 to {len(share) - 1}"
            )
    generator = seeded(seed)
    drawn = generator.gamma(share * concentration)
    drawn /= drawn.sum(axis=2, keepdims=True)
    return LoadTrace(generator.multinomial(tokens, drawn), share, tuple(switches))


def scenario_trace(
    scenario: Scenario, profiles: ArrayLike, *, num_windows: int = 64, seed: int = 0
) -> LoadTrace:
    """Draw a trace of a typical course of events.

    Parameters
    ----------
    scenario : {"switches", "ramps", "drift", "stationary", "decode"}
        ``"switches"``: slow drift, and after each third of the windows another workload, at
        once. ``"ramps"``: the same, but over an eighth of the windows. ``"drift"``: slow drift
        from workload to workload and no switch. ``"stationary"``: one workload throughout.
        ``"decode"``: the same in small decode batches, where sampling noise is large.
    profiles : array_like, shape [K, L, E]
        Shares of K workloads: recorded loads, or `related_profiles`.
    num_windows : int, default: 64
        Windows, W.
    seed : int, default: 0
        Seed of the generator.

    Returns
    -------
    LoadTrace
        ``load`` and ``mean`` of shape [W, L, E], and the windows of the switches.

    Raises
    ------
    ValueError
        If ``scenario`` is unknown, ``profiles`` is not 3-D or has a layer without load,
        ``num_windows`` is not a positive integer, or the scenario has changes of workload and
        there are fewer than 3 windows or no two profiles to change between.

    Notes
    -----
    The slow drift moves the shares by a total variation of 0.005 a window towards another
    workload, and when it is there, towards the next.

    Examples
    --------
    >>> profiles = related_profiles(np.ones((1, 8)), 2)
    >>> scenario_trace("switches", profiles, num_windows=9).switches
    (3, 6)
    """
    if scenario not in get_args(Scenario):
        known = ", ".join(repr(name) for name in get_args(Scenario))
        raise ValueError(f"scenario={scenario!r} is unknown: give one of {known}")
    share = _shares(profiles, "profiles", ndim=3)
    windows = as_size("num_windows", num_windows)
    generator = seeded(seed)
    changes = scenario in ("switches", "ramps")
    if changes and windows < 3:
        raise ValueError(
            f"num_windows={windows} is too few for scenario={scenario!r}, which has three parts: "
            "give 3 or more"
        )
    if (changes or scenario == "drift") and _variation(share, share[0]).max() <= DRIFT:
        raise ValueError(
            f"profiles has {len(share)} workload(s) that differ by no more than {DRIFT}, and "
            f"scenario={scenario!r} goes from one to another: give two that differ, for instance "
            "those of related_profiles"
        )
    switches = (windows // 3, 2 * windows // 3) if changes else ()
    drift = DRIFT if changes or scenario == "drift" else 0.0
    mean = _drifting_mean(share, windows, switches, drift, generator)
    if scenario == "ramps":
        _smooth_switches(mean, switches, max(1, windows // 8))
    tokens = DECODE_WINDOW_TOKENS if scenario == "decode" else WINDOW_TOKENS
    draw_seed = int(generator.integers(2**63))
    return draw_trace(mean, seed=draw_seed, tokens_per_window=tokens, switches=switches)


def _drifting_mean(
    share: NDArray[np.float64],
    num_windows: int,
    switches: Sequence[int],
    drift: float,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    current = share[int(generator.integers(len(share)))]
    goal = current
    mean = np.empty((num_windows, *current.shape))
    for window in range(num_windows):
        distance = _variation(share, current)
        if window in switches:  # the farthest workload, so that the switch is one
            current = goal = share[int(distance.argmax())]
        elif window > 0 and drift > 0:
            if _variation(goal, current) <= drift and (distance > drift).any():
                goal = share[int(generator.choice(np.flatnonzero(distance > drift)))]
            left = float(_variation(goal, current))
            if left > 0:
                current = current + min(1.0, drift / left) * (goal - current)
        mean[window] = current
    return mean


def _variation(share: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total variation, averaged over the layers, of each of the shares."""
    distance: NDArray[np.float64] = 0.5 * np.abs(share - other).sum(axis=-1).mean(axis=-1)
    return distance


def _smooth_switches(mean: NDArray[np.float64], switches: Sequence[int], length: int) -> None:
    """Go linearly from the window before each switch to the one ``length`` after it."""
    for switch in switches:
        before = mean[switch - 1].copy() if switch else mean[0].copy()
        for i in range(min(length, len(mean) - switch)):
            part = (i + 1) / (length + 1)
            mean[switch + i] = (1 - part) * before + part * mean[switch + i]


def _shares(values: ArrayLike, name: str, ndim: int) -> NDArray[np.float64]:
    array = as_array(values, name).astype(np.float64)
    if array.ndim != ndim or array.size == 0:
        axes = {2: "[layers, experts]", 3: "[windows or profiles, layers, experts]"}[ndim]
        raise ValueError(f"{name} has shape {array.shape}: give {axes}")
    total = array.sum(axis=-1, keepdims=True)
    if not np.isfinite(array).all() or (array < 0).any() or (total == 0).any():
        raise ValueError(
            f"{name} must be finite and not negative, with some load in every layer: "
            "leave dense layers out"
        )
    share: NDArray[np.float64] = array / total
    return share
