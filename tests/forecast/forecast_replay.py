"""Traces whose truth is known, and what was forecast for each of their windows."""

import numpy as np

from eplb_np.forecast import LoadForecast
from eplb_np.workloads import LoadTrace, draw_trace, related_profiles, skewed_load

# Enough shares for steady estimates of the noise.
LAYERS, EXPERTS = 12, 64
LOOKBACK = 8
PROFILES = related_profiles(skewed_load(LAYERS, EXPERTS), 4, variation=0.1)


def trace_of(*workloads: int, seed: int = 0, **options) -> LoadTrace:
    """A window of each of these workloads, one after another."""
    return draw_trace(PROFILES[list(workloads)], seed=seed, **options)


def shares(load: np.ndarray) -> np.ndarray:
    return load / load.sum(axis=-1, keepdims=True)


def squared_error(load: np.ndarray, mean: np.ndarray) -> float:
    return float(np.square(shares(load) - mean).sum(axis=-1).mean())


def noise_of(trace: LoadTrace) -> float:
    """Squared error of a window, mean over the trace."""
    return squared_error(trace.load.astype(float), trace.mean)


def windows(trace: LoadTrace) -> np.ndarray:
    return trace.load.astype(np.float32)


class Replay:
    """What was forecast for each window of a trace, from the windows before it."""

    def __init__(self, trace: LoadTrace) -> None:
        forecast = LoadForecast(*trace.load.shape[1:])
        self.loads, self.noises = [], []
        self.switched, self.recalled, self.turnover, self.windows_used = [], [], [], []
        for window in windows(trace):
            self.loads.append(forecast.load)
            self.noises.append(forecast.noise)
            forecast.observe(window)
            self.switched.append(forecast.switched)
            self.recalled.append(forecast.recalled)
            self.turnover.append(forecast.turnover)
            self.windows_used.append(forecast.windows_used)
        self.forecast = forecast
        self.loads.append(forecast.load)
        unit = noise_of(trace)
        # Of the first window nothing could be known.
        self.error = [np.inf] + [
            squared_error(load, mean) / unit
            for load, mean in zip(self.loads[1:-1], trace.mean[1:], strict=True)
        ]
        self.sum_error = [np.inf] + [
            squared_error(trace.load[max(0, t - LOOKBACK) : t].sum(axis=0), trace.mean[t]) / unit
            for t in range(1, len(trace.mean))
        ]


def assert_same_state(one: LoadForecast, other: LoadForecast) -> None:
    for name, array in one.state_dict().items():
        assert array.tobytes() == other.state_dict()[name].tobytes(), name


def observed(load: np.ndarray) -> LoadForecast:
    forecast = LoadForecast(*load.shape[-2:])
    forecast.observe(load)
    return forecast
