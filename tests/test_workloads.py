"""Synthetic loads have the skew they state, and traces the course they state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eplb_np import workloads


def skew(load: np.ndarray) -> dict[str, float]:
    share = load / load.sum(axis=1, keepdims=True)
    hottest = share.max(axis=1) * share.shape[1]
    descending = -np.sort(-share, axis=1)
    group = -np.sort(-share.reshape(len(load), 8, -1).sum(axis=2), axis=1) * 8
    return {
        "least skewed layer": hottest.min(),
        "median layer": np.median(hottest),
        "most skewed layer": hottest.max(),
        "hottest 8": descending[:, :8].sum(axis=1).mean(),
        "hottest 64": descending[:, :64].sum(axis=1).mean(),
        "coldest 64": descending[:, -64:].sum(axis=1).mean(),
        "hottest group": group[:, 0].mean(),
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
    stated = {
        "least skewed layer": 3.5,
        "median layer": 6.0,
        "most skewed layer": 13.7,
        "hottest 8": 0.13,
        "hottest 64": 0.53,
        "coldest 64": 0.085,
        "hottest group": 1.85,
        "groups on nodes": 0.84,
    }
    for name, value in stated.items():
        assert mean[name] == pytest.approx(value, rel=0.06), name


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


def test_switches_are_abrupt_and_drift_is_slow(profiles) -> None:
    trace = workloads.scenario_trace("switches", profiles, num_windows=30, seed=1)
    moved = variation(trace.mean)
    assert trace.switches == (10, 20)
    assert (moved[[9, 19]] > 0.08).all()
    assert np.delete(moved, [9, 19]) == pytest.approx(0.005, rel=0.01)


def test_ramps_spread_the_change(profiles) -> None:
    trace = workloads.scenario_trace("ramps", profiles, num_windows=48, seed=1)
    assert variation(trace.mean).max() < 0.04
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: workloads.skewed_load(0, 4), "num_layers=0"),
        (lambda: workloads.skewed_load(1, 6, num_groups=4), "num_experts=6 is not a multiple"),
        (lambda: workloads.zipf_load(1, 4, exponent=-1), "exponent=-1"),
        (lambda: workloads.one_hot_expert_load(1, 4, share=2), "share=2"),
        (lambda: workloads.related_profiles([[0, 0]], 2), "base must be finite"),
        (lambda: workloads.related_profiles([1, 2], 2), r"base has shape \(2,\)"),
        (lambda: workloads.draw_trace([[[1.0, 2.0]]], concentration=0), "concentration=0"),
        (lambda: workloads.scenario_trace("jump", [[[1.0]]]), "scenario='jump' is unknown"),
        (lambda: workloads.scenario_trace("drift", [[[1.0]]], num_windows=0), "num_windows=0"),
    ],
)
def test_bad_input_says_what_is_needed(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
