"""What does a plan cost that is made now and then, as in a server, instead of in a hot loop?"""

import time
from statistics import median

from .common import MAIN, QUICK, Benchmark

PAUSE = 0.1
PLANS = 3 if QUICK else 25


class Idle(Benchmark):
    """Plans with a pause before each, compared with plans without."""

    params = ((MAIN,), (1, 2))
    param_names = ("deployment", "num_threads")
    needs = ("make_plan",)

    def prepare(self, deployment, num_threads):
        self.seconds(num_threads, 0)

    def seconds(self, num_threads, pause):
        time.sleep(pause)
        start = time.perf_counter()
        self.make_plan(self.load, num_threads=num_threads)
        return time.perf_counter() - start

    def track_plan_every_100_ms(self, deployment, num_threads):
        hot = median(self.seconds(num_threads, 0) for _ in range(8 * PLANS))
        idle = median(self.seconds(num_threads, PAUSE) for _ in range(PLANS))
        return idle / hot

    track_plan_every_100_ms.unit = "times the hot loop"
