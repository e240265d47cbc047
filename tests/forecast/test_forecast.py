"""Forecasts of the coming window's load, on traces whose truth is known."""

import numpy as np
import pytest
from forecast_replay import (
    EXPERTS,
    LAYERS,
    PROFILES,
    Replay,
    assert_same_state,
    noise_of,
    observed,
    shares,
    squared_error,
    trace_of,
    windows,
)
from support import output_of

from eplb_np.forecast import LoadForecast
from eplb_np.workloads import LoadTrace, draw_trace, related_profiles, scenario_trace, skewed_load


def test_nothing_is_forecast_from_nothing():
    forecast = LoadForecast(2, 3)
    assert forecast.load.tolist() == [[0, 0, 0]] * 2
    assert (forecast.num_windows, forecast.noise, forecast.windows_used) == (0, 0, 0)
    assert (forecast.switched, forecast.recalled, forecast.turnover) == (False, False, 0.5)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1, 1e30])
def test_one_window_is_returned_exactly(scale):
    generator = np.random.default_rng(1)
    load = (generator.lognormal(0, 3, (20, 33)) * scale).astype(np.float32)
    load[3] = 0
    load[:, 5] = 0
    forecast = observed(load)
    assert forecast.load.dtype == np.float64
    assert forecast.load.tobytes() == load.astype(np.float64).tobytes()
    assert (forecast.num_windows, forecast.noise, forecast.windows_used) == (1, 0, 1)
    assert (forecast.switched, forecast.recalled, forecast.turnover) == (False, False, 0.5)


def test_a_steady_load_is_averaged_over_all_windows():
    replays = [Replay(trace_of(*[0] * 33, seed=seed)) for seed in range(4)]
    for n in (2, 4, 8, 16, 32):
        error = np.mean([replay.error[n] for replay in replays])
        assert 0.8 / n < error < 1.3 / n, n
    assert np.mean([replay.error[32] / replay.sum_error[32] for replay in replays]) < 0.45
    for replay in replays:
        assert 16 < replay.windows_used[-1] <= 35
        assert replay.turnover[-1] < 0.07
        assert not any(replay.switched)


@pytest.mark.parametrize("options", [{}, {"tokens_per_window": 12_000}, {"concentration": 2000}])
def test_the_noise_is_what_windows_differ_by(options):
    trace = trace_of(*[0] * 30, **options)
    replay = Replay(trace)
    assert replay.noises[:2] == [0, 0]
    found, said = [], []
    for t in range(10, 30):
        share = shares(replay.loads[t])
        found.append(np.square(shares(trace.load[t]) - share).sum(axis=-1).mean())
        said.append(replay.noises[t] * (share - share**2).sum(axis=-1).mean())
    assert np.mean(said) == pytest.approx(np.mean(found), rel=0.1)


def test_after_a_switch_one_window_is_enough():
    trace = trace_of(*[0] * 14, *[1] * 10)
    replay = Replay(trace)
    assert [t for t, switched in enumerate(replay.switched) if switched] == [14]
    assert not any(replay.recalled)
    assert replay.error[14] > 20
    assert replay.error[15] < 1.4
    assert replay.sum_error[15] > 20
    assert replay.windows_used[13] > 9
    assert replay.windows_used[14] < 1.1
    for t in range(15, 22):
        assert replay.error[t] < replay.sum_error[t], t
        assert replay.error[t] < 2 / (t - 14), t


def test_drift_is_followed():
    trace = scenario_trace("drift", PROFILES, num_windows=60, seed=3)
    replay = Replay(trace)
    assert np.mean(replay.error[8:]) < 0.7 * np.mean(replay.sum_error[8:])
    assert np.mean(replay.turnover[20:]) > 0.1  # less than 10 windows are of use
    assert not any(replay.switched)


def test_a_straight_drift_is_foreseen():
    part = np.linspace(0, 1, 40)[:, None, None]
    trace = draw_trace((1 - part) * PROFILES[0] + part * PROFILES[1], seed=2)
    replay = Replay(trace)
    # What is best without a trend: windows weighed by the gain that fits this noise and drift.
    best = np.inf
    for gain in np.linspace(0.05, 1, 20):
        level, errors = shares(trace.load[0]), []
        for window, mean in zip(trace.load[1:], trace.mean[1:], strict=True):
            errors.append(squared_error(level, mean) / noise_of(trace))
            level = level + gain * (shares(window) - level)
        best = min(best, np.mean(errors[20:]))
    assert np.mean(replay.error[21:]) < 0.8 * best


def test_a_ramp_is_followed():
    trace = scenario_trace("ramps", PROFILES, num_windows=48, seed=1)
    replay = Replay(trace)
    assert np.mean(replay.error[1:]) < 0.5 * np.mean(replay.sum_error[1:])


