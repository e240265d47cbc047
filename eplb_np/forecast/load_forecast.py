"""Forecast the load of the coming window from the windows observed so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eplb_np._arguments import as_size, check_memory
from eplb_np._loads.host import as_array

if TYPE_CHECKING:
    from eplb_np.forecast.state import ForecastState

# Arrays of the state whose entries may be negative.
SIGNED = ("trend", "step", "covariance")


class Expected(NamedTuple):
    """The forecast of the coming window."""

    load: NDArray[np.floating[Any]]  # [L, E]
    noise: float = 0.0
    turnover: float = 0.5  # the defaults are those of a `LoadForecast` that has seen nothing
    workloads: NDArray[np.float64] | None = None  # [W, L, E], shares of all that may come


class LoadForecast:
    """Forecast of the load of the coming window.

    A steady load is averaged over all its windows, and a drifting load over fewer, the faster it
    drifts. After a change of workload, earlier windows no longer count. There is nothing to set:
    the windows themselves show how noisy they are.

    Parameters
    ----------
    num_layers : int
        Layers, L.
    num_experts : int
        Logical experts, E.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    Notes
    -----
    An adaptive Kalman filter [1]_ over the shares of each layer's load. The noise of a window
    is estimated from the lag-one covariance of the changes from window to window [2]_, and the
    error of the estimate from how far a window is from its forecast, both pooled over layers and
    experts. A second filter, with a trend, is used while it predicts better. Up to 3 earlier
    workloads are remembered and resumed when they return, so that a single odd window does no
    lasting harm.

    Memory is 8 L E float64, whatever the number of windows; a window takes O(L E). Arithmetic is
    float64 without reassociation, so results are byte-identical across machines, whether windows
    are observed one by one or many at once. Loads scaled by a power of two give the same forecast,
    scaled by that power.

    Not safe for use by several threads at once.

    References
    ----------
    .. [1] R. E. Kalman, "A New Approach to Linear Filtering and Prediction Problems", Journal of
       Basic Engineering 82(1), 1960.
    .. [2] R. K. Mehra, "On the Identification of Variances and Adaptive Kalman Filtering", IEEE
       Transactions on Automatic Control 15(2), 1970.

    Examples
    --------
    >>> forecast = LoadForecast(1, 4)
    >>> forecast.observe(np.array([[40, 30, 20, 10]], np.float32))
    >>> forecast.load.tolist()
    [[40.0, 30.0, 20.0, 10.0]]
    >>> forecast.observe(np.array([[44, 26, 22, 8]], np.float32))
    >>> forecast.load.round(3).tolist()
    [[42.0, 28.0, 21.0, 9.0]]
    """

    def __init__(self, num_layers: int, num_experts: int) -> None:
        from eplb_np.forecast.state import make_forecast_state

        shape = as_size("num_layers", num_layers), as_size("num_experts", num_experts)
        check_memory(f"a forecast of [layers, experts] = {shape}", 8 * shape[0] * shape[1])
        self._state = make_forecast_state(*shape)

    def observe(self, load: NDArray[np.float32]) -> None:
        """Add windows to the forecast, oldest first.

        Parameters
        ----------
        load : ndarray, shape [W, L, E] or [L, E], float32
            Load of each logical expert in each window: finite and not negative, with layers that
            add up to less than 2**127. The values are not checked here; `first_bad_load` does it.

        Raises
        ------
        ValueError
            If the shape or the dtype is wrong. The forecast is left unchanged.

        Notes
        -----
        In a window in which a layer has no load, the layer's forecast is left unchanged. A window
        without any load is ignored.
        """
        from eplb_np.forecast.filter import observe_windows

        shape = self._state.level.shape
        if load.shape[-2:] != shape or load.ndim not in (2, 3):
            raise ValueError(
                f"load has shape {load.shape}, but the forecast is for [layers, experts] = "
                f"{list(shape)}: give one window of that shape, or several"
            )
        if load.dtype != np.float32:
            raise ValueError(f"load has dtype {load.dtype}: give float32")
        windows = np.asarray(load, dtype=np.float32, order="C").reshape(-1, *shape)
        # To Numba, another alignment or a read-only flag is another type, which it would compile
        # for again.
        if not windows.flags.carray:
            windows = windows.copy()
        observe_windows(self._state, windows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of layers and of experts, (L, E)."""
        return self._state.level.shape

    @property
    def num_windows(self) -> int:
        """Number of windows with load that have been observed."""
        from eplb_np.forecast.state import WINDOWS

        return int(self._state.counts[WINDOWS])

    @property
    def load(self) -> NDArray[np.float64]:
        """Expected load of the coming window, [L, E] float64, in the unit of the windows.

        The expected shares times a typical total of the layer, a running mean over about 16
        windows. Zero for a layer that has had no load. After one window, exactly that window.
        """
        state = self._state
        load: NDArray[np.float64] = self._share * state.layer_total[:, None]
        once = state.layer_windows == 1
        if once.any():  # rounding to float32 restores the window exactly
            load[once] = load[once].astype(np.float32)
        return load

    @property
    def noise(self) -> float:
        """Noise of the coming window: the variance of an expert's share, over the share.

        The variance is around the forecast: the noise of a window plus the error of the estimate.
        0 before the second window.
        """
        from eplb_np.forecast.state import COMPARED, ERROR, NOISE

        state = self._state
        if state.counts[COMPARED] == 0:
            return 0.0
        # The variances p (1 - p) f of a layer's shares p add up to f (1 - sum of p**2).
        seen = state.layer_windows > 0
        unlike = 1.0 - float(np.square(self._share[seen]).sum(axis=1).mean())
        return float(state.value[NOISE] + state.value[ERROR]) / max(unlike, 1e-9)

    @property
    def turnover(self) -> float:
        """Share of the estimate that each window has replaced lately: 0 if nothing changes.

        It is the filter's gain at the next window, if that is as expected, or the median of the
        last 16 gains if that is less. 1/2 before the second window.
        """
        from eplb_np.forecast.state import ERROR, NOISE, RECENT, UPDATES

        state = self._state
        known = min(int(state.counts[UPDATES]), RECENT)
        if known == 0:
            return 0.5
        error, noise = state.value[ERROR], state.value[NOISE]
        return float(min(error / (error + noise), np.median(state.gain[:known])))

    def expected(self) -> Expected:
        """Return the current load, noise and turnover."""
        return Expected(self.load, self.noise, self.turnover)

    @property
    def windows_used(self) -> float:
        """Effective number of windows behind the estimate: after n steady windows about n.

        0 before the first window.
        """
        from eplb_np.forecast.state import GAIN

        gain = float(self._state.value[GAIN])
        return 1.0 / gain if gain > 0 else 0.0

    @property
    def switched(self) -> bool:
        """Whether the last window was seen as a change of workload."""
        from eplb_np.forecast.state import SWITCHED

        return bool(self._state.counts[SWITCHED])

    @property
    def recalled(self) -> bool:
        """Whether the last window was seen as the return of an earlier workload."""
        from eplb_np.forecast.state import RECALLED

        return bool(self._state.counts[RECALLED])

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the whole state, to save it.

        Returns
        -------
        dict of str to ndarray
            Copies of all arrays, which can be passed to `numpy.savez`.
        """
        return {name: array.copy() for name, array in self._state._asdict().items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, ArrayLike]) -> LoadForecast:
        """Return a forecast that continues from a saved one, bit for bit.

        Parameters
        ----------
        state : mapping of str to array_like
            Result of `state_dict`. The arrays are copied.

        Returns
        -------
        LoadForecast
            Equal to the one that was saved.

        Raises
        ------
        ValueError
            If an array is missing or unknown, has a shape or dtype that does not fit that of
            ``level``, or holds values that no forecast can hold.
        """
        shape = np.shape(as_array(state["level"], "level")) if "level" in state else (1, 1)
        if len(shape) != 2:
            raise ValueError(f"level has shape {shape}: give [layers, experts]")
        forecast = cls(*shape)
        _restore(forecast._state, state)
        return forecast

    @property
    def _share(self) -> NDArray[np.float64]:
        from eplb_np.forecast.state import USE_TREND

        state = self._state
        return state.ahead if state.counts[USE_TREND] else state.level


def _restore(target: ForecastState, source: Mapping[str, ArrayLike]) -> None:
    """Fill a state from saved arrays, checked in full because kernels trust it."""
    from eplb_np.forecast.state import DOUBTED, NUM_STORED, PENDING, STORED

    if source.keys() != target._asdict().keys():
        missing = sorted(target._asdict().keys() - source.keys())
        unknown = sorted(source.keys() - target._asdict().keys())
        raise ValueError(
            f"state lacks {missing} and has unknown {unknown}: give what state_dict returned"
        )
    for name, array in target._asdict().items():
        given: NDArray[Any] = as_array(source[name], name)
        if given.shape != array.shape:
            raise ValueError(
                f"{name} has shape {given.shape}, but must have {array.shape} for a level of shape "
                f"{target.level.shape}"
            )
        if given.dtype != array.dtype:
            raise ValueError(f"{name} has dtype {given.dtype}: give {array.dtype}")
        if not np.isfinite(given).all() or (name not in SIGNED and (given < 0).any()):
            sign = "" if name in SIGNED else " and not negative"
            raise ValueError(f"{name} must be finite{sign}: give what state_dict returned")
        array[...] = given
    sound = {
        "stored_order": sorted(target.stored_order.tolist()) == list(range(STORED)),
        "counts": target.counts[NUM_STORED] <= STORED and target.counts[PENDING] <= DOUBTED,
    }
    for name, holds in sound.items():
        if not holds:
            wrong = getattr(target, name).tolist()
            raise ValueError(f"{name}={wrong} is damaged: give what state_dict returned")
