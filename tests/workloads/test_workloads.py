"""Synthetic loads have the skew they state, and traces the course they state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from recorded import needs_loads, recorded_loads
from support import refused

from eplb_np import workloads

STATED = {
    "least skewed layer": 3.5,
    "median layer": 6.0,
    "most skewed layer": 13.7,
    "hottest expert": 0.025,
    "hottest 8": 0.13,
    "hottest 32": 0.35,
    "hottest 64": 0.53,
    "coldest 64": 0.085,
    "hottest group": 1.85,
    "coldest group": 0.49,
    "groups on nodes": 0.84,
}
RECORDED = {
    "least skewed layer": (2.6, 4.1),
    "median layer": (5.2, 8.2),
    "most skewed layer": (10.3, 13.7),
    "hottest expert": (0.022, 0.032),
    "hottest 8": (0.12, 0.17),
    "hottest 32": (0.30, 0.40),
    "hottest 64": (0.47, 0.58),
    "coldest 64": (0.07, 0.11),
    "hottest group": (1.54, 2.07),
    "coldest group": (0.53, 0.67),
    "groups on nodes": (0.76, 0.89),
}


def skew(load: np.ndarray) -> dict[str, float]:
    share = load / load.sum(axis=1, keepdims=True)
    hottest = share.max(axis=1) * share.shape[1]
    descending = -np.sort(-share, axis=1)
    group = -np.sort(-share.reshape(len(load), 8, -1).sum(axis=2), axis=1) * 8
    return {
        "least skewed layer": hottest.min(),
        "median layer": np.median(hottest),
        "most skewed layer": hottest.max(),
        "hottest expert": descending[:, 0].mean(),
        "hottest 8": descending[:, :8].sum(axis=1).mean(),
        "hottest 32": descending[:, :32].sum(axis=1).mean(),
        "hottest 64": descending[:, :64].sum(axis=1).mean(),
        "coldest 64": descending[:, -64:].sum(axis=1).mean(),
        "hottest group": group[:, 0].mean(),
        "coldest group": group[:, -1].mean(),
        "groups on nodes": 2 / (group + group[:, ::-1]).max(axis=1).mean(),
    }


def variation(mean: np.ndarray) -> np.ndarray:
    """Total variation from each window to the next, averaged over the layers."""
    return 0.5 * np.abs(np.diff(mean, axis=0)).sum(axis=2).mean(axis=1)


@pytest.fixture(scope="module")
def profiles() -> np.ndarray:
    return workloads.related_profiles(workloads.skewed_load(6, 64, num_groups=8), 3)


def test_deepseek_load_has_the_stated_skew() -> None:
    figures = [skew(workloads.deepseek_v3_load(seed)[3:]) for seed in range(20)]
    mean = {name: np.mean([figure[name] for figure in figures]) for name in figures[0]}
    for name, value in STATED.items():
        assert mean[name] == pytest.approx(value, rel=0.06), name


@needs_loads
def test_recordings_have_the_stated_skew() -> None:
    figures = [skew(load) for _, load in recorded_loads()]
    assert len(figures) == 6
    for name, stated in RECORDED.items():
        values = [figure[name] for figure in figures]
        assert (min(values), max(values)) == pytest.approx(stated, rel=0.05), name


@needs_loads
def test_recordings_are_as_far_apart_as_stated() -> None:
    shares = [load / load.sum(axis=1, keepdims=True) for _, load in recorded_loads()]
    apart = [0.5 * np.abs(a - b).sum(axis=1).mean() for a in shares for b in shares if a is not b]
    assert np.mean(apart) == pytest.approx(0.133, abs=0.001)
    assert (min(apart), max(apart)) == pytest.approx((0.055, 0.201), abs=0.001)


def test_other_models_have_the_same_skew() -> None:
    figures = [
        skew(
            workloads.deepseek_v3_load(
                seed, num_layers=21, num_dense_layers=1, num_experts=384, tokens_per_layer=10**7
            )[1:]
        )
        for seed in range(20)
    ]
    assert np.mean([figure["median layer"] for figure in figures]) == pytest.approx(6.3, rel=0.1)


def test_deepseek_load_has_its_dense_layers() -> None:
    load = workloads.deepseek_v3_load()
    assert load.shape == (61, 256)
    assert load.dtype == np.int64
    assert not load[:3].any()
    assert (load[3:].sum(axis=1) == load[3].sum()).all()


@pytest.mark.parametrize(
    "make",
    [workloads.skewed_load, workloads.zipf_load, workloads.one_hot_expert_load],
)
def test_seeds_say_what_is_drawn(make) -> None:
    assert make(5, 16, seed=3).tobytes() == make(5, 16, seed=3).tobytes()
    assert make(5, 16, seed=3).tobytes() != make(5, 16, seed=4).tobytes()
    assert (make(5, 16, tokens_per_layer=12345).sum(axis=1) == 12345).all()
    assert (make(5, 16) >= 0).all()


def test_simple_loads() -> None:
    assert len(np.unique(workloads.uniform_load(2, 4))) == 1
    assert not workloads.zero_load(2, 4).any()
    hot = workloads.one_hot_expert_load(20, 8, share=0.9, tokens_per_layer=1000)
    assert (hot.max(axis=1) == 900).all()
    assert len(set(hot.argmax(axis=1))) > 1
    zipf = np.sort(workloads.zipf_load(3, 5, exponent=2.0), axis=1)
    assert zipf[:, -1] / zipf[:, -2] == pytest.approx(4.0, rel=1e-5)


def test_related_profiles_are_as_far_apart_as_stated() -> None:
    base = workloads.deepseek_v3_load()[3:]
    shares = workloads.related_profiles(base, 4, variation=0.13)
    pairs = itertools.combinations(shares, 2)
    apart = [0.5 * np.abs(a - b).sum(axis=1).mean() for a, b in pairs]
    assert np.mean(apart) == pytest.approx(0.13, rel=0.1)
    assert shares.sum(axis=2) == pytest.approx(1.0)


def test_draws_scatter_as_a_dirichlet_multinomial() -> None:
    share = np.array([0.5, 0.3, 0.2])
    trace = workloads.draw_trace(
        np.broadcast_to(share, (4000, 1, 3)), tokens_per_window=1000, concentration=500.0
    )
    drawn = trace.load[:, 0] / 1000
    # Variance of a Dirichlet-multinomial share: p (1 - p) (1/n + (1 - 1/n) / (c + 1)).
    expected = share * (1 - share) * (1 / 1000 + (1 - 1 / 1000) / 501)
    assert (trace.load.sum(axis=2) == 1000).all()
    assert drawn.mean(axis=0) == pytest.approx(share, abs=0.004)
    assert drawn.var(axis=0) == pytest.approx(expected, rel=0.1)


def test_windows_scatter_as_stated(profiles) -> None:
    for scenario, tokens in (("stationary", 10_000_000), ("decode", 12_000)):
        trace = workloads.scenario_trace(scenario, profiles, num_windows=40)
        assert (trace.load.sum(axis=2) == tokens).all()
        # Two windows' shares differ by a normal of variance 2 v, and |normal| is sqrt(2/pi) of its
        # deviation on average.
        share = trace.mean[0]
        v = share * (1 - share) * (1 / tokens + (1 - 1 / tokens) / 20_001)
        expected = np.sqrt(v / np.pi).sum(axis=1).mean()
        assert variation(trace.load / tokens).mean() == pytest.approx(expected, rel=0.03)


def test_a_stationary_trace_differs_by_its_seed(profiles) -> None:
    one, same, other = (
        workloads.scenario_trace("stationary", profiles[:1], num_windows=2, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one.load.tobytes() == same.load.tobytes() != other.load.tobytes()


def test_traces_are_read_only(profiles) -> None:
    trace = workloads.scenario_trace("decode", profiles, num_windows=2)
    for array in (trace.load, trace.mean):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    load = np.ones((1, 1, 2), np.int64)
    workloads.LoadTrace(load, load / 2)
    load[0] = 2
    assert trace == trace
    assert trace != workloads.scenario_trace("decode", profiles, num_windows=2)


def test_switches_are_abrupt_and_drift_is_slow(profiles) -> None:
    trace = workloads.scenario_trace("switches", profiles, num_windows=30, seed=1)
    moved = variation(trace.mean)
    assert trace.switches == (10, 20)
    assert (moved[[9, 19]] > 0.08).all()
    assert np.delete(moved, [9, 19]) == pytest.approx(0.005, rel=0.01)


def test_ramps_spread_the_change(profiles) -> None:
    trace = workloads.scenario_trace("ramps", profiles, num_windows=48, seed=1)
    assert variation(trace.mean).max() < 0.04
    # Seven steps from the window before the switch to the one where the ramp ends, each more than
    # the drift, which goes on meanwhile.
    assert (variation(trace.mean[15:23]) > 0.007).all()
    assert variation(trace.mean[22:32]) == pytest.approx(0.005, rel=0.01)
    whole = 0.5 * np.abs(trace.mean[24] - trace.mean[15]).sum(axis=1).mean()
    assert whole > 0.07


def test_stationary_traces_stay(profiles) -> None:
    for scenario in ("stationary", "decode"):
        trace = workloads.scenario_trace(scenario, profiles, num_windows=6)
        assert not variation(trace.mean).any()
        assert trace.switches == ()
    assert trace.load.sum(axis=2).max() == 12_000


def test_drift_never_jumps(profiles) -> None:
    trace = workloads.scenario_trace("drift", profiles, num_windows=80, seed=2)
    assert variation(trace.mean) == pytest.approx(0.005, rel=0.01)


PROFILES = [[[3.0, 1.0]], [[1.0, 3.0]]]
BAD = {
    "num_layers=0": lambda: workloads.skewed_load(0, 4),
    "num_experts=6 is not a multiple of num_groups=4": lambda: workloads.skewed_load(
        1, 6, num_groups=4
    ),
    "num_dense_layers=2 leaves no MoE layer": lambda: workloads.deepseek_v3_load(
        num_layers=2, num_dense_layers=2
    ),
    "tokens_per_layer=10000000000000000000 is too large": lambda: workloads.uniform_load(
        1, 4, tokens_per_layer=10**19
    ),
    "seed=None is not an integer": lambda: workloads.skewed_load(1, 4, seed=None),
    "seed=-1 is too small": lambda: workloads.zipf_load(1, 4, seed=-1),
    "seed=True": lambda: workloads.one_hot_expert_load(1, 4, seed=True),
    "seed=1.5": lambda: workloads.scenario_trace("drift", PROFILES, seed=1.5),
    "exponent=-1": lambda: workloads.zipf_load(1, 4, exponent=-1),
    "exponent='x' is not a number": lambda: workloads.zipf_load(1, 4, exponent="x"),
    "share=2": lambda: workloads.one_hot_expert_load(1, 4, share=2),
    "share=nan": lambda: workloads.one_hot_expert_load(1, 4, share=np.nan),
    "base must be finite": lambda: workloads.related_profiles([[0, 0]], 2),
    "base must be finite and not negative": lambda: workloads.related_profiles([[-1, 2]], 2),
    "base has shape (2,)": lambda: workloads.related_profiles([1, 2], 2),
    "num_profiles=0": lambda: workloads.related_profiles([[1, 2]], 0),
    "variation=-0.1": lambda: workloads.related_profiles([[1, 2]], 2, variation=-0.1),
    "variation=nan": lambda: workloads.related_profiles([[1, 2]], 2, variation=np.nan),
    "concentration=0": lambda: workloads.draw_trace(PROFILES, concentration=0),
    "concentration=inf": lambda: workloads.draw_trace(PROFILES, concentration=np.inf),
    "switches contains 2, which is not a window": lambda: workloads.draw_trace(
        PROFILES, switches=[2]
    ),
    "tokens_per_window=9223372036854775808": lambda: workloads.draw_trace(
        PROFILES, tokens_per_window=2**63
    ),
    "scenario='jump' is unknown": lambda: workloads.scenario_trace("jump", PROFILES),
    "num_windows=0": lambda: workloads.scenario_trace("drift", PROFILES, num_windows=0),
    "num_windows=2 is too few": lambda: workloads.scenario_trace(
        "switches", PROFILES, num_windows=2
    ),
    "profiles has 1 workload(s)": lambda: workloads.scenario_trace("ramps", PROFILES[:1]),
    "profiles has 2 workload(s)": lambda: workloads.scenario_trace("drift", [PROFILES[0]] * 2),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_says_what_is_needed(message) -> None:
    with refused(message):
        BAD[message]()


def test_an_only_expert_takes_all() -> None:
    for share in (0.0, 0.5, 1.0):
        assert workloads.one_hot_expert_load(2, 1, share=share, tokens_per_layer=9).tolist() == [
            [9],
            [9],
        ]