def test_a_workload_that_returns_is_recalled():
    trace = trace_of(*[0] * 10, *[1] * 10, *[2] * 10, *[0] * 4)
    replay = Replay(trace)
    assert [t for t, switched in enumerate(replay.switched) if switched] == [10, 20, 30]
    assert [t for t, recalled in enumerate(replay.recalled) if recalled] == [30]
    assert replay.error[31] < 0.3  # one window alone would leave 1


def test_three_workloads_are_remembered_and_the_oldest_is_forgotten():
    profiles = related_profiles(skewed_load(LAYERS, EXPERTS), 5, variation=0.1)
    for since in range(1, 5):
        order = [0] * 6 + [i for workload in range(1, since + 1) for i in [workload] * 6] + [0] * 2
        replay = Replay(draw_trace(profiles[order]))
        assert replay.switched[-2]
        recalled = [t for t, again in enumerate(replay.recalled) if again]
        assert recalled == ([len(order) - 2] if since <= 3 else []), since
        assert (replay.error[-1] < 0.3) == (since <= 3), since


def test_an_odd_window_does_no_lasting_harm():
    trace = trace_of(*[0] * 12, 1, *[0] * 8)
    replay = Replay(trace)
    assert replay.error[13] > 10  # it might have been a switch
    assert replay.recalled[13]
    assert max(replay.error[14:]) < 0.3
    assert replay.sum_error[14] > 0.5


def test_where_odd_windows_are_common_changes_are_doubted():
    order = []
    for odd in (1, 2, 3):
        order += [*[0] * 7, odd]
    trace = trace_of(*order, *[0] * 7, *[2] * 5)
    replay = Replay(trace)
    assert replay.switched[7]
    assert not replay.switched[15]
    assert not replay.switched[23]
    for t in [*range(9, 15), *range(16, 23), *range(24, 31)]:
        assert replay.error[t] < 0.5, t
    # The last change lasts: believed from its second window on, and with both windows.
    assert replay.error[31] > 10
    assert replay.error[32] > 10
    assert (replay.switched[31], replay.switched[32], replay.recalled[32]) == (False, True, False)
    assert replay.error[33] < 0.6
    assert replay.error[34] < 0.4


def test_a_layer_without_load_keeps_its_forecast():
    load = windows(trace_of(*[0] * 12))
    load[6:9, 1] = 0
    forecast = observed(load[:6])
    before = forecast.load
    forecast.observe(load[6:9])
    after = forecast.load
    assert after[1].tobytes() == before[1].tobytes()
    assert (after[0] != before[0]).any()
    assert (forecast.num_windows, forecast.switched) == (9, False)
    without = LoadForecast(LAYERS - 1, EXPERTS)
    without.observe(np.delete(load[:9], 1, axis=1))
    with_all = observed(np.delete(load[:6], 1, axis=1))
    with_all.observe(np.delete(load[6:9], 1, axis=1))
    assert_same_state(without, with_all)
    # Nothing in these windows counts for the silent layer, so neither does it for the others.
    assert forecast.noise == pytest.approx(without.noise, rel=0.3)
    forecast.observe(load[9:])
    assert forecast.windows_used > 8
    assert not forecast.switched


def test_a_layer_that_appears_late_is_no_switch():
    load = windows(trace_of(*[0] * 12))
    load[:9, 2] = 0
    forecast = observed(load[:9])
    assert forecast.load[2].tolist() == [0] * EXPERTS
    noise = forecast.noise
    forecast.observe(load[9])
    assert forecast.load[2].tobytes() == load[9, 2].astype(np.float64).tobytes()
    assert not forecast.switched
    assert forecast.windows_used > 7
    assert forecast.noise == pytest.approx(noise, rel=0.2)


def test_a_layer_that_appears_late_is_no_hindrance_to_a_recall():
    trace = trace_of(*[0] * 8, *[1] * 8, *[0] * 2)
    load = windows(trace)
    load[:12, 2] = 0
    forecast = observed(load[:17])
    assert np.allclose(forecast.load.sum(axis=1), load[0, 0].sum())
    # Less than the noise of one window: the others did not start afresh.
    others = [i for i in range(LAYERS) if i != 2]
    assert squared_error(forecast.load[others], PROFILES[0][others]) < 0.7 * noise_of(trace)


def test_layers_that_never_meet_are_forecast_one_by_one():
    load = np.zeros((2, 2, 4), np.float32)
    load[0, 0] = [4, 3, 2, 1]
    load[1, 1] = [1, 2, 3, 4]
    forecast = observed(load)
    assert forecast.load.tolist() == [[4, 3, 2, 1], [1, 2, 3, 4]]
    assert (forecast.num_windows, forecast.noise) == (2, 0)


