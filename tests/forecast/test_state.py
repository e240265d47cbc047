"""The state of a forecast: the same as the slow twin's, however it got there, and restorable."""

import io

import numpy as np
import pytest
from forecast_replay import assert_same_state
from naive_forecast import NaiveForecast
from support import fewer, refused

from eplb_np.forecast import LoadForecast
from eplb_np.workloads import draw_trace, related_profiles, scenario_trace, skewed_load

LAYERS, EXPERTS = 3, 21  # no multiple of the width of any vector
NUM_SEEDS = fewer(200, 60)
PROFILES = related_profiles(skewed_load(LAYERS, EXPERTS), 3)


def eventful_windows(seed: int, num_windows: int = 48) -> np.ndarray:
    """Drift, switches, odd windows, changing traffic, layers and windows without load."""
    generator = np.random.default_rng(seed)
    scenario = ("switches", "ramps", "drift", "stationary")[seed % 4]
    trace = scenario_trace(scenario, PROFILES, num_windows=num_windows, seed=seed)
    mean = trace.mean.copy()
    for t in np.flatnonzero(generator.random(num_windows) < 0.1 * (seed % 3)):
        mean[t] = PROFILES[generator.integers(3)]
    if seed % 5 == 4:  # back and forth
        mean = PROFILES[np.arange(num_windows) // 4 % 3]
    load = draw_trace(mean, seed=seed, concentration=float(generator.choice([300, 20_000]))).load
    load = load.astype(np.float32)
    load *= np.exp(generator.normal(0, 0.7, (num_windows, 1, 1))).astype(np.float32)
    if seed % 2:
        load[generator.random((num_windows, LAYERS)) < 0.15] = 0
        load[: generator.integers(30), generator.integers(LAYERS)] = 0
    return load


def restored(forecast: LoadForecast) -> LoadForecast:
    """By way of a file, as it would be saved."""
    file = io.BytesIO()
    np.savez(file, **forecast.state_dict())
    file.seek(0)
    with np.load(file) as state:
        return LoadForecast.from_state_dict(state)


def damaged(**changes) -> dict:
    forecast = LoadForecast(LAYERS, EXPERTS)
    forecast.observe(eventful_windows(0))
    return {**forecast.state_dict(), **changes}


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_the_slow_twin_agrees(seed):
    forecast = LoadForecast(LAYERS, EXPERTS)
    naive = NaiveForecast(LAYERS, EXPERTS)
    for t, window in enumerate(eventful_windows(seed)):
        forecast.observe(window)
        naive.observe(window.astype(float).tolist())
        np.testing.assert_allclose(forecast.load, naive.load, rtol=1e-9, err_msg=f"window {t}")
        assert forecast.noise == pytest.approx(naive.noise, rel=1e-9), t
        assert forecast.turnover == pytest.approx(naive.turnover, rel=1e-9), t
        if naive.gains:
            assert forecast.windows_used == pytest.approx(1 / naive.gains[-1], rel=1e-9), t
        assert (forecast.switched, forecast.recalled) == (naive.switched, naive.recalled), t


def test_the_traces_are_eventful():
    """Everything that the twin was compared on has happened."""
    happened = dict.fromkeys(["switched", "recalled", "doubted", "confirmed", "trend"], 0)
    for seed in range(NUM_SEEDS):
        naive = NaiveForecast(LAYERS, EXPERTS)
        for window in eventful_windows(seed):
            before = naive.after_change
            naive.observe(window.astype(float).tolist())
            happened["switched"] += naive.switched
            happened["recalled"] += naive.recalled
            happened["doubted"] += naive.after_change == "doubted"
            happened["confirmed"] += before == "doubted" and naive.switched and not naive.recalled
            happened["trend"] += naive.use_trend
    assert min(happened.values()) >= 5, happened


@pytest.mark.parametrize("seed", range(8))
def test_windows_at_once_or_one_by_one_are_the_same(seed):
    load = eventful_windows(seed)
    at_once, one_by_one, in_parts = (LoadForecast(LAYERS, EXPERTS) for _ in range(3))
    at_once.observe(load)
    for window in load:
        one_by_one.observe(window)
    for start in range(0, len(load), 7):
        in_parts.observe(load[start : start + 7])
    in_parts.observe(load[:0])
    assert_same_state(at_once, one_by_one)
    assert_same_state(at_once, in_parts)


@pytest.mark.parametrize("seed", range(8))
def test_a_restored_forecast_goes_on_bit_for_bit(seed):
    load = eventful_windows(seed)
    straight, stopped = LoadForecast(LAYERS, EXPERTS), LoadForecast(LAYERS, EXPERTS)
    for window in load:
        straight.observe(window)
        stopped = restored(stopped)
        stopped.observe(window)
        assert straight.load.tobytes() == stopped.load.tobytes()
        assert (straight.noise, straight.turnover) == (stopped.noise, stopped.turnover)
    assert_same_state(straight, stopped)


def test_a_saved_state_is_a_copy():
    load = eventful_windows(0)
    forecast = LoadForecast(LAYERS, EXPERTS)
    forecast.observe(load[:9])
    state = forecast.state_dict()
    other = LoadForecast.from_state_dict(state)
    before = forecast.load
    other.observe(load[9:])
    for array in state.values():
        array[...] = 0
    assert forecast.load.tobytes() == before.tobytes()
    assert other.load.any()


def test_memory_does_not_grow():
    forecast = LoadForecast(LAYERS, EXPERTS)
    sizes = set()
    for seed in range(5):
        forecast.observe(eventful_windows(seed))
        sizes.add(sum(array.nbytes for array in forecast.state_dict().values()))
    (size,) = sizes
    assert size < (8 * EXPERTS + 2) * LAYERS * 8 + 1000


def test_any_layout_of_the_windows_will_do():
    load = eventful_windows(1)
    expected, forecast = LoadForecast(LAYERS, EXPERTS), LoadForecast(LAYERS, EXPERTS)
    expected.observe(load)
    read_only = load[:16].copy()
    read_only.flags.writeable = False
    forecast.observe(read_only)
    forecast.observe(np.asfortranarray(load[16:32]))
    forecast.observe(np.repeat(load[32:], 2, axis=0)[::2])
    assert_same_state(forecast, expected)


@pytest.mark.parametrize(
    "shape", [(EXPERTS,), (LAYERS, EXPERTS + 1), (EXPERTS, LAYERS), (2, 1, EXPERTS), (1, 1, 3, 21)]
)
def test_windows_of_another_shape_are_refused(shape):
    forecast = LoadForecast(LAYERS, EXPERTS)
    with refused(f"shape {shape}", "[3, 21]"):
        forecast.observe(np.ones(shape, np.float32))
    assert forecast.num_windows == 0


def test_windows_of_another_dtype_are_refused():
    with refused("float64", "give float32"):
        LoadForecast(LAYERS, EXPERTS).observe(np.ones((LAYERS, EXPERTS)))


def test_sizes_are_checked():
    with refused("num_layers=0"):
        LoadForecast(0, 4)
    with refused("num_experts=2.5"):
        LoadForecast(4, 2.5)


@pytest.mark.parametrize("name", sorted(damaged()))
def test_a_state_that_lacks_an_array_or_has_it_wrong_is_refused(name):
    state = damaged()
    array = state.pop(name)
    with refused(name, "lacks"):
        LoadForecast.from_state_dict(state)
    with refused("unknown ['surprise']"):
        LoadForecast.from_state_dict(damaged(surprise=array))
    with refused(name, "float32"):
        LoadForecast.from_state_dict(damaged(**{name: array.astype(np.float32)}))
    with refused(name, "not a real number type"):
        LoadForecast.from_state_dict(damaged(**{name: array.astype(str)}))
    if name != "level":  # which says what shape the others must have
        with refused(name, f"shape {array[:-1].shape}"):
            LoadForecast.from_state_dict(damaged(**{name: array[:-1]}))
    with refused("shape"):
        LoadForecast.from_state_dict(damaged(**{name: array[None]}))
    if array.dtype == np.float64:
        for bad in (np.nan, np.inf):
            wrong = array.copy()
            wrong.flat[-1] = bad
            with refused(name, "finite"):
                LoadForecast.from_state_dict(damaged(**{name: wrong}))
    if name not in ("trend", "step", "covariance"):
        wrong = array.copy()
        wrong.flat[0] = -1
        with refused(name, "not negative"):
            LoadForecast.from_state_dict(damaged(**{name: wrong}))


def test_a_state_that_would_lead_kernels_astray_is_refused():
    for order in ([0, 1, 1], [1, 2, 3]):
        with refused("stored_order", "damaged"):
            LoadForecast.from_state_dict(damaged(stored_order=np.array(order)))
    for place in (3, 6):  # number of stored workloads, kind of the last change
        counts = damaged()["counts"]
        counts[place] = 9
        with refused("counts", "damaged"):
            LoadForecast.from_state_dict(damaged(counts=counts))


def test_a_level_that_is_no_table_is_refused():
    with refused("level", "[layers, experts]"):
        LoadForecast.from_state_dict(damaged(level=np.ones(3)))
