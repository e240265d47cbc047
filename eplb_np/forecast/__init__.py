"""What experts will be asked to do in the coming window, from the windows seen so far.

`LoadForecast` is the forecast that users and the other rooms hold; its kernels are beside it: the
filter (`filter`), its loops over a row (`rows`), changes of workload (`change_points`), and what is
remembered (`state`).
"""

from eplb_np.forecast.load_forecast import Expected, LoadForecast

__all__ = ["Expected", "LoadForecast"]