def test_windows_without_load_are_as_if_they_had_not_been():
    load = windows(trace_of(*[0] * 5, *[1] * 5))
    silent = np.zeros((1, LAYERS, EXPERTS), np.float32)
    expected = observed(load)
    forecast = observed(silent)
    for window in load:
        forecast.observe(silent)
        forecast.observe(window)
    assert_same_state(forecast, expected)
    assert forecast.num_windows == 10
    switching = observed(load[:6])
    assert switching.switched
    switching.observe(silent)
    assert not switching.switched


def test_experts_without_load_are_expected_to_have_none():
    profiles = PROFILES.copy()
    profiles[:, :, ::3] = 0
    part = np.linspace(0, 1, 20)[:, None, None]
    trace = draw_trace((1 - part) * profiles[0] + part * profiles[1])
    load = observed(windows(trace)).load
    assert (load[:, ::3] == 0).all()
    assert (load[:, 1::3] > 0).all()


def test_no_trend_leads_below_zero():
    mean = np.repeat(PROFILES[:1], 40, axis=0)
    mean[:, :, ::8] *= np.maximum(0, 1 - np.arange(40) / 20)[:, None, None]
    replay = Replay(draw_trace(mean, concentration=3000))
    assert all((load >= 0).all() for load in replay.loads)
    # It is followed to the end, and not cut off early.
    assert np.mean(replay.error[10:21]) < 0.5 * np.mean(replay.sum_error[10:21])


def test_windows_of_little_traffic_count_for_little():
    generator = np.random.default_rng(4)
    traces = [
        draw_trace(PROFILES[:1], seed=i, tokens_per_window=int(tokens), concentration=1e6)
        for i, tokens in enumerate(np.exp(generator.normal(np.log(30_000), 1, 50)))
    ]
    load = np.concatenate([trace.load for trace in traces])
    trace = LoadTrace(load, np.repeat(PROFILES[:1], 50, axis=0))
    replay = Replay(trace)
    assert not any(replay.switched[16:])  # the first few windows do not say what is usual
    mean_of_shares = [
        squared_error(shares(load[:t]).mean(axis=0), PROFILES[0]) for t in range(1, 50)
    ]
    assert np.mean(replay.error[16:]) * noise_of(trace) < 0.9 * np.mean(mean_of_shares[15:])
    few = draw_trace(PROFILES[:1], seed=99, tokens_per_window=300, concentration=1e6)
    before = replay.forecast.load
    replay.forecast.observe(windows(few))
    assert not replay.forecast.switched
    assert squared_error(replay.forecast.load, shares(before)) < 0.1 * noise_of(few)


def test_windows_of_much_traffic_count_no_more_than_others():
    load = windows(trace_of(*[0] * 24))  # whose noise is not that of too few tokens
    load[20] *= 1000
    forecast = observed(load)
    assert forecast.windows_used > 16
    assert not forecast.switched


def test_the_total_of_a_layer_is_a_mean_of_the_latest():
    load = windows(trace_of(*[0] * 40))
    load[:, 1] *= 4
    load[20:] *= 2
    total = load.sum(axis=2, dtype=np.float64)
    assert np.allclose(observed(load[:10]).load.sum(axis=1), total[:10].mean(axis=0))
    forecast = observed(load)
    expected = total[:16].mean(axis=0)
    for window in total[16:]:
        expected = expected + (window - expected) / 16
    assert np.allclose(forecast.load.sum(axis=1), expected)


@pytest.mark.parametrize("exponent", [-60, 3, 40])
def test_scaled_loads_have_the_same_forecast(exponent):
    load = windows(trace_of(*[0] * 9, *[1] * 3, *[0] * 4, tokens_per_window=20_000))
    load[3, 1] = 0
    scaled = observed(load * np.float32(2.0**exponent))
    forecast = observed(load)
    assert scaled.load.tobytes() == (forecast.load * 2.0**exponent).tobytes()
    assert (scaled.noise, scaled.turnover) == (forecast.noise, forecast.turnover)


def test_windows_that_are_all_alike_have_no_noise():
    load = np.broadcast_to(windows(trace_of(0)), (6, LAYERS, EXPERTS))
    forecast = observed(load)
    assert 0 <= forecast.noise < 1e-20
    assert np.allclose(forecast.load, load[0], rtol=1e-12)
    assert not forecast.switched


def test_one_expert_and_one_layer_work():
    forecast = observed(np.array([[[3]], [[5]], [[4]], [[4]]], np.float32))
    assert forecast.load == pytest.approx(4)
    assert np.isfinite(forecast.noise)


def test_importing_loads_no_numba():
    assert output_of("import eplb_np.forecast, sys; print('numba' in sys.modules)") == "False"
