"""Forecast of the coming window's loads, from the windows seen so far.

`LoadForecast` (``load_forecast.py``) is what users and the rest of the package hold. Its kernels
are the filter (``filter.py``), the changes of workload (``change_points.py``) and loops over the
experts of a layer (``rows.py``); ``state.py`` has what is remembered.
"""

from eplb_np.forecast.load_forecast import Expected, LoadForecast

__all__ = ["Expected", "LoadForecast"]
