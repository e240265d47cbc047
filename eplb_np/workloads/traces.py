"""Synthetic traces: windows of loads as a serving engine counts them, and their true shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_list, as_size, is_one_of, one_line
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
"""Total variation between workloads of one model: the mean over the pairs of six recordings of
DeepSeek-V3, which range from 0.05 to 0.20."""


@dataclass(frozen=True, eq=False)
class LoadTrace:
    """Loads of consecutive windows, and the shares that they were drawn from, both read-only.

    Parameters
    ----------
    load : ndarray, shape [W, L, E], int64
        Tokens of each logical expert in each window, oldest first.
    mean : ndarray, shape [W, L, E], float64
        True share of each expert in each window, before sampling noise; rows add up to 1. A
        planner that knew the future would plan from it.
    switches : tuple of int
        Windows in which a new workload begins.

    Raises
    ------
    ValueError
        If ``load`` or ``mean`` cannot be read as an array.

    Examples
    --------
    >>> from eplb_np import workloads
    >>> profiles = workloads.related_profiles(workloads.skewed_load(2, 16), 2)
    >>> trace = workloads.scenario_trace("switches", profiles, num_windows=9)
    >>> trace.load.shape, trace.switches
    ((9, 2, 16), (3, 6))
    """

    load: NDArray[np.int64]
    mean: NDArray[np.float64]
    switches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("load", "mean"):
            given = as_array(getattr(self, name), name)
            view = given.view()  # the caller's own array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)


def related_profiles(
    base: ArrayLike, num_profiles: int, *, seed: int = 0, variation: float = RELATED_VARIATION
) -> NDArray[np.float64]:
    """Make the shares of several workloads of one model.

    Parameters
    ----------
    base : array_like, shape [L, E]
        Load of one workload, for instance `deepseek_v3_load` without its dense layers.
    num_profiles : int
        Number of workloads.
    seed : int, default: 0
        Seed of the generator.
    variation : float, default: 0.13
        Approximate total variation between two profiles, averaged over the layers.

    Returns
    -------
    ndarray, shape [num_profiles, L, E], float64
        Shares; rows add up to 1.

    Raises
    ------
    ValueError
        If ``base`` is not 2-D or has a layer without load, ``num_profiles`` is not a positive
        integer, ``variation`` is not from 0 to 1, or the seed is not an integer of at least 0.

    Notes
    -----
    Each profile multiplies each expert's share by a lognormal factor of its own. On average over
    pairs and layers, generated profiles differ as much as the recordings do, but the distances
    vary less: pairs of recordings differ by 0.055 to 0.201, generated pairs by 0.127 to 0.131.
    The total variation of the loads of the 8 groups is 0.061 for recordings and 0.026 for
    generated profiles.

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
            f"variation={variation} must be a number from 0 (the same shares) to 1 (no expert "
            "in common)"
        )
    generator = seeded(seed)
    # Two normals of standard deviation s differ by 2 s / sqrt(pi) on average. Half of that is
    # the total variation that small lognormal factors cause.
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
        True share of each expert in each window; each layer is scaled to add up to 1.
    seed : int, default: 0
        Seed of the generator.
    tokens_per_window : int, default: 10,000,000
        Tokens of each layer in each window.
    concentration : float, default: 20,000
        Dirichlet concentration of a window's shares around the mean, at least 1. The variance
        of a share p is ``p (1 - p) / (concentration + 1)``, in addition to that of the tokens.
    switches : sequence of int, optional
        Windows in which a new workload begins; only copied to the result.

    Returns
    -------
    LoadTrace
        Dirichlet-multinomial tokens, independent between windows and layers.

    Raises
    ------
    ValueError
        If ``mean`` is not 3-D or has a layer without load; if ``tokens_per_window``, the seed or
        ``concentration`` is out of range; or if a switch is not one of the windows.

    Notes
    -----
    O(W L E).

    Examples
    --------
    >>> trace = draw_trace([[[1, 2, 1]], [[1, 1, 2]]], tokens_per_window=100)
    >>> trace.load.shape, trace.load.sum(axis=2).ravel().tolist()
    ((2, 1, 3), [100, 100])
    """
    share = _shares(mean, "mean", ndim=3)
    tokens = as_tokens("tokens_per_window", tokens_per_window)
    concentration = as_real("concentration", concentration)
    # Far below 1, all gamma variates of a layer underflow to zero, and cannot be normalized.
    if not 1 <= concentration < np.inf:
        raise ValueError(f"concentration={concentration} must be a finite number, at least 1")
    listed = as_list("switches", switches, "give numbers of windows", most=len(share))
    starts = tuple(as_size("an entry of switches", i, 0, maximum=None) for i in listed)
    for switch in starts:
        if switch >= len(share):
            raise ValueError(
                f"switches contains {switch}, which is not a window: give numbers from 0 to "
                f"{len(share) - 1}"
            )
    generator = seeded(seed)
    drawn = generator.gamma(share * concentration)
    drawn /= drawn.sum(axis=2, keepdims=True)
    return LoadTrace(generator.multinomial(tokens, drawn), share, starts)


def scenario_trace(
    scenario: Scenario, profiles: ArrayLike, *, num_windows: int = 64, seed: int = 0
) -> LoadTrace:
    """Draw a trace of a typical scenario.

    Parameters
    ----------
    scenario : {"switches", "ramps", "drift", "stationary", "decode"}
        ``"switches"``: slow drift, with two sudden changes of workload, after one and two thirds
        of the windows. ``"ramps"``: the same, but each change takes an eighth of the windows.
        ``"drift"``: slow drift from workload to workload, without sudden changes.
        ``"stationary"``: one workload throughout. ``"decode"``: one workload in small decode
        batches, where sampling noise is large.
    profiles : array_like, shape [K, L, E]
        Loads or shares of K workloads: recordings, or `related_profiles`.
    num_windows : int, default: 64
        Windows, W.
    seed : int, default: 0
        Seed of the generator.

    Returns
    -------
    LoadTrace
        ``load`` and ``mean`` of shape [W, L, E], and the windows in which workloads begin.

    Raises
    ------
    ValueError
        If ``scenario`` is unknown, ``profiles`` is not 3-D or has a layer without load,
        ``num_windows`` is not a positive integer, or the scenario changes workloads and there
        are fewer than 3 windows or no two profiles that differ.

    Notes
    -----
    The slow drift moves the shares by a total variation of 0.005 per window towards another
    workload, and towards the next one after reaching it.

    Examples
    --------
    >>> profiles = related_profiles(np.ones((1, 8)), 2)
    >>> scenario_trace("switches", profiles, num_windows=9).switches
    (3, 6)
    """
    if not is_one_of(scenario, get_args(Scenario)):
        known = ", ".join(repr(name) for name in get_args(Scenario))
        raise ValueError(f"scenario={one_line(scenario)} is unknown: give one of {known}")
    share = _shares(profiles, "profiles", ndim=3)
    windows = as_size("num_windows", num_windows)
    generator = seeded(seed)
    changes = scenario in ("switches", "ramps")
    if changes and windows < 3:
        raise ValueError(
            f"num_windows={windows} is too few for scenario={scenario!r}, which has three parts: "
            "give num_windows=3 or more"
        )
    if (changes or scenario == "drift") and _variation(share, share[0]).max() <= DRIFT:
        raise ValueError(
            f"profiles has {len(share)} workload(s) that differ by no more than {DRIFT}, but "
            f"scenario={scenario!r} goes from one to another: give two that differ more, such as "
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
        if window in switches:  # to the most different workload, so that the change is large
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
    """Total variation between each of the shares and another, averaged over the layers."""
    distance: NDArray[np.float64] = 0.5 * np.abs(share - other).sum(axis=-1).mean(axis=-1)
    return distance


def _smooth_switches(mean: NDArray[np.float64], switches: Sequence[int], length: int) -> None:
    """Interpolate from the window before each switch to the one ``length`` after it."""
    for switch in switches:
        before = mean[switch - 1].copy() if switch else mean[0].copy()
        for i in range(min(length, len(mean) - switch)):
            part = (i + 1) / (length + 1)
            mean[switch + i] = (1 - part) * before + part * mean[switch + i]


def _shares(values: ArrayLike, name: str, ndim: int) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        array = as_array(values, name).astype(np.float64)
    if array.ndim != ndim or array.size == 0:
        axes = {2: "[layers, experts]", 3: "[windows or profiles, layers, experts]"}[ndim]
        raise ValueError(f"{name} has shape {array.shape}: give {axes}")
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(axis=-1, keepdims=True)
    if not np.isfinite(total).all() or (array < 0).any() or (total == 0).any():
        raise ValueError(
            f"{name} must be finite and not negative, with some load in every layer: "
            "leave dense layers out"
        )
    share: NDArray[np.float64] = array / total
    return share
